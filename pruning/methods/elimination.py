"""Removing neurons one by one, each time the one whose loss the others make up for best.

What is lost is measured at the block's output: E‖W h − W' h_K‖², W (H, N) being the output
projection, h the neurons, K those that stay and W' the best weights for them. It depends on the
moments M = E[h hᵀ] alone (their covariance, where a bias absorbs the mean).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Share of the usual second moment that is added to each: moments from few tokens are near singular.
DAMPING = 1e-4


@dataclass(frozen=True)
class Elimination:
    """Neurons in the order they were removed, and what each cost.

    ``order`` (n,) int64; ``costs`` (n,) float64, the loss at the block's output that each removal
    added.
    """

    order: Tensor
    costs: Tensor


def damped(moments: Tensor) -> Tensor:
    """The moments (N, N), their diagonal raised a little: dead neurons leave them regular."""
    level = DAMPING * usual_moment(moments)
    return moments + level * torch.eye(len(moments), dtype=moments.dtype, device=moments.device)


def usual_moment(moments: Tensor) -> Tensor:
    """The median second moment of the neurons that are not dead, (); 1 if all are.

    Not the mean, which a single neuron of huge activations would lift for every other.
    """
    own = moments.diagonal()
    alive = own[own > 0]
    return alive.median() if len(alive) else torch.ones_like(own[0])


def eliminate(moments: Tensor, output: Tensor, n_removed: int) -> Elimination:
    """Greedy optimal brain surgery on whole neurons.

    With P = M⁻¹, removing j and refitting all others costs ‖w_j‖² / P_jj; then
    W ← W − w_j P_j· / P_jj and P ← P − P_·j P_j· / P_jj. Hassibi and Stork 1992 (second-order
    derivatives for network pruning), by structures as in Kurtić et al. 2023 (arXiv:2302.04089).

    Args:
        moments: M, (N, N) float64, regular.
        output: W, (H, N) float64.
        n_removed: how many to remove.

    Costs n_removed updates of (N, N) and (H, N).
    """
    inverse, weights = torch.linalg.inv(moments), output.clone()
    is_left = torch.ones(len(moments), dtype=torch.bool, device=moments.device)
    order, costs = [], []
    for _ in range(n_removed):
        losses = weights.pow(2).sum(dim=0) / inverse.diagonal()
        losses[~is_left] = torch.inf
        j = int(losses.argmin())
        order.append(j)
        costs.append(float(losses[j]))
        row = inverse[j] / inverse[j, j]
        weights -= torch.outer(weights[:, j], row)
        inverse -= torch.outer(inverse[:, j].clone(), row)
        # What is gone neither costs nor mixes any more.
        is_left[j] = False
        inverse[j], inverse[:, j], inverse[j, j] = 0, 0, 1
        weights[:, j] = 0
    return Elimination(
        torch.tensor(order, dtype=torch.int64), torch.tensor(costs, dtype=torch.float64)
    )


class Exchange:
    """Trades a removed neuron for a kept one, wherever that loses less.

    Holds the moments swept on the kept neurons (Beaton 1964; Goodnight 1979, the SWEEP operator):
    −M_KK⁻¹ among the kept, the residual moments among the removed, and between them the
    coefficients with which the kept ones predict the removed. A trade sweeps twice, N² each. Output
    weights are (H, N), moments (N, N), both float64.
    """

    def __init__(self, moments: Tensor, output: Tensor, kept: Tensor) -> None:
        n = len(moments)
        self.output = output
        self.is_kept = torch.zeros(n, dtype=torch.bool)
        self.is_kept[kept] = True
        inside = self.is_kept.nonzero()[:, 0]
        outside = (~self.is_kept).nonzero()[:, 0]
        inverse = torch.linalg.inv(moments[inside][:, inside])
        coefficients = moments[outside][:, inside] @ inverse
        swept = torch.zeros_like(moments)
        swept[inside[:, None], inside] = -inverse
        swept[outside[:, None], inside] = coefficients
        swept[inside[:, None], outside] = coefficients.T
        swept[outside[:, None], outside] = (
            moments[outside][:, outside] - coefficients @ moments[inside][:, outside]
        )
        self.swept = swept

    def gains(self) -> tuple[Tensor, Tensor]:
        """The removed neurons, (R,), and what taking each back would save, (R,)."""
        outside = (~self.is_kept).nonzero()[:, 0]
        rest = self.swept[outside][:, outside]
        variance = rest.diagonal().clamp_min(torch.finfo(rest.dtype).tiny)
        return outside, (self.output[:, outside] @ rest).pow(2).sum(dim=0) / variance

    def trade(self, taken: int, givers: Tensor) -> bool:
        """Take ``taken`` back, and let go the one of ``givers`` (G,), kept, that costs least.

        Returns whether that lost less; if not, nothing has changed.
        """
        outside = (~self.is_kept).nonzero()[:, 0]
        column = self.swept[:, taken]
        pivot, rest = column[taken], column[outside]
        gain = float((self.output[:, outside] @ rest).pow(2).sum() / pivot)
        # What sweeping on ``taken`` would make of the few entries that are needed.
        outside = outside[outside != taken]
        step = column[givers] / pivot
        mixing = self.swept[outside][:, givers] - torch.outer(column[outside], step)
        weights = self.output[:, givers] + self.output[:, outside] @ mixing
        inverse = column[givers] * step - self.swept[givers, givers]
        costs = weights.pow(2).sum(dim=0) / inverse
        cheapest = int(costs.argmin())
        # Rounding alone must not keep the trading going.
        if float(costs[cheapest]) >= gain * (1 - 1e-9):
            return False
        given = int(givers[cheapest])
        _sweep(self.swept, taken)
        _sweep(self.swept, given)
        self.is_kept[taken], self.is_kept[given] = True, False
        return True


def _sweep(swept: Tensor, j: int) -> None:
    """Sweep on pivot j, in place: moves neuron j from one side to the other."""
    pivot, column = swept[j, j].clone(), swept[:, j].clone()
    swept.addr_(column, column, alpha=-1 / float(pivot))
    swept[:, j] = column / pivot.abs()
    swept[j] = column / pivot.abs()
    swept[j, j] = -1 / pivot
