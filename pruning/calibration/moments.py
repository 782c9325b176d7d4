"""Means and second moments of a layer's neurons over calibration text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from projector.errors import UserError, named
from projector.statistics.covariance import RunningCovariance


@dataclass(frozen=True)
class Moments:
    """Moments of one layer's N neurons over some tokens.

    Attributes:
        n_tokens: number of tokens.
        mean: E[h], (N,) float64.
        second: E[h hᵀ], (N, N) float64.
    """

    n_tokens: int
    mean: Tensor
    second: Tensor

    @property
    def covariance(self) -> Tensor:
        """The covariance, (N, N) float64; computed at each call."""
        return self.second.addr(self.mean, self.mean, alpha=-1)

    @classmethod
    def of(cls, running: RunningCovariance) -> Moments:
        """Moments on the CPU, from streamed statistics."""
        mean = running.mean.cpu()
        return cls(running.n_tokens, mean, running.covariance().cpu().addr_(mean, mean))

    def joined(self, other: Moments) -> Moments:
        """Moments over the tokens of both together."""
        total = self.n_tokens + other.n_tokens
        share = self.n_tokens / total
        second = (share * self.second).add_(other.second, alpha=1 - share)
        return Moments(total, share * self.mean + (1 - share) * other.mean, second)


class LayerMoments:
    """Moments over the tokens that estimates are made from, and over tokens that check them.

    It keeps the upper triangles of two sums, as much memory as one N × N matrix in float64. Each
    call computes its matrices, and keeps no reference to them.
    """

    def __init__(self, n_neurons: int, device: torch.device) -> None:
        self._fit, self._held_out = (RunningCovariance(n_neurons, device) for _ in range(2))

    def update(self, rows: Tensor, *, held_out: bool) -> None:
        """Add activations (n_tokens, N) of any float dtype to the sums."""
        (self._held_out if held_out else self._fit).update(rows)

    @property
    def n_fit_tokens(self) -> int:
        """Number of tokens that estimates are made from."""
        return self._fit.n_tokens

    @property
    def fit(self) -> Moments:
        """Moments over the tokens that estimates are made from."""
        return Moments.of(self._fit)

    @property
    def held_out(self) -> Moments:
        """Moments over the held-out tokens, which check the estimates."""
        return Moments.of(self._held_out)

    @property
    def all(self) -> Moments:
        """Moments over all tokens; needs two N × N matrices at most."""
        fit = self.fit
        total = self._fit.n_tokens + self._held_out.n_tokens
        share = self._fit.n_tokens / total
        mean = share * fit.mean
        second = fit.second.mul_(share)
        held_out = self.held_out
        second.add_(held_out.second, alpha=1 - share)
        return Moments(total, mean.add_(held_out.mean, alpha=1 - share), second)

    def check(self, layer: int) -> None:
        """Raise a UserError if the sums of a layer are not finite."""
        parts = self._fit, self._held_out
        n_bad = int((parts[0].is_broken | parts[1].is_broken).sum())
        if not any(part.n_tokens for part in parts):
            # Tokens on which no neuron is finite are left out.
            n_bad = self._fit.n_neurons
        if n_bad:
            raise UserError(
                f"layer {layer} has {n_bad:,} neurons whose activations are not finite over the "
                f"calibration text: try {named('dtype', 'float32')}"
            )
