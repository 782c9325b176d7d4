"""The tokens that heads connect and copy, from their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from projector.progress import Progress, Silent
from projector.residual.circuits.pairs import TopPairs, ov_pairs, qk_pairs
from projector.residual.circuits.vocabulary import (
    token_embeddings,
    token_ids,
    token_streams,
    unembeddings,
)
from projector.residual.circuits.weights import Circuits, LayerCircuits
from projector.residual.subject import Subject


@dataclass(frozen=True, eq=False)
class HeadPairs:
    """The pairs of tokens that a head connects, from its weights.

    Attributes:
        layer, head: the head.
        ov: source token → tokens with raised logits, if the head reads the embedding alone.
        qk: query token → tokens that are attended to, in the same case.
        mlp_ov, mlp_qk: the same if the head reads the embedding after the MLPs before it, with
            attention writing nothing; None if there is no MLP before it.
        n_tokens: number of tokens tried on either side, from the start of the vocabulary.
        n_vocabulary: number of tokens in the vocabulary, without control tokens.
        left_out: names of terms of the attention that are left out.
    """

    layer: int
    head: int
    ov: TopPairs
    qk: TopPairs
    mlp_ov: TopPairs | None
    mlp_qk: TopPairs | None
    n_tokens: int
    n_vocabulary: int
    left_out: tuple[str, ...]


def find_pairs(
    subject: Subject,
    circuits: Circuits,
    heads: Sequence[tuple[int, int]],
    *,
    most_tokens: int | None = None,
    n_pairs: int = 10,
    n_to: int = 5,
    streams: Mapping[int, Tensor] | None = None,
    progress: Progress | None = None,
) -> list[HeadPairs]:
    """Find the pairs of tokens that heads connect most strongly, from their weights alone.

    A head reads each token through its norm, with the norm's scale for that token. Two inputs are
    used: the token's embedding alone, and the embedding after the MLPs before the head, because in
    trained models heads of later layers read little of the bare embedding.

    Args:
        heads: layer and head of each; heads that couldn't be separated are skipped.
        most_tokens: number of tokens to try, from the start of the vocabulary; None for all. Each
            head costs at most 16·n²·d operations for n tokens.
        streams: the result of :func:`read_alone` for as many tokens, if it was called before,
            because it takes most of the time.
        progress: reports the tokens that go through MLPs.

    Raises:
        UserError: if the model has no causal head.
        ValueError: if ``streams`` has another number of tokens.
    """
    layers = {each.layer: each for each in circuits.layers}
    known = token_ids(subject)
    ids = known[:most_tokens]
    embedded, rows = token_embeddings(subject, ids), unembeddings(subject, ids)
    wanted = sorted({layer for layer, _ in heads if layer in layers and layer > 0})
    if streams is None:
        streams = read_alone(subject, circuits, wanted, most_tokens=most_tokens, progress=progress)
    if any(len(streams[layer]) != len(ids) for layer in wanted):
        raise ValueError("the number of tokens in the streams differs from most_tokens")
    found = []
    for layer, head in heads:
        if layer not in layers:
            continue
        each = layers[layer]

        def joined(read: Tensor, each: LayerCircuits = each, head: int = head) -> list[TopPairs]:
            size = {"n_pairs": n_pairs, "n_to": n_to}
            ov = ov_pairs(each.ov[head], read, rows, **size)
            return [ov.with_ids(ids), qk_pairs(each.qk[head], read, **size).with_ids(ids)]

        ov, qk = joined(each.reading.scaled(embedded))
        mlp_ov, mlp_qk = joined(streams[layer]) if layer in wanted else (None, None)
        left_out, n = each.left_out, len(ids)
        found.append(HeadPairs(layer, head, ov, qk, mlp_ov, mlp_qk, n, len(known), left_out))
    return found


def read_alone(
    subject: Subject,
    circuits: Circuits,
    layers: Sequence[int],
    *,
    most_tokens: int | None = None,
    progress: Progress | None = None,
) -> dict[int, Tensor]:
    """Compute the input of the heads of some layers for single tokens: embeddings after the MLPs
    before the layer and its norm, (n, H) float32 each. It is the same for all heads of a layer.

    Args:
        most_tokens: number of tokens to use, from the start of the vocabulary; None for all.
    """
    if not layers:
        return {}
    work = progress or Silent()
    readings = {each.layer: each.reading for each in circuits.layers}
    ids = token_ids(subject)[:most_tokens]
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    work.begin("Reading tokens alone", len(ids), "tokens")
    for some, given in token_streams(subject, ids, layers):
        for layer, stream in given.items():
            found[layer].append(readings[layer].scaled(stream))
        work.advance(len(some))
    work.end()
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def grams_through_mlps(
    subject: Subject, circuits: Circuits, *, most_tokens: int | None = None
) -> Mapping[int, Tensor]:
    """Compute W_E'ᵀ W_U (H, H) float32 for each layer, where W_E' are the embeddings of single
    tokens after the MLPs before the layer and its norm, each with its own scale.

    With it, :func:`projector.residual.circuits.copying.copying_scores` shows whether a head raises
    the token at the position that it reads, even if MLPs have rewritten the embedding. W_E' and W_U
    are centred over the tokens, so the part that all tokens share is left out.

    Args:
        most_tokens: number of tokens to use, from the start of the vocabulary; None for all.

    Raises:
        UserError: if the model has no causal head.
    """
    readings = {each.layer: each.reading for each in circuits.layers}
    grams: dict[int, Any] = dict.fromkeys(readings, 0.0)
    sums: dict[int, Any] = dict.fromkeys(readings, 0.0)
    total: Any = 0.0
    ids = token_ids(subject)[:most_tokens]
    if not readings:
        return {}
    for some, given in token_streams(subject, ids, list(readings)):
        rows = unembeddings(subject, some)
        total = total + rows.sum(0)
        for layer, stream in given.items():
            read = readings[layer].scaled(stream)
            grams[layer] = grams[layer] + read.T @ rows.to(read)
            sums[layer] = sums[layer] + read.sum(0)
    return {
        layer: gram - torch.outer(sums[layer], total.to(gram)) / len(ids)
        for layer, gram in grams.items()
    }
