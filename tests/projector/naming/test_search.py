"""Search: what fires on a word, in all layers, the strongest first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import projector
from projector import Projection, UserError
from projector.errors import SettingError
from projector.naming.names import PoleKey, read_names, write_name
from projector.naming.search import search
from projector.projection.overview import read_saved
from tests.projector.naming.corpora import Words, with_examples

VOCABULARY = [
    *(f" filler{k}" for k in range(200)),
    "self",
    " self",
    " Self",
    "method",
    "\n",
    " the",
]
SITE = "mlp_post"


@pytest.fixture(scope="module")
def words() -> Words:
    rng = np.random.default_rng(0)
    return Words(VOCABULARY, rng.integers(0, len(VOCABULARY), 20 * 400))


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
    checkpoint: Callable[[str], Path],
    text_file: Path,
    words: Words,
) -> tuple[Projection, Path]:
    """Layer 0: N2 fires on self, N3 on Self, N5 on method with its lowest; layer 1: N7 on self and
    fillers."""
    fitted = projector.fit(str(checkpoint("qwen2")), str(text_file), max_tokens=500, sites=(SITE,))
    rng = np.random.default_rng(1)
    fires = {
        key: rng.normal(0, 0.1, (len(words.ids), fitted.figures(*key).n_neurons))
        for key in fitted.maps
    }
    fires[0, SITE][:, 2] += 5.0 * words.where("self", " self")
    fires[0, SITE][:, 3] += 5.0 * words.where(" Self")
    fires[0, SITE][:, 5] -= 5.0 * words.where("method")
    fires[1, SITE][:, 7] += 5.0 * words.where(" self", "\n")
    folder = tmp_path_factory.mktemp("search") / "projection"
    with_examples(fitted, words, fires).save(folder)
    return Projection.load(folder), folder


def found(made: tuple[Projection, Path], text: str) -> list[tuple[int, int | None, int | None]]:
    return [(each.layer, each.neuron, each.pole) for each in search(*made, text).results]


def test_a_word_is_found_in_all_layers_the_strongest_first(made: tuple[Projection, Path]) -> None:
    results = search(*made, "self").results
    assert (results[0].layer, results[0].neuron) == (0, 2)
    assert {(0, 3), (1, 7)} <= {(each.layer, each.neuron) for each in results[1:]}
    first = results[0]
    assert (first.site, first.label, first.sign) == (SITE, "self", 1)
    assert (first.n_agreeing, first.n_examples) == (10, 10)
    assert first.strength == pytest.approx(1.0)
    assert all(each.strength is not None for each in results)


def test_the_spelling_that_was_asked_for_is_first(made: tuple[Projection, Path]) -> None:
    assert found(made, "Self")[0] == (0, 3, None)
    # With its space it means that token alone.
    spaced = found(made, " self")
    assert (0, 2, None) in spaced
    assert (0, 3, None) not in spaced
    assert not found(made, " SELF")


def test_the_lowest_end_counts_too(made: tuple[Projection, Path]) -> None:
    result = search(*made, "METHOD").results[0]
    assert (result.neuron, result.sign, result.n_agreeing) == (5, -1, 10)


def test_a_neuron_is_found_by_its_address(made: tuple[Projection, Path]) -> None:
    for text in ("L0 N2", "l0 n2", "L0/N2"):
        (result,) = search(*made, text).results
        assert (result.layer, result.neuron, result.label) == (0, 2, "self")
        assert result.strength is None
    for text in ("L9 N2", "L0 N99999"):
        results = search(*made, text)
        assert not results.results
        assert results.message is not None


def test_no_match_says_what_comes_near(made: tuple[Projection, Path]) -> None:
    results = search(*made, "methods")
    assert not results.results
    assert results.message is not None
    assert "method" in results.message.split("near it")[1]
    assert search(*made, "zzzzqq").message is not None
    # A token on which nothing fires is there, and is said to be.
    assert "filler9" in (search(*made, "filler9").message or "")
    with pytest.raises(SettingError) as refused:
        search(*made, "")
    assert refused.value.setting == "text"


def poles_file(
    folder: Path, name: str, space: str, poles: list[dict[str, object]], **more: object
) -> None:
    saved = read_saved(folder)
    settings = {"space": space, "min_cluster_size": more.pop("size", 3)}
    layout = saved.layouts[saved.layout_name()].metadata.get("layout")
    content = {
        "format": "transformer-poles",
        "format_version": 3,
        "projection": saved.fingerprint,
        "layout": layout if space == "positions" else None,
        "settings": settings,
        **more,
        "maps": {f"layers.0.{SITE}": {"layer": 0, "site": SITE, "poles": poles}},
    }
    (folder / "poles").mkdir(exist_ok=True)
    (folder / "poles" / name).write_text(json.dumps(content))


def test_poles_and_names_are_found(made: tuple[Projection, Path], tmp_path: Path) -> None:
    projection, _ = made
    folder = tmp_path / "projection"
    projection.save(folder)
    here = (Projection.load(folder), folder)
    poles_file(
        folder,
        "correlation-3-leaf.json",
        "correlation",
        [{"neurons": [10, 11], "label": "x"}, {"neurons": [2, 3], "label": None}],
    )
    # Of a map, the poles of ρ count before those of its picture; damaged files are passed over.
    poles_file(folder, "positions-3.json", "positions", [{"neurons": [2], "label": "on the map"}])
    (folder / "poles" / "broken.json").write_text("{")
    results = search(*here, "self")
    (pole,) = results.poles
    assert (pole.layer, pole.pole, pole.neuron) == (0, 1, None)
    assert pole.label in ("self", "Self")
    assert pole.strength == pytest.approx(1.0)
    assert pole.poles_file == "poles/correlation-3-leaf.json"
    key = PoleKey.of(0, SITE, "poles/correlation-3-leaf.json", [3, 2])
    write_name(folder, "My group", 0, SITE, pole=key)
    write_name(folder, "my method neuron", 0, SITE, neuron=5)
    assert search(*here, "self").poles[0].label == "My group"
    named = search(*here, "my").results
    assert {(each.neuron, each.pole) for each in named} == {(None, 1), (5, None)}
    # Named for it, and firing on it: once.
    assert [each.neuron for each in search(*here, "method").results] == [5]
    assert read_names(folder).of_neuron(0, SITE, 5) == "my method neuron"


def test_the_poles_of_the_usual_settings_are_searched(
    made: tuple[Projection, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "projection"
    made[0].save(folder)
    here = (Projection.load(folder), folder)

    def files_found() -> list[str | None]:
        return [pole.poles_file for pole in search(*here, "self").poles]

    on_self: list[dict[str, object]] = [{"neurons": [2, 3], "label": "self"}]
    # Of an older version, whose numbers are others, and of a layout that was replaced: neither.
    poles_file(folder, "correlation-3-leaf.json", "correlation", on_self, format_version=2)
    poles_file(folder, "positions-3.json", "positions", on_self, layout="0" * 64)
    assert files_found() == []
    poles_file(folder, "positions-3.json", "positions", on_self)
    assert files_found() == ["poles/positions-3.json"]
    poles_file(folder, "correlation-10-leaf.json", "correlation", on_self, size=10)
    assert files_found() == ["poles/correlation-10-leaf.json"]
    poles_file(folder, "correlation-3-leaf.json", "correlation", on_self)
    assert files_found() == ["poles/correlation-3-leaf.json"]
    # Names that were given poles of other settings are found too.
    key = PoleKey.of(0, SITE, "poles/correlation-10-leaf.json", [3, 2])
    write_name(folder, "of ten", 0, SITE, pole=key)
    (result,) = search(*here, "of ten").results
    assert (result.label, result.poles_file) == ("of ten", "poles/correlation-10-leaf.json")


def test_a_pole_is_told_by_the_end_that_was_found(
    made: tuple[Projection, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "projection"
    made[0].save(folder)
    poles = [{"neurons": [5, 6], "label": "filler1"}, {"neurons": [2, 3], "label": "filler2 ↓"}]
    poles_file(folder, "correlation-3-leaf.json", "correlation", poles)
    here = (Projection.load(folder), folder)
    (pole,) = search(*here, "method").poles
    assert (pole.pole, pole.sign) == (0, -1)
    assert pole.label.endswith(" ↓")
    assert "method" in pole.label
    (pole,) = search(*here, "self").poles
    assert (pole.pole, pole.sign) == (1, 1)
    assert pole.label.casefold() == "self"


def test_without_examples_it_says_what_is_missing(
    made: tuple[Projection, Path], tmp_path: Path, words: Words
) -> None:
    from dataclasses import replace

    projection = replace(made[0], example_tensors={}, example_facts=None)
    projection.save(tmp_path / "bare")
    bare = Projection.load(tmp_path / "bare")
    with pytest.raises(UserError) as refused:
        search(bare, tmp_path / "bare", "self")
    assert refused.value.setting == "keep_examples"
    (result,) = search(bare, tmp_path / "bare", "L1 N7").results
    assert (result.neuron, result.label) == (7, "")
    # Names need no examples.
    write_name(tmp_path / "bare", "my self neuron", 1, SITE, neuron=7)
    (result,) = search(bare, tmp_path / "bare", "self").results
    assert (result.layer, result.neuron, result.label) == (1, 7, "my self neuron")
