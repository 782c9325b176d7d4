"""Positions from correlations: one door to every solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from projector.errors import UserError, named
from projector.layouts.arrangement import Arrangement, arrange, positions_of, ranks_of
from projector.layouts.costs import dissimilarity
from projector.layouts.kernels import Correlations, MatrixFree, Target
from projector.layouts.neighbours import keep_neighbours
from projector.layouts.online import TRACKERS, OnlineTrainer, train_until_still
from projector.layouts.registry import OBJECTIVES
from projector.layouts.settings import STARTS, Layout
from projector.layouts.smacof import minimize_stresses
from projector.layouts.start import start_positions

__all__ = [
    "OBJECTIVES",
    "STARTS",
    "TRACKERS",
    "Arrangement",
    "Layout",
    "OnlineTrainer",
    "Placement",
    "among_all",
    "arrange",
    "finish_trained",
    "place",
    "solve",
    "solve_all",
]

# Rows and columns of a matrix that are checked at a time.
_TILE = 512

Matrix = TypeVar("Matrix", Tensor, np.ndarray)


@dataclass(frozen=True)
class Placement:
    """Positions (N, d) float32, NaN for undefined neurons, and how they were reached.

    ``arrangement`` is what a linear map was improved from; None for other objectives and for
    ``adamw``.
    """

    positions: Tensor
    arrangement: Arrangement | None = None


def place(
    correlation: Matrix,
    dim: int | None = None,
    objective: str = "stress",
    solver: str = "smacof",
    seed: int = 0,
    **settings: object,
) -> Matrix:
    """Positions for any correlation matrix.

    Args:
        correlation: (N, N), a tensor or an array. A neuron whose own correlation, on the diagonal,
            is NaN is undefined and gets a NaN position.
        dim, objective, solver, seed, **settings: see :class:`projector.layouts.settings.Layout`.

    Returns:
        (N, dim) float32, of the kind that was given, on the same device.

    Raises:
        UserError: for a matrix that is not square or not symmetric, values that are no
            correlations, or settings that do not fit together.
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


def solve(correlation: Tensor | MatrixFree, layout: Layout) -> Placement:
    """Positions of the defined neurons of ``correlation`` by ``layout``.

    Args:
        correlation: (N, N); or a sample of activations, for neurons too many for a matrix, which
            only ``smacof`` takes.

    Raises:
        UserError: for what is no correlation matrix, or a layout that needs a matrix and has none.
    """
    return solve_all([correlation], layout)[0]


def solve_all(correlations: Sequence[Tensor | MatrixFree], layout: Layout) -> list[Placement]:
    """:func:`solve` of several maps.

    What is found for each depends on the others by rounding at most. On CUDA they share the
    launches of a pass.
    """
    if layout.method != "smacof":
        return [_solve_stored(correlation, layout) for correlation in correlations]
    targets: list[Target] = []
    alive: list[Tensor] = []
    for correlation in correlations:
        if isinstance(correlation, Tensor):
            rho, is_alive = _defined(correlation)
            targets.append(Correlations(rho, layout.absolute))
            alive.append(is_alive)
        else:
            targets.append(replace(correlation, absolute=layout.absolute))
            alive.append(torch.ones(correlation.n, dtype=torch.bool, device=correlation.device))
    starts = []
    for target in targets:
        generator = torch.Generator().manual_seed(layout.seed)
        starts.append(start_positions(layout.start, target, layout.dim, generator))
    descents = minimize_stresses(targets, starts)
    return [
        Placement(among_all(descent.positions, is_alive), None)
        for descent, is_alive in zip(descents, alive, strict=True)
    ]


def _solve_stored(correlation: Tensor | MatrixFree, layout: Layout) -> Placement:
    if not isinstance(correlation, Tensor):
        raise UserError(
            f"{layout.method} needs the whole correlation matrix, {correlation.n:,} × "
            f"{correlation.n:,}, which is beyond the memory budget: choose the objective stress "
            "with smacof, or give more memory"
        )
    rho, is_alive = _defined(correlation)
    found, arrangement = _solve_defined(rho.abs() if layout.absolute else rho, layout)
    return Placement(among_all(found, is_alive), arrangement)


def _defined(correlation: Tensor) -> tuple[Tensor, Tensor]:
    """ρ of the defined neurons as float32, at most 1, and (N,) bool which they are."""
    check_correlation(correlation)
    is_alive = correlation.diagonal().isfinite()
    rho = correlation
    if not bool(is_alive.all()):
        rho = rho[is_alive][:, is_alive]
    rho = rho.float()
    if bool(rho.isnan().any()):
        raise UserError("the correlation of some pair is NaN while both neurons are defined")
    if rho.numel() and float(rho.max()) > 1:
        rho = rho.clamp(max=1)
    return rho, is_alive


def among_all(found: Tensor, is_alive: Tensor) -> Tensor:
    """Positions (N, d) of all: those ``found`` (n_alive, d) of the defined, NaN of the others."""
    positions = torch.full((len(is_alive), found.shape[1]), torch.nan, device=is_alive.device)
    positions[is_alive] = found.to(is_alive.device)
    return positions


def check_correlation(correlation: Tensor) -> None:
    """Raise a UserError if this is no correlation matrix."""
    if correlation.ndim != 2 or correlation.shape[0] != correlation.shape[1]:
        raise UserError(
            f"a correlation matrix is square, and this has shape {tuple(correlation.shape)}"
        )
    if correlation.numel() == 0:
        raise UserError("the correlation matrix is empty")
    n = correlation.shape[0]
    tiles = [slice(first, first + _TILE) for first in range(0, n, _TILE)]
    is_symmetric = True
    # In square tiles, of which both the one and its mirror image fit into cache.
    for rows, columns in combinations_with_replacement(tiles, 2):
        one, other = correlation[rows, columns], correlation[columns, rows].T
        if bool(one.isnan().any()) or bool(other.isnan().any()):
            one, other = one.nan_to_num(0.0), other.nan_to_num(0.0)
        extreme = max(map(float, torch.aminmax(one)), key=abs)
        if abs(extreme) > 1 + 1e-3:
            raise UserError(f"correlations lie between -1 and 1, and this matrix holds {extreme:g}")
        is_symmetric &= float((one - other).abs_().max()) <= 1e-4
    if not is_symmetric:
        raise UserError("a correlation matrix is symmetric, and this one is not")


def _solve_defined(rho: Tensor, layout: Layout) -> tuple[Tensor, Arrangement | None]:
    if rho.shape[0] == 0:
        return torch.zeros(0, layout.dim), None
    if layout.method == "moves":
        arrangement = arrange(rho)
        return positions_of(arrangement.ranks), arrangement
    if layout.method == "umap":
        return keep_neighbours(dissimilarity(rho), layout.dim, layout.seed), None
    trainer = OnlineTrainer(
        layout.dim,
        objective=layout.objective,
        start=layout.start,
        lr=layout.lr,
        p=layout.p,
        seed=layout.seed,
        device=rho.device,
    )
    points = train_until_still(trainer, rho)
    return finish_trained(points, layout), None


def finish_trained(points: Tensor, layout: Layout) -> Tensor:
    """Trained points as a map: their ranks for a linear one, centred for any other.

    Raises:
        UserError: if the training diverged.
    """
    # Beyond this their distances' squares leave float32.
    if not bool((points.abs() < 1e18).all()):
        raise UserError(f"the training of positions diverged: lower {named('lr')} or {named('p')}")
    if layout.objective == "linear":
        return positions_of(ranks_of(torch.argsort(points[:, 0], stable=True)))
    return points - points.mean(dim=0)
