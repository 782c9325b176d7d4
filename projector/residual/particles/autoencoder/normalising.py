"""Normalise hidden states to one scale in every frame, with a treatment of outliers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from projector.errors import UserError
from projector.residual.outliers import TIMES_USUAL


@dataclass(frozen=True, eq=False)
class Normaliser:
    """Mean and scale of each frame over a corpus, without tokens of outlying norm.

    Attributes:
        means: (F, H) float32.
        scales: (F,) float32, one per frame: the root mean square after subtracting the mean.
        usual: (F,) float32, the median norm of tokens.
    """

    means: Tensor
    scales: Tensor
    usual: Tensor

    @classmethod
    def of(cls, states: Sequence[Tensor]) -> Normaliser:
        """Fit to some sequences (F, T, H).

        Raises:
            UserError: if no token can be used, or all tokens are the same in some frame.
        """
        norms = torch.cat([each.float().norm(dim=-1) for each in states], dim=1)
        usual = norms.where(norms.isfinite(), torch.nan).nanmedian(dim=1).values
        means = torch.zeros(len(usual), states[0].shape[-1], dtype=torch.float64)
        squares, n_kept = torch.zeros(len(usual), dtype=torch.float64), 0
        for each in states:
            kept = each[:, _is_usual(each, usual)].double()
            n_kept += kept.shape[1]
            means += kept.sum(dim=1)
        means /= max(n_kept, 1)
        for each in states:
            kept = each[:, _is_usual(each, usual)].double()
            squares += (kept - means[:, None]).square().sum(dim=(1, 2))
        scales = (squares / (max(n_kept, 1) * means.shape[1])).sqrt()
        if not n_kept or not bool((scales > 0).all()):
            raise UserError(
                "an autoencoder can't be trained on this corpus: its tokens' hidden states are "
                "all the same, or none is finite; give another corpus"
            )
        return cls(means.float(), scales.float(), usual)

    @property
    def n_frames(self) -> int:
        """Number of frames, F."""
        return len(self.scales)

    def apply(self, states: Tensor) -> Tensor:
        """Normalise (F, T, H) of all frames to float32 with mean 0 and mean square 1.

        A vector longer than the outlier threshold is shortened to it; a non-finite vector becomes
        0.
        """
        moved = (states.float() - self.means[:, None]) / self.scales[:, None, None]
        moved = moved.where(moved.isfinite().all(dim=-1, keepdim=True), 0.0)
        most = TIMES_USUAL * math.sqrt(states.shape[-1])
        return moved * (most / moved.norm(dim=-1, keepdim=True).clamp(min=1e-9)).clamp(max=1)

    def undo(self, normal: Tensor) -> Tensor:
        """Invert :meth:`apply`: the states (F, T, H) in units of the stream."""
        return normal * self.scales[:, None, None] + self.means[:, None]

    def is_usual(self, states: Tensor) -> Tensor:
        """Which tokens of a sequence (F, T, H) are not outliers in any frame, (T,) bool."""
        return _is_usual(states, self.usual)


def _is_usual(states: Tensor, usual: Tensor) -> Tensor:
    norms = states.float().norm(dim=-1)
    return (norms <= TIMES_USUAL * usual[:, None]).all(dim=0)
