"""The two ends of a model's paths: the embeddings of tokens, and the directions of logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from projector.model.capture import capture, evaluating
from projector.model.loading import input_device
from projector.residual.bigrams.alone import streams_alone
from projector.residual.subject import Subject

# Tokens that are embedded at once, and how long the sequences are that they are put in.
_BLOCK, _LENGTH = 8192, 32
# Tokens that go through MLPs at once.
_AT_ONCE = 1024


def token_ids(subject: Subject, most: int | None = None) -> list[int]:
    """The ids of the vocabulary, or of its first ``most`` tokens, without control tokens.

    The first tokens of a byte-pair vocabulary are its bytes and the most frequent pairs of its
    training text.
    """
    n_tokens = min(subject.readout.n_vocabulary, len(embedding_table(subject)))
    if subject.loaded.tokenizer is None:
        return list(range(n_tokens))[:most]
    pieces = subject.pieces()
    known = [i for i in pieces.piece_ids.tolist() if i < n_tokens]
    chosen = [i for i, s in zip(known, pieces.is_special(known), strict=True) if not s]
    return chosen if most is None else chosen[:most]


def embedding_table(subject: Subject) -> Tensor:
    """The model's own W_E, (V, H)."""
    table: Tensor = subject.model.get_input_embeddings().weight.detach()
    return table


@torch.no_grad()
def token_embeddings(subject: Subject, ids: Sequence[int]) -> Tensor:
    """The addition of single tokens to the stream, (n, H) in the model's dtype, without positions.

    It is the embedding with the model's scale and embedding norm, without positional embeddings. If
    the first block's input couldn't be split, it is that input at the first position.
    """
    parts = subject.layout.embedding
    source = parts.sources[0]
    is_whole = source.tap == parts.stream
    model, device = subject.model, input_device(subject.model)
    passed: list[Tensor] = []

    def keep(key: str, tensor: Tensor) -> None:
        passed.append(tensor.detach().flatten(0, -2))

    found = []
    length = 1 if is_whole else _LENGTH
    for start in range(0, len(ids), _BLOCK):
        block = torch.tensor(ids[start : start + _BLOCK], device=device)
        padded = torch.nn.functional.pad(block, (0, -len(block) % length)).view(-1, length)
        with evaluating(model), capture({"": source.tap}, keep, then_stop=True):
            model(input_ids=padded, attention_mask=torch.ones_like(padded))
        rows = passed.pop()[: len(block)]
        rows = rows if source.factor == 1 else rows * source.factor
        for module, _ in parts.norms:
            rows = module(rows[None])[0]
        found.append(rows)
    return torch.cat(found)


def token_streams(
    subject: Subject, ids: Sequence[int], layers: Sequence[int]
) -> Iterator[tuple[list[int], dict[int, Tensor]]]:
    """The streams of single tokens at layers: their embedding plus the additions of the earlier
    MLPs, with attention writing nothing.

    It is the part of a later layer's stream at a token that depends on that token alone. This costs
    the MLPs up to the last layer for each token.

    Yields: For some tokens at a time, their ids, and for each layer the stream before it, (n, H) in
        the model's dtype.
    """
    blocks = subject.architecture.blocks
    taps = {layer: blocks[layer].taps["resid_pre"] for layer in layers}
    for start in range(0, len(ids), _AT_ONCE):
        some = list(ids[start : start + _AT_ONCE])
        yield some, streams_alone(subject, torch.tensor(some), taps)


def unembeddings(subject: Subject, ids: Sequence[int]) -> Tensor:
    """The directions that tokens' logits read from the stream, (n, H) float32: rows of W_U with the
    final norm's weight folded in. The norm's scale, which varies by position, and its bias are left
    out.

    Raises:
        UserError: if the model has no causal head.
    """
    readout = subject.readout
    rows = readout.unembedding(ids)
    return rows.float() if readout.form is None else readout.form.pull(rows)


@dataclass(frozen=True, eq=False)
class Grams:
    """``W_Eᵀ W_U`` of a vocabulary, (H, H) float32 each, from which eigenvalues are computed.

    Attributes:
        centred: with W_U minus its mean over the tokens. The mean adds the same to all logits and
            changes no probability; with it, a head that writes it would seem to copy.
        plain: with W_U itself.
    """

    centred: Tensor
    plain: Tensor


def model_grams(subject: Subject) -> Grams:
    """``W_Eᵀ W_U`` of a model's whole vocabulary, computed once for all heads, block by block."""
    ids = token_ids(subject)
    return grams_of(
        (token_embeddings(subject, block), unembeddings(subject, block)) for block in _blocks(ids)
    )


def grams_of(blocks: Iterable[tuple[Tensor, Tensor]]) -> Grams:
    """Compute the Gram matrices of a vocabulary from rows of W_E and of W_U, (n, H) each, for some
    tokens at a time; V·H² operations.
    """
    gram: Any = 0.0
    embedded: Any = 0.0
    unembedded: Any = 0.0
    n_tokens = 0
    for rows, reads in blocks:
        wide = rows.to(reads)
        gram = gram + wide.T @ reads
        embedded, unembedded = embedded + wide.sum(0), unembedded + reads.sum(0)
        n_tokens += len(rows)
    return Grams(gram - torch.outer(embedded, unembedded) / n_tokens, gram)


def _blocks(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), _BLOCK):
        yield ids[start : start + _BLOCK]
