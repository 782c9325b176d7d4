"""The one hot operation: the Guttman transform and raw stress, in one pass over the target.

Its forms share one contract and give the same numbers to rounding: tiled torch on any device, and
Triton kernels on CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from projector.kernels.targets import Correlations, Distances, MatrixFree, Target, as_target
from projector.kernels.tiled import transform_tiled

__all__ = [
    "Correlations",
    "Distances",
    "GuttmanStep",
    "MatrixFree",
    "Target",
    "as_target",
    "guttman_transform",
    "guttman_transforms",
]


@dataclass(frozen=True)
class GuttmanStep:
    """``moved`` (N, d): the transform of the positions; ``raw_stress``: Σ_{i<j} (d_ij − δ_ij)²
    before it."""

    moved: Tensor
    raw_stress: float


def guttman_transform(positions: Tensor, target: Tensor | Target) -> GuttmanStep:
    """One majorization step, and the raw stress before it.

    x̄_i = (1/N) Σ_j (δ_ij / d_ij)(x_i − x_j), de Leeuw (1977); coincident points (d_ij = 0) exert no
    force. It is centred on 0, and depends neither on where positions are centred nor on their
    scale. Stress after it is never higher; the gradient of the raw stress at centred positions is
    2N(x − x̄). One pass over ``target``, with no N × N temporary.

    Args:
        positions: (N, d) float32 or float64, on the device of ``target``.
        target: distances wanted; a plain matrix (N, N), or one of the forms in
            :mod:`projector.kernels.targets`.
    """
    moved, raw = transform_tiled(positions, as_target(target))
    return GuttmanStep(moved, raw)


def guttman_transforms(
    positions: Sequence[Tensor], targets: Sequence[Tensor | Target]
) -> list[GuttmanStep]:
    """:func:`guttman_transform` of several maps."""
    return [guttman_transform(x, target) for x, target in zip(positions, targets, strict=True)]
