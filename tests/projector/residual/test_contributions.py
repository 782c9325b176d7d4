"""The parts of every family's stream sum to it; heads and neurons sum to their sublayer."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from projector.residual.contributions import Contributions, collect_contributions
from projector.residual.subject import Subject
from tests.families import CLOSE_PER_BLOCK, FAMILIES, MIXTURES, STREAMS, subject_of

IDS = [(13 * i + 5) % 300 for i in range(20)]


@cache
def found(family: str) -> tuple[Subject, Contributions]:
    subject = subject_of(family)
    return subject, collect_contributions(subject, IDS, neurons=True)


@pytest.mark.parametrize("family", [*FAMILIES, *MIXTURES, *STREAMS])
def test_the_parts_sum_to_the_stream(family: str) -> None:
    _, given = found(family)
    assert given.additivity_error <= 1e-5
    assert given.closes_per_block == (family in CLOSE_PER_BLOCK)
    if given.closes_per_block:
        return
    for by_head in (False, True):
        total = torch.stack([part.values for part in given.parts(by_head=by_head)]).sum(0)
        assert torch.allclose(total, given.blocks[-1].post, rtol=1e-4, atol=1e-4)
