"""Correlations of a map's neurons, and the distances computed from them, read block by block.

A map's :class:`Correlation` is either a matrix, or a sample of activations from which correlations
are computed on demand. The target distances between its defined neurons are a :class:`Target`:
stored distances, stored correlations, or a sample, with the same protocol. Code that needs a
matrix, and the kernels, check ``has_matrix`` and never the class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Protocol

import torch
from torch import Tensor

from projector.errors import UserError

# Rows and columns of a matrix that are checked at a time.
_TILE = 512
_ROWS_FOR_SCALE = 64
# Numbers of half precision that are widened at a time.
_WIDENED = 1 << 24


class Target(Protocol):
    """Target distances δ_ij between n neurons: symmetric, at least 0, and 0 on the diagonal."""

    @property
    def n(self) -> int:
        """Number of neurons."""

    @property
    def device(self) -> torch.device:
        """Device of the data."""

    @property
    def has_matrix(self) -> bool:
        """Whether it is read from a matrix; otherwise it is computed from a sample."""

    @property
    def stored(self) -> Tensor | None:
        """The matrix (N, N) that it is read from; None if there is none."""

    @property
    def is_correlation(self) -> bool:
        """Whether the stored matrix is ρ, from which δ is computed; otherwise it is δ."""

    @property
    def absolute(self) -> bool:
        """Whether |ρ| is used instead of ρ."""

    @property
    def n_tokens(self) -> int:
        """Number of tokens of the sample that it is computed from; 0 if it is stored."""

    @property
    def scale(self) -> float:
        """Approximate root mean square of δ, over at most 64 evenly spaced rows."""

    def block(self, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        """δ of these rows and columns: a view, or a tensor that is written to ``out`` if given.

        Diagonal entries may have rounding errors; readers must treat them as 0.
        """

    def pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """δ of pairs of neurons, given as two (n_pairs,) int64 tensors."""


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

    @property
    def has_matrix(self) -> bool:
        return True

    @property
    def stored(self) -> Tensor | None:
        return self.matrix

    @property
    def n_tokens(self) -> int:
        return 0


@dataclass(frozen=True)
class Distances(_Stored):
    """Stored distances: ``matrix`` (N, N)."""

    @property
    def is_correlation(self) -> bool:
        return False

    @property
    def absolute(self) -> bool:
        return False

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

    This avoids a second matrix for the distances.
    """

    absolute: bool = False

    @property
    def is_correlation(self) -> bool:
        return True

    @cached_property
    def scale(self) -> float:
        return _scale(self)

    def block(self, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        return _apart(self.matrix[rows, columns], self.absolute, out)

    def pairs(self, first: Tensor, second: Tensor) -> Tensor:
        return _apart(self.matrix[first, second], self.absolute)


@dataclass(frozen=True)
class MatrixFree:
    """Correlations of a sample of activations, computed on demand: ρ = Z·Zᵀ/T.

    This stores N·T numbers and takes 2·N²·T operations per pass (half of them if symmetry is used).
    It never stores an N × N matrix.

    Attributes:
        rows: Z, (N, T): each neuron's activations on T tokens with mean 0 and mean square 1, as
            :func:`projector.statistics.sampling.standardize` gives them; any float dtype. The
            device's matrix units multiply float16 and bfloat16 and add up in float32.
        absolute: use |ρ| instead of ρ.
    """

    rows: Tensor
    absolute: bool = False

    @property
    def n(self) -> int:
        return self.rows.shape[0]

    @property
    def has_matrix(self) -> bool:
        return False

    @property
    def stored(self) -> Tensor | None:
        return None

    @property
    def is_correlation(self) -> bool:
        return True

    @property
    def n_tokens(self) -> int:
        """Number of tokens, T."""
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
    """Wrap a plain matrix (N, N) of distances as a target."""
    return Distances(target) if isinstance(target, Tensor) else target


class Correlation(Protocol):
    """Correlations of the N neurons of a map; some of them may be undefined."""

    @property
    def is_defined(self) -> Tensor:
        """(N,) bool: neurons that have correlations."""

    @property
    def has_matrix(self) -> bool:
        """Whether they are stored as a matrix, so that :meth:`matrix` is available."""

    def check(self) -> None:
        """Raise a UserError if these aren't valid correlations."""

    def matrix(self) -> Tensor:
        """(n, n) float32 ρ of the n defined neurons, at most 1 and without NaN."""

    def times(self, vector: Tensor) -> Tensor:
        """ρ·v over the n defined neurons, for v (n,) float64; the result has the same shape and
        dtype.
        """

    def target(self, absolute: bool = False, chosen: Tensor | None = None) -> Target:
        """Target distances between defined neurons.

        Args:
            absolute: use |ρ| instead of ρ.
            chosen: (N,) bool, the neurons to include, all of them defined; None for every defined
                neuron.
        """


@dataclass(frozen=True)
class Matrix:
    """A matrix of correlations.

    Attributes:
        rho: (N, N); NaN in rows and columns of undefined neurons.
    """

    rho: Tensor

    @cached_property
    def is_defined(self) -> Tensor:
        return self.rho.diagonal().isfinite()

    @property
    def has_matrix(self) -> bool:
        return True

    def check(self) -> None:
        check_correlation(self.rho)
        if bool(self._whole.isnan().any()):
            raise UserError("the correlation of some pair is NaN while both neurons are defined")

    def matrix(self) -> Tensor:
        return self._whole

    def times(self, vector: Tensor) -> Tensor:
        return (self._whole @ vector.float()).double()

    def target(self, absolute: bool = False, chosen: Tensor | None = None) -> Target:
        if chosen is None or torch.equal(chosen, self.is_defined):
            return Correlations(self._whole, absolute)
        return Correlations(self._of(chosen), absolute)

    @cached_property
    def _whole(self) -> Tensor:
        return self._of(self.is_defined)

    def _of(self, chosen: Tensor) -> Tensor:
        """(n, n) float32, at most 1: a copy only where something has to change."""
        rho = self.rho if bool(chosen.all()) else self.rho[chosen][:, chosen]
        rho = rho.float()
        return rho.clamp(max=1) if rho.numel() and float(rho.max()) > 1 else rho


@dataclass(frozen=True)
class Sampled:
    """Correlations that are computed from a sample because their matrix would not fit in memory.

    Attributes:
        sample: the sample of the defined neurons.
        is_defined: (N,) bool, which neurons these are.
    """

    sample: MatrixFree
    is_defined: Tensor

    @property
    def has_matrix(self) -> bool:
        return False

    def check(self) -> None:
        """Do nothing: a sample from :func:`projector.statistics.sampling.standardize` is always
        valid.
        """

    def matrix(self) -> Tensor:
        raise UserError("this map has no correlation matrix, only a sample of tokens")

    def times(self, vector: Tensor) -> Tensor:
        rows = self.sample.rows
        # Of half precision, some neurons at a time are widened.
        parts = rows.split(max(1, _WIDENED // max(rows.shape[1], 1)))
        weights = vector.float().split([len(part) for part in parts])
        across = torch.stack([w @ part.float() for w, part in zip(weights, parts, strict=True)])
        over_tokens = across.sum(dim=0) / rows.shape[1]
        return torch.cat([part.float() @ over_tokens for part in parts]).double()

    def target(self, absolute: bool = False, chosen: Tensor | None = None) -> Target:
        if chosen is None:
            return replace(self.sample, absolute=absolute)
        kept = chosen[self.is_defined]
        rows = self.sample.rows
        return MatrixFree(rows if bool(kept.all()) else rows[kept], absolute)


def as_correlation(correlation: Tensor | MatrixFree | Correlation) -> Correlation:
    """Wrap a plain matrix (N, N), or a sample of defined neurons, as a :class:`Correlation`."""
    if isinstance(correlation, Tensor):
        return Matrix(correlation)
    if isinstance(correlation, MatrixFree):
        everyone = torch.ones(correlation.n, dtype=torch.bool, device=correlation.device)
        return Sampled(correlation, everyone)
    return correlation


def among_all(found: Tensor, is_defined: Tensor) -> Tensor:
    """Expand positions (n, d) of the defined neurons to (N, d), with NaN for undefined neurons."""
    positions = torch.full((len(is_defined), found.shape[1]), torch.nan, device=is_defined.device)
    positions[is_defined] = found.to(is_defined.device)
    return positions


def check_correlation(correlation: Tensor) -> None:
    """Raise a UserError if this isn't a correlation matrix (N, N); NaN entries are ignored."""
    if correlation.ndim != 2 or correlation.shape[0] != correlation.shape[1]:
        raise UserError(
            f"a correlation matrix must be square, not of shape {tuple(correlation.shape)}"
        )
    if correlation.numel() == 0:
        raise UserError("the correlation matrix is empty")
    n = correlation.shape[0]
    tiles = [slice(first, first + _TILE) for first in range(0, n, _TILE)]
    is_symmetric = True
    # In square tiles, of which both the one and its mirror image fit into cache.
    for rows, columns in combinations_with_replacement(tiles, 2):
        one, other = correlation[rows, columns], correlation[columns, rows].T
        if bool(one.isnan().any()) or bool(other.isnan().any()):
            one, other = one.nan_to_num(0.0), other.nan_to_num(0.0)
        extreme = max(map(float, torch.aminmax(one)), key=abs)
        if abs(extreme) > 1 + 1e-3:
            raise UserError(f"correlations must be between -1 and 1, but one is {extreme:g}")
        is_symmetric &= float((one - other).abs_().max()) <= 1e-4
    if not is_symmetric:
        raise UserError("a correlation matrix must be symmetric, but this one isn't")
