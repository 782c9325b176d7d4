"""The most expensive operation: the Guttman transform and raw stress, in one pass over the target.

There are two implementations with the same results up to rounding: tiled PyTorch on any device, and
Triton kernels on CUDA.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from projector.layouts.kernels.tiled import transform_tiled
from projector.statistics.correlations import Correlations, Distances, MatrixFree, Target, as_target

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

_MOST_DIMENSIONS = 8


@dataclass(frozen=True)
class GuttmanStep:
    """``moved`` (N, d) are the transformed positions; ``raw_stress`` is Σ_{i<j} (d_ij − δ_ij)²
    before the step.
    """

    moved: Tensor
    raw_stress: float


def guttman_transform(positions: Tensor, target: Tensor | Target) -> GuttmanStep:
    """Compute a majorization step, and the raw stress before it.

    x̄_i = (1/N) Σ_j (δ_ij / d_ij)(x_i − x_j), de Leeuw (1977); coincident points (d_ij = 0) exert
    no force. The result is centred on 0, and doesn't depend on the centre or the scale of the
    positions. It never has a higher stress. The gradient of the raw stress at centred positions is
    2N(x − x̄). This is one pass over ``target``, without an N × N temporary.

    Args:
        positions: (N, d) float32 or float64, on the device of ``target``.
        target: target distances; a plain matrix (N, N), or one of the forms in
            :mod:`projector.statistics.correlations`.
    """
    return guttman_transforms([positions], [target])[0]


def guttman_transforms(
    positions: Sequence[Tensor], targets: Sequence[Tensor | Target]
) -> list[GuttmanStep]:
    """:func:`guttman_transform` of several maps; on CUDA, those with stored targets share kernel
    launches.

    The result for a map depends on the other maps only by rounding: on CUDA, they affect how sums
    are split.
    """
    forms = [as_target(target) for target in targets]
    found: dict[int, tuple[Tensor, float]] = {}
    together: dict[tuple[object, ...], list[int]] = {}
    for index, (points, target) in enumerate(zip(positions, forms, strict=True)):
        kernels = _kernels() if _has_kernel(points, target) else None
        if kernels is None:
            found[index] = transform_tiled(points, target)
        elif not target.has_matrix:
            found[index] = kernels.transform_matrix_free(points, target)
        else:
            key = (target.is_correlation, target.absolute, points.shape[1], points.device)
            together.setdefault(key, []).append(index)
    for indices in together.values():
        steps = _kernels().transform_stored(
            [positions[i] for i in indices], [forms[i] for i in indices]
        )
        found.update(zip(indices, steps, strict=True))
    return [GuttmanStep(*found[index]) for index in range(len(forms))]


def _has_kernel(positions: Tensor, target: Target) -> bool:
    """Whether the Triton kernels take these."""
    if positions.device.type != "cuda" or positions.dtype != torch.float32:
        return False
    if not 1 <= positions.shape[1] <= _MOST_DIMENSIONS or target.n == 0:
        return False
    if not target.has_matrix:
        return True
    stored = target.stored
    assert stored is not None
    return stored.dtype == torch.float32 and stored.stride(1) == 1


@cache
def _kernels() -> Any:
    """The module of the Triton kernels; None if they can't be used.

    There may be no Triton, as on Windows; no C compiler, which it needs at its first launch; or a
    device that it knows too little of. So they are tried once.
    """
    try:
        module = import_module("projector.layouts.kernels.triton_forms")
    except ImportError:
        return None
    points = torch.linspace(-1, 1, 150, device="cuda").view(50, 3)
    rows = torch.linspace(0, 50, 1600, device="cuda").view(50, 32).sin()
    rows = (rows - rows.mean(dim=1, keepdim=True)) / rows.std(dim=1, correction=0, keepdim=True)
    sample = MatrixFree(rows.half())
    stored = Correlations(sample.correlation(slice(0, 50), slice(0, 50)))
    try:
        found = [*module.transform_stored([points], [stored])]
        found.append(module.transform_matrix_free(points, sample))
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    else:
        expected, raw = transform_tiled(points, stored)
        if all(
            torch.allclose(moved, expected, atol=1e-3) and abs(misfit - raw) <= 1e-3 * raw
            for moved, misfit in found
        ):
            return module
        why = "their results are wrong"
    warnings.warn(f"without Triton's kernels, passes take longer here ({why})", stacklevel=2)
    return None
