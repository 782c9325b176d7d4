"""Stress by majorization (SMACOF), accelerated."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from projector.layouts.kernels import GuttmanStep, Target, as_target, guttman_transforms
from projector.processor import in_threads

# Relative decrease of stress over ten steps at which to stop. On maps of trained models it leaves
# less than 0.2 % of the stress that could still be taken away.
TOLERANCE = 2e-4
# Steps whose curvature is remembered. More save few passes, and each costs two vectors.
_MEMORY = 10
# A step must gain this share of what the slope promises (Armijo).
_LEAST_SHARE = 1e-4
# Shorter steps tried along one direction before its memory is given up.
_MOST_SHORTENINGS = 5
# A promise below this share of the stress is lost in the rounding of float32.
_ROUNDING = 1e-7
# Passes over which a decrease is judged.
_WINDOW = 10
# Neurons up to which one thread is as quick as several: calls are so short that threads mostly wait
# for each other, the more so where other work takes their cores.
_MOST_OF_ONE_THREAD = 384


@dataclass(frozen=True)
class Descent:
    """The result of a stress minimisation.

    Attributes:
        positions: (N, d) float32, mean 0.
        stresses: stress of the start and after each accepted step; it never rises.
        n_passes: number of passes over the target, including those of rejected steps.
    """

    positions: Tensor
    stresses: list[float]
    n_passes: int


def minimize_stress(
    target: Tensor | Target,
    start: Tensor,
    *,
    tolerance: float = TOLERANCE,
    max_passes: int = 1000,
    on_pass: Callable[[], None] | None = None,
) -> Descent:
    """Find positions with locally minimal stress, from ``start``.

    The Guttman transform doesn't depend on scale, so one pass gives the best scale of the start.
    From there, the algorithm is L-BFGS (Nocedal 1980) with the majorization step as its metric: a
    pass gives stress and gradient, 2N(x − x̄), and a step of length one along the first direction
    is the transform itself. A step that doesn't lower stress enough is shortened. The iteration
    stops when ten steps together lower stress by a relative amount below ``tolerance``.

    Args:
        target: (N, N) float32 target distances, symmetric with a zero diagonal, or another form of
            target.
        start: (N, d) float32.
        tolerance: relative decrease of stress over ten steps at which to stop.
        max_passes: maximum number of passes over ``target``.
        on_pass: called after each pass.
    """
    return minimize_stresses(
        [target], [start], tolerance=tolerance, max_passes=max_passes, on_pass=on_pass
    )[0]


def minimize_stresses(
    targets: Sequence[Tensor | Target],
    starts: Sequence[Tensor],
    *,
    tolerance: float = TOLERANCE,
    max_passes: int = 1000,
    on_pass: Callable[[], None] | None = None,
) -> list[Descent]:
    """:func:`minimize_stress` for several maps together, one pass over all of them at a time.

    The result for a map depends on the other maps only by rounding. On CUDA, a pass takes a few
    kernel launches for all maps.
    """
    forms = [as_target(target) for target in targets]
    descents = [_descend(start, tolerance, max_passes) for start in starts]
    found: dict[int, Descent] = {}
    asked: dict[int, Tensor] = {}

    def advance(index: int, step: GuttmanStep | None) -> None:
        try:
            asked[index] = descents[index].send(step)
        except StopIteration as end:
            asked.pop(index, None)
            found[index] = end.value

    for index in range(len(forms)):
        advance(index, None)
    is_small = all(form.n <= _MOST_OF_ONE_THREAD for form in forms)
    with in_threads(1 if is_small else None):
        while asked:
            running = list(asked)
            steps = guttman_transforms([asked[i] for i in running], [forms[i] for i in running])
            for index, step in zip(running, steps, strict=True):
                advance(index, step)
            if on_pass is not None:
                on_pass()
    return [found[index] for index in range(len(forms))]


def _descend(
    start: Tensor, tolerance: float, max_passes: int
) -> Generator[Tensor, GuttmanStep | None, Descent]:
    """Yields positions (N, d) float32, is sent their transform, and returns what was found."""
    n, dim = start.shape
    n_pairs = n * (n - 1) / 2
    if n < 2:
        return Descent(torch.zeros_like(start), [0.0], 0)
    position = (start - start.mean(dim=0)).double()
    n_passes = 0

    def look(at: Tensor) -> Generator[Tensor, GuttmanStep | None, tuple[float, Tensor]]:
        """Raw stress, and x − x̄ flat, which is the gradient divided by 2N."""
        nonlocal n_passes
        n_passes += 1
        step = yield at.to(start.dtype)
        assert step is not None
        return step.raw_stress, (at - step.moved.double()).flatten()

    raw, gradient = yield from look(position)
    stresses = [raw / n_pairs]
    scaled = _best_scale(position, gradient)
    if scaled is not None:
        new_raw, new_gradient = yield from look(scaled)
        if new_raw < raw:
            position, raw, gradient = scaled, new_raw, new_gradient
            stresses.append(raw / n_pairs)
    memory = _Memory(gradient)
    while n_passes < max_passes and raw > 0:
        direction, slope = memory.direction()
        slope *= 2 * n
        if -slope <= _ROUNDING * raw:
            break
        length, is_taken = 1.0, False
        for _ in range(_MOST_SHORTENINGS + 1):
            candidate = position + length * direction.view(n, dim)
            new_raw, new_gradient = yield from look(candidate)
            is_taken = new_raw <= raw + _LEAST_SHARE * length * slope
            if is_taken or n_passes >= max_passes:
                break
            # The least of the parabola through both stresses and the slope.
            curvature = new_raw - raw - length * slope
            least = -slope * length**2 / (2 * curvature) if curvature > 0 else 0.0
            length = min(max(least, 0.1 * length), 0.5 * length)
        if not is_taken:
            if memory.is_empty:
                break
            memory = _Memory(gradient)
            continue
        memory.add((candidate - position).flatten(), new_gradient)
        position, raw, gradient = candidate, new_raw, new_gradient
        stresses.append(raw / n_pairs)
        if len(stresses) > _WINDOW:
            before = stresses[-1 - _WINDOW]
            if before - stresses[-1] <= tolerance * before:
                break
    found = (position - position.mean(dim=0)).to(start.dtype)
    return Descent(found, stresses, n_passes)


def _best_scale(position: Tensor, gradient: Tensor) -> Tensor | None:
    """The positions scaled to least stress; None if that changes little.

    Σ_{i<j} δ_ij d_ij = N Σ_i x_i·x̄_i and Σ_{i<j} d_ij² = N Σ_i x_i², so that both are known.
    """
    size = float(position.square().sum())
    fit = size - float(position.flatten() @ gradient)
    if size == 0 or not math.isfinite(fit) or fit <= 0:
        return None
    factor = fit / size
    return None if abs(factor - 1) < 0.01 else position * factor


class _Memory:
    """The last steps and changes of gradient, and the L-BFGS direction they give.

    All inner products are kept, so that the two loops run over coefficients rather than vectors
    (Chen, Wang & Zhou 2014, "Large-scale L-BFGS using MapReduce"): one product with the memory for
    what is new, one for the direction, and no number is waited for in between.
    """

    def __init__(self, gradient: Tensor) -> None:
        # Steps, changes of gradient, and last the gradient.
        self._vectors = gradient.new_zeros(2 * _MEMORY + 1, gradient.numel())
        self._vectors[-1] = gradient
        self._products = np.zeros((2 * _MEMORY + 1, 2 * _MEMORY + 1))
        self._products[-1, -1] = float(gradient @ gradient)
        self._order: list[int] = []

    @property
    def is_empty(self) -> bool:
        return not self._order

    def add(self, step: Tensor, gradient: Tensor) -> None:
        """Count in a step and the gradient after it."""
        change = gradient - self._vectors[-1]
        if len(self._order) == _MEMORY:
            self._order.pop(0)
        place = next(i for i in range(_MEMORY) if i not in self._order)
        new = [place, _MEMORY + place, 2 * _MEMORY]
        vectors = torch.stack([step, change, gradient])
        for index, vector in zip(new, vectors, strict=True):
            self._vectors[index] = vector
        products = (self._vectors @ vectors.T).cpu().numpy()
        self._products[:, new] = products
        self._products[new] = products.T
        # Where stress curves down along the step, it tells nothing of where it curves up.
        along, across = self._products[place, new[1]], self._products[new[1], new[1]]
        if along > 1e-10 * across:
            self._order.append(place)

    def direction(self) -> tuple[Tensor, float]:
        """Where to go, (N·d,), and its product with the gradient, which is negative."""
        if self._order:
            weights = self._weights()
            slope = -float(weights @ self._products[-1])
            if slope < 0:
                return -(self._vectors.new_tensor(weights) @ self._vectors), slope
            self._order.clear()
        return -self._vectors[-1], -float(self._products[-1, -1])

    def _weights(self) -> np.ndarray:
        """The direction's negative as weights of the vectors: the two loops of L-BFGS."""
        weights = np.zeros(2 * _MEMORY + 1)
        weights[-1] = 1
        shares = {}
        for place in reversed(self._order):
            along = self._products[place, _MEMORY + place]
            shares[place] = weights @ self._products[place] / along
            weights[_MEMORY + place] -= shares[place]
        last = self._order[-1]
        weights *= (
            self._products[last, _MEMORY + last] / self._products[_MEMORY + last, _MEMORY + last]
        )
        for place in self._order:
            along = self._products[place, _MEMORY + place]
            weights[place] += shares[place] - weights @ self._products[_MEMORY + place] / along
        return weights
