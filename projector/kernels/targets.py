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


@dataclass(frozen=True)
class Distances:
    """Stored distances: ``matrix`` (N, N)."""

    matrix: Tensor

    @property
    def n(self) -> int:
        return self.matrix.shape[0]

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    @cached_property
    def scale(self) -> float:
        return _scale(self)

    def block(self, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        return self.matrix[rows, columns]


@dataclass(frozen=True)
class Correlations:
    """Stored correlations: δ = 1 − ρ, or 1 − |ρ|, of ``matrix`` (N, N) with no entry above 1.

    Spares the second matrix that stored distances would be.
    """

    matrix: Tensor
    absolute: bool = False

    @property
    def n(self) -> int:
        return self.matrix.shape[0]

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    @cached_property
    def scale(self) -> float:
        return _scale(self)

    def block(self, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        return _apart(self.matrix[rows, columns], self.absolute, out)


@dataclass(frozen=True)
class MatrixFree:
    """Correlations of a sample of activations, computed where they are read: ρ = Z·Zᵀ/T.

    Takes N·T numbers of memory and 2·N²·T operations a pass (half of them where symmetry is used),
    and never holds an N × N matrix.

    Attributes:
        rows: Z, (N, T): each neuron's activations on T tokens with mean 0 and mean square 1, as
            :func:`standardize` gives them; any float dtype. The device's matrix units multiply
            float16 and bfloat16 and add up in float32.
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


def _scale(target: Target) -> float:
    step = max(1, -(-target.n // _ROWS_FOR_SCALE))
    mean_squares = [
        float(target.block(slice(row, row + 1), slice(0, target.n)).double().square().mean())
        for row in range(0, target.n, step)
    ]
    return math.sqrt(sum(mean_squares) / max(len(mean_squares), 1))


def _apart(correlation: Tensor, absolute: bool, out: Tensor | None) -> Tensor:
    if absolute:
        correlation = torch.abs(correlation, out=out)
    return torch.sub(correlation.new_ones(()), correlation, out=out)


def as_target(target: Tensor | Target) -> Target:
    """A plain matrix (N, N) is one of distances."""
    return Distances(target) if isinstance(target, Tensor) else target


def standardize(activations: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Activations as :class:`MatrixFree` takes them.

    Args:
        activations: (T, N), any float dtype.
        dtype: of the result; float16 halves its memory, and its rounding moves ρ by less than 1e-3.

    Returns:
        (n_alive, T) with mean 0 and mean square 1 over the tokens, and (N,) bool: which neurons
        these are. Left out is what has no variance, or is NaN or infinite anywhere.
    """
    n_tokens, n_neurons = activations.shape
    is_alive = torch.zeros(n_neurons, dtype=torch.bool, device=activations.device)
    kept = []
    # In float64, and some neurons at a time, so that it costs no second copy.
    n_at_once = max(1, (1 << 22) // max(n_tokens, 1))
    for first in range(0, n_neurons, n_at_once):
        some = activations[:, first : first + n_at_once].T.double()
        some = some - some.mean(dim=1, keepdim=True)
        spread = some.square().mean(dim=1).sqrt()
        # What rounding leaves of a neuron that never changes is no variance.
        least = activations[:, first : first + n_at_once].amin(dim=0)
        greatest = activations[:, first : first + n_at_once].amax(dim=0)
        alive = spread.isfinite() & (spread > 0) & (least < greatest)
        is_alive[first : first + n_at_once] = alive
        kept.append((some[alive] / spread[alive, None]).to(dtype))
    return torch.cat(kept), is_alive


@dataclass(frozen=True)
class SamplingError:
    """How far correlations of a sample are from those of the corpus: standard errors of ρ, rms.

    Attributes:
        n_tokens: T, tokens of the sample.
        n_pairs: pairs of neurons that it was measured on.
        measured: from the difference of the sample's two halves, in the order of the corpus: it
            holds what neighbouring tokens have in common, and what changes along the corpus.
        if_independent: (1 − ρ²)/√T, what it would be were the tokens drawn independently.
    """

    n_tokens: int
    n_pairs: int
    measured: float
    if_independent: float


def sampling_error(target: MatrixFree, n_neurons: int = 512) -> SamplingError:
    """The sampling error of ρ, measured on the pairs of ``n_neurons`` evenly spaced neurons.

    The estimates of two halves of T/2 tokens differ by twice the standard error of the whole.
    """
    step = max(1, target.n // n_neurons)
    rows = target.rows[::step].float()
    n, n_tokens = rows.shape
    first, second = torch.triu_indices(n, n, offset=1, device=rows.device)
    if len(first) == 0 or n_tokens < 4:
        return SamplingError(n_tokens, 0, math.nan, math.nan)
    halves = [torch.corrcoef(part)[first, second] for part in rows.tensor_split(2, dim=1)]
    # A neuron without variance in one half tells nothing there.
    difference = (halves[0] - halves[1]).double()
    difference = difference[difference.isfinite()]
    whole = (rows @ rows.T / n_tokens)[first, second].double()
    return SamplingError(
        n_tokens,
        len(difference),
        float(difference.square().mean().sqrt() / 2),
        float(((1 - whole.square()) / math.sqrt(n_tokens)).square().mean().sqrt()),
    )


def sample_size(n_neurons: int, n_bytes: int, dtype: torch.dtype = torch.float16) -> int:
    """Tokens T that a matrix-free target of N neurons may keep in ``n_bytes``, below 2N."""
    return max(0, min(2 * n_neurons - 1, n_bytes // (n_neurons * dtype.itemsize)))


def evenly_drawn(n_tokens: int, n_drawn: int) -> Tensor:
    """``n_drawn`` of the places 0 … n_tokens − 1, evenly spaced, ascending, no two the same."""
    n_drawn = min(n_drawn, n_tokens)
    return (torch.arange(n_drawn) * n_tokens + n_tokens // 2) // max(n_drawn, 1)
