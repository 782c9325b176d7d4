"""Stress: distances on the map match 1 − cos of the states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.progress import Progress
from projector.residual.particles.reduction.reduction import Fitted, Reduction

if TYPE_CHECKING:
    from torch import Tensor

    from projector.statistics.correlations import Target

# Up to here the matrix of cosines is stored, 1 GiB at most. Above it they are computed from the
# states in every pass, which needs no more memory than these.
_MOST_STORED = 16_384
# Relative decrease of stress over ten steps at which to stop.
_TOLERANCE = 2e-5


def fit_stress(
    rows: Tensor,
    *,
    dim: int,
    neighbours: int = 15,
    seed: int = 0,
    is_centred: bool = True,
    progress: Progress | None = None,
) -> Fitted:
    """Find positions with distances as close to 1 − cos as ``dim`` dimensions allow.

    It uses the solver of layouts, :func:`projector.layouts.solvers.smacof.minimize_stress`,
    starting from classical scaling. A zero row has no direction, and has distance 1 to every other
    row.

    Args:
        rows: (n, W).
        dim: number of dimensions of the map.
        neighbours: not used.
        seed: seed of the iteration for the start.
        is_centred: not used: its positions have mean 0.
        progress: reports its passes; their number isn't known in advance.

    Raises:
        UserError: if memory is too small.
    """
    from functools import partial

    import torch

    from projector.layouts.solvers.smacof import minimize_stress
    from projector.layouts.start import classical_start
    from projector.memory import out_of_memory

    n = len(rows)
    if progress is not None:
        progress.begin(f"Stress of {n:,} states", None, "passes")
    with out_of_memory(f": the map of {n:,} states did not fit, so show fewer layers or tokens"):
        target = cosine_target(rows)
        start = classical_start(target, dim, torch.Generator().manual_seed(seed))
        found = minimize_stress(
            target,
            start,
            tolerance=_TOLERANCE,
            on_pass=partial(progress.advance, 1) if progress is not None else None,
        )
        return Fitted(found.positions)


def cosine_target(rows: Tensor) -> Target:
    """Target distances 1 − cos of rows (n, W), stored as a matrix if there are few rows."""
    import torch

    from projector.statistics.correlations import Correlations, MatrixFree

    whole = rows.double()
    lengths = whole.norm(dim=1, keepdim=True)
    units = torch.where(lengths > 0, whole / lengths, 0.0)
    if len(rows) <= _MOST_STORED:
        return Correlations((units.float() @ units.float().T).clamp_(max=1))
    # ρ is the mean over columns there.
    return MatrixFree((units * rows.shape[1] ** 0.5).float())


STRESS = Reduction(
    name="stress",
    words="stress",
    help="distances match 1 − the cosine of two states",
    is_linear=False,
    metric="cosine",
    places_others=False,
    least_rows=lambda dim, neighbours: dim + 1,
    fit=fit_stress,
)
