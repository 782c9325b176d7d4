"""Kinds of attention heads, their scores, and the scored heads of a model."""

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
    """A kind of attention head.

    Attributes:
        name: the name in rows: ``previous_token``.
        title: the displayed name: ``previous token``.
        least: the lowest score of a head of this kind, which must also exceed chance.
        shown_by: the score in a few words.
    """

    name: str
    title: str
    least: float
    shown_by: str


PATTERN_KINDS = (
    Kind("previous_token", "previous token", 0.3, "attention to the token just before"),
    Kind("duplicate_token", "duplicate token", 0.3, "attention to the same token, further back"),
    Kind("induction", "induction", 0.3, "attention to the token after an earlier same token"),
    Kind("beginning", "beginning of text", 0.5, "attention to the first position"),
)
COPYING = Kind(
    "copying",
    "copying",
    0.5,
    "Σ λ / Σ |λ| of the eigenvalues of W_U W_OV W_E, with W_U minus its mean over tokens, because "
    "raising all logits equally copies nothing",
)
MLP_COPYING = Kind(
    "copying_through_mlps",
    "copying through MLPs",
    0.5,
    "the same if the head reads a token's embedding after the MLPs before it, for the "
    f"first {MLP_COPYING_TOKENS:,} tokens",
)
# By the weights.
COPYING_KINDS = (COPYING, MLP_COPYING)
KINDS = (*PATTERN_KINDS, *COPYING_KINDS)


@dataclass(frozen=True)
class HeadRow:
    """One head's scores, each with the share of random heads that score lower, in percent.

    Scores of attention are means over tokens, from 0 to 1; scores of copying are from −1 to 1. A
    score that can't be computed is None, with a reason in :attr:`Heads.reasons`. ``copying`` uses
    W_U minus its mean over the tokens; ``copying_plain`` is the same score with W_U itself, without
    a null. ``kinds`` holds the names of all kinds of the head.
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
        """The score for a kind, by its name."""
        found: float | None = getattr(self, kind)
        return found

    def percentile(self, kind: str) -> float | None:
        """The share of random heads with a lower score, in percent."""
        found: float | None = getattr(self, f"{kind}_percentile")
        return found


def is_kind(kind: Kind, score: float | None, percentile: float | None) -> bool:
    """Whether a score is high and exceeds chance."""
    return (
        score is not None
        and percentile is not None
        and score >= kind.least
        and percentile >= LEAST_PERCENTILE
    )


@dataclass(frozen=True)
class Heads:
    """The scores of all heads of a model.

    Attributes:
        rows: one per head, by layer and head.
        expected: for each kind, the expected number of heads of this kind if all heads were random:
            the mean over the draws, None for fewer than 100 draws.
        n_sequences, length, seed: of the random tokens; each sequence is ``length`` tokens,
            repeated once.
        n_random: number of random heads that each head is compared with.
        left_out: layer → names of the terms of its attention logits that W_QK leaves out.
        reasons: reasons why heads of a layer or scores are missing.
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
        """The heads of a kind, highest score first."""
        found = [row for row in self.rows if kind in row.kinds]
        return sorted(found, key=lambda row: -(row.score(kind) or 0))

    def strongest(self, kind: str, n: int = 5) -> list[HeadRow]:
        """The heads with the highest scores for a kind, even if they aren't of that kind."""
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
