"""Names on pages: the user's own first, then what examples say, else nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import projector
from dashboard.state.naming import (
    computed_labels_at,
    found_at,
    labels_at,
    name_neuron,
    name_pole,
    pole_names,
    snippets_at,
)
from projector import Projection, UserError
from pruning.poles.poles import Pole, Poles, PoleSettings
from tests.projector.naming.corpora import Words, with_examples

VOCABULARY = [*(f" filler{k}" for k in range(200)), " self", "method"]
SITE = "mlp_post"


@pytest.fixture(scope="module")
def bare(checkpoint: Callable[[str], Path], text_file: Path) -> Projection:
    return projector.fit(str(checkpoint("qwen2")), str(text_file), max_tokens=500, sites=(SITE,))


@pytest.fixture
def path(bare: Projection, tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    words = Words(VOCABULARY, rng.integers(0, len(VOCABULARY), 20 * 200))
    fires = rng.normal(0, 0.1, (len(words.ids), bare.figures(0, SITE).n_neurons))
    fires[:, [3, 4]] += 5.0 * words.where(" self")[:, None]
    fires[:, 5] -= 5.0 * words.where(" self")
    fires[:, 6] += 5.0 * words.where("method")
    with_examples(bare, words, {(0, SITE): fires}).save(tmp_path / "projection")
    return tmp_path / "projection"


def poles_of(path: Path, *groups: list[int], label: str | None = None) -> Poles:
    n_neurons = Projection.load(path).figures(0, SITE).n_neurons
    labels = torch.full((n_neurons,), -1)
    for k, members in enumerate(groups):
        labels[members] = k
    poles = tuple(Pole(len(group), (group[0],), label=label) for group in groups)
    settings = PoleSettings(space="correlation")
    return Poles(0, SITE, settings, labels, torch.ones(n_neurons), poles, (), 0.0, None, {})


def test_a_users_name_comes_before_what_examples_say(path: Path) -> None:
    found = labels_at(path, 0, SITE)
    assert found[3:7] == ("self", "self", "self ↓", "method")
    label = computed_labels_at(path, 0, SITE)[5]
    assert label is not None
    assert label.sign == -1
    name_neuron(path, 0, SITE, 3, "the first")
    assert labels_at(path, 0, SITE)[3:5] == ("the first", "self")
    name_neuron(path, 0, SITE, 3, "")
    assert labels_at(path, 0, SITE) == found
    assert "«self»" in snippets_at(path, 0, SITE)[3]


def test_poles_are_called_by_their_name_their_file_or_their_members(path: Path) -> None:
    poles = poles_of(path, [3, 4], [6, 7])
    assert pole_names(path, poles)[0] == "self"
    assert pole_names(path, poles_of(path, [3, 4], label="as the file has it")) == (
        "as the file has it",
    )
    name_pole(path, poles, 0, "mine")
    assert pole_names(path, poles)[0] == "mine"
    # Another group is another pole, whatever its number.
    assert pole_names(path, poles_of(path, [3, 4, 5]))[0] == "self"
    name_pole(path, poles, 0, "")
    assert pole_names(path, poles)[0] == "self"


def test_search_sees_what_was_named_since(path: Path) -> None:
    assert [each.neuron for each in found_at(path, "method").results] == [6]
    name_neuron(path, 0, SITE, 9, "method too")
    assert {each.neuron for each in found_at(path, "method").results} == {6, 9}


def test_without_examples_nothing_is_called_anything(bare: Projection, tmp_path: Path) -> None:
    from dataclasses import replace

    where = tmp_path / "bare"
    replace(bare, example_tensors={}, example_facts=None).save(where)
    assert set(labels_at(where, 0, SITE)) == set(snippets_at(where, 0, SITE)) == {""}
    assert len(labels_at(where, 0, SITE)) == bare.figures(0, SITE).n_neurons
    assert pole_names(where, poles_of(where, [3, 4])) == ("",)
    name_neuron(where, 0, SITE, 1, "mine")
    assert labels_at(where, 0, SITE)[1] == "mine"
    with pytest.raises(UserError) as refused:
        found_at(where, "self")
    assert refused.value.setting == "keep_examples"
    # A file that can't be read stops no page.
    (where / "labels.json").write_text("{")
    assert set(labels_at(where, 0, SITE)) == {""}
