"""Stress: distances match 1 − ρ."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from projector.layouts.objective import DEFAULT_SOLVER, Method, Objective, Placement, Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from projector.statistics.correlations import Correlation

# Passes that smacof takes on maps of trained models, about.
_USUAL_PASSES = 50


def _place(correlations: Sequence[Correlation], layout: Settings) -> list[Placement]:
    """By SMACOF; on CUDA several maps share the launches of a pass."""
    if all(correlation.has_matrix for correlation in correlations):
        return _majorize(correlations, layout)
    # Without matrices they share nothing, and need not be in memory together.
    return [_majorize([correlation], layout)[0] for correlation in correlations]


def _majorize(correlations: Sequence[Correlation], layout: Settings) -> list[Placement]:
    import torch

    from projector.layouts.solvers.smacof import minimize_stresses
    from projector.layouts.start import start_positions
    from projector.statistics.correlations import among_all

    targets = [correlation.target(layout.absolute) for correlation in correlations]
    starts = []
    for target in targets:
        generator = torch.Generator().manual_seed(layout.seed)
        starts.append(start_positions(layout.start, target, layout.dim, generator))
    descents = minimize_stresses(targets, starts)
    return [
        Placement(among_all(descent.positions, correlation.is_defined))
        for descent, correlation in zip(descents, correlations, strict=True)
    ]


def _loss(points: Tensor, correlation: Tensor, p: float) -> Tensor:
    from projector.layouts.costs import stress_loss

    return stress_loss(points, correlation, p)


def _seconds(n: int, layout: Settings, device: torch.device) -> float:
    """One pass is timed."""
    import torch

    from projector.layouts.kernels import Correlations, guttman_transform

    generator = torch.Generator().manual_seed(0)
    points = torch.randn(n, layout.dim, generator=generator).to(device)
    target = Correlations(torch.rand(n, n, generator=generator).to(device))
    guttman_transform(points, target)
    began = time.monotonic()
    guttman_transform(points, target)
    return _USUAL_PASSES * (time.monotonic() - began)


def _seconds_sampled(n: int, n_tokens: int, device: torch.device) -> float:
    """Correlations are computed from a sample, which is most of the work.

    One block of rows is timed, on fewer tokens. A pass uses symmetry, and halves have half the
    tokens: three fits are two of this.
    """
    import torch

    from projector.statistics.correlations import MatrixFree

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    n_trial, n_rows = min(n_tokens, 1024), min(n, 256)
    target = MatrixFree(torch.zeros(n, n_trial, dtype=torch.float16, device=device))
    target.correlation(slice(0, n_rows), slice(0, n))
    wait()
    began = time.monotonic()
    target.correlation(slice(0, n_rows), slice(0, n))
    wait()
    one = (time.monotonic() - began) * (n / n_rows) * (n_tokens / n_trial) / 2
    return _USUAL_PASSES * one * 2 / 3


STRESS = Objective(
    name="stress",
    help="distances match 1 − ρ",
    methods={
        DEFAULT_SOLVER: Method(
            name="smacof",
            reads=frozenset({"start"}),
            place=_place,
            seconds=_seconds,
            seconds_sampled=_seconds_sampled,
        ),
        "adamw": Method(
            name="adamw",
            reads=frozenset({"start", "p", "lr", "accumulate"}),
            pair_bytes=32,
        ),
    },
    loss=_loss,
    read=(
        "Axes are in units of 1 − ρ, where ρ is the correlation of two neurons' activations: "
        "distances match 1 − ρ as closely as the dimensions allow. The figures next to the map "
        "show how closely."
    ),
    then="neighbours",
)
