"""Layers on different devices: tensors without numbers stand in for those of a second device."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from projector.residual.circuits.composition import compose
from projector.residual.circuits.factors import Factors
from projector.residual.circuits.goals import Goal
from projector.residual.circuits.paths import LayerReads, _Sums
from projector.residual.circuits.vocabulary import grams_of
from projector.residual.parts import EmbeddingContributions, Part


def factors(device: str) -> Factors:
    return Factors(torch.empty(3, 8, 2, device=device), torch.empty(3, 2, 8, device=device))


def test_heads_of_two_devices_meet_on_one() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        both = [factors("cpu"), factors("cuda")]
        found = compose(both, both)
        assert (found.shape, found.device.type) == ((6, 6), "cpu")


def test_rows_of_the_vocabulary_meet_on_the_heads_device() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        embedded, rows = torch.empty(5, 8), torch.empty(5, 8, device="cuda")
        assert grams_of([(embedded, rows)]).centred.device.type == "cuda"


def test_what_layers_add_meets_where_the_goal_is() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        goal = Goal([0, 1], 0, None, torch.empty(8), torch.empty(1, 8), 0.0, 0.0)
        readers = LayerReads(1, torch.empty(3, 8), torch.empty(3, 2), torch.empty(3))
        sums = _Sums([readers], goal)
        values = torch.empty(2, 8, device="cuda")
        part = Part("embedding", "embedding", None, None, values)
        sums.take(EmbeddingContributions((part,), values))
        assert sums.rows[0].device.type == "cpu"
