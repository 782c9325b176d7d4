"""The command line: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import transformers
from click.testing import Result
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import projector.projection.writing
from projector.model.hashing import hash_checkpoint
from projector.projection.projection import Projection
from projector.terminal.cli import app
from tests.conftest import make_text
from tests.families import N_HIDDEN, N_LAYERS, N_NEURONS
from tests.projections import edit
from tests.refused import lacking

Checkpoint = Callable[[str], Path]
SITES = ("mlp_post", "attn_out")
# One small map: where the fit itself is beside the point.
ONE_MAP = ("--sites", "attn_out", "--layers", "0")


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """As ``main`` sets it, no bars of Transformers."""
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


def invoke(*args: object) -> Result:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    # What is no exit is a traceback to the user.
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def succeed(*args: object) -> Result:
    result = invoke(*args)
    assert result.exit_code == 0, result.output
    return result


def json_of(*args: object) -> dict[str, Any]:
    """The result of a command with ``--json``: one object is all of standard output."""
    result = succeed(*args, "--json")
    assert result.stdout.count("\n") == 1
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


def the_error(stderr: str) -> str:
    """The one line on standard error."""
    assert "Traceback" not in stderr
    (line,) = stderr.splitlines()
    assert line.startswith("error: ")
    return line


def refuse(*args: object) -> str:
    """The one line that a command is refused with, exit code 2."""
    result = invoke(*args)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.stdout
    return the_error(result.stderr)


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder, hidden files too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def facts_of(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "projection.json").read_text("utf-8"))
    return facts


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> Path:
    return checkpoint("qwen2")


@pytest.fixture(scope="module")
def fitted(
    tmp_path_factory: pytest.TempPathFactory, model: Path, text_file: Path
) -> tuple[Path, Result]:
    """A projection of both layers and two sites, and what making it printed; not to be changed."""
    out = tmp_path_factory.mktemp("fitted") / "out"
    result = succeed(
        "fit", model, "--corpus", text_file, "--out", out, "--sites", ",".join(SITES), "--json"
    )
    return out, result


@pytest.fixture(scope="module")
def bare(
    tmp_path_factory: pytest.TempPathFactory, model: Path, text_file: Path
) -> tuple[Path, Result]:
    """One without statistics, with pictures, made without ``--json``; not to be changed."""
    out = tmp_path_factory.mktemp("bare") / "out"
    options = ("--max-tokens", 500, "--no-statistics", "--no-examples", "--pictures", "--seed", 3)
    # One layout: the seed alone would be of both usual ones.
    options += ("--dim", 3)
    result = succeed("fit", model, "--corpus", text_file, "--out", out, *ONE_MAP, *options)
    return out, result


@pytest.fixture
def copied(fitted: tuple[Path, Result], tmp_path: Path) -> Path:
    """A projection of the test's own."""
    return Path(shutil.copytree(fitted[0], tmp_path / "copied"))


# fit


def test_fit_json_is_one_object_and_progress_is_elsewhere(
    fitted: tuple[Path, Result], model: Path
) -> None:
    out, result = fitted
    assert result.stdout.count("\n") == 1
    value = json.loads(result.stdout)
    expected = {"projection", "model", "corpus", "examples", "layout", "layouts", "maps"}
    assert set(value) == expected | {"pictures", "most_organised", "cross_layer"}
    assert value["examples"]["n_extremes"] == 10
    facts = facts_of(out)
    assert value["projection"] == str(out)
    assert value["pictures"] == []
    for part in ("model", "corpus"):
        assert value[part] == facts[part]
    layout = json.loads((out / "layouts" / "stress-3d.json").read_text("utf-8"))
    assert list(value["layouts"]) == ["stress-3d", "neighbours-2d"]
    assert value["layout"] == value["layouts"]["stress-3d"]["settings"] == layout["settings"]
    assert value["model"]["sha256"] == hash_checkpoint(model)
    assert [(m["layer"], m["site"]) for m in value["maps"]] == [
        (layer, site) for layer in range(N_LAYERS) for site in SITES
    ]
    for entry in value["maps"]:
        name = f"layers.{entry['layer']}.{entry['site']}"
        expected = facts["maps"][name] | layout["maps"][name]
        assert {k: v for k, v in entry.items() if k not in ("layer", "site")} == expected
        assert 0 < entry["stress"] < 1
    for stage in ("Loading the model", "Reading the corpus", "Running the model", "Placing neu"):
        assert stage in result.stderr
    assert "error" not in result.stderr


def test_fit_writes_a_projection_and_nothing_else(fitted: tuple[Path, Result]) -> None:
    out, _ = fitted
    assert sorted(tree(out.parent)) == [
        "out",
        "out/examples.safetensors",
        "out/layouts",
        "out/layouts/neighbours-2d.json",
        "out/layouts/neighbours-2d.safetensors",
        "out/layouts/stress-3d.json",
        "out/layouts/stress-3d.safetensors",
        "out/projection.json",
        "out/statistics.safetensors",
    ]
    projection = Projection.load(out)
    for layer in range(N_LAYERS):
        assert projection.positions(layer, "mlp_post").shape == (N_NEURONS, 3)
        assert projection.positions(layer, "attn_out").shape == (N_HIDDEN, 3)
        assert projection.positions(layer, "attn_out", "neighbours-2d").shape == (N_HIDDEN, 2)


def test_fit_says_tokens_time_disk_and_what_is_next(
    bare: tuple[Path, Result], model: Path, text_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("fit", model, "--corpus", text_file, "--out", out, "--sites", ",".join(SITES))
    result = succeed(*command, "--no-examples")
    n_tokens = facts_of(out)["corpus"]["n_tokens"]
    # Of the two widths, in two layers: positions, means and covariances in float32, and both
    # halves of ρ in float16, of each pair once.
    n_bytes = sum(2 * n * (4 * (3 + 2 + 1 + n) + 2 * n) for n in (N_NEURONS, N_HIDDEN))
    assert re.search(
        rf"4 maps in 2 layouts from {n_tokens:,} tokens: about \d+ (s|min), "
        rf"{n_bytes / 1000:.1f} kB on disk, [\d.]+ [kM]B of memory",
        result.stdout,
    )
    n_on_disk = sum(path.stat().st_size for path in out.rglob("*.safetensors"))
    assert n_bytes < n_on_disk < n_bytes + 3000
    assert result.stderr == ""
    lines = result.stdout.strip().splitlines()
    assert any(re.match(r"\s*1\s+attn_out\s+24\s+0\s+0\.\d+", line) for line in lines)
    # Every layout has its table, and the words for it.
    assert {"stress-3d", "neighbours-2d"} <= set(lines)
    assert sum("neighbours kept" in line for line in lines) == 2 * len(SITES)
    assert f"Wrote {out}" in lines
    assert lines[-1].startswith("Next: projector plot ")
    # Said before the work is begun.
    assert result.stdout.index("on disk") < result.stdout.index("Running the model")
    pictures, command = bare[1].stdout.strip().splitlines()[-2:]
    assert pictures.startswith("Next: ")
    assert "trust.html" in pictures
    assert command.strip() == f"projector info {bare[0]}"


def test_what_is_next_works(fitted: tuple[Path, Result], tmp_path: Path) -> None:
    result = succeed("relayout", fitted[0], "--out", tmp_path / "again")
    last = result.stdout.strip().splitlines()[-1]
    command = shlex.split(last.removeprefix("Next: "))
    assert Path(command[0]).name == "projector"
    picture = Path(command[command.index("--out") + 1])
    assert picture.suffix == ".html"
    succeed(*command[1:])
    assert picture.exists()


def test_fit_says_what_was_drawn(bare: tuple[Path, Result]) -> None:
    n_available = facts_of(bare[0])["corpus"]["n_tokens_available"]
    assert f"made-up.txt: 500 of {n_available:,} tokens" in bare[1].stdout


def test_fit_without_statistics_and_with_pictures(bare: tuple[Path, Result]) -> None:
    out, _ = bare
    assert sorted(tree(out)) == [
        "layouts",
        "layouts/stress-3d-seed3.json",
        "layouts/stress-3d-seed3.safetensors",
        "map-attn_out.html",
        "projection.json",
        "trust.html",
    ]
    assert not Projection.load(out).has_statistics
    assert not Projection.load(out).has_examples


def test_one_command_line_serves_a_queue(model: Path, text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("fit", model, "--corpus", text_file, "--out", out, *ONE_MAP, "--no-statistics",
               "--layouts", "stress-3d,stress-2d", "--max-tokens", 300, "--resume")  # fmt: skip
    begun = succeed(*command).stdout
    assert lacking(begun, "1 map", "2 layouts", "300 tokens") == []
    assert list(Projection.load(out).layouts) == ["stress-3d", "stress-2d"]
    before = tree(tmp_path)
    done = succeed(*command).stdout
    assert lacking(done, out, "finished") == []
    assert "Running the model" not in done
    assert "Wrote" not in done
    # Killed before they were drawn, or not asked for then: those that are missing are drawn.
    names = ("map-attn_out-stress-3d.html", "map-attn_out-stress-2d.html", "trust.html")
    pictures = [str(out / name) for name in names]
    assert json_of(*command, "--pictures")["pictures"] == pictures
    (out / "trust.html").unlink()
    drawn = (out / names[0]).stat().st_mtime_ns
    assert json_of(*command, "--pictures")["pictures"] == pictures[2:]
    assert (out / names[0]).stat().st_mtime_ns == drawn
    assert json_of(*command, "--pictures")["pictures"] == []
    before |= {name: found for name, found in tree(tmp_path).items() if name.endswith(".html")}
    line = refuse(*command, "--batch-size", 4)
    assert lacking(line, "--batch-size", 16, 4, "--force") == []
    assert tree(tmp_path) == before
    again = succeed(*command, "--batch-size", 4, "--force").stdout
    assert f"Wrote {out}" in again


def test_layers_and_sites_are_read_as_written(model: Path, text_file: Path, tmp_path: Path) -> None:
    options = ("--max-tokens", 200, "--corpus", text_file)
    value = json_of("fit", model, "--out", tmp_path / "a", *options, "--layers", "0-1",
                    "--sites", " attn_out , resid_pre")  # fmt: skip
    assert [(m["layer"], m["site"]) for m in value["maps"]] == [
        (0, "attn_out"), (0, "resid_pre"), (1, "attn_out"), (1, "resid_pre")
    ]  # fmt: skip
    value = json_of("fit", model, "--out", tmp_path / "b", *options, "--layers", "1,1",
                    "--sites", "attn_out")  # fmt: skip
    assert [(m["layer"], m["site"]) for m in value["maps"]] == [(1, "attn_out")]


# The other commands, on what fit made


def test_info_says_where_a_projection_is_from(fitted: tuple[Path, Result], model: Path) -> None:
    out, _ = fitted
    before = tree(out.parent)
    result = succeed("info", out)
    corpus = facts_of(out)["corpus"]
    for part in (
        "qwen2 (float32",
        hash_checkpoint(model)[:12],
        f"made-up.txt, {corpus['n_tokens']:,} of {corpus['n_tokens_available']:,} tokens",
        "stress by smacof, 3-D",
        "pooled",
        "statistics",
        "kept",
    ):
        assert part in result.stdout
    assert result.stderr == ""
    assert tree(out.parent) == before


def test_info_json(fitted: tuple[Path, Result], bare: tuple[Path, Result]) -> None:
    out, made = fitted
    value = json_of("info", out)
    assert value["facts"] == facts_of(out)
    assert value["maps"] == json.loads(made.stdout)["maps"]
    assert "not kept" in succeed("info", bare[0]).stdout


def test_info_tells_how_organised_each_map_is(
    fitted: tuple[Path, Result], bare: tuple[Path, Result], tmp_path: Path
) -> None:
    out, made = fitted
    told = json_of("info", out)
    maps = facts_of(out)["maps"]
    for each in told["maps"]:
        assert (
            each["organisation"] == maps[f"layers.{each['layer']}.{each['site']}"]["organisation"]
        )
        assert each["organisation"]["n_neurons"] == each["n_neurons"] - len(each["dead_neurons"])
    assert told["most_organised"] == json.loads(made.stdout)["most_organised"]
    shown = succeed("info", out).stdout
    assert f"{told['maps'][0]['organisation']['leading_share']:.1%}" in shown
    assert " ".join(told["most_organised"].split()) in " ".join(shown.split())
    # Of one without statistics too, for they were there while it was made.
    assert all(each["organisation"] for each in json_of("info", bare[0])["maps"])
    # Of an older one that kept them, it is measured now; what is on disk stays.
    older = tmp_path / "older"
    shutil.copytree(out, older)

    def forget(facts: dict[str, Any]) -> None:
        for each in facts["maps"].values():
            del each["organisation"]

    edit(older, forget)
    before = tree(older)
    again = json_of("info", older)
    for new, saved in zip(again["maps"], told["maps"], strict=True):
        assert new["organisation"] == pytest.approx(saved["organisation"], rel=1e-4)
        assert "organisation_reason" not in new
    assert again["most_organised"] == told["most_organised"]
    assert tree(older) == before


def test_relayout_makes_new_positions_and_leaves_the_old(
    fitted: tuple[Path, Result], tmp_path: Path
) -> None:
    out, _ = fitted
    before = tree(out.parent)
    new = tmp_path / "linear"
    value = json_of("relayout", out, "--out", new, "--objective", "linear")
    assert tree(out.parent) == before
    assert value["projection"] == str(new)
    assert (value["layout"]["method"], value["layout"]["dim"]) == ("moves", 1)
    assert value["corpus"] == facts_of(out)["corpus"]
    for entry in value["maps"]:
        assert entry["stability"] is None
        assert "each half" in entry["reasons"]["stability"]
        assert entry["arrangement_cost"]["final"] <= entry["arrangement_cost"]["spectral"]
    projection = Projection.load(new)
    order = projection.order(0, "mlp_post").tolist()
    assert sorted(order) == list(range(N_NEURONS))
    assert projection.positions(0, "mlp_post").shape == (N_NEURONS, 1)


def test_relayout_by_the_same_settings_gives_the_same_positions(
    fitted: tuple[Path, Result], tmp_path: Path
) -> None:
    out, _ = fitted
    succeed("relayout", out, "--out", tmp_path / "same")
    old, new = Projection.load(out), Projection.load(tmp_path / "same")
    for layer, site in old.maps:
        a, b = (p.positions(layer, site) for p in (old, new))
        assert torch.allclose(torch.cdist(a, a), torch.cdist(b, b), atol=1e-2)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("map", ()),
        ("map", ("--layer", 1, "--site", "attn_out")),
        ("heatmap", ("--layer", 0)),
        ("heatmap", ("--layer", 1, "--site", "attn_out")),
        ("trust", ()),
    ],
)
def test_plot_writes_html_that_needs_no_network(
    fitted: tuple[Path, Result], tmp_path: Path, kind: str, options: tuple[object, ...]
) -> None:
    path = tmp_path / "new folder" / "picture.html"
    value = json_of("plot", fitted[0], "--kind", kind, "--out", path, *options)
    assert value == {"picture": str(path)}
    assert list(tree(tmp_path)) == ["new folder", "new folder/picture.html"]
    page = path.read_text(encoding="utf-8")
    assert "<html" in page
    assert "Plotly.newPlot" in page
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)
    drawn = page[page.rindex("Plotly.newPlot") :]
    if kind == "heatmap":
        assert "index" in drawn
    if kind == "map":
        assert ("slider" in drawn) == (not options)
    site = options[-1] if "--site" in options else "mlp_post"
    if kind != "trust":
        assert f"{site}" in drawn


def test_plot_says_what_it_wrote(fitted: tuple[Path, Result], tmp_path: Path) -> None:
    path = tmp_path / "picture.html"
    assert f"Wrote {path}" in succeed("plot", fitted[0], "--out", path).stdout


# import


def write_positions(path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    save_file(
        {
            f"model.layers.{layer}.mlp.neuron_projections": torch.randn(
                N_HIDDEN, 3, generator=generator
            )
            for layer in range(N_LAYERS)
        },
        path,
    )
    return path


def test_import_then_info_and_plot(model: Path, tmp_path: Path) -> None:
    source = write_positions(tmp_path / "given.safetensors")
    out = tmp_path / "out"
    value = json_of("import", source, "--model", model, "--out", out)
    assert value["projection"] == str(out)
    assert [(m["layer"], m["site"], m["stress"]) for m in value["maps"]] == [
        (0, "mlp_out", None),
        (1, "mlp_out", None),
    ]
    given = load_file(source)["model.layers.1.mlp.neuron_projections"]
    assert torch.equal(Projection.load(out).positions(1, "mlp_out"), given)
    shown = succeed("info", out).stdout
    assert re.search(r"corpus\s+unknown", shown)
    assert re.search(r"statistics\s+not kept", shown)
    for kind in ("map", "trust"):
        succeed("plot", out, "--kind", kind, "--out", tmp_path / f"{kind}.html")
        assert (tmp_path / f"{kind}.html").exists()
    line = refuse("relayout", out, "--out", tmp_path / "no")
    assert lacking(line, "statistics", "`projector fit`", "--no-statistics") == []
    assert not (tmp_path / "no").exists()


def test_import_says_what_is_next(model: Path, tmp_path: Path) -> None:
    source = write_positions(tmp_path / "given.safetensors")
    result = succeed("import", source, "--model", model, "--out", tmp_path / "out")
    assert result.stdout.strip().splitlines()[-1].startswith("Next: projector plot ")


def test_import_of_a_pickled_file_is_refused(model: Path, tmp_path: Path) -> None:
    torch.save({"layers.0.mlp.neuron_projections": torch.ones(2, 2)}, tmp_path / "given.bin")
    before = tree(tmp_path)
    line = refuse("import", tmp_path / "given.bin", "--model", model, "--out", tmp_path / "out")
    assert lacking(line, tmp_path / "given.bin", "safetensors") == []
    assert tree(tmp_path) == before


# Bad input to fit: one line, nothing written


def broken_models(folder: Path, good: Path) -> dict[str, Path]:
    """Folders that hold no model that can be fitted."""
    made = {name: folder / name for name in ("vit", "t5", "pickled", "no-config", "damaged")}
    transformers.ViTModel(
        transformers.ViTConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            image_size=32,
            patch_size=16,
        )
    ).save_pretrained(made["vit"])
    transformers.T5Model(
        transformers.T5Config(vocab_size=320, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ).save_pretrained(made["t5"])
    for name in ("vit", "t5"):
        for path in good.glob("tokenizer*"):
            shutil.copy(path, made[name])
    for name in ("pickled", "no-config", "damaged"):
        shutil.copytree(good, made[name])
    (made["pickled"] / "model.safetensors").unlink()
    torch.save({}, made["pickled"] / "pytorch_model.bin")
    (made["no-config"] / "config.json").unlink()
    (made["damaged"] / "model.safetensors").write_bytes(b"\x00" * 100)
    return made


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, model: Path) -> dict[str, Path]:
    return broken_models(tmp_path_factory.mktemp("broken"), model)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("vit", ("ViTModel", "pixel_values")),
        ("t5", ("T5", "encoder-decoder")),
        ("pickled", ("{model}", "pickled", "safetensors")),
        ("no-config", ("{model}", "config.json")),
        ("damaged", ("model '{model}'",)),
    ],
)
def test_fit_of_what_is_no_such_model(
    broken: dict[str, Path], text_file: Path, tmp_path: Path, name: str, names: tuple[str, ...]
) -> None:
    line = refuse("fit", broken[name], "--corpus", text_file, "--out", tmp_path / "out")
    assert lacking(line, *(each.format(model=broken[name]) for each in names)) == []
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--sites", "mlp_post,no_such_site"), "--sites 'no_such_site' & mlp_post"),
        (("--sites", ""), "--sites '' & mlp_post"),
        (("--layers", "2"), "layer 2 & 0 to 1"),
        (("--layers", "1-2"), "layer 2 & 0 to 1"),
        *((("--layers", text), f"--layers '{text}' & 0,3-5")
          for text in ("", "1-", "-1", "0,", "a", "0;1", "1.5", "0-1-2")),
        (("--lp", "0.5"), "--lp 0.5 "),
        (("--lp", "nan"), "--lp nan "),
        (("--lp", "3"), "--lp 3 & stress & smacof"),
        (("--objective", "linear", "--dim", "2"), "--dim 2 & linear"),
        (("--objective", "neighbours", "--solver", "adamw"), "--solver 'adamw' & neighbours"),
        (("--objective", "x"), "--objective 'x' & stress,"),
        (("--solver", "x"), "--solver 'x' & smacof, adamw"),
        (("--start", "x"), "--start 'x' & classical, single-point"),
        (("--correlation", "x"), "--correlation 'x' & pooled, per-"),
        (("--dim", "0"), "--dim 0 "),
        (("--lr", "0", "--solver", "adamw"), "--lr 0 "),
        (("--accumulate", "0", "--solver", "adamw"), "--accumulate 0 "),
        (("--log-with", "tensorboard"), "--solver adamw"),
        (("--log-with", "x", "--solver", "adamw", *ONE_MAP), "--log-with 'x' & tensorboard"),
        (("--batch-size", "0"), "--batch-size 0 & 1 "),
        (("--sequence-length", "1"), "--sequence-length 1 "),
        (("--sequence-length", "65"), "--sequence-length 65 & 64"),
        (("--skip-first", "-1"), "--skip-first -1 "),
        (("--skip-first", "64"), "--sequence-length & 64 & 65"),
        (("--max-tokens", "99"), "--max-tokens 99 & 100"),
        (("--device", "abacus"), "--device 'abacus' & cpu"),
        (("--dtype", "int8"), "--dtype 'int8' & float32"),
        (("--layouts", "stress-3d", "--dim", "2"), "--layouts 'stress-3d' & --dim"),
        (("--layouts", "stress-3d,x"), "--layouts 'x'"),
    ],
)  # fmt: skip
def test_fit_with_options_that_can_not_be(
    model: Path, text_file: Path, tmp_path: Path, options: tuple[str, ...], names: str
) -> None:
    line = refuse("fit", model, "--corpus", text_file, "--out", tmp_path / "out", *options)
    assert lacking(line, *names.split(" & ")) == []
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "content", "names"),
    [
        ("none.txt", b"", "'none.txt' & empty"),
        (
            "few.txt",
            make_text(20).encode(),
            "tokens & 100",
        ),
        ("latin.txt", b"ka lo caf\xe9 " * 200, "UTF-8 & 0xe9 at 9"),
        ("bad.jsonl", b'"ka"\n{oops}\n', "line 2 & JSON"),
        ("half.jsonl", b'"ka \\ud800"\n', "line 1 & surrogate"),
        ("bad.parquet", b"no parquet at all", "parquet"),
        ("made-up.csv", b"ka lo", ".txt, .jsonl, .parquet"),
        ("chat.jsonl", b'[{"role": "user", "content": "ka"}]\n', "chat template"),
        (None, None, "hf:NAME"),
    ],
)
def test_fit_over_a_corpus_that_can_not_be_read(
    model: Path, tmp_path: Path, name: str | None, content: bytes | None, names: str
) -> None:
    corpus = tmp_path / (name or "nowhere.txt")
    if content is not None:
        corpus.write_bytes(content)
    before = tree(tmp_path)
    line = refuse("fit", model, "--corpus", corpus, "--out", tmp_path / "out")
    assert lacking(line, *names.split(" & ")) == []
    assert corpus.name in line or name == "chat.jsonl"
    assert tree(tmp_path) == before


def test_fit_over_too_few_tokens_states_how_many_there_are(
    model: Path, tmp_path: Path, tokenizer: Any
) -> None:
    few = tmp_path / "few.txt"
    few.write_text(make_text(20), encoding="utf-8")
    n_tokens = len(tokenizer(make_text(20), add_special_tokens=False)["input_ids"]) + 1
    assert n_tokens < 64  # one sequence; its first token, the tokenizer's own, does not count
    line = refuse("fit", model, "--corpus", few, "--out", tmp_path / "out")
    assert lacking(line, f"{n_tokens} tokens", 100) == []


def test_fit_with_json_tells_a_script_of_the_error(tmp_path: Path, text_file: Path) -> None:
    result = invoke("fit", "no/model", "--corpus", text_file, "--out", tmp_path / "o", "--json")
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    # After the progress, which is on standard error too.
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert json.loads(result.stdout)["error"] == line.removeprefix("error: ")
    assert tree(tmp_path) == {}


def test_fit_needs_an_output_folder(model: Path) -> None:
    result = invoke("fit", model)
    assert result.exit_code == 2
    assert "--out" in result.stderr


def test_a_message_is_printed_as_it_is(tmp_path: Path, text_file: Path) -> None:
    """Square brackets are markup to the library that prints."""
    line = refuse("fit", "[b]no[/b]", "--corpus", text_file, "--out", tmp_path / "out")
    assert "'[b]no[/b]'" in line


def test_ctrl_c_stops_without_a_traceback(
    model: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import projector.fitting.running

    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(projector.fitting.running, "gather", interrupted)
    result = invoke("fit", model, "--corpus", text_file, "--out", tmp_path / "out", *ONE_MAP)
    assert result.exit_code == 130
    assert result.stderr.strip() == "stopped"
    assert tree(tmp_path) == {}


# Output folders


def test_a_projection_is_replaced_only_by_force(
    copied: Path, model: Path, text_file: Path, tmp_path: Path
) -> None:
    command = ("fit", model, "--corpus", text_file, "--out", copied, *ONE_MAP, "--no-statistics")
    before = tree(tmp_path)
    line = refuse(*command)
    assert lacking(line, copied, "--force") == []
    assert tree(tmp_path) == before
    succeed(*command, "--no-examples", "--force")
    # The statistics and examples of the old one would not be the new one's.
    assert sorted(tree(copied)) == [
        "layouts",
        "layouts/neighbours-2d.json",
        "layouts/neighbours-2d.safetensors",
        "layouts/stress-3d.json",
        "layouts/stress-3d.safetensors",
        "projection.json",
    ]
    assert Projection.load(copied).maps == [(0, "attn_out")]


def test_relayout_replaces_only_by_force_and_never_itself(
    fitted: tuple[Path, Result], copied: Path, tmp_path: Path
) -> None:
    before = tree(tmp_path)
    command = ("relayout", fitted[0], "--out", copied, "--dim", 2)
    assert lacking(refuse(*command), copied, "--force") == []
    assert "--out" in refuse("relayout", copied, "--out", copied, "--force")
    assert tree(tmp_path) == before
    succeed(*command, "--force")
    assert Projection.load(copied).dim == 2
    assert Projection.load(copied).has_statistics


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize("command", ["fit", "relayout", "import"])
def test_a_folder_of_other_files_is_never_touched(
    fitted: tuple[Path, Result],
    model: Path,
    text_file: Path,
    tmp_path: Path,
    command: str,
    force: tuple[str, ...],
) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.txt").write_text("ka lo")
    given = write_positions(tmp_path / "given.safetensors")
    before = tree(tmp_path)
    source: dict[str, tuple[object, ...]] = {
        "fit": (model, "--corpus", text_file),
        "relayout": (fitted[0],),
        "import": (given, "--model", model),
    }
    line = refuse(command, *source[command], "--out", out, *force)
    assert lacking(line, out, "--out") == []
    # And where a file stands in the folder's place.
    line = refuse(command, *source[command], "--out", given, *force)
    assert lacking(line, given, "--out") == []
    assert tree(tmp_path) == before


def test_an_empty_folder_is_taken(model: Path, text_file: Path, tmp_path: Path) -> None:
    options = ("--corpus", text_file, "--max-tokens", 200, *ONE_MAP)
    succeed("fit", model, "--out", tmp_path, *options)
    assert Projection.load(tmp_path).maps == [(0, "attn_out")]


# Damaged projections


def truncate_positions(folder: Path) -> None:
    path = folder / "layouts" / "stress-3d.safetensors"
    path.write_bytes(path.read_bytes()[:-50])


def truncate_statistics(folder: Path) -> None:
    path = folder / "statistics.safetensors"
    path.write_bytes(path.read_bytes()[:-50])


def break_json(folder: Path) -> None:
    path = folder / "projection.json"
    path.write_bytes(path.read_bytes()[:200])


def put_foreign_json(folder: Path) -> None:
    (folder / "projection.json").write_text('{"format": "other", "format_version": 1}')


def make_newer(folder: Path) -> None:
    (folder / "projection.json").write_text(json.dumps(facts_of(folder) | {"format_version": 3}))


def edit_facts(folder: Path) -> None:
    facts = facts_of(folder)
    facts["corpus"]["n_tokens"] += 1
    (folder / "projection.json").write_text(json.dumps(facts))


def take_statistics_of_another_run(folder: Path) -> None:
    other = folder.parent / "other"
    projection = Projection.load(folder)
    facts = replace(projection.facts, correlation="per-sequence")
    replace(projection, facts=facts).save(other)
    shutil.move(other / "statistics.safetensors", folder / "statistics.safetensors")
    shutil.rmtree(other)


DAMAGE: list[tuple[Callable[[Path], object], tuple[str, ...]]] = [
    (truncate_positions, ("stress-3d.safetensors'", "damaged")),
    (truncate_statistics, ("statistics.safetensors'", "damaged")),
    (
        lambda f: (f / "layouts" / "stress-3d.safetensors").unlink(),
        ("stress-3d.safetensors'", "missing"),
    ),
    (lambda f: shutil.rmtree(f / "layouts"), ("damaged", "layouts")),
    (break_json, ("projection.json'", "damaged", "JSON")),
    (put_foreign_json, ("projection.json'", "transformer-projection")),
    (make_newer, ("format version 3", "up to 2")),
    (edit_facts, ("neighbours-2d.json'",)),
    (
        take_statistics_of_another_run,
        ("statistics.safetensors'", "projection.json"),
    ),
    (lambda folder: (folder / "projection.json").unlink(), ("projection.json", "`projector fit`")),
    (shutil.rmtree, ("`projector fit`",)),
]


@pytest.mark.parametrize(("damage", "names"), DAMAGE)
def test_a_damaged_projection_is_refused_by_every_command(
    copied: Path, tmp_path: Path, damage: Callable[[Path], object], names: tuple[str, ...]
) -> None:
    damage(copied)
    before = tree(tmp_path)
    for command in (
        ("info", copied),
        ("relayout", copied, "--out", tmp_path / "new"),
        ("plot", copied, "--out", tmp_path / "picture.html"),
    ):
        line = refuse(*command)
        assert lacking(line, copied, *names) == []
    assert tree(tmp_path) == before


def test_without_statistics_positions_are_shown_and_not_remade(
    bare: tuple[Path, Result], tmp_path: Path
) -> None:
    out, _ = bare
    for command in (
        ("relayout", out, "--out", tmp_path / "new"),
        ("plot", out, "--kind", "heatmap", "--layer", 0, "--out", tmp_path / "heatmap.html"),
    ):
        line = refuse(*command)
        assert lacking(line, "`projector fit`", "--no-statistics") == []
    assert tree(tmp_path) == {}
    succeed("plot", out, "--out", tmp_path / "map.html")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--kind", "heatmap"), "--layer & 0, 1"),
        (("--kind", "pie"), "--kind 'pie' & map, heatmap & trust"),
        (("--layer", "7"), "layer 7 & 0, 1"),
        (("--kind", "heatmap", "--layer", "7"), "layer 7 & 0, 1"),
        (("--site", "mlp_out"), "site 'mlp_out' & mlp_post, attn"),
        (("--out", "{folder}/picture.png"), "picture.png' & .html"),
        (("--out", "{folder}/picture"), "picture' & .html"),
        (
            ("--kind", "heatmap", "--layer", "0", "--layout", "stress-9d"),
            "--layout 'stress-9d' & stress-3d",
        ),
        (("--out", "{folder}/file/picture.html"), "/file"),
    ],
)
def test_plots_that_can_not_be_drawn(
    fitted: tuple[Path, Result], tmp_path: Path, options: tuple[str, ...], names: str
) -> None:
    (tmp_path / "file").touch()
    before = tree(tmp_path)
    options = tuple(option.format(folder=tmp_path) for option in options)
    if "--out" not in options:
        options += ("--out", str(tmp_path / "picture.html"))
    assert lacking(refuse("plot", fitted[0], *options), *names.split(" & ")) == []
    assert tree(tmp_path) == before


# A full disk, a full memory

Usage = namedtuple("Usage", "total used free")


def test_too_little_disk_is_seen_before_any_work(
    model: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**6, 10**6 - 20_000, 20_000))
    command = ("fit", model, "--corpus", text_file, "--out", tmp_path / "out", *ONE_MAP)
    command += ("--no-examples",)
    result = invoke(*command)
    assert result.exit_code == 2
    line = the_error(result.stderr)
    # 24 neurons: positions, mean and covariance in float32, and both halves of ρ in float16.
    for part in (
        "4.03 kB",
        "18.4 kB",
        "20 kB",
        "--no-statistics",
        "--no-examples",
        "--layers",
    ):
        assert part in line
    assert "Running the model" not in result.stdout
    assert tree(tmp_path) == {}
    # What the message says helps.
    succeed(*command, "--no-statistics")


def fail_at_write(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From write ``number`` on, the disk is full: half of a file is written."""
    n_written = 0

    write_tensors = projector.projection.writing.write_tensors

    def save(path: Path, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        nonlocal n_written
        n_written += 1
        if n_written >= number:
            Path(path).write_bytes(b"half a file")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_tensors(path, tensors, metadata)

    for module in ("projection", "writing"):
        monkeypatch.setattr(f"projector.projection.{module}.write_tensors", save)


# The first file is positions, the second statistics.
@pytest.mark.parametrize("number", [1, 2])
def test_a_disk_that_fills_up_leaves_nothing_half_written(
    model: Path,
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    fail_at_write(number, monkeypatch)
    out = tmp_path / "new" / "out"
    line = refuse("fit", model, "--corpus", text_file, "--out", out, *ONE_MAP)
    assert f"'{out}'" in line
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    assert not out.exists()


@pytest.mark.parametrize("number", [1, 2])
def test_a_disk_that_fills_up_leaves_the_old_projection_whole(
    copied: Path,
    model: Path,
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    before = tree(tmp_path)
    fail_at_write(number, monkeypatch)
    line = refuse("fit", model, "--corpus", text_file, "--out", copied, *ONE_MAP, "--force")
    assert f"'{copied}'" in line
    assert tree(tmp_path) == before
    other = tmp_path / "other"
    line = refuse("relayout", copied, "--out", other, "--objective", "linear")
    assert f"'{other}'" in line
    assert tree(tmp_path) == before


def test_too_little_memory_is_seen_before_any_work(
    model: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5000))
    result = invoke("fit", model, "--corpus", text_file, "--out", tmp_path / "out")
    assert result.exit_code == 2
    line = the_error(result.stderr)
    for part in (
        "memory",
        "layer 0 mlp_post",
        "5 kB",
        "--sites",
    ):
        assert part in line
    assert "Running the model" not in result.stdout
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_memory_that_runs_out_midway_is_one_line(
    model: Path,
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    import projector.fitting.placing

    def exhausted(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(projector.fitting.placing, "solve_all", exhausted)
    line = refuse("fit", model, "--corpus", text_file, "--out", tmp_path / "out")
    for part in ("memory", f"{N_NEURONS} × {N_NEURONS} of layer 0", "--batch-size"):
        assert part in line
    # What the model was run for is kept.
    assert sorted(tree(tmp_path)) == ["out.checkpoint", "out.checkpoint/gathered-0.safetensors"]
    monkeypatch.undo()
    succeed("fit", model, "--corpus", text_file, "--out", tmp_path / "out", "--resume")


# As a program of its own


def run_program(*args: object) -> subprocess.CompletedProcess[str]:
    hidden = ("TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS", "TOKENIZERS_PARALLELISM")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    return subprocess.run(
        [sys.executable, "-m", "projector", *(str(arg) for arg in args)],
        capture_output=True,
        text=True,
        # Seconds, most of them imports; minutes where other work has the processor.
        timeout=900,
        check=False,
        # In one thread: for matrices this small.
        env=environment | {"OMP_NUM_THREADS": "1"},
    )


def test_the_program_prints_one_object(model: Path, text_file: Path, tmp_path: Path) -> None:
    """With the libraries as they are outside of tests: what they print is kept off the screen."""
    out = tmp_path / "out"
    options = ("--max-tokens", 300, "--json")
    done = run_program("fit", model, "--corpus", text_file, "--out", out, *ONE_MAP, *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["corpus"]["n_tokens"] == 300
    assert done.stdout.count("\n") == 1
    assert "Running the model" in done.stderr
    assert "Loading weights" not in done.stderr
    assert "arning" not in done.stderr
    assert Projection.load(out).maps == [(0, "attn_out")]


def test_the_program_refuses_with_one_line(tmp_path: Path) -> None:
    done = run_program("info", tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"'{tmp_path / 'nowhere'}'" in the_error(done.stderr)
    assert tree(tmp_path) == {}


def test_help_is_quick() -> None:
    """Neither torch nor transformers is needed to parse a command line."""
    code = (
        "import sys, projector.terminal.cli; "
        "print(sorted({'torch', 'transformers', 'datasets', 'plotly'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    shown = succeed("--help").stdout
    for command in ("fit", "relayout", "info", "plot", "import"):
        assert command in shown
