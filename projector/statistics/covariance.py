"""Mean, covariance and correlation of activations, streamed over a corpus.

Every accumulator accepts rows in batches of any size, and merging two accumulators gives the same
result as one that has seen both streams. Mean and covariance follow the pairwise update of Chan,
Golub and LeVeque (1979, STAN-CS-79-773): each batch is centred on its own mean before it is
squared, so a mean far larger than the spread costs no precision.

A batch's products are summed in float32 and added to float64 totals. Only the upper triangle of the
totals is computed and stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from projector.statistics.precision import full_float32, products_of

# Below this a variance can't be told from none in float32.
_LEAST_VARIANCE = torch.finfo(torch.float32).tiny
# Above this it does not fit into the float32 that is saved.
_GREATEST_VARIANCE = torch.finfo(torch.float32).max
# Beyond this the square of an activation, or a sum of many, may leave float32.
_LARGE = 2.0**40
# Columns of a block of the upper triangle. What lies below the diagonal within a block is computed
# for nothing; but a product of few columns is slow, the more so on a GPU.
_BLOCK_COLUMNS = {"cuda": 512}
_BLOCK_COLUMNS_ELSEWHERE = 128


def packed_numel(n: int, device: torch.device) -> int:
    """Number of entries that a :class:`SymmetricSum` of N × N stores: half of them, plus half a
    block.
    """
    return sum(block.stop * (block.stop - block.start) for block in _blocks(n, device))


def _blocks(n: int, device: torch.device) -> list[slice]:
    size = _BLOCK_COLUMNS.get(device.type, _BLOCK_COLUMNS_ELSEWHERE)
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


class Together(Protocol):
    """Processes that have each seen a part of the data; see
    :class:`projector.fitting.processes.Processes`.
    """

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of the tensors of all processes."""

    def stacked(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, stacked along a new first axis, (n, …)."""


class SymmetricSum:
    """A sum of symmetric N × N matrices in float64, stored in blocks of columns down to the
    diagonal.

    Columns are used rather than rows because their products are faster by 5%.

    Attributes:
        packed: all entries, block after block.
    """

    def __init__(self, n: int, device: torch.device | str) -> None:
        self.n = n
        device = torch.device(device)
        self._columns = _blocks(n, device)
        self.packed = torch.zeros(packed_numel(n, device), dtype=torch.float64, device=device)

    def _parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Columns, and their entries down to the last of them: (last + 1, n_columns)."""
        end = 0
        for block in self._columns:
            begin, shape = end, (block.stop, block.stop - block.start)
            end += shape[0] * shape[1]
            yield block, self.packed[begin:end].view(shape)

    def add_gram(self, rows: Tensor, given_in: torch.dtype = torch.float32) -> None:
        """Add XᵀX for X (n_rows, N) float32, with half the operations of the full product.

        Args:
            given_in: dtype of the model's activations.
        """
        with products_of(given_in, rows.device):
            for block, sums in self._parts():
                sums += rows[:, : block.stop].T @ rows[:, block]

    def add_scaled_gram(self, rows: Tensor, scale: Tensor) -> None:
        """Add XᵀX for X (n_rows, N) float32, with columns that were multiplied by ``scale``
        (N,).
        """
        with full_float32():
            for block, sums in self._parts():
                product = (rows[:, : block.stop].T @ rows[:, block]).double()
                sums += product / scale[: block.stop, None] / scale[block]

    def add_products(self, a: Tensor, b: Tensor) -> None:
        """Add AᵀB, which must be symmetric, for A and B (k, N) float64."""
        for block, sums in self._parts():
            sums.addmm_(a[:, : block.stop].T, b[:, block])

    def add(self, other: SymmetricSum) -> None:
        """Add another sum."""
        if other.packed.device.type == self.packed.device.type:
            self.packed += other.packed.to(self.packed.device)
            return
        whole = other.full().to(self.packed.device)
        for block, sums in self._parts():
            sums += whole[: block.stop, block]

    def diagonal(self) -> Tensor:
        """The diagonal, (N,) float64."""
        return torch.cat([sums[block].diagonal() for block, sums in self._parts()])

    def full(self, scale: Tensor | None = None, *, dtype: torch.dtype = torch.float64) -> Tensor:
        """The full matrix (N, N), exactly symmetric.

        Args:
            scale: (N,), factors of rows and columns.
        """
        whole = torch.empty(self.n, self.n, dtype=dtype, device=self.packed.device)
        for block, sums in self._parts():
            part = sums if scale is None else sums * scale[: block.stop, None] * scale[block]
            whole[: block.stop, block] = part
            square = part[block]
            whole[block, block] = ((square + square.T) / 2).to(dtype)
            whole[block, : block.start] = part[: block.start].T
        return whole


class RunningCovariance:
    """Mean and covariance of N neurons over all tokens seen so far.

    A neuron that was ever NaN or infinite, or has a variance outside the range of float32, has no
    covariance: it is marked in ``is_broken`` and its rows are NaN. A token on which every neuron is
    NaN or infinite is left out (``n_left_out``). All other tokens and neurons are unaffected.

    Args:
        n_neurons: N.
        device: where the sums are kept; rows are moved there.
    """

    def __init__(self, n_neurons: int, device: torch.device | str = "cpu") -> None:
        self.n_tokens = 0
        self.n_left_out = 0
        self.mean = torch.zeros(n_neurons, dtype=torch.float64, device=device)
        self._scatter = SymmetricSum(n_neurons, device)
        self.least = torch.full((n_neurons,), torch.inf, dtype=torch.float32, device=device)
        self.greatest = torch.full((n_neurons,), -torch.inf, dtype=torch.float32, device=device)
        self.n_nonfinite = torch.zeros(n_neurons, dtype=torch.int64, device=device)

    @property
    def n_neurons(self) -> int:
        return self.mean.numel()

    @property
    def scatter(self) -> Tensor:
        """(N, N) float64: Σ (x − mean)(x − mean)ᵀ over the tokens seen so far."""
        return self._scatter.full()

    def update(self, rows: Tensor) -> None:
        """Add activations of shape (n_tokens, N), in any float dtype."""
        given_in = rows.dtype
        rows = rows.detach().to(self.mean.device, torch.float32)
        if rows.shape[0] == 0:
            return
        least, greatest = rows.amin(dim=0), rows.amax(dim=0)
        # Of what is NaN or infinite the least or the greatest is so too. The mean so far, for the
        # way from it is squared too. One question, for on a GPU each waits for all work under way.
        is_small = (least > -_LARGE) & (greatest < _LARGE) & (self.mean.abs() < _LARGE)
        if not bool(is_small.all()):
            self._update_with_care(rows)
            return
        self.least = torch.minimum(self.least, least)
        self.greatest = torch.maximum(self.greatest, greatest)
        n_tokens = rows.shape[0]
        # Twice, so that what rounding leaves of a mean far larger than the spread goes too.
        first = rows.sum(dim=0) / n_tokens
        # One row more, which the fold fills.
        centred = rows.new_empty(n_tokens + 1, self.n_neurons)
        torch.sub(rows, first, out=centred[:-1])
        second = centred[:-1].sum(dim=0) / n_tokens
        centred[:-1] -= second
        centred[-1] = self._follow(n_tokens, first.double() + second)
        self._scatter.add_gram(centred, given_in)

    def _update_with_care(self, rows: Tensor) -> None:
        """The same where some are NaN, infinite, or so large that their squares leave float32."""
        finite = rows.isfinite()
        told = finite.any(dim=1)
        self.n_left_out += int((~told).sum())
        rows, finite = rows[told], finite[told]
        self.n_nonfinite += (~finite).sum(dim=0)
        rows = torch.where(finite, rows, 0.0)
        if rows.shape[0] == 0:
            return
        self.least = torch.minimum(self.least, rows.amin(dim=0))
        self.greatest = torch.maximum(self.greatest, rows.amax(dim=0))
        mean = rows.mean(dim=0, dtype=torch.float64)
        centred = rows - mean
        centred = torch.cat([centred, self._follow(rows.shape[0], mean)[None]])
        # Powers of two scale without rounding.
        _, exponents = torch.frexp(centred.abs().amax(dim=0))
        scale = torch.ldexp(torch.ones_like(mean), -exponents)
        self._scatter.add_scaled_gram((centred * scale).float(), scale)

    def merge(self, other: RunningCovariance) -> None:
        """Add the data of ``other``."""
        device = self.mean.device
        self.n_left_out += other.n_left_out
        self.n_nonfinite += other.n_nonfinite.to(device)
        self.least = torch.minimum(self.least, other.least.to(device))
        self.greatest = torch.maximum(self.greatest, other.greatest.to(device))
        self._scatter.add(other._scatter)
        between = self._follow(other.n_tokens, other.mean.to(device))[None]
        self._scatter.add_products(between, between)

    def reduce(self, together: Together) -> None:
        """Add the data of the same accumulator in every other process, in each process."""
        counts = torch.tensor([self.n_tokens, self.n_left_out], device=self.mean.device)
        every = together.stacked(counts)
        n_tokens = every[:, 0].double()
        total = int(every[:, 0].sum())
        mean = (together.stacked(self.mean) * (n_tokens / max(total, 1))[:, None]).sum(dim=0)
        # Each about the mean of all, and then their sum.
        step = (self.mean - mean)[None]
        self._scatter.add_products(step * self.n_tokens, step)
        self._scatter.packed = together.summed(self._scatter.packed)
        self.mean, self.n_tokens, self.n_left_out = mean, total, int(every[:, 1].sum())
        self.least = together.stacked(self.least).amin(dim=0)
        self.greatest = together.stacked(self.greatest).amax(dim=0)
        self.n_nonfinite = together.summed(self.n_nonfinite)

    def _follow(self, n_tokens: int, mean: Tensor) -> Tensor:
        """Let the mean follow n_tokens more whose own is ``mean`` (N,).

        Returns:
            (N,) float64: b, where b·bᵀ is what the scatter about both means grows by beyond the
            scatters about each. It is part of the variance: what float32 rounds off it is as
            little, relative to that, as what it rounds off any token.
        """
        total = self.n_tokens + n_tokens
        step = mean - self.mean
        between = step * math.sqrt(self.n_tokens * n_tokens / max(total, 1))
        if n_tokens:
            # Without a token before, exactly the new mean.
            self.mean = self.mean + step * (n_tokens / total)
        self.n_tokens = total
        return between

    @property
    def is_broken(self) -> Tensor:
        """(N,) bool: neurons that were ever NaN or infinite, or have a variance beyond float32."""
        return (self.n_nonfinite > 0) | (self._variance > _GREATEST_VARIANCE)

    @property
    def is_dead(self) -> Tensor:
        """(N,) bool: neurons without variance, which have no defined correlation."""
        still = (self.least >= self.greatest) | (self._variance <= _LEAST_VARIANCE)
        return still & ~self.is_broken

    @property
    def _variance(self) -> Tensor:
        return self._scatter.diagonal() / max(self.n_tokens, 1)

    def covariance(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """(N, N) float64, over n_tokens (not n_tokens − 1); NaN for broken neurons."""
        scale = torch.full_like(self.mean, max(self.n_tokens, 1) ** -0.5)
        covariance = self._scatter.full(scale, dtype=dtype)
        # What rounding left of a neuron that never changed is not variance.
        covariance[self.is_dead] = 0
        covariance[:, self.is_dead] = 0
        covariance[self.is_broken] = torch.nan
        covariance[:, self.is_broken] = torch.nan
        return covariance

    def correlation(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """(N, N) Pearson correlation; NaN for dead and broken neurons."""
        undefined = self.is_dead | self.is_broken
        scale = torch.where(undefined, 0.0, self._scatter.diagonal().rsqrt())
        return _as_correlation(self._scatter.full(scale, dtype=dtype), ~undefined)

    def state(self) -> dict[str, Tensor]:
        """The exact state as tensors."""
        return {
            "counts": torch.tensor([self.n_tokens, self.n_left_out]),
            "mean": self.mean,
            "scatter": self._scatter.packed,
            "least": self.least,
            "greatest": self.greatest,
            "n_nonfinite": self.n_nonfinite,
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the result of :meth:`state`."""
        device = self.mean.device
        self.n_tokens, self.n_left_out = (int(n) for n in state["counts"])
        self.mean = state["mean"].to(device)
        self._scatter.packed = state["scatter"].to(device)
        self.least = state["least"].to(device)
        self.greatest = state["greatest"].to(device)
        self.n_nonfinite = state["n_nonfinite"].to(device)


class SequenceCorrelation:
    """The mean over sequences of each sequence's own correlation matrix.

    A pair is averaged over the sequences in which both of its neurons vary. A pair that never
    varies in the same sequence has correlation 0.
    """

    def __init__(self, n_neurons: int, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._total = SymmetricSum(n_neurons, device)
        self._n_sequences = SymmetricSum(n_neurons, device)

    @property
    def n_sequences(self) -> int:
        """Number of sequences counted for the neuron that varies in most of them."""
        counts = self._n_sequences.diagonal()
        return int(counts.max()) if counts.numel() else 0

    def update(self, sequences: Sequence[Tensor]) -> None:
        """Add the activations of sequences, (n_tokens, N) each, in any float dtype."""
        standard, alive = [], []
        for sequence in sequences:
            rows = sequence.detach().to(self._device, torch.float64)
            rows = rows[rows.isfinite().any(dim=1)]
            if rows.shape[0] < 2:
                continue
            finite = rows.isfinite().all(dim=0)
            rows = torch.where(finite, rows, 0.0)
            varies = finite & (rows.amin(dim=0) < rows.amax(dim=0))
            centred = rows - rows.mean(dim=0)
            spread = centred.square().sum(dim=0).sqrt()
            varies &= spread > 0
            standard.append(torch.where(varies, centred / spread, 0.0).float())
            alive.append(varies.float())
        if not standard:
            return
        # Rows of standardized sequences on top of one another: their one product is the sum of the
        # sequences' correlation matrices.
        self._total.add_gram(torch.cat(standard))
        self._n_sequences.add_gram(torch.stack(alive))

    def merge(self, other: SequenceCorrelation) -> None:
        """Add the data of ``other``."""
        self._total.add(other._total)
        self._n_sequences.add(other._n_sequences)

    def reduce(self, together: Together) -> None:
        """Add the data of the same accumulator in every other process, in each process."""
        for sums in (self._total, self._n_sequences):
            sums.packed = together.summed(sums.packed)

    def correlation(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The mean correlation, (N, N); NaN for neurons that vary in no sequence."""
        # Counts are whole numbers: where none is, the total is 0, and stays so.
        mean = self._total.full(dtype=dtype)
        mean /= self._n_sequences.full(dtype=dtype).clamp_(min=1)
        return _as_correlation(mean, self._n_sequences.diagonal() > 0)

    def state(self) -> dict[str, Tensor]:
        """The exact state as tensors."""
        return {"total": self._total.packed, "n_sequences": self._n_sequences.packed}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the result of :meth:`state`."""
        self._total.packed = state["total"].to(self._device)
        self._n_sequences.packed = state["n_sequences"].to(self._device)


def correlation_from_covariance(covariance: Tensor) -> Tensor:
    """Pearson's ρ_ij = C_ij / √(C_ii · C_jj), shape (N, N), in the dtype of ``covariance``.

    Neurons with variance 0 or NaN have NaN rows and columns.
    """
    variance = covariance.diagonal()
    spread = variance.clamp(min=0).sqrt()
    values = covariance / spread[:, None] / spread
    return _as_correlation((values + values.T) / 2, variance > 0)


def _as_correlation(values: Tensor, is_alive: Tensor) -> Tensor:
    """What a symmetric matrix, which is changed, says of those who are alive."""
    correlation = values.clamp_(-1, 1)
    correlation.fill_diagonal_(1)
    correlation[~is_alive] = torch.nan
    correlation[:, ~is_alive] = torch.nan
    return correlation
