"""Layouts that preserve neighbours: t-SNE, or UMAP (McInnes, Healy & Melville 2018).

UMAP: arXiv:1802.03426. t-SNE: see :mod:`projector.layouts.solvers.tsne`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from projector.errors import SettingError
from projector.layouts.objective import (
    DEFAULT_SOLVER,
    Method,
    Objective,
    Placement,
    Settings,
    each_placed,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from projector.statistics.correlations import Correlation

N_NEIGHBOURS = 15
# UMAP's spectral start and its neighbour graph need more points than this.
_LEAST_NEURONS = 8


def keep_neighbours(target: Tensor, dim: int, seed: int) -> Tensor:
    """UMAP on precomputed distances; (N, dim) float32, centred.

    It uses one thread, so that equal seeds give equal positions. Fewer than eight neurons are too
    few for a neighbour graph and are placed by classical scaling.

    Args:
        target: (N, N) target distances, symmetric, at least 0, with a zero diagonal.

    Raises:
        SettingError: if there are too many dimensions for the number of neurons.
    """
    import torch

    from projector.layouts.start import classical_start
    from projector.processor import in_threads

    n = target.shape[0]
    if n < _LEAST_NEURONS:
        return classical_start(target, dim, torch.Generator().manual_seed(seed))
    if dim > n - 3:
        raise SettingError(
            "dim",
            dim,
            f"is too large for UMAP with {n:,} neurons",
            f"give at most {n - 3:,}",
        )
    import umap  # compiles its kernels when imported, which takes seconds

    reducer = umap.UMAP(
        n_components=dim,
        n_neighbors=min(N_NEIGHBOURS, n - 1),
        metric="precomputed",
        random_state=seed,
        n_jobs=1,
    )
    # Its compiler's threads share OpenMP with PyTorch, and set how many PyTorch computes in.
    with in_threads(torch.get_num_threads()), warnings.catch_warnings():
        # It warns that inverse transforms need more than distances, and we ask for none.
        warnings.simplefilter("ignore")
        positions = reducer.fit_transform(target.cpu().double().numpy())
    found = torch.from_numpy(positions).to(target.device, torch.float32)
    return found - found.mean(dim=0)


def _place_by_umap(correlation: Tensor, layout: Settings) -> Placement:
    from projector.layouts.costs import dissimilarity

    return Placement(keep_neighbours(dissimilarity(correlation), layout.dim, layout.seed))


def _seconds_by_umap(n: int, layout: Settings, device: torch.device) -> float:
    """Scaled from 1,536 neurons on one core; its import and compiling left out."""
    return 1.9 * (n / 1536) ** 1.2


def _place(correlations: Sequence[Correlation], layout: Settings) -> list[Placement]:
    """By t-SNE; on a CPU each map on a core of its own, so that threads change no number."""
    import torch

    def place_one(correlation: Correlation) -> Placement:
        return _embedded(correlation, layout)

    n_threads = min(len(correlations), torch.get_num_threads())
    is_on_cpu = all(each.is_defined.device.type == "cpu" for each in correlations)
    if not is_on_cpu or n_threads < 2:
        return [place_one(correlation) for correlation in correlations]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(place_one, correlations))


def _embedded(correlation: Correlation, layout: Settings) -> Placement:
    import torch

    from projector.layouts.solvers.tsne import embed
    from projector.layouts.start import start_positions
    from projector.processor import in_threads
    from projector.statistics.correlations import among_all

    target = correlation.target(layout.absolute)
    generator = torch.Generator().manual_seed(layout.seed)
    with in_threads(1 if target.device.type == "cpu" else None):
        start = start_positions(layout.start, target, layout.dim, generator)
        positions = embed(target, start, generator)
    return Placement(among_all(positions, correlation.is_defined))


def _seconds(n: int, layout: Settings, device: torch.device) -> float:
    """Some steps are timed; the three fits of a map share the cores."""
    import torch

    from projector.layouts.solvers.tsne import N_STEPS, embed
    from projector.processor import in_threads

    generator = torch.Generator().manual_seed(0)
    points = torch.randn(n, layout.dim, generator=generator)
    start, target = points.to(device), torch.cdist(points, points).to(device)

    def seconds(n_steps: int) -> float:
        began = time.monotonic()
        embed(target, start, generator, n_steps=n_steps)
        return time.monotonic() - began

    with in_threads(1 if device.type == "cpu" else None):
        seconds(1)
        few, more = seconds(1), seconds(11)
    n_at_once = min(3, torch.get_num_threads()) if device.type == "cpu" else 1
    return max(few, few + N_STEPS * (more - few) / 10) / n_at_once


def _seconds_sampled(n: int, n_tokens: int, device: torch.device) -> float:
    """Correlations are computed from the sample seven times, for the start and the neighbours.

    It is timed as stress is, which computes them in 50 passes of half the work.
    """
    from projector.layouts.objective import OBJECTIVES

    by_stress = OBJECTIVES["stress"].methods[DEFAULT_SOLVER].seconds_sampled
    return 0.0 if by_stress is None else by_stress(n, n_tokens, device) * 14 / 50


NEIGHBOURS = Objective(
    name="neighbours",
    help="keeps neighbours",
    methods={
        DEFAULT_SOLVER: Method(
            name="tsne",
            reads=frozenset({"start"}),
            place=_place,
            # With a map and those of its two halves at once.
            pair_bytes=58,
            seconds=_seconds,
            seconds_sampled=_seconds_sampled,
        ),
        "umap": Method(
            name="umap",
            place=each_placed(_place_by_umap),
            pair_bytes=38,
            library_bytes=288 << 20,
            seconds=_seconds_by_umap,
        ),
    },
    lacks={"distances": "the distances of a neighbours map don't represent 1 − ρ"},
)
