"""A lens as cells: which way up, what colours mean, and what a cell tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dashboard.guest import Guest
from dashboard.residual.lens_cells import (
    COLORINGS,
    LensTable,
    baseline_words,
    lens_grid,
    most_at_once,
    outlier_words,
    read_lens,
    reading_name,
    row_of,
)
from tests.dashboard.conftest import DECODER

NAN = float("nan")


def table() -> LensTable:
    """Three readings of tokens 4 and 5 of a prompt; the vocabulary has 100 tokens."""
    return LensTable(
        readings=((0, "resid_pre"), (0, "resid_mid"), (0, "resid_post")),
        first=4,
        texts={7: "a", 8: "␣b", 9: "<b>"},
        top_ids=np.array([[[7, 8], [8, 9]], [[8, 7], [9, 7]], [[9, 8], [7, 9]]]),
        top_probabilities=np.array(
            [[[0.5, 0.1], [0.2, 0.1]], [[0.6, 0.3], [0.9, 0.05]], [[1.0, 0.0], [0.4, 0.3]]]
        ),
        probability=np.array([[0.1, NAN], [0.3, NAN], [1.0, NAN]]),
        rank=np.array([[10.0, NAN], [2.0, NAN], [1.0, NAN]]),
        entropy=np.array([[2.0, 2.0], [1.0, 1.0], [0.0, 0.5]]),
        kl=np.array([[4.0, 3.0], [1.0, 0.5], [0.0, 0.0]]),
        n_vocabulary=100,
    )


def test_the_end_of_the_model_is_on_top() -> None:
    grid = lens_grid(table(), ["x", "y"], "probability", reading=1, position=5)
    assert list(grid.rows) == ["L0 MLP", "L0 attention", "embedding"]
    assert [[cell.text for cell in row] for row in grid.cells] == [
        ["<b>", "a"],
        ["␣b", "<b>"],
        ["a", "␣b"],
    ]
    assert grid.selected == (1, 1)
    assert [row_of(table(), k) for k in range(3)] == [2, 1, 0]
    assert reading_name(3, "resid_post") == "L3 MLP"


def test_a_token_out_of_sight_has_no_mark() -> None:
    assert lens_grid(table(), ["x", "y"], "kl", reading=1, position=3).selected == (None, None)
    # Without a reading the token alone is marked.
    assert lens_grid(table(), ["x", "y"], "kl", reading=None, position=4).selected == (None, 0)


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ("probability", [[0.5, 0.2], [0.6, 0.9], [1.0, 0.4]]),
        ("next", [[0.1, NAN], [0.3, NAN], [1.0, NAN]]),
        # The logarithm of the rank, from the first place (1) to the last of 100 (0).
        ("rank", [[0.5, NAN], [1 - np.log(2) / np.log(100), NAN], [1.0, NAN]]),
    ],
)
def test_colours_say_what_their_names_say(color: str, expected: list[list[float]]) -> None:
    np.testing.assert_allclose(COLORINGS[color].shares(table()), expected)


@pytest.mark.parametrize("color", ["kl", "entropy"])
def test_nats_are_coloured_up_to_the_largest_but_few(color: str) -> None:
    shares = COLORINGS[color].shares(table())
    values = getattr(table(), color)
    assert (np.argsort(shares.ravel()) == np.argsort(values.ravel())).all()
    assert 1 <= shares.max() < 1.1


def test_tokens_far_out_and_the_constant_guess_are_told() -> None:
    told = replace(table(), outliers=((0, 40.4), (2, None)), baseline=4.276)
    words = outlier_words(told, ["<|endoftext|>", "x", "y"])
    assert "token 1 ‘<|endoftext|>’ (40 times)" in words
    assert "token 3 ‘y’ (not finite)" in words
    assert outlier_words(table(), ["x"] * 6) == ""
    assert "4.28 nats" in baseline_words(told)
    assert baseline_words(table()) == ""


def test_what_is_not_known_has_no_colour() -> None:
    grid = lens_grid(table(), ["x", "y"], "next", None, 4)
    assert grid.cells[0][0].fill
    assert grid.cells[0][1].fill == ""
    first, last = grid.cells[2][0].tip, grid.cells[2][1].tip
    assert "its rank\t10" in first
    assert "its rank" not in last
    assert "␣b\t10.0%" in first


def test_part_of_a_prompt_reads_as_the_whole(guest: Callable[[str], Guest]) -> None:
    subject = guest(DECODER).subject
    ids = [5, 9, 14, 3, 22, 8]
    whole, part = read_lens(subject, ids, 0, 6), read_lens(subject, ids, 2, 5)
    assert whole.readings == part.readings
    np.testing.assert_array_equal(part.top_ids, whole.top_ids[:, 2:5])
    np.testing.assert_allclose(part.kl, whole.kl[:, 2:5], atol=1e-5)
    assert [each[:2] for each in part.top(0, 3)] == [each[:2] for each in whole.top(0, 3)]
    # The next token of the last one is not known.
    assert np.isnan(whole.rank[:, -1]).all()
    assert np.isfinite(part.rank).all()
    assert most_at_once(subject) >= 8
