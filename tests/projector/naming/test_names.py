"""A user's names: kept beside the projection, by one at a time, and gone with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import projector
from projector import Projection, UserError
from projector.errors import SettingError
from projector.naming.names import Names, PoleKey, read_names, write_name
from projector.projection.writing import own_files
from tests.projections import contents

POLE = PoleKey("layers.0.mlp_post", "poles/correlation-3-leaf.json", (1, 4, 7))


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[[str], Path], text_file: Path
) -> Path:
    folder = tmp_path_factory.mktemp("names") / "projection"
    projector.fit(
        str(checkpoint("qwen2")), str(text_file), max_tokens=500, layers=(0,), sites=("mlp_post",)
    ).save(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "projection"))


def test_names_are_kept_and_changed_and_taken_away(folder: Path) -> None:
    before = contents(folder)
    assert read_names(folder) == Names()
    write_name(folder, "  the self\n neuron ", 0, "mlp_post", neuron=3)
    names = write_name(folder, "selves", 0, "mlp_post", pole=POLE)
    assert names == read_names(folder)
    assert names.of_neuron(0, "mlp_post", 3) == "the self neuron"
    assert names.of_neuron(0, "mlp_post", 4) is None
    # A pole is known by its members, whatever their order, and by its settings.
    assert names.of_pole(0, "mlp_post", POLE.file, [7, 1, 4]) == "selves"
    assert names.of_pole(0, "mlp_post", POLE.file, [7, 1]) is None
    assert names.of_pole(0, "mlp_post", "poles/positions-3.json", [7, 1, 4]) is None
    write_name(folder, "another", 0, "mlp_post", neuron=3)
    assert read_names(folder).of_neuron(0, "mlp_post", 3) == "another"
    write_name(folder, None, 0, "mlp_post", neuron=3)
    write_name(folder, " ", 0, "mlp_post", pole=POLE)
    assert contents(folder) == before


def test_two_that_name_at_once_are_both_kept(folder: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda j: write_name(folder, f"n{j}", 0, "mlp_post", neuron=j), range(12)))
    names = read_names(folder)
    assert [names.of_neuron(0, "mlp_post", j) for j in range(12)] == [f"n{j}" for j in range(12)]


def test_names_go_with_their_projection(folder: Path) -> None:
    write_name(folder, "mine", 0, "mlp_post", neuron=3)
    assert "labels.json" in own_files(folder)
    projection = Projection.load(folder)
    projection.save(folder, force=True)
    assert not (folder / "labels.json").exists()
    # Of another projection they are not read, and are replaced.
    text = json.dumps(
        {
            "format": "transformer-projection-labels",
            "format_version": 1,
            "projection": "0" * 64,
            "neurons": {"layers.0.mlp_post": {"5": "of another"}},
            "poles": [],
        }
    )
    (folder / "labels.json").write_text(text)
    assert read_names(folder) == Names()
    write_name(folder, "mine", 0, "mlp_post", neuron=3)
    assert read_names(folder).neurons == {"layers.0.mlp_post": {3: "mine"}}


def test_a_file_of_somebody_else_stays(folder: Path) -> None:
    (folder / "labels.json").write_text('{"mine": 1}')
    assert "labels.json" not in own_files(folder)
    for act in (
        lambda: read_names(folder),
        lambda: write_name(folder, "a", 0, "mlp_post", neuron=1),
    ):
        with pytest.raises(UserError, match=r"labels\.json"):
            act()
    assert (folder / "labels.json").read_text() == '{"mine": 1}'


@pytest.mark.parametrize("damage", ["neurons", "poles"])
def test_names_of_no_map_are_damage(folder: Path, damage: str) -> None:
    write_name(folder, "mine", 0, "mlp_post", neuron=3)
    content = json.loads((folder / "labels.json").read_text())
    if damage == "neurons":
        content["neurons"]["foo"] = {"1": "a"}
    else:
        content["poles"].append({"map": "layers.x.y", "file": "f", "neurons": [1], "name": "a"})
    (folder / "labels.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"labels\.json"):
        read_names(folder)


def test_what_cannot_be_named_is_refused(folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(SettingError) as refused:
        write_name(folder, "x" * 61, 0, "mlp_post", neuron=3)
    assert refused.value.setting == "name"
    for neuron in (-1, 10**6):
        with pytest.raises(SettingError) as refused:
            write_name(folder, "x", 0, "mlp_post", neuron=neuron)
        assert (refused.value.setting, refused.value.value) == ("neuron", neuron)
    with pytest.raises(SettingError) as refused:
        write_name(folder, "x", 9, "mlp_post", neuron=1)
    assert refused.value.setting == "layer"
    assert contents(folder) == before
