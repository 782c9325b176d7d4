"""Directions on disk: the same again, of one model alone, and nothing that is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from projector.errors import SettingError, UserError
from projector.model.loading import LoadedModel
from projector.residual.directions.artifact import (
    JSON_FILE,
    TENSOR_FILE,
    Directions,
    find_directions,
)
from projector.residual.subject import Subject
from projector.storage.tensors import write_tensors
from tests.families import N_HIDDEN, build


def made(sha256: str = "a" * 64, layers: tuple[int, ...] = (0, 1)) -> Directions:
    vectors = {(i, "resid_post"): torch.arange(N_HIDDEN) + float(i) for i in layers}
    return Directions(
        model_name="tiny",
        model_sha256=sha256,
        pair="planted",
        positive_name="up",
        negative_name="down",
        sets_sha256="5" * 64,
        at="last",
        n_fit_positive=30,
        n_fit_negative=31,
        n_tested_positive=10,
        n_tested_negative=9,
        vectors=vectors,
        usual_norms=dict.fromkeys(vectors, 2.5),
        seed=3,
        versions={"torch": "1"},
    )


def subject_with(sha256: str) -> Subject:
    return Subject(LoadedModel(build("llama"), None, "tiny", sha256))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    directions = made()
    directions.save(tmp_path / "one")
    found = Directions.load(tmp_path / "one")
    assert found.facts() == directions.facts()
    assert found.vectors.keys() == directions.vectors.keys()
    assert all(torch.equal(found.vectors[key], directions.vectors[key]) for key in found.vectors)
    assert (found.layers, found.seed, found.n_fit_negative) == ((0, 1), 3, 31)
    assert found.most_norm(1) == 10.0
    assert replace(found, keep_outliers=True).most_norm(1) is None
    # Equal directions, equal bytes; what is there is replaced only when that is asked for.
    made().save(tmp_path / "two")
    for name in (JSON_FILE, TENSOR_FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert str(tmp_path) not in (tmp_path / "one" / JSON_FILE).read_text()
    with pytest.raises(UserError) as raised:
        directions.save(tmp_path / "one")
    assert raised.value.setting == "force"
    directions.save(tmp_path / "one", force=True)


def test_a_report_holds_those_of_one_model_or_of_several(tmp_path: Path) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    made().write(one / "directions")
    for name, sha256 in (("first", "a" * 64), ("second", "c" * 64)):
        made(sha256).write(several / "directions" / name)
    for folder in (one, one / "directions", several, several / "directions"):
        assert find_directions(folder, subject_with("a" * 64)).model_sha256 == "a" * 64
    assert find_directions(several, subject_with("c" * 64)).model_sha256 == "c" * 64
    for folder in (one, several):
        with pytest.raises(UserError) as raised:
            find_directions(folder, subject_with("d" * 64))
        assert raised.value.setting == "direction"
    with pytest.raises(UserError) as raised:
        made().check(subject_with("d" * 64))
    assert (raised.value.setting, raised.value.value) == ("direction", "tiny")


def test_a_layer_without_a_direction_is_named() -> None:
    with pytest.raises(SettingError) as raised:
        made(layers=(0, 1, 2, 5)).at_layer(4)
    assert (raised.value.setting, raised.value.value) == ("layer", 4)
    assert "0, 1, 2, 5" in str(raised.value.expected)
    with pytest.raises(SettingError) as raised:
        made(layers=(0, 1, 2)).at_layer(7)
    assert "0 to 2" in str(raised.value.expected)


def _edited(change: Callable[[dict], object]) -> Callable[[Path], None]:  # type: ignore[type-arg]
    def edit(folder: Path) -> None:
        content = json.loads((folder / JSON_FILE).read_text())
        change(content)
        (folder / JSON_FILE).write_text(json.dumps(content))

    return edit


def _tensors(tensors: dict[str, torch.Tensor]) -> Callable[[Path], None]:
    return lambda folder: write_tensors(folder / TENSOR_FILE, tensors)


_WHOLE = torch.ones(N_HIDDEN)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda folder: (folder / TENSOR_FILE).unlink(),
        lambda folder: (folder / TENSOR_FILE).write_bytes(b"no tensors"),
        lambda folder: (folder / JSON_FILE).write_text("{"),
        _edited(lambda content: content.update(format="tuned-lens")),
        _edited(lambda content: content.update(format_version=2)),
        _edited(lambda content: content["model"].update(sha256=5)),
        _edited(lambda content: content["sets"].update(n_fit_positive="many")),
        _edited(lambda content: content["directions"].pop()),
        _edited(lambda content: content["directions"][0].pop("usual_norm")),
        _edited(lambda content: content.pop("keep_outliers")),
        _tensors({"layers.0.resid_post": _WHOLE, "layers.1.resid_post": _WHOLE[1:]}),
        _tensors({"layers.0.resid_post": _WHOLE, "layers.1.resid_mid": _WHOLE}),
        _tensors({"layers.0.resid_post": _WHOLE, "layers.1.resid_post": _WHOLE.half()}),
        _tensors({"layers.0.resid_post": _WHOLE, "layers.1.resid_post": _WHOLE / 0}),
    ],
)
def test_what_is_damaged_is_refused_in_one_line(
    tmp_path: Path, break_it: Callable[[Path], None]
) -> None:
    made().save(tmp_path / "one")
    break_it(tmp_path / "one")
    with pytest.raises(UserError) as raised:
        Directions.load(tmp_path / "one")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["missing", "empty", "file"])
def test_what_is_no_direction_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    for read in (Directions.load, lambda folder: find_directions(folder, subject_with("a" * 64))):
        with pytest.raises(UserError) as raised:
            read(tmp_path / name)
        assert (raised.value.setting, raised.value.value) == ("direction", str(tmp_path / name))
