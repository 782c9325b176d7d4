"""A straightforward way to find positions, as a baseline for the solver's speed.

Autograd over the N × N × d tensor of differences, AdamW with a learning rate of 0.003, from a
uniform start in a cube of side √N.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from projector.layouts.kernels import Distances, guttman_transform

LEARNING_RATE = 3e-3
# The loop has converged if it gains less than a thousandth in this many steps.
_STALLED_AFTER = 500
_STALLED_GAIN = 1e-3


def uniform_start(n: int, dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, dim, generator=generator) - 0.5) * math.sqrt(n)


class StraightforwardLoop:
    """A step computes all differences, their lengths, the stress, and its gradient by autograd."""

    def __init__(self, target: Tensor, start: Tensor) -> None:
        self.target = target
        self.points = start.clone().requires_grad_()
        self.optimizer = torch.optim.AdamW([self.points], lr=LEARNING_RATE)

    def step(self) -> float:
        """One step; stress before it."""
        n = len(self.points)
        difference = self.points[:, None] - self.points[None]  # (N, N, d)
        distance = difference.norm(dim=2)
        stress = (distance - self.target).square().sum() / (n * (n - 1))
        self.optimizer.zero_grad()
        stress.backward()
        self.optimizer.step()
        return float(stress.detach())


@dataclass(frozen=True)
class Course:
    """The loop's progress: ``n_steps`` until ``stress``, and whether that is the target."""

    n_steps: int
    stress: float
    is_reached: bool


class SameLoop:
    """The same steps up to rounding, with the gradient of the one-pass form.

    It counts in minutes how many steps the straightforward loop takes.
    """

    def __init__(self, target: Tensor, start: Tensor) -> None:
        self.target = Distances(target)
        self.points = start.clone().requires_grad_()
        self.optimizer = torch.optim.AdamW([self.points], lr=LEARNING_RATE)

    def step(self) -> float:
        """One step; stress before it."""
        n = len(self.points)
        points = self.points.detach()
        found = guttman_transform(points, self.target)
        # The raw stress has the gradient 2N(x − x̄), and there are N(N − 1)/2 pairs.
        self.points.grad = (points - points.mean(dim=0) - found.moved) * (4 / (n - 1))
        self.optimizer.step()
        return found.raw_stress / (n * (n - 1) / 2)


def count_steps(target: Tensor, start: Tensor, stress: float, max_steps: int) -> Course:
    """Count the loop's steps until its stress is at most ``stress``, or it has converged."""
    loop = SameLoop(target, start)
    least_before = now = math.inf
    for n_steps in range(max_steps + 1):
        now = loop.step()
        if now <= stress:
            return Course(n_steps, now, True)
        if n_steps % _STALLED_AFTER == 0:
            if now > (1 - _STALLED_GAIN) * least_before:
                return Course(n_steps, now, False)
            least_before = now
    return Course(max_steps, now, False)
