"""Tokens that a head joins by its weights alone, for display."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from projector.corpus.pieces import Pieces
from projector.naming.words import compact
from projector.progress import Progress
from projector.residual.circuits.pairs import TopPairs
from projector.residual.circuits.tokens import find_pairs, read_alone
from projector.residual.circuits.weights import find_circuits
from projector.residual.subject import Subject

N_PAIRS, N_TO = 8, 4
# Most tokens: each goes through the MLPs before the head, which takes some seconds on a laptop.
_MOST_TOKENS = 4096


@dataclass(frozen=True)
class Row:
    """One token, and the tokens that a circuit joins it to, each with its score."""

    token: str
    to: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Pairs:
    """The strongest pairs of one circuit.

    Attributes:
        spread: standard deviation of the scores of all pairs.
        control: the highest score with the head's coordinates rotated at random.
    """

    rows: tuple[Row, ...]
    spread: float
    control: float

    @property
    def highest(self) -> float:
        """The highest score."""
        return max((score for row in self.rows for _, score in row.to), default=0.0)

    @property
    def is_chance(self) -> bool:
        """Whether the highest score is within one standard deviation of its control."""
        return self.highest <= self.control + self.spread


@dataclass(frozen=True)
class Joined:
    """Pairs of tokens that a head joins by its weights.

    Attributes:
        ov: source token → tokens whose logits rise.
        qk: query token → tokens that it attends to.
        through_mlps: whether the head reads tokens after the MLPs before it; in the first layer it
            reads their embeddings.
        n_tokens: number of tokens that were tried, the first of the vocabulary's ``n_vocabulary``.
    """

    ov: Pairs
    qk: Pairs
    through_mlps: bool
    n_tokens: int
    n_vocabulary: int


def read_tokens(subject: Subject, layer: int, progress: Progress) -> dict[int, Tensor]:
    """The inputs of a layer's heads for single tokens, to pass to :func:`read_pairs`.

    Raises:
        UserError: if the heads of the layer can't be separated.
    """
    circuits = find_circuits(subject, [layer])
    circuits.layer(layer)
    layers = [layer] if layer else []
    return read_alone(subject, circuits, layers, most_tokens=_MOST_TOKENS, progress=progress)


def read_pairs(
    subject: Subject, layer: int, head: int, streams: Mapping[int, Tensor] | None = None
) -> Joined:
    """The pairs of one head; see :func:`projector.residual.circuits.tokens.find_pairs`.

    Args:
        streams: the result of :func:`read_tokens` for the layer, if known.

    Raises:
        UserError: if the heads of the layer can't be separated, or the model has no causal head.
    """
    circuits = find_circuits(subject, [layer])
    circuits.layer(layer)
    (found,) = find_pairs(
        subject,
        circuits,
        [(layer, head)],
        most_tokens=_MOST_TOKENS,
        n_pairs=N_PAIRS,
        n_to=N_TO,
        streams=streams,
    )
    ov, qk = found.mlp_ov or found.ov, found.mlp_qk or found.qk
    ids = {
        int(i)
        for pairs in (ov, qk)
        for ends in (pairs.from_ids, pairs.to_ids)
        for i in ends.flatten().tolist()
    }
    pieces = subject.pieces(sorted(ids))
    return Joined(
        ov=_shown(ov, pieces),
        qk=_shown(qk, pieces),
        through_mlps=found.mlp_ov is not None,
        n_tokens=found.n_tokens,
        n_vocabulary=found.n_vocabulary,
    )


def _shown(found: TopPairs, pieces: Pieces) -> Pairs:
    def text(token: int) -> str:
        return compact(pieces.text(token))

    rows = tuple(
        Row(
            text(source),
            tuple((text(i), score) for i, score in zip(targets, scores, strict=True)),
        )
        for source, targets, scores in zip(
            found.from_ids.tolist(), found.to_ids.tolist(), found.scores.tolist(), strict=True
        )
    )
    return Pairs(rows, found.spread, found.control)
