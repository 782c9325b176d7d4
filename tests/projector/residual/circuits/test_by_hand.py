"""Two tokens and two dimensions, worked by hand: QK, OV, copying, composition, and two heads one
after the other."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from projector.model.loading import LoadedModel
from projector.residual.circuits.composition import compose, compose_heads
from projector.residual.circuits.copying import copying_eigenvalues, copying_scores
from projector.residual.circuits.factors import Factors
from projector.residual.circuits.tokens import find_pairs
from projector.residual.circuits.virtual import find_virtual_heads
from projector.residual.circuits.vocabulary import model_grams
from projector.residual.circuits.weights import find_circuits
from projector.residual.subject import Subject

# Token 0 is (1, 0), token 1 is (0, 2): what stands at the two positions of x.
EMBEDDING = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
X = EMBEDDING


def head(left: list[float], right: list[float]) -> Factors:
    """One head of one dimension: a column times a row."""
    return Factors(torch.tensor(left)[None, :, None], torch.tensor(right)[None, None, :])


def model_of(*layers: dict[str, list[list[float]]]) -> Subject:
    """A model of two tokens and two dimensions, one head a layer, whose MLPs write nothing.

    Matrices that a layer does not name are zero: then it attends to all tokens alike. Its norms
    divide by the root mean square, so that it reads token 0 as (√2, 0) and token 1 as (0, √2).
    """
    config = hf.LlamaConfig(
        vocab_size=2,
        hidden_size=2,
        intermediate_size=3,
        num_hidden_layers=len(layers),
        num_attention_heads=1,
        rms_norm_eps=1e-12,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = hf.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(EMBEDDING)
        model.lm_head.weight.copy_(EMBEDDING)
        for block, given in zip(model.model.layers, layers, strict=True):
            block.mlp.down_proj.weight.zero_()
            for name in "qkvo":
                weight = torch.tensor(given.get(name, [[0.0, 0.0], [0.0, 0.0]]))
                getattr(block.self_attn, f"{name}_proj").weight.copy_(weight)
    return Subject(LoadedModel(model, None, "by hand", ""))


def test_a_qk_circuit_tells_which_token_attends_to_which() -> None:
    # A query of feature 0 looks for a key of feature 1.
    unit = [[1.0, 0.0], [0.0, 1.0]]
    subject = model_of(
        {"q": [[1.0, 0.0], [0.0, 0.0]], "k": [[0.0, 3.0], [0.0, 0.0]], "v": unit, "o": unit}
    )
    circuits = find_circuits(subject)
    qk = circuits.layer(0).qk[0]
    assert (qk.left @ qk.right).equal(torch.tensor([[0.0, 3.0], [0.0, 0.0]]))
    (found,) = find_pairs(subject, circuits, [(0, 0)], n_pairs=1, n_to=2)
    # Token 0 to token 1 scores √2·3·√2 = 6, everything else 0.
    assert (found.qk.from_ids.tolist(), found.qk.to_ids.tolist()) == ([0], [[1, 0]])
    # Above the mean over keys, (6 + 0) / 2.
    assert found.qk.scores[0].tolist() == pytest.approx([3.0, -3.0])
    # Scores of all pairs are 3, −3, 0, 0: their mean square is 18 / 4.
    assert found.qk.spread == pytest.approx(4.5**0.5)


def test_an_ov_circuit_tells_which_logits_a_token_raises() -> None:
    # Reads feature 1 and writes to feature 0: source token 1 writes (2·√2, 0).
    subject = model_of({"v": [[0.0, 1.0], [0.0, 0.0]], "o": [[2.0, 0.0], [0.0, 0.0]]})
    circuits = find_circuits(subject)
    ov = circuits.layer(0).ov
    assert ov.apply(X)[0].equal(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
    (found,) = find_pairs(subject, circuits, [(0, 0)], n_pairs=1, n_to=2)
    # Its logits are 2·√2 for token 0 and 0 for token 1: ±√2 about their mean.
    assert (found.ov.from_ids.tolist(), found.ov.to_ids.tolist()) == ([1], [[0, 1]])
    assert found.ov.scores[0].tolist() == pytest.approx([2**0.5, -(2**0.5)])


@pytest.mark.parametrize(
    ("matrix", "eigenvalues", "plain", "centred"),
    [
        # Gives back what it reads, doubled: 2 for token 0; with token 1's length, 2·2·2 = 8.
        ([[2.0, 0.0], [0.0, 2.0]], [2, 8], 1.0, 1.0),
        # The opposite of it.
        ([[-2.0, 0.0], [0.0, -2.0]], [-8, -2], -1.0, -1.0),
        # Raises token 0 by 3, and takes 1·2·2 = 4 from token 1: (3 − 4) / (3 + 4). About their
        # mean the rows of W_U are ±(1, −2) / 2, so one eigenvalue is left: (3·1 − 1·4) / 2 = −1/2.
        ([[3.0, 0.0], [0.0, -1.0]], [-4, 3], -1 / 7, -1.0),
        # A quarter turn: λ² = −(2·2)·1, so ±2i, no copying at all.
        ([[0.0, -1.0], [1.0, 0.0]], [-2j, 2j], 0.0, None),
    ],
)
def test_eigenvalues_tell_copying(
    matrix: list[list[float]],
    eigenvalues: list[complex],
    plain: float,
    centred: float | None,
) -> None:
    subject = model_of({"v": [[1.0, 0.0], [0.0, 1.0]], "o": matrix})
    ov, grams = find_circuits(subject).layer(0).ov, model_grams(subject)
    assert grams.plain.equal(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
    assert grams.centred.equal(torch.tensor([[0.5, -1.0], [-1.0, 2.0]]))
    found = copying_eigenvalues(ov, grams.plain)[0].tolist()
    found.sort(key=lambda value: (round(value.real, 4), round(value.imag, 4)))
    assert found == pytest.approx(eigenvalues, abs=1e-5)
    # The same as of the whole matrix, tokens to tokens.
    whole = torch.linalg.eigvals(EMBEDDING @ torch.tensor(matrix) @ EMBEDDING.T)
    assert sorted(whole.abs().tolist()) == pytest.approx(sorted(map(abs, eigenvalues)), abs=1e-5)
    assert float(copying_scores(ov, grams.plain)) == pytest.approx(plain, abs=1e-6)
    if centred is not None:
        assert float(copying_scores(ov, grams.centred)) == pytest.approx(centred, abs=1e-6)


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
    """(A₂ ⊗ W₂)(A₁ ⊗ W₁) = A₂A₁ ⊗ W₂W₁ on the sequence of tokens 0 and 1."""
    unit = [[1.0, 0.0], [0.0, 1.0]]
    # The first writes feature 0 of what it reads to feature 1; the second that back, tripled.
    subject = model_of(
        {"v": unit, "o": [[0.0, 0.0], [1.0, 0.0]]}, {"v": unit, "o": [[0.0, 3.0], [0.0, 0.0]]}
    )
    found = find_virtual_heads(subject, [0, 1], token=0, n_positions=2, n_control=1)
    (row,) = found.rows
    assert (row.first, row.second) == ((0, 0), (1, 0))
    root = 2**0.5
    # Both attend to all before them alike, A = (1, 0), (½, ½). The first reads (√2, 0) at position
    # 0 alone, so it writes (0, √2) there and (0, √2/2) at position 1, where the stream becomes
    # (1, √2), of mean square 3/2, and (0, 2 + √2/2), of which the norm makes (0, √2).
    scales = (1.5**-0.5, root / (2 + root / 2))
    # The second takes half of each to position 1: (3·½·(√2·scale + √2/2·scale), 0) by this path.
    via = [3 * 0.5 * root * scales[0], 3 * 0.5 * root / 2 * scales[1]]
    # The stream at the end: 3·½·(√2/√1.5 + √2) in feature 0, and 2 + √2/2 in feature 1.
    end = torch.tensor([1.5 * (root * scales[0] + root), 2 + root / 2])
    scale = float(end.square().mean().rsqrt())
    assert row.value == pytest.approx(scale * sum(via), rel=1e-5)
    assert dict(row.via_positions) == pytest.approx(
        {at: scale * value for at, value in enumerate(via)}, rel=1e-5
    )
    assert dict(row.from_positions) == pytest.approx({0: row.value, 1: 0.0}, rel=1e-5, abs=1e-6)
    # Token 0's row of W_U is (1, 0): its logit is what stands in feature 0, normed.
    assert found.inputs.goal.logit == pytest.approx(scale * float(end[0]), rel=1e-5)
    assert found.inputs.goal.from_stream == pytest.approx(scale * float(end[0]), rel=1e-5)
    # All that the second head adds is that logit; the rest of it is token 1's own.
    assert row.share_of_second == pytest.approx(sum(via) / float(end[0]), rel=1e-5)
    assert row.share == pytest.approx(1.0)
    composed = compose_heads(
        [each.qk for each in find_circuits(subject).layers],
        [each.ov for each in find_circuits(subject).layers],
        n_random=4,
    )
    # W₂W₁ has one entry, 3·1, as has each of them: all that is written is read.
    assert composed.strength[2].tolist() == pytest.approx([1.0])
