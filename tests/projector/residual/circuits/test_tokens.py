"""What heads join and copy of a model's tokens is what its own modules give."""

from __future__ import annotations

import pytest
import torch

from projector.progress import Silent
from projector.residual.circuits.copying import copying_scores
from projector.residual.circuits.tokens import find_pairs, grams_through_mlps, read_alone
from projector.residual.circuits.vocabulary import (
    model_grams,
    token_embeddings,
    token_streams,
    unembeddings,
)
from projector.residual.circuits.weights import find_circuits
from projector.residual.contributions import collect_contributions
from tests.families import subject_of


def test_pairs_are_those_of_the_models_own_weights() -> None:
    """In the first layer, what a head of a lone token gives is what the pairs say."""
    subject = subject_of("llama")
    circuits = find_circuits(subject)
    (pairs,) = find_pairs(subject, circuits, [(0, 2)], n_pairs=3, n_to=2)
    assert pairs.n_tokens == pairs.n_vocabulary == 320
    assert any("rotary" in each for each in pairs.left_out)
    assert pairs.mlp_ov is None
    for source, targets, scores in zip(
        pairs.ov.from_ids.tolist(), pairs.ov.to_ids.tolist(), pairs.ov.scores, strict=True
    ):
        given = collect_contributions(subject, [source]).blocks[0].heads()[0, 2]
        assert subject.readout.form is not None
        rows = subject.readout.form.pull(subject.readout.unembedding(range(320)))
        logits = rows @ given
        expected = logits[targets] - logits.mean()
        assert torch.allclose(scores, expected, rtol=1e-3, atol=1e-4)
        assert targets == logits.topk(2).indices.tolist()
    # The first tokens alone, as rows and as columns.
    (few,) = find_pairs(subject, circuits, [(0, 2)], most_tokens=50, n_pairs=50, n_to=2)
    assert few.n_tokens == 50
    assert sorted(few.qk.from_ids.tolist()) == list(range(50))
    assert int(few.qk.to_ids.max()) < 50


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_token_brings_its_embedding_and_what_mlps_add(family: str) -> None:
    subject = subject_of(family)
    ids = [3, 7, 299]
    ((some, given),) = token_streams(subject, ids, [0, 1])
    assert some == ids
    embedded = token_embeddings(subject, ids)
    assert torch.allclose(given[0], embedded, atol=1e-5)
    assert not torch.allclose(given[1], embedded, atol=1e-2)
    circuits = find_circuits(subject)
    (pairs,) = find_pairs(subject, circuits, [(1, 0)], n_pairs=2, n_to=3)
    layer = circuits.layer(1)
    assert pairs.mlp_ov is not None
    source = pairs.mlp_ov.from_ids[:1].tolist()
    ((_, alone),) = token_streams(subject, source, [1])
    written = layer.ov[0].apply(layer.reading.scaled(alone[1]))
    assert subject.readout.form is not None
    logits = written @ subject.readout.form.pull(subject.readout.unembedding(range(320))).T
    expected = (logits - logits.mean()).topk(3)
    assert pairs.mlp_ov.to_ids[0].tolist() == expected.indices[0].tolist()
    assert torch.allclose(pairs.mlp_ov.scores[0], expected.values[0], rtol=1e-3, atol=1e-4)


def test_copying_through_mlps_is_of_what_a_head_reads() -> None:
    subject = subject_of("llama")
    circuits = find_circuits(subject)
    grams = grams_through_mlps(subject, circuits)
    assert set(grams) == {0, 1}
    ids = list(range(320))
    ((_, alone),) = token_streams(subject, ids, [1])
    layer = circuits.layer(1)
    read = layer.reading.scaled(alone[1])
    assert subject.readout.form is not None
    rows = subject.readout.form.pull(subject.readout.unembedding(ids))
    expected = (read - read.mean(0)).T @ (rows - rows.mean(0))
    assert torch.allclose(grams[1], expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    # A head that writes what it read of a token back to that token's logit copies.
    values = torch.linalg.pinv(rows - rows.mean(0)) @ torch.linalg.pinv((read - read.mean(0)).T)
    u, s, v = torch.linalg.svd(values)
    copier = layer.ov[:1]
    copier = type(copier)((u[:, :4] * s[:4])[None], v[:4][None])
    assert float(copying_scores(copier, grams[1])) > 0.5


def test_grams_of_the_vocabulary_are_of_all_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projector.residual.circuits.vocabulary._BLOCK", 100)
    subject, ids = subject_of("gpt2"), list(range(320))
    with torch.no_grad():
        # All tokens' rows share a direction, as in trained models.
        subject.readout.head.weight.add_(1 + torch.arange(24) / 24)
    found = model_grams(subject)
    embedded, rows = token_embeddings(subject, ids), unembeddings(subject, ids)
    assert torch.allclose(found.plain, embedded.T @ rows, atol=1e-3)
    assert torch.allclose(found.centred, embedded.T @ (rows - rows.mean(0)), atol=1e-3)
    assert not torch.allclose(found.centred, found.plain, atol=1e-2)


def test_what_a_layer_reads_serves_all_its_heads() -> None:
    subject = subject_of("llama")
    circuits = find_circuits(subject)
    expected = find_pairs(subject, circuits, [(1, 0), (1, 1)], most_tokens=60, n_pairs=3)
    told: list[int] = []

    class Told(Silent):
        def advance(self, n: int) -> None:
            told.append(n)

    streams = read_alone(subject, circuits, [1], most_tokens=60, progress=Told())
    assert sum(told) == len(streams[1]) == 60

    for head, whole in enumerate(expected):
        (found,) = find_pairs(
            subject, circuits, [(1, head)], most_tokens=60, n_pairs=3, streams=streams
        )
        assert found.mlp_ov is not None
        assert whole.mlp_ov is not None
        assert torch.equal(found.mlp_ov.to_ids, whole.mlp_ov.to_ids)
        assert torch.equal(found.mlp_ov.scores, whole.mlp_ov.scores)
    with pytest.raises(ValueError, match="most_tokens"):
        find_pairs(subject, circuits, [(1, 0)], most_tokens=50, streams=streams)
