"""Two tokens and two dimensions, worked by hand: the product of a head, QK, OV, copying, and two
heads one after the other."""

from __future__ import annotations

import pytest
import torch

from projector.residual.circuits.composition import compose
from projector.residual.circuits.copying import (
    copying_eigenvalues,
    copying_scores,
    vocabulary_gram,
)
from projector.residual.circuits.factors import Factors, apply_product
from projector.residual.circuits.pairs import ov_pairs, qk_pairs

# Token 0 is (1, 0), token 1 is (0, 2): what stands at the two positions of x.
EMBEDDING = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
X = EMBEDDING


def head(left: list[float], right: list[float]) -> Factors:
    """One head of one dimension: a column times a row."""
    return Factors(torch.tensor(left)[None, :, None], torch.tensor(right)[None, None, :])


def test_a_product_acts_on_positions_and_on_features() -> None:
    # Position 1 takes half of each position; feature 0 becomes what was in feature 1.
    positions = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    features = torch.tensor([[0.0, 1.0], [3.0, 0.0]])
    # By hand: x Bᵀ turns (1, 0) to (0, 3) and (0, 2) to (2, 0); A then averages for position 1.
    expected = torch.tensor([[0.0, 3.0], [1.0, 1.5]])
    assert apply_product(positions, features, X).equal(expected)
    # The same as the Kronecker product on the flattened sequence.
    assert (torch.kron(positions, features) @ X.flatten()).view(2, 2).equal(expected)


def test_a_qk_circuit_tells_which_token_attends_to_which() -> None:
    # A query of feature 0 looks for a key of feature 1: W_Q = (1, 0), W_K = (0, 3).
    qk = head([1.0, 0.0], [0.0, 3.0])
    assert qk.dense()[0].equal(torch.tensor([[0.0, 3.0], [0.0, 0.0]]))
    # x W_QK xᵀ: token 0 to token 1 scores 1·3·2 = 6, everything else 0.
    assert (X @ qk.dense()[0] @ X.T).equal(torch.tensor([[0.0, 6.0], [0.0, 0.0]]))
    pairs = qk_pairs(qk[0], EMBEDDING, n_pairs=1, n_to=2)
    assert (pairs.from_ids.tolist(), pairs.to_ids.tolist()) == ([0], [[1, 0]])
    # Above the mean over keys, (6 + 0) / 2.
    assert pairs.scores.tolist() == [[3.0, -3.0]]
    # Scores of all pairs are 3, −3, 0, 0: their mean square is 18 / 4.
    assert pairs.spread == pytest.approx(4.5**0.5)


def test_an_ov_circuit_tells_which_logits_a_token_raises() -> None:
    # Reads feature 1 and writes to feature 0: source token 1 writes (2·2, 0).
    ov = head([2.0, 0.0], [0.0, 1.0])
    assert ov.apply(X)[0].equal(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
    pairs = ov_pairs(ov[0], EMBEDDING, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), n_pairs=1, n_to=2)
    # Its logits are 4 for token 0 and 0 for token 1: ±2 about their mean.
    assert (pairs.from_ids.tolist(), pairs.to_ids.tolist()) == ([1], [[0, 1]])
    assert pairs.scores.tolist() == [[2.0, -2.0]]


@pytest.mark.parametrize(
    ("matrix", "eigenvalues", "score"),
    [
        # Gives back what it reads, doubled: 2 for token 0; with token 1's length, 2·2·2 = 8.
        ([[2.0, 0.0], [0.0, 2.0]], [2, 8], 1.0),
        # The opposite of it.
        ([[-2.0, 0.0], [0.0, -2.0]], [-8, -2], -1.0),
        # Raises token 0 by 3, and takes 1·2·2 = 4 from token 1: (3 − 4) / (3 + 4).
        ([[3.0, 0.0], [0.0, -1.0]], [-4, 3], -1 / 7),
        # A quarter turn: λ² = −(2·2)·1, so ±2i, no copying at all.
        ([[0.0, -1.0], [1.0, 0.0]], [-2j, 2j], 0.0),
    ],
)
def test_eigenvalues_tell_copying(
    matrix: list[list[float]], eigenvalues: list[complex], score: float
) -> None:
    ov = Factors(torch.tensor([matrix]), torch.eye(2)[None])
    gram = vocabulary_gram(EMBEDDING, EMBEDDING)
    found = copying_eigenvalues(ov, gram)[0].tolist()
    found.sort(key=lambda value: (round(value.real, 4), round(value.imag, 4)))
    assert found == pytest.approx(eigenvalues, abs=1e-5)
    # The same as of the whole matrix, tokens to tokens.
    whole = torch.linalg.eigvals(EMBEDDING @ ov.dense()[0] @ EMBEDDING.T)
    assert sorted(whole.abs().tolist()) == pytest.approx(sorted(map(abs, eigenvalues)), abs=1e-5)
    assert float(copying_scores(ov, gram)) == pytest.approx(score, abs=1e-6)


def test_a_head_that_does_nothing_neither_copies_nor_composes() -> None:
    nothing = head([0.0, 0.0], [1.0, 0.0])
    assert float(copying_scores(nothing, torch.eye(2))) == 0.0
    assert float(compose([nothing], [head([1.0, 0.0], [1.0, 0.0])])) == 0.0


def test_composition_is_how_much_of_what_is_written_is_read() -> None:
    writes_along_0 = head([5.0, 0.0], [1.0, 1.0])
    reads_0 = head([1.0, 2.0], [7.0, 0.0])
    reads_1 = head([1.0, 2.0], [0.0, 7.0])
    reads_between = head([1.0, 2.0], [3.0, 4.0])
    later = Factors(
        torch.cat([each.left for each in (reads_0, reads_1, reads_between)]),
        torch.cat([each.right for each in (reads_0, reads_1, reads_between)]),
    )
    # All, nothing, and the cosine of (3, 4) and (1, 0).
    assert compose([later], [writes_along_0])[:, 0].tolist() == pytest.approx([1.0, 0.0, 0.6])


def test_two_heads_multiply_position_by_position_and_feature_by_feature() -> None:
    first_pattern = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    second_pattern = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    # The first writes feature 0 of what it reads to feature 1; the second that back, tripled.
    first = head([0.0, 1.0], [1.0, 0.0])
    second = head([3.0, 0.0], [0.0, 1.0])
    virtual = first.then(second)
    assert virtual.dense()[0].equal(torch.tensor([[3.0, 0.0], [0.0, 0.0]]))
    pattern = second_pattern @ first_pattern
    assert pattern.equal(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    in_turn = apply_product(
        second_pattern, second.dense()[0], apply_product(first_pattern, first.dense()[0], X)
    )
    # Token 0 alone is read, (1, 0), and both positions get (3, 0).
    assert in_turn.equal(torch.tensor([[3.0, 0.0], [3.0, 0.0]]))
    assert apply_product(pattern, virtual.dense()[0], X).equal(in_turn)
    both = torch.kron(second_pattern, second.dense()[0]) @ torch.kron(
        first_pattern, first.dense()[0]
    )
    assert both.equal(torch.kron(pattern, virtual.dense()[0]))
