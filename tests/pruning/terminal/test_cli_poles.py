"""``pruning poles``: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from projector.naming.legend import signs_in
from projector.naming.names import PoleKey, write_name
from projector.terminal.cli import app as projector_app
from pruning.poles.files import load_poles, poles_file
from pruning.poles.poles import MAP_POLES, Controls, PoleSettings, counts_words
from pruning.terminal.cli import app
from pruning.terminal.tables import legend_of_labels, pole_table, poles_table
from tests.families import N_NEURONS
from tests.refused import lacking

Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module", autouse=True)
def _quiet_and_wide() -> Iterator[None]:
    """As ``main`` sets it, no bars of Transformers; and the columns that a table may take."""
    transformers.utils.logging.disable_progress_bar()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")
        yield
    transformers.utils.logging.enable_progress_bar()


def invoke(*args: object) -> Result:
    result = CliRunner().invoke(app, ["poles", *(str(arg) for arg in args)])
    # What is no exit is a traceback to the user.
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def succeed(*args: object) -> Result:
    result = invoke(*args)
    assert result.exit_code == 0, result.output
    long = [line for line in result.stdout.splitlines() if len(line) > 100]
    # A path is as long as it is, and JSON is not read by eye.
    assert all(line.startswith(("Wrote", "Next", "{")) for line in long)
    return result


def refuse(*args: object) -> str:
    """The one line on standard error that a command is refused with, exit code 2."""
    result = invoke(*args)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def row_of(text: str, layer: int) -> str:
    """The table's row of a layer."""
    lines = [line for line in text.splitlines() if line.split()[:2] == [str(layer), "mlp_post"]]
    (row,) = lines
    return row


def tree(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, hidden files too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def fitted(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint, text_file: Path
) -> Path:
    """A projection of both layers and two sites; not to be changed."""
    out = tmp_path_factory.mktemp("fitted") / "out"
    arguments = ["fit", str(checkpoint("qwen2")), "--corpus", str(text_file), "--out", str(out)]
    arguments += ["--sites", "mlp_post,attn_out", "--dim", "3", "--json"]
    result = CliRunner().invoke(projector_app, arguments)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def folder(fitted: Path, tmp_path: Path) -> Path:
    """A projection of the test's own."""
    return Path(shutil.copytree(fitted, tmp_path / "copied"))


def test_a_table_of_the_layers_and_one_of_the_poles_of_each(folder: Path) -> None:
    before = tree(folder)
    result = succeed(folder, "--min-cluster-size", 2, "--site", "mlp_post")
    text = result.stdout
    for layer in (0, 1):
        poles = load_poles(folder, layer, settings=PoleSettings(min_cluster_size=2))
        assert poles is not None
        assert len(poles.poles) > 1
        assert poles.labels.shape == (N_NEURONS,)
        (row,) = [
            line for line in text.splitlines() if line.split()[:2] == [str(layer), "mlp_post"]
        ]
        assert poles.controls is not None
        shuffled, spectrum = poles.controls.shuffled, poles.controls.same_spectrum
        # Each count stands beside that of its control.
        assert row.split()[2:10] == [
            str(len(poles.poles)),
            f"{shuffled.n_poles:.1f}",
            "and",
            f"{spectrum.n_poles:.1f}",
            str(poles.n_distinct),
            f"{shuffled.n_distinct:.1f}",
            str(poles.n_beyond_spectrum),
            f"{spectrum.n_beyond_spectrum:.1f}",
        ]
        # The dashboard compares the same counts.
        assert re.findall(r"\d+(?:\.\d)?", counts_words([poles])) == row.split()[6:10]
        assert f"layer {layer} mlp_post" in text
        # What the first pole fires on.
        assert poles.poles[0].label
        first = f"{poles.poles[0].within_rho:.3f}".replace("-", "−")
        assert first in text
    assert "mean ρ" in text
    name = poles_file(PoleSettings(min_cluster_size=2))
    assert str(folder / name) in " ".join(text.split())
    after = tree(folder)
    assert set(after) - set(before) == {name}
    assert all(after[name] == content for name, content in before.items())


def test_two_runs_give_equal_bytes_and_other_settings_add(folder: Path) -> None:
    succeed(folder)
    once = (folder / poles_file(PoleSettings())).read_bytes()
    succeed(folder)
    assert (folder / poles_file(PoleSettings())).read_bytes() == once
    options = ("--space", "abs-correlation", "--min-samples", 2, "--selection", "leaf")
    result = succeed(folder, *options, "--epsilon", 0.1, "--layer", "1", "--min-cluster-size", 4)
    assert "mean |ρ|" in result.stdout
    assert load_poles(folder, 0) is not None
    settings = PoleSettings("abs-correlation", 4, 2, "leaf", 0.1)
    assert load_poles(folder, 1, settings=settings) is not None
    assert load_poles(folder, 0, settings=settings) is None


def test_json_is_one_object(folder: Path) -> None:
    result = succeed(folder, "--site", "attn_out,mlp_post", "--layer", "0-1", "--json")
    assert result.stdout.count("\n") == 1
    value: dict[str, Any] = json.loads(result.stdout)
    assert value["saved"] == str(folder / poles_file(PoleSettings()))
    assert value["key"] == PoleSettings().key
    names = [(one["layer"], one["site"]) for one in value["maps"]]
    assert names == [(0, "attn_out"), (0, "mlp_post"), (1, "attn_out"), (1, "mlp_post")]
    for one in value["maps"]:
        poles = load_poles(folder, one["layer"], one["site"])
        assert poles is not None
        for pole in one["poles"]:
            assert pole.pop("name") is None
        assert one == json.loads(json.dumps(poles.figures()))


def test_poles_have_the_names_that_the_user_gave(folder: Path) -> None:
    succeed(folder, "--layer", "0", "--site", "mlp_post", "--no-controls")
    poles = load_poles(folder, 0, "mlp_post")
    assert poles is not None
    members = (poles.labels == 0).nonzero()[:, 0].tolist()
    key = PoleKey.of(0, "mlp_post", poles_file(PoleSettings()), members)
    write_name(folder, "my group", 0, "mlp_post", pole=key)
    given = (folder, "--layer", "0", "--site", "mlp_post", "--no-controls")
    # Of the pole, and of the map.
    assert succeed(*given).stdout.count("my group") == 2
    (one,) = json.loads(succeed(*given, "--json").stdout)["maps"]
    assert [pole["name"] for pole in one["poles"]][:2] == ["my group", None][: len(one["poles"])]


@pytest.mark.parametrize("width", [80, 100])
def test_no_number_is_cut(folder: Path, width: int) -> None:
    succeed(folder, "--layer", "0", "--site", "mlp_post")
    poles = load_poles(folder, 0, "mlp_post")
    assert poles is not None
    assert poles.controls is not None
    many = replace(poles.controls.shuffled, n_poles=157.2, n_distinct=10.2, n_beyond_spectrum=10.4)
    long = replace(poles.poles[0], label="a" * 24, distinct=True, size=10_000)
    large = replace(
        poles, controls=Controls(many, many), poles=(long,) * 105, layer=11, site="mlp_post"
    )
    out = io.StringIO()
    console = Console(file=out, width=width)
    console.print(poles_table([large], width))
    console.print(pole_table(large, width))
    text = out.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    row = row_of(text, 11).split()
    numbers = ["105", "157.2", "and", "157.2"] if width >= 100 else ["105"]
    assert row[2 : 2 + len(numbers) + 4] == [*numbers, "105", "10.2", "0", "10.4"]
    assert "10,000" in text
    assert not re.search(r"[\d/]…", text)


def test_the_signs_in_printed_labels_are_explained(folder: Path) -> None:
    succeed(folder, "--layer", "0", "--site", "mlp_post", "--no-controls")
    poles = load_poles(folder, 0, "mlp_post")
    assert poles is not None
    marked = replace(
        poles, poles=tuple(replace(each, label=f"␣×{k} … ↓") for k, each in enumerate(poles.poles))
    )
    names = ["own ⏎", *[None] * (len(poles.poles) - 1)]
    legends = [
        legend_of_labels([one], [of_map], has_poles=True).columns[0]
        for one, of_map in ((marked, ()), (marked, names))
    ]
    with_own = [list(each.cells) for each in legends]
    assert with_own[0][:3] == ["↓", "…", "␣"]
    # A name of the user has no signs.
    assert "⏎" not in with_own[1]
    labels = [each.label for each in poles.poles if each.label]
    printed = " ".join(succeed(folder, "--layer", "0", "--site", "mlp_post").stdout.split())
    assert all(meaning in printed for _, meaning in signs_in(labels[:1]))


def test_many_maps_are_a_row_each(folder: Path) -> None:
    text = succeed(folder, "--site", "mlp_post,attn_out").stdout
    assert "exemplars" not in text
    assert sum(line.split()[1:2] in (["mlp_post"], ["attn_out"]) for line in text.splitlines()) == 4
    assert "--layer" in text


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_tables_are_as_wide_as_the_screen(
    folder: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for options in ((), ("--layer", "0", "--site", "mlp_post")):
        result = invoke(folder, "--no-controls", *options)
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert all(len(line) <= width or line.startswith(("Wrote", "Next")) for line in lines)
        # No number is cut; of a label that a word is cut off is said by its "…".
        assert not re.search(r"[\d/]…", result.stdout)
        assert any("fires on" in line for line in lines)


def test_no_poles_is_a_result(folder: Path) -> None:
    text = succeed(folder, "--min-cluster-size", 1000).stdout
    row = row_of(text, 0)
    assert row.split()[:3] == ["0", "mlp_post", "0"]
    poles = load_poles(folder, 1, settings=PoleSettings(min_cluster_size=1000))
    assert poles is not None
    assert poles.poles == ()


def test_the_command_shows_the_default_of_the_library() -> None:
    help_text = invoke("--help").stdout
    words = " ".join(help_text.replace("│", " ").split())
    said = words.partition("--min-cluster-size")[2].partition("--min-samples")[0]
    assert f"[default: {PoleSettings().min_cluster_size}]" in said


def test_poles_of_linear_maps_are_told_to_mean_little(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "linear"
    arguments = ["relayout", str(folder), "--objective", "linear", "--out", str(out)]
    assert CliRunner().invoke(projector_app, arguments).exit_code == 0
    assert "linear map" in succeed(out, "--space", "positions").stdout
    assert "linear map" not in succeed(out).stdout


def test_a_layout_is_chosen_by_its_name(folder: Path) -> None:
    arguments = ["layout", str(folder), "--objective", "linear"]
    assert CliRunner().invoke(projector_app, arguments).exit_code == 0
    result = succeed(folder, "--layout", "linear-1d", "--json")
    saved = json.loads(result.stdout)["saved"]
    assert saved == str(folder / poles_file(MAP_POLES, "linear-1d"))
    assert load_poles(folder, 0, settings=MAP_POLES, layout="linear-1d") is not None
    assert load_poles(folder, 0, settings=MAP_POLES) is None
    assert "linear map" in succeed(folder, "--layout", "linear-1d").stdout
    assert "linear map" not in succeed(folder).stdout
    assert "--layout 'stress-9d'" in refuse(folder, "--layout", "stress-9d")
    # In ρ a layout makes no difference.
    told = refuse(folder, "--layout", "linear-1d", "--space", "correlation")
    assert "--layout 'linear-1d'" in told


def test_without_statistics_dashes_stand_for_correlations(folder: Path) -> None:
    (folder / "statistics.safetensors").unlink()
    text = succeed(folder, "--layer", 0).stdout
    assert "statistics" in text
    before = tree(folder)
    line = refuse(folder, "--space", "correlation")
    assert lacking(line, "statistics", "`projector fit`") == []
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--epsilon", "-1"), ("--epsilon -1 ",)),
        (("--epsilon", "nan"), ("--epsilon nan ",)),
        (("--epsilon", "inf"), ("--epsilon inf ",)),
        (("--min-cluster-size", "1"), ("--min-cluster-size 1 ",)),
        (("--min-samples", "0"), ("--min-samples 0 ",)),
        (("--space", "rho"), ("--space 'rho'", "positions, correlation, abs-correlation")),
        (("--selection", "all"), ("--selection 'all'", "eom, leaf")),
        (("--layer", "2"), ("layer 2", "0, 1")),
        (("--layer", "0-"), ("--layer '0-'",)),
        (("--layer", ""), ("--layer ''",)),
        (("--site", "mlp"), ("site 'mlp'", "mlp_post, attn_out")),
        (("--site", ""), ("site ''", "mlp_post, attn_out")),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    fitted: Path, options: tuple[str, ...], names: tuple[str, ...]
) -> None:
    before = tree(fitted)
    assert lacking(refuse(fitted, *options), *names) == []
    assert tree(fitted) == before


def test_what_is_no_projection(tmp_path: Path, folder: Path) -> None:
    assert lacking(refuse(tmp_path / "nowhere"), tmp_path / "nowhere", "`projector fit`") == []
    assert lacking(refuse(tmp_path), tmp_path, "projection.json") == []
    (folder / "projection.json").write_text("{")
    assert lacking(refuse(folder), folder / "projection.json", "damaged") == []


def test_a_folder_that_can_not_be_written_is_told_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(folder)
    forbidden = SimpleNamespace(access=lambda *_: False, W_OK=os.W_OK, X_OK=os.X_OK)
    monkeypatch.setattr("pruning.poles.files.os", forbidden)
    monkeypatch.setattr(
        "pruning.poles.finding_all.find_poles", lambda *_: pytest.fail("it was worked out")
    )
    assert str(folder) in refuse(folder)
    assert tree(folder) == before


def test_a_damaged_file_is_told_and_left(folder: Path) -> None:
    (folder / "poles").mkdir()
    (folder / poles_file(PoleSettings())).write_text("{]")
    assert lacking(refuse(folder), poles_file(PoleSettings()), "`pruning poles`") == []
    assert (folder / poles_file(PoleSettings())).read_text() == "{]"


def test_an_error_is_json_too(fitted: Path) -> None:
    result = invoke(fitted, "--space", "rho", "--json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)
    assert (error["setting"], error["value"]) == ("space", "rho")
    assert "--space 'rho'" in error["error"]


def test_dead_neurons_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from projector.projection.projection import Projection

    projection = Projection.load(folder)
    name, layout = next(iter(projection.layouts.items()))
    tensors = {key: positions.clone() for key, positions in layout.positions.items()}
    tensors["layers.0.mlp_post"][:3] = torch.nan
    changed = replace(
        projection,
        layouts={name: replace(layout, positions=tensors)},
        statistics=dict(projection.statistics),
    )
    changed.save(folder, force=True)
    monkeypatch.setenv("COLUMNS", "160")
    text = invoke(folder, "--layer", 0, "--space", "positions").stdout
    row = row_of(text, 0)
    assert row.split()[2:4] == [str(N_NEURONS), "3"]
