"""Kinds of attention head, the score that shows each, and all heads of a model scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# A head is of a kind only if this share of random heads, in percent, has a lower score too.
LEAST_PERCENTILE = 99.0
# Of fewer random heads no percentile of 99 can be told.
LEAST_RANDOM = 100
# Tokens that go through the MLPs for the score of copying through them.
MLP_COPYING_TOKENS = 4096


@dataclass(frozen=True)
class Kind:
    """A kind of head.

    Attributes:
        name: as in the rows: ``previous_token``.
        title: as a person reads it: ``previous token``.
        least: the score from which a head is called one, where it is beyond chance too.
        shown_by: what the score is, in a few words.
    """

    name: str
    title: str
    least: float
    shown_by: str


PATTERN_KINDS = (
    Kind("previous_token", "previous token", 0.3, "attention to the token just before"),
    Kind("duplicate_token", "duplicate token", 0.3, "attention to the same token, further back"),
    Kind("induction", "induction", 0.3, "attention to what followed the same token, further back"),
    Kind("beginning", "beginning of text", 0.5, "attention to the first position"),
)
COPYING = Kind(
    "copying",
    "copying",
    0.5,
    "Σ λ / Σ |λ| of the eigenvalues of W_U W_OV W_E, W_U above its mean over tokens, since what "
    "raises all logits alike copies nothing",
)
MLP_COPYING = Kind(
    "copying_through_mlps",
    "copying through MLPs",
    0.5,
    "the same where the head reads what the MLPs before it make of a token's embedding, of the "
    f"first {MLP_COPYING_TOKENS:,} tokens",
)
# By the weights.
COPYING_KINDS = (COPYING, MLP_COPYING)
KINDS = (*PATTERN_KINDS, *COPYING_KINDS)


@dataclass(frozen=True)
class HeadRow:
    """One head's scores, each with the share of random heads that score lower, in percent.

    Scores of attention are means over tokens, from 0 to 1; those of copying are from −1 to 1. None
    if one can't be computed; :attr:`Heads.reasons` tells why. ``copying`` takes W_U above its
    mean over the tokens; ``copying_plain`` is the same score of W_U as it is, without a null.
    ``kinds`` holds the names of all kinds that the head is of.
    """

    layer: int
    head: int
    kv_group: int | None
    previous_token: float
    previous_token_percentile: float | None
    duplicate_token: float
    duplicate_token_percentile: float | None
    induction: float
    induction_percentile: float | None
    beginning: float
    beginning_percentile: float | None
    copying: float | None
    copying_percentile: float | None
    copying_plain: float | None
    copying_through_mlps: float | None
    copying_through_mlps_percentile: float | None
    kinds: tuple[str, ...]

    def score(self, kind: str) -> float | None:
        """The score of a kind, by its name."""
        found: float | None = getattr(self, kind)
        return found

    def percentile(self, kind: str) -> float | None:
        """The share of random heads with a lower score, in percent."""
        found: float | None = getattr(self, f"{kind}_percentile")
        return found


def is_kind(kind: Kind, score: float | None, percentile: float | None) -> bool:
    """Whether a score is high in itself, and beyond chance."""
    return (
        score is not None
        and percentile is not None
        and score >= kind.least
        and percentile >= LEAST_PERCENTILE
    )


@dataclass(frozen=True)
class Heads:
    """All heads of a model, scored.

    Attributes:
        rows: one a head, by layer and head.
        expected: for each kind, how many heads of a model would be called so if all its heads were
            random ones: the mean over the draws, None if there are fewer than 100.
        n_sequences, length, seed: of the random tokens: each sequence is ``length`` tokens, and
            the same once more.
        n_random: random heads that each head is compared with.
        left_out: for each layer, what else shapes its attention logits than W_QK.
        reasons: for what is missing, a layer's heads or a score, why.
    """

    rows: tuple[HeadRow, ...]
    expected: Mapping[str, float | None]
    n_sequences: int
    length: int
    seed: int
    n_random: int
    left_out: Mapping[int, tuple[str, ...]]
    reasons: tuple[str, ...]

    def of_kind(self, kind: str) -> list[HeadRow]:
        """The heads of a kind, the highest score first."""
        found = [row for row in self.rows if kind in row.kinds]
        return sorted(found, key=lambda row: -(row.score(kind) or 0))

    def strongest(self, kind: str, n: int = 5) -> list[HeadRow]:
        """The heads with the highest scores of a kind, whether or not they are of it."""
        found = [row for row in self.rows if row.score(kind) is not None]
        return sorted(found, key=lambda row: -(row.score(kind) or 0))[:n]

    @property
    def kinds(self) -> dict[str, list[tuple[int, int]]]:
        """For each kind, its heads as (layer, head), the highest score first."""
        return {k.name: [(row.layer, row.head) for row in self.of_kind(k.name)] for k in KINDS}

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            "rows": [asdict(row) | {"kinds": list(row.kinds)} for row in self.rows],
            "kinds": {
                kind.name: {
                    "heads": [[row.layer, row.head] for row in self.of_kind(kind.name)],
                    "n_found": len(self.of_kind(kind.name)),
                    "n_expected_by_chance": self.expected.get(kind.name),
                    "least_score": kind.least,
                    "least_percentile": LEAST_PERCENTILE,
                    "shown_by": kind.shown_by,
                }
                for kind in KINDS
            },
            "n_sequences": self.n_sequences,
            "length": self.length,
            "seed": self.seed,
            "n_random": self.n_random,
            "left_out_of_qk": {str(layer): list(what) for layer, what in self.left_out.items()},
            "reasons": list(self.reasons),
        }
