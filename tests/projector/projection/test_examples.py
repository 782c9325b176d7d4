"""Examples in a projection: read with it, told of without tensors, and no harm when damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import projector
from projector import Projection, UserError, add_layout, relayout
from projector.layouts.settings import Layout
from projector.projection import overview
from projector.projection.overview import read_saved
from projector.statistics.example_facts import EXAMPLES_FILE, METADATA
from projector.storage.headers import Header
from tests.projections import contents
from tests.refused import refused_naming

KEY = (1, "attn_out")


@pytest.fixture(scope="module")
def fitted(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("fitted") / "out"
    projector.fit(str(checkpoint("qwen2")), str(text_file), out=out, max_tokens=900)
    return out


@pytest.fixture
def copied(fitted: Path, tmp_path: Path) -> Path:
    Projection.load(fitted).save(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(fitted)
    return tmp_path / "out"


def test_what_is_there_is_told_without_tensors(fitted: Path) -> None:
    saved, loaded = read_saved(fitted), Projection.load(fitted)
    assert saved.has_examples
    assert saved.example_facts == loaded.example_facts
    assert saved.example_problem is None
    with pytest.raises(UserError) as refused:
        loaded.examples(7, "attn_out")
    assert refused.value.setting == "layer"


def test_other_layouts_have_the_same_examples(copied: Path, tmp_path: Path) -> None:
    before = Projection.load(copied).examples(*KEY)
    _, added = add_layout(copied, Layout(dim=2))
    relayout(added, Layout(dim=1)).save(tmp_path / "other")
    for each in (added, Projection.load(tmp_path / "other")):
        after = each.examples(*KEY)
        for name in ("ids", "starts", "highest", "highest_at", "sample", "sample_at"):
            assert torch.equal(getattr(before, name), getattr(after, name)), name
        assert after.source == before.source
        assert torch.equal(each.pieces.piece_bytes, added.pieces.piece_bytes)


def test_they_are_part_of_what_is_saved_and_of_what_is_replaced(copied: Path) -> None:
    found = Projection.load(copied)
    assert found.is_saved_at(copied)
    (copied / EXAMPLES_FILE).rename(copied / "elsewhere")
    assert not found.is_saved_at(copied)
    # Without them, it is a projection all the same.
    older = Projection.load(copied)
    assert not older.has_examples
    assert older.is_saved_at(copied)
    with pytest.raises(UserError) as refused:
        older.examples(*KEY)
    assert refused.value.setting == "keep_examples"
    (copied / "elsewhere").rename(copied / EXAMPLES_FILE)
    older.save(copied, force=True)
    assert not (copied / EXAMPLES_FILE).exists()


def rewritten(path: Path, **facts: object) -> None:
    """The same file, that says something else of itself."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    own = json.loads(metadata[METADATA]) | facts
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata | {METADATA: json.dumps(own)})


def of_another_projection(path: Path) -> None:
    metadata = {"projection": "0" * 64}
    save_file({name: t.clone() for name, t in load_file(path).items()}, path, metadata)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-50]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("my own notes"),
        lambda path: save_file({"mine": torch.zeros(3)}, path),
        of_another_projection,
        lambda path: rewritten(path, format="another"),
        lambda path: rewritten(path, format_version=9),
        lambda path: rewritten(path, n_extremes=4),
        lambda path: rewritten(path, n_sample="many"),
    ],
)
def test_a_damaged_file_is_one_line_and_all_else_loads(
    damage: Callable[[Path], object], copied: Path, fitted: Path
) -> None:
    damage(copied / EXAMPLES_FILE)
    found, whole = Projection.load(copied), Projection.load(fitted)
    assert not found.has_examples
    assert str(copied / EXAMPLES_FILE) in str(found.example_problem)
    assert torch.equal(found.positions(*KEY), whole.positions(*KEY))
    assert torch.equal(found.covariance(*KEY), whole.covariance(*KEY))
    with pytest.raises(UserError) as refused:
        found.examples(*KEY)
    assert refused.value.setting == "keep_examples"
    assert str(refused.value) == found.example_problem
    assert "\n" not in str(refused.value)


def test_a_projection_that_is_replaced_while_it_is_read_is_read_again(
    copied: Path, fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, other = Projection.load(fitted), tmp_path / "other"
    replace(whole, facts=replace(whole.facts, versions={"torch": "another"})).save(other)
    read, n_read = overview.checked_header, 0

    def late(path: Path, fingerprint: str) -> Header:
        nonlocal n_read
        n_read += path.name == EXAMPLES_FILE
        if path.name == EXAMPLES_FILE and n_read == 1:
            shutil.rmtree(copied)
            shutil.copytree(other, copied)
        return read(path, fingerprint)

    monkeypatch.setattr(overview, "checked_header", late)
    found = overview.read_saved(copied)
    assert found.example_problem is None
    assert found.has_examples
    assert found.fingerprint == overview.read_saved(other).fingerprint
    assert n_read == 3


def test_what_was_replaced_since_is_not_taken_for_its_own(copied: Path) -> None:
    found = Projection.load(copied)
    of_another_projection(copied / EXAMPLES_FILE)
    with refused_naming(copied / EXAMPLES_FILE):
        found.examples(*KEY)


def test_pieces_may_be_damaged(copied: Path) -> None:
    found = Projection.load(copied)
    tensors = dict(found.example_tensors)
    del tensors["piece_ends"]
    with pytest.raises(UserError) as refused:
        _ = replace(found, example_tensors=tensors).pieces
    assert refused.value.setting == "keep_examples"
