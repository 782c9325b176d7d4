"""Tokens of two prompts are partners where both begin and end alike."""

from __future__ import annotations

import pytest

from projector.residual.particles.pairing.aligning import align


@pytest.mark.parametrize(
    ("ids_a", "ids_b", "n_beginning", "n_end", "partners"),
    [
        ([0, 1, 2, 3], [0, 9, 2, 3], 1, 2, [(0, 0), (1, 1), (2, 2), (3, 3)]),
        ([0, 1, 2, 3], [0, 9, 8, 2, 3], 1, 2, [(0, 0), (2, 3), (3, 4)]),
        ([0, 1, 3], [0, 1], 2, 0, [(0, 0), (1, 1)]),
        ([5, 1], [6, 2], 0, 0, [(0, 0), (1, 1)]),
        ([5, 1, 4], [6, 4], 0, 1, [(2, 1)]),
        # What repeats is counted once: the beginning first.
        ([7, 7, 7], [7, 7], 2, 0, [(0, 0), (1, 1)]),
    ],
)
def test_shared_beginning_and_end(
    ids_a: list[int],
    ids_b: list[int],
    n_beginning: int,
    n_end: int,
    partners: list[tuple[int, int]],
) -> None:
    found = align(ids_a, ids_b)
    assert (found.n_beginning, found.n_end) == (n_beginning, n_end)
    assert list(found.partners) == partners
    assert found.first_unlike == n_beginning


def test_equal_prompts_have_no_unlike_token() -> None:
    found = align([3, 4], [3, 4])
    assert found.first_unlike is None
    assert found.partners == ((0, 0), (1, 1))
