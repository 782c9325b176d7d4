"""Poles as a map names and lists them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from dashboard.drawing import palette
from dashboard.drawing.legend import colors_of, groups_of
from pruning.poles.poles import Control, Controls, Pole, Poles, PoleSettings, counts_words
from tests.refused import lacking


def poles(*found: Pole, n_noise: int = 2) -> Poles:
    """Poles of two neurons each, and some neurons in none."""
    labels = [k for k in range(len(found)) for _ in range(2)] + [-1] * n_noise
    control = Control(5, 4.0, n_distinct=0.2, n_beyond_spectrum=0.0)
    return Poles(
        1,
        "mlp_post",
        PoleSettings(),
        torch.tensor(labels),
        torch.zeros(len(labels)),
        found,
        (),
        0.1,
        0.2,
        {},
        Controls(control, replace(control, n_distinct=3.0, n_beyond_spectrum=0.4)),
    )


DISTINCT = Pole(2, (0,), 0.6, label="self", distinct=True, beyond_spectrum=True)
WEAK = Pole(2, (0,), 0.1, label="the", distinct=False, beyond_spectrum=False)


def test_distinct_poles_are_listed_and_coloured_first() -> None:
    found = poles(WEAK, replace(DISTINCT, opposite=0, opposite_rho=-0.5, axis=0))
    groups = groups_of(found)
    assert [each.number for each in groups.items] == [1, 0]
    assert [each.state for each in groups.items] == ["distinct", "weak"]
    assert [each.color for each in groups.items] == [1, 2]
    assert colors_of(found).tolist() == [2, 1]
    # Neurons know their place in the list.
    assert groups.membership.dtype == np.int16
    assert groups.membership.tolist() == [1, 1, 0, 0, -1, -1]
    assert "ρ −0.50" in groups.items[0].note
    assert "pole 0" in groups.items[0].note


def test_counts_stand_beside_their_controls() -> None:
    note = groups_of(poles(DISTINCT, WEAK)).note
    # Each count has that of the same verdict in its own control, not the 3.0 distinct poles that
    # the other control has.
    assert re.findall(r"[\d.]+(?=[ )])", note) == ["1", "0.2", "1", "0.4"]
    assert note == f"{counts_words([poles(DISTINCT, WEAK)])}."
    assert groups_of(replace(poles(DISTINCT), controls=None)).note == ""


@pytest.mark.parametrize(
    ("own", "name", "label"),
    [(None, "", "pole 0"), ("self", "", "self"), ("self", "objects", "objects")],
)
def test_a_pole_is_called_by_what_it_fires_on(own: str | None, name: str, label: str) -> None:
    (group,) = groups_of(poles(replace(DISTINCT, label=own)), (name,)).items
    assert group.label == label
    assert "pole 0" in group.title


def test_poles_beyond_the_colours_share_one_and_the_list_ends_somewhere() -> None:
    many = groups_of(poles(*[DISTINCT] * 250))
    n = palette.N_GROUPS
    assert [each.shared for each in many.items[: n + 1]] == [False] * n + [True]
    assert lacking(many.more, 250 - len(many.items), "Poles") == []
    assert many.membership.max() == len(many.items) - 1
    # Of what is not listed the map says nothing.
    assert (many.membership == -1).sum() == 2 + 2 * (250 - len(many.items))
