"""The distances that positions should have, read block by block.

Three forms of one thing: stored distances, stored correlations, and correlations that are computed
from activations where they are needed and never stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

_ROWS_FOR_SCALE = 64
# Numbers of half precision that are widened at a time.
_WIDENED = 1 << 24


class Target(Protocol):
    """Distances δ_ij wanted between n neurons: symmetric, at least 0, and 0 from i to itself."""

    @property
    def n(self) -> int:
        """Number of neurons."""

    @property
    def device(self) -> torch.device:
        """Where its numbers are."""

    @property
    def scale(self) -> float:
        """Root mean square of δ, about: over all of at most 64 evenly spaced rows."""

    def block(self, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        """δ of these rows and columns: a view, or a tensor that is written to ``out`` where given.

        An entry of the diagonal may be off by rounding: what reads it takes it for 0.
        """

    def pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """δ of pairs of neurons, both (n_pairs,) int64."""


@dataclass(frozen=True)
class _Stored:
    """A stored matrix (N, N)."""

    matrix: Tensor

    @property
    def n(self) -> int:
        return self.matrix.shape[0]

    @property
    def device(self) -> torch.device:
        return self.matrix.device


@dataclass(frozen=True)
class Distances(_Stored):
    """Stored distances: ``matrix`` (N, N)."""

    @cached_property
    def scale(self) -> float:
        return _scale(self)

    def block(self, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        return self.matrix[rows, columns]

    def pairs(self, first: Tensor, second: Tensor) -> Tensor:
        return self.matrix[first, second]


@dataclass(frozen=True)
class Correlations(_Stored):
    """Stored correlations: δ = 1 − ρ, or 1 − |ρ|, of ``matrix`` (N, N) with no entry above 1.

    Spares the second matrix that stored distances would be.
    """

    absolute: bool = False

    @cached_property
    def scale(self) -> float:
        return _scale(self)

    def block(self, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        return _apart(self.matrix[rows, columns], self.absolute, out)

    def pairs(self, first: Tensor, second: Tensor) -> Tensor:
        return _apart(self.matrix[first, second], self.absolute)


@dataclass(frozen=True)
class MatrixFree:
    """Correlations of a sample of activations, computed where they are read: ρ = Z·Zᵀ/T.

    Takes N·T numbers of memory and 2·N²·T operations a pass (half of them where symmetry is used),
    and never holds an N × N matrix.

    Attributes:
        rows: Z, (N, T): each neuron's activations on T tokens with mean 0 and mean square 1, as
            :func:`projector.statistics.sampling.standardize` gives them; any float dtype. The
            device's matrix units multiply float16 and bfloat16 and add up in float32.
        absolute: use |ρ| in place of ρ.
    """

    rows: Tensor
    absolute: bool = False

    @property
    def n(self) -> int:
        return self.rows.shape[0]

    @property
    def n_tokens(self) -> int:
        """T."""
        return self.rows.shape[1]

    @property
    def device(self) -> torch.device:
        return self.rows.device

    @cached_property
    def scale(self) -> float:
        return _scale(self)

    def correlation(self, rows: slice, columns: slice) -> Tensor:
        """ρ of these rows and columns, at most 1."""
        a = self.rows[rows]
        n_columns = len(range(*columns.indices(self.n)))
        if a.dtype not in (torch.float16, torch.bfloat16):
            product = a @ self.rows[columns].T
        else:
            # Their product would be rounded to half precision; widened at once, they would take
            # twice the memory of all.
            a = a.float()
            product = a.new_empty(len(a), n_columns)
            for some in torch.arange(n_columns).split(max(1, _WIDENED // self.n_tokens)):
                first, end = int(some[0]), int(some[-1]) + 1
                b = self.rows[columns][first:end].float()
                torch.mm(a, b.T, out=product[:, first:end])
        return product.div_(self.n_tokens).clamp_(-1, 1)

    def block(self, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        return _apart(self.correlation(rows, columns), self.absolute, out)

    def pairs(self, first: Tensor, second: Tensor) -> Tensor:
        # Into one piece: small ones between large ones would keep these from being used again.
        found = self.rows.new_empty(len(first), dtype=torch.float32)
        n_at_once = max(1, _WIDENED // (16 * self.n_tokens))
        for begin in range(0, len(first), n_at_once):
            some = slice(begin, begin + n_at_once)
            a, b = self.rows[first[some]].float(), self.rows[second[some]].float()
            torch.mean(a.mul_(b), dim=1, out=found[some])
        return _apart(found.clamp_(-1, 1), self.absolute)


def _scale(target: Target) -> float:
    if target.n == 0:
        return 0.0
    step = max(1, -(-target.n // _ROWS_FOR_SCALE))
    some = target.block(slice(0, target.n, step), slice(0, target.n))
    return math.sqrt(float(some.square().mean(dtype=torch.float64)))


def _apart(correlation: Tensor, absolute: bool, out: Tensor | None = None) -> Tensor:
    if absolute:
        correlation = torch.abs(correlation, out=out)
    return torch.sub(correlation.new_ones(()), correlation, out=out)


def as_target(target: Tensor | Target) -> Target:
    """A plain matrix (N, N) is one of distances."""
    return Distances(target) if isinstance(target, Tensor) else target
