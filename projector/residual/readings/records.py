"""Records of a lens on a prompt: readings, rows and averages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from projector.corpus.pieces import Pieces
from projector.residual.outliers import Outlier

STREAMS = ("resid_pre", "resid_mid", "resid_post")


@dataclass(frozen=True, order=True)
class Reading:
    """A point where the stream is read: a layer, and a stream from :data:`STREAMS`."""

    layer: int
    stream: str

    @property
    def label(self) -> str:
        """The label of a table row: ``3 mid``."""
        return f"{self.layer} {self.stream.removeprefix('resid_')}"


@dataclass(frozen=True)
class LensRow:
    """The lens's prediction at one reading and position.

    Attributes:
        token: the text of the token at the position. id: its id.
        top: the most probable tokens, (text, id, probability) each, the highest first.
        probability: probability of the prompt's next token; None at its last position.
        rank: rank of the same token, 1 for the highest logit; None at the last position.
        entropy: entropy of the lens's distribution, in nats.
        kl: KL(final ‖ lens), in nats: the loss from using the lens's distribution instead of the
            model's own.
    """

    layer: int
    stream: str
    position: int
    token: str
    id: int
    top: tuple[tuple[str, int, float], ...]
    probability: float | None
    rank: int | None
    entropy: float | None
    kl: float | None


@dataclass(frozen=True)
class Summary:
    """One reading, averaged over the positions that count; see :class:`Lens`.

    Attributes:
        kl: mean KL(final ‖ lens), in nats.
        entropy: mean entropy, in nats.
        loss: mean −log probability of the next token, in nats; None for a prompt of one token.
        agreement: share of positions where the lens's top token is the model's.
    """

    layer: int
    stream: str
    kl: float | None
    entropy: float | None
    loss: float | None
    agreement: float


@dataclass(frozen=True, eq=False)
class Lens:
    """A prompt read at S readings and P positions.

    Attributes:
        model: the model's identifier.
        lens: ``logit lens``, or ``tuned lens``.
        ids: the prompt's T token ids.
        positions: the positions that were read, ascending.
        readings: the readings in the order of the stream; the last is the model's own prediction.
        kl, entropy: (S, P) float32, in nats.
        log_probability: (S, P) float32, log-probability of the next token; NaN if there is none.
        rank: (S, P) int64, rank of the next token; 0 if there is none.
        top_ids: (S, P, n_top) int64. top_probabilities: the same, float32.
        baseline: mean KL(final ‖ mean final) over positions, in nats: the loss of the best
            prediction that is the same at every position. None for fewer than two positions.
        outliers: tokens with outlying norms, by position.
        outliers_left_out: whether averages leave outliers out.
        missing: why there is no reading between attention and MLP; None if there is one.
    """

    model: str
    lens: str
    ids: tuple[int, ...]
    positions: tuple[int, ...]
    readings: tuple[Reading, ...]
    kl: Tensor
    entropy: Tensor
    log_probability: Tensor
    rank: Tensor
    top_ids: Tensor
    top_probabilities: Tensor
    baseline: float | None
    outliers: tuple[Outlier, ...]
    outliers_left_out: bool
    missing: str | None
    pieces: Pieces

    @cached_property
    def probability(self) -> Tensor:
        """Probability of the next token, (S, P) float32; NaN if there is none, and 0 below
        1e-38.
        """
        return self.log_probability.exp()

    def text(self, token_id: int) -> str:
        """The unmodified text of a token of the prompt or of the top tokens."""
        return self.pieces.text(token_id)

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The unmodified texts of all T tokens of the prompt."""
        return tuple(self.text(i) for i in self.ids)

    def top(self, reading: int, place: int) -> tuple[tuple[str, int, float], ...]:
        """The most likely tokens, (text, id, probability) each, the most likely first.

        Args:
            reading: index in ``readings``. place: index in ``positions``.
        """
        ids, shares = self.top_ids[reading, place], self.top_probabilities[reading, place]
        return tuple(
            (self.text(i), i, p) for i, p in zip(ids.tolist(), shares.tolist(), strict=True)
        )

    @property
    def rows(self) -> Iterator[LensRow]:
        """Yield one row per reading and position."""
        for s, reading in enumerate(self.readings):
            for k, position in enumerate(self.positions):
                rank = int(self.rank[s, k])
                yield LensRow(
                    layer=reading.layer,
                    stream=reading.stream,
                    position=position,
                    token=self.tokens[position],
                    id=self.ids[position],
                    top=self.top(s, k),
                    probability=finite(self.probability[s, k]),
                    rank=rank or None,
                    entropy=finite(self.entropy[s, k]),
                    kl=finite(self.kl[s, k]),
                )

    @cached_property
    def counted(self) -> Tensor:
        """Positions included in averages, (P,) bool; all if none would be left."""
        out = {each.position for each in self.outliers if self.outliers_left_out}
        counted = torch.tensor([position not in out for position in self.positions])
        return counted if bool(counted.any()) else torch.ones_like(counted)

    @cached_property
    def summaries(self) -> tuple[Summary, ...]:
        """One summary per reading."""
        same = self.top_ids[:, :, 0] == self.top_ids[-1:, :, 0]
        return tuple(
            Summary(
                layer=reading.layer,
                stream=reading.stream,
                kl=_mean(self.kl[s][self.counted]),
                entropy=_mean(self.entropy[s][self.counted]),
                loss=_mean(
                    -self.log_probability[s][self.counted & ~self.log_probability[s].isnan()]
                ),
                agreement=float(same[s][self.counted].double().mean()),
            )
            for s, reading in enumerate(self.readings)
        )

    def settled(self, place: int = -1) -> Reading:
        """The first reading from which on the lens's top token is the model's own.

        Args:
            place: index in ``positions``.
        """
        tops = self.top_ids[:, place, 0].tolist()
        first = len(tops) - 1
        while first and tops[first - 1] == tops[-1]:
            first -= 1
        return self.readings[first]

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            "model": self.model,
            "lens": self.lens,
            "token_ids": list(self.ids),
            "tokens": list(self.tokens),
            "summaries": [vars(each) for each in self.summaries],
            "baseline_kl": self.baseline,
            "settled": [
                {"position": position, **vars(self.settled(k))}
                for k, position in enumerate(self.positions)
            ],
            "outliers": [each.as_dict() for each in self.outliers],
            "outliers_left_out": self.outliers_left_out,
            "missing": self.missing,
            "rows": [
                vars(row)
                | {
                    "top": [
                        {"token": text, "id": i, "probability": share} for text, i, share in row.top
                    ]
                }
                for row in self.rows
            ],
        }


def finite(value: Tensor) -> float | None:
    """A number, or None if JSON can't represent it."""
    number = float(value)
    return number if math.isfinite(number) else None


def _mean(values: Tensor) -> float | None:
    return finite(values.double().mean()) if len(values) else None
