"""Positions from correlations: the entry point of all solvers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from projector.errors import SettingError, UserError, named
from projector.layouts.objective import DEFAULT_SOLVER, Placement, Settings
from projector.layouts.registry import OBJECTIVES
from projector.layouts.settings import STARTS, Layout
from projector.layouts.solvers.online import TRACKERS, OnlineTrainer, train_until_still
from projector.statistics.correlations import Correlation, MatrixFree, among_all, as_correlation

__all__ = [
    "OBJECTIVES",
    "STARTS",
    "TRACKERS",
    "Layout",
    "OnlineTrainer",
    "Placement",
    "among_all",
    "finish_trained",
    "place",
    "solve",
    "solve_all",
]

Matrix = TypeVar("Matrix", Tensor, np.ndarray)


def place(
    correlation: Matrix,
    dim: int | None = None,
    objective: str = "stress",
    solver: str = DEFAULT_SOLVER,
    seed: int = 0,
    **settings: object,
) -> Matrix:
    """Find positions for any correlation matrix.

    Args:
        correlation: (N, N), a tensor or an array. A neuron with NaN on the diagonal is undefined
            and gets a NaN position.
        dim, objective, solver, seed: see :class:`projector.layouts.settings.Layout`.
        **settings: its other fields, by name: ``start``, ``p``, ``lr``, ``absolute`` …

    Returns:
        (N, dim) float32, a tensor or an array like ``correlation``, on the same device.

    Raises:
        UserError: for a matrix that isn't square or symmetric, values that aren't correlations, or
            incompatible settings.
    """
    layout = Layout(
        objective=objective,
        solver=solver,
        dim=dim,  # type: ignore[arg-type]
        seed=seed,
        **settings,  # type: ignore[arg-type]
    )
    if isinstance(correlation, Tensor):
        return solve(correlation, layout).positions
    rho = torch.from_numpy(np.array(correlation, dtype=np.float32))
    return solve(rho, layout).positions.numpy()


def solve(correlation: Tensor | MatrixFree | Correlation, layout: Layout) -> Placement:
    """Find positions of the defined neurons of ``correlation`` with ``layout``.

    Args:
        correlation: a matrix (N, N), NaN for undefined neurons; or a sample of activations, for too
            many neurons for a matrix.

    Raises:
        UserError: for an invalid correlation matrix, or a layout that needs a matrix and has none.
    """
    return solve_all([correlation], layout)[0]


def solve_all(
    correlations: Sequence[Tensor | MatrixFree | Correlation], layout: Layout
) -> list[Placement]:
    """:func:`solve` for several maps.

    The result for a map depends on the other maps only by rounding. On CUDA, they may share kernel
    launches.

    Returns:
        For each map, positions (N, dim) float32 on its device, NaN for undefined neurons.

    Raises:
        UserError: as for :func:`solve`, for any of the maps.
    """
    forms = [as_correlation(correlation) for correlation in correlations]
    for form in forms:
        form.check()
        if not form.has_matrix and not layout.how.may_sample:
            raise _needs_matrix(form, layout)
    if layout.how.place is not None:
        return layout.how.place(forms, layout)
    return [_trained(form, layout) for form in forms]


def _trained(correlation: Correlation, layout: Layout) -> Placement:
    """Trained on one matrix until it is still."""
    if layout.accumulate != 1:
        raise SettingError(
            "accumulate",
            layout.accumulate,
            "has no effect when a matrix is used instead of batches",
            "leave it out",
        )
    rho = correlation.matrix()
    if len(rho) == 0:
        return Placement(among_all(rho.new_zeros(0, layout.dim), correlation.is_defined))
    trainer = OnlineTrainer.of(layout, device=rho.device)
    points = train_until_still(trainer, rho.abs() if layout.absolute else rho)
    return Placement(among_all(finish_trained(points, layout), correlation.is_defined))


def _needs_matrix(correlation: Correlation, layout: Layout) -> UserError:
    n = len(correlation.is_defined)
    others = [
        f"{named('objective', each.name)} and {named('solver', solver)}"
        for each in OBJECTIVES.values()
        for solver, how in each.methods.items()
        if how.may_sample
    ]
    return UserError(
        f"{layout.method} needs the whole correlation matrix, {n:,} × {n:,}, which exceeds the "
        f"memory budget: choose {' or '.join(others)}, or raise {named('memory_budget')}"
    )


def finish_trained(points: Tensor, layout: Settings) -> Tensor:
    """Turn trained points into a map: ranks for a linear map, centred positions for any other.

    Raises:
        UserError: if the training diverged.
    """
    # Beyond this their distances' squares leave float32.
    if not bool((points.abs() < 1e18).all()):
        raise UserError(f"the training of positions diverged: lower {named('lr')} or {named('p')}")
    return layout.record.finish(points)
