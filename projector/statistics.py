"""Mean, covariance and correlation of activations, streamed over a corpus.

Every accumulator takes rows as they come, in batches of any size, and two of them merge into what
one would hold had it seen both streams. Mean and covariance follow the pairwise update of Chan,
Golub and LeVeque (1979, STAN-CS-79-773): each batch is centred on its own mean before it is
squared, so a mean far larger than the spread costs no precision.

A batch's products are summed in float32 and added to float64 totals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# Below this a variance can't be told from none in float32.
_LEAST_VARIANCE = torch.finfo(torch.float32).tiny
# Above this it does not fit into the float32 that is saved.
_GREATEST_VARIANCE = torch.finfo(torch.float32).max
# Beyond this the square of an activation, or a sum of many, may leave float32.
_LARGE = 2.0**40


class RunningCovariance:
    """Mean and covariance of N neurons over all tokens seen so far.

    A neuron that was ever NaN or infinite, or whose variance is beyond float32, has no covariance:
    it is named in ``is_broken`` and its rows are NaN. A token on which every neuron is NaN or
    infinite tells nothing of any and is left out (``n_left_out``). All other tokens and neurons are
    unaffected.

    Args:
        n_neurons: N.
        device: where the sums are kept; rows are moved there.
    """

    def __init__(self, n_neurons: int, device: torch.device | str = "cpu") -> None:
        self.n_tokens = 0
        self.n_left_out = 0
        self.mean = torch.zeros(n_neurons, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(n_neurons, n_neurons, dtype=torch.float64, device=device)
        self.least = torch.full((n_neurons,), torch.inf, dtype=torch.float32, device=device)
        self.greatest = torch.full((n_neurons,), -torch.inf, dtype=torch.float32, device=device)
        self.n_nonfinite = torch.zeros(n_neurons, dtype=torch.int64, device=device)

    @property
    def n_neurons(self) -> int:
        return self.mean.numel()

    def update(self, rows: Tensor) -> None:
        """Count in activations of shape (n_tokens, N), of any float dtype."""
        rows = rows.detach().to(self.mean.device, torch.float32)
        finite = rows.isfinite()
        if not finite.all():
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
        self._fold(rows.shape[0], mean, _scatter(rows - mean))

    def merge(self, other: RunningCovariance) -> None:
        """Count in all that ``other`` has seen."""
        device = self.mean.device
        self.n_left_out += other.n_left_out
        self.n_nonfinite += other.n_nonfinite.to(device)
        self.least = torch.minimum(self.least, other.least.to(device))
        self.greatest = torch.maximum(self.greatest, other.greatest.to(device))
        self._fold(other.n_tokens, other.mean.to(device), other.scatter.to(device))

    def _fold(self, n_tokens: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.n_tokens + n_tokens
        if total == 0:
            return
        step = mean - self.mean
        self.scatter += scatter
        if self.n_tokens:
            self.scatter.addr_(step, step, alpha=self.n_tokens * n_tokens / total)
        self.mean += step * (n_tokens / total)
        self.n_tokens = total

    @property
    def is_broken(self) -> Tensor:
        """(N,) bool: neurons once NaN or infinite, or whose variance float32 can't hold."""
        return (self.n_nonfinite > 0) | (self._variance > _GREATEST_VARIANCE)

    @property
    def is_dead(self) -> Tensor:
        """(N,) bool: neurons without variance, whose correlation is undefined."""
        still = (self.least >= self.greatest) | (self._variance <= _LEAST_VARIANCE)
        return still & ~self.is_broken

    @property
    def _variance(self) -> Tensor:
        return self.scatter.diagonal() / max(self.n_tokens, 1)

    def covariance(self) -> Tensor:
        """(N, N) float64, over n_tokens (not n_tokens − 1); NaN for broken neurons."""
        covariance = self.scatter / max(self.n_tokens, 1)
        covariance = (covariance + covariance.T) / 2
        # What rounding left of a neuron that never changed is no variance.
        covariance[self.is_dead] = 0
        covariance[:, self.is_dead] = 0
        covariance[self.is_broken] = torch.nan
        covariance[:, self.is_broken] = torch.nan
        return covariance

    def correlation(self) -> Tensor:
        """(N, N) float64 Pearson correlation; NaN for dead and broken neurons."""
        return correlation_from_covariance(self.covariance())

    def state(self) -> dict[str, Tensor]:
        """Everything seen so far as tensors, exactly."""
        return {
            "counts": torch.tensor([self.n_tokens, self.n_left_out]),
            "mean": self.mean,
            "scatter": self.scatter,
            "least": self.least,
            "greatest": self.greatest,
            "n_nonfinite": self.n_nonfinite,
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        device = self.mean.device
        self.n_tokens, self.n_left_out = (int(n) for n in state["counts"])
        self.mean = state["mean"].to(device)
        self.scatter = state["scatter"].to(device)
        self.least = state["least"].to(device)
        self.greatest = state["greatest"].to(device)
        self.n_nonfinite = state["n_nonfinite"].to(device)


class SequenceCorrelation:
    """The mean over sequences of each sequence's own correlation matrix.

    A pair counts in the sequences in which both its neurons vary. A pair that never varies together
    has correlation 0: nothing is known of it.
    """

    def __init__(self, n_neurons: int, device: torch.device | str = "cpu") -> None:
        self.total = torch.zeros(n_neurons, n_neurons, dtype=torch.float64, device=device)
        self.n_sequences = torch.zeros(n_neurons, n_neurons, dtype=torch.float64, device=device)

    def update(self, sequences: Sequence[Tensor]) -> None:
        """Count in each sequence's activations, shape (n_tokens, N), of any float dtype."""
        standard, alive = [], []
        for sequence in sequences:
            rows = sequence.detach().to(self.total.device, torch.float64)
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
        rows, together = torch.cat(standard), torch.stack(alive)
        with _full_float32():
            self.total += rows.T @ rows
            self.n_sequences += together.T @ together

    def merge(self, other: SequenceCorrelation) -> None:
        """Count in all that ``other`` has seen."""
        self.total += other.total.to(self.total.device)
        self.n_sequences += other.n_sequences.to(self.total.device)

    def correlation(self) -> Tensor:
        """(N, N) float64; NaN for neurons that vary in no sequence."""
        mean = torch.where(self.n_sequences > 0, self.total / self.n_sequences.clamp(min=1), 0.0)
        return _as_correlation(mean, self.n_sequences.diagonal() > 0)

    def state(self) -> dict[str, Tensor]:
        """Everything seen so far as tensors, exactly."""
        return {"total": self.total, "n_sequences": self.n_sequences}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        device = self.total.device
        self.total, self.n_sequences = state["total"].to(device), state["n_sequences"].to(device)


def _scatter(centred: Tensor) -> Tensor:
    """XᵀX of centred activations (n_tokens, N) float64, as (N, N); products in float32."""
    greatest = centred.abs().amax(dim=0)
    if float(greatest.max()) < _LARGE:
        rows = centred.float()
        with _full_float32():
            return rows.T @ rows
    # Powers of two scale without rounding.
    _, exponents = torch.frexp(greatest)
    scale = torch.ldexp(torch.ones_like(greatest), -exponents)
    rows = (centred * scale).float()
    with _full_float32():
        scatter = (rows.T @ rows).double()
    return scatter / scale[:, None] / scale


def correlation_from_covariance(covariance: Tensor) -> Tensor:
    """Pearson's ρ_ij = C_ij / √(C_ii · C_jj), shape (N, N), in the dtype of ``covariance``.

    Neurons whose variance is 0 or NaN have NaN rows and columns.
    """
    variance = covariance.diagonal()
    spread = variance.clamp(min=0).sqrt()
    return _as_correlation(covariance / spread[:, None] / spread, variance > 0)


def _as_correlation(values: Tensor, is_alive: Tensor) -> Tensor:
    correlation = ((values + values.T) / 2).clamp(-1, 1)
    correlation.fill_diagonal_(1)
    correlation[~is_alive] = torch.nan
    correlation[:, ~is_alive] = torch.nan
    return correlation


@contextmanager
def _full_float32() -> Iterator[None]:
    """Float32 products in float32, neither TF32 nor bf16, while open."""
    rooms: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [room.fp32_precision for room in rooms]
    for room in rooms:
        room.fp32_precision = "ieee"
    try:
        yield
    finally:
        for room, precision in zip(rooms, before, strict=True):
            room.fp32_precision = precision
