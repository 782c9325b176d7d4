"""Circuits on random matrices: low-rank products against the matrices multiplied out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from projector.residual.circuits.composition import KINDS, compose, compose_heads
from projector.residual.circuits.copying import copying_scores
from projector.residual.circuits.factors import Factors
from projector.residual.circuits.pairs import strongest_pairs
from projector.residual.circuits.vocabulary import grams_of

WIDTH, RANK = 24, 4


def random_factors(n: int, seed: int) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    return Factors(
        torch.randn(n, WIDTH, RANK, generator=generator),
        torch.randn(n, RANK, WIDTH, generator=generator) * torch.tensor([4.0, 2, 1, 0.5])[:, None],
    )


def dense(factors: Factors) -> Tensor:
    return factors.left @ factors.right


def frobenius(matrices: Tensor) -> Tensor:
    return matrices.flatten(-2).norm(dim=-1)


def test_norms_and_singular_values_are_those_of_the_product() -> None:
    factors = random_factors(3, 0)
    assert torch.allclose(factors.norms(), frobenius(dense(factors)), rtol=1e-5)
    expected = torch.linalg.svdvals(dense(factors))[:, :RANK]
    assert torch.allclose(factors.singular_values(), expected, rtol=1e-4)


def test_copying_agrees_with_the_eigenvalues_of_the_whole_circuit() -> None:
    generator = torch.Generator().manual_seed(2)
    embedding = torch.randn(60, WIDTH, generator=generator)
    unembedding = torch.randn(60, WIDTH, generator=generator)
    ov = random_factors(3, 3)
    values = torch.linalg.eigvals((unembedding @ dense(ov) @ embedding.T).double())
    # A row of source tokens: those that are zero by rank add nothing.
    expected = values.real.sum(1) / values.abs().sum(1)
    found = copying_scores(
        ov, grams_of([(embedding[:25], unembedding[:25]), (embedding[25:], unembedding[25:])]).plain
    )
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    # One whose value reads what its output writes through the vocabulary copies.
    symmetric = Factors(ov.left, ov.left.transpose(-1, -2))
    assert copying_scores(symmetric, grams_of([(embedding, embedding)]).plain).min() > 0.9


def test_composition_agrees_with_the_products_multiplied_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("projector.residual.circuits.composition._MOST_ENTRIES", 5 * WIDTH * 7)
    later, earlier = random_factors(3, 4), random_factors(5, 5)
    stacks = [later[:1], later[1:]]
    products = dense(later)[:, None] @ dense(earlier)[None]
    sizes = frobenius(dense(later))[:, None] * frobenius(dense(earlier))
    assert torch.allclose(compose(stacks, [earlier]), frobenius(products) / sizes, rtol=1e-4)


def test_each_kind_of_composition_is_found_and_random_heads_are_typical_of_their_null() -> None:
    n_layers, n_heads = 3, 2
    ov = [random_factors(n_heads, 10 + layer) for layer in range(n_layers)]
    qk = [random_factors(n_heads, 20 + layer) for layer in range(n_layers)]
    written = ov[0].left[1]
    # Head 0 of layer 1 looks its keys up in what head 1 of layer 0 writes; head 1 of layer 2 its
    # queries; head 0 of layer 2 moves it on.
    qk[1].right[0] = written.T
    qk[2].left[1] = written
    ov[2].right[0] = written.T
    found = compose_heads(qk, ov, n_random=200)
    strongest = {kind: found.strongest(1, kind)[0] for kind in KINDS}
    assert {kind: (each.later, each.earlier) for kind, each in strongest.items()} == {
        "Q": ((2, 1), (0, 1)),
        "K": ((1, 0), (0, 1)),
        "V": ((2, 0), (0, 1)),
    }
    assert all(each.percentile == 100 for each in strongest.values())
    assert {each.kind for each in found.strongest(3)} == set(KINDS)
    # 2·2 pairs of layers 1 and 0, 2·4 of layer 2 and those before it.
    assert found.strength.shape == (3, 12)
    # The mean square of the null is 1 / H, whatever the singular values.
    mean_square = found.null_mean.square() + found.null_std.square()
    assert torch.allclose(mean_square, torch.full_like(mean_square, 1 / WIDTH), rtol=0.15)
    planted = torch.zeros(3, 12, dtype=torch.bool)
    for kind, each in strongest.items():
        at = (found.later == torch.tensor(each.later)).all(1)
        at &= (found.earlier == torch.tensor(each.earlier)).all(1)
        planted[KINDS.index(kind)] |= at
    assert 30 < float(found.percentile[~planted].mean()) < 70


def test_one_layer_has_no_composition() -> None:
    found = compose_heads([random_factors(2, 0)], [random_factors(2, 1)])
    assert found.strength.shape == (3, 0)
    assert found.strongest(5) == []


def test_strongest_pairs_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projector.residual.circuits.pairs._MOST_SCORES", 150)
    monkeypatch.setattr("projector.residual.circuits.pairs._FIRST_ROWS", 2)
    generator = torch.Generator().manual_seed(6)
    from_, to = torch.randn(40, RANK, generator=generator), torch.randn(50, RANK) + 3
    scores = from_ @ to.T
    scores -= scores.mean(1, keepdim=True)
    found = strongest_pairs(from_, to, n_pairs=4, n_to=3)
    best = scores.amax(1).topk(4)
    assert found.from_ids.tolist() == best.indices.tolist()
    assert torch.allclose(found.scores[:, 0], best.values, atol=1e-4)
    assert found.to_ids.tolist() == scores[best.indices].topk(3).indices.tolist()
    assert found.spread == pytest.approx(float(scores.square().mean().sqrt()), rel=1e-4)
    # Rows too short to count are left out; those that count, short or long, are not.
    lengths = torch.linspace(0.01, 3, 40)[:, None]
    scores = (from_ * lengths) @ (to - to.mean(0)).T
    few = strongest_pairs(from_ * lengths, to, n_pairs=3, n_to=1)
    assert few.from_ids.tolist() == scores.amax(1).topk(3).indices.tolist()
    # Something that joins tokens exceeds what a random turn of the same tokens joins.
    joined = strongest_pairs(from_, from_, n_pairs=1, n_to=1)
    assert float(joined.scores.max()) >= joined.control
