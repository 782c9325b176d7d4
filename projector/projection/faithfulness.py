"""How far a map can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from projector.layouts.costs import EXACT, row_blocks, stress_figures
from projector.layouts.settings import Layout
from projector.projection.trust import FIGURES, Faithfulness
from projector.statistics.correlations import (
    Correlation,
    Target,
    as_correlation,
    as_target,
)

N_NEIGHBOURS = 10
_MOST_PAIRS = 500_000


def measure(
    positions: Tensor,
    correlation: Tensor | Correlation | None,
    layout: Layout,
    half_correlations: tuple[Tensor | Correlation, Tensor | Correlation] | None = None,
    half_positions: tuple[Tensor, Tensor] | None = None,
    *,
    no_halves: str = "the corpus was not fitted in halves",
) -> Faithfulness:
    """Measure a map against the correlations it was made from.

    Args:
        positions: (N, d), NaN for undefined neurons.
        correlation: (N, N), NaN for undefined neurons, or a sample to compute it from; None where
            it was not kept.
        layout: how the positions were found.
        half_correlations: those of the first and of the second half of the corpus.
        half_positions: the maps of the two halves.
        no_halves: why either is None.
    """
    if correlation is None:
        missing = "correlations were not kept"
        return Faithfulness(**dict.fromkeys(FIGURES), reasons=dict.fromkeys(FIGURES, missing))
    form = as_correlation(correlation)
    alive = positions.isfinite().all(dim=1) & form.is_defined
    points, target = positions[alive], form.target(layout.absolute, alive)
    n = points.shape[0]
    reasons: dict[str, str] = {}

    stress: float | None = None
    stress_1: float | None = None
    if n == 0:
        reasons["stress"] = reasons["stress_1"] = "no neuron is defined"
    elif layout.objective == "stress":
        stress, stress_1 = stress_figures(points, target, p=layout.p)
        if stress_1 is None:
            reasons["stress_1"] = "all positions coincide"
    else:
        why = f"the distances of a {layout.objective} map are not meant to be 1 − ρ"
        reasons["stress"] = reasons["stress_1"] = why

    rank_correlation = _rank_correlation(points, target, layout.p)
    if rank_correlation is None:
        reasons["rank_correlation"] = "all distances are equal"

    overlap = chance = stability = correlation_stability = None
    if n < N_NEIGHBOURS + 2:
        why = f"{n} defined neurons are too few for {N_NEIGHBOURS} neighbours"
        reasons |= dict.fromkeys(
            ("neighbour_overlap", "chance_overlap", "stability", "correlation_stability"), why
        )
    else:
        overlap = overlap_of(nearest_on_map(points, layout.p), nearest_by_target(target))
        chance = N_NEIGHBOURS / (n - 1)
        stability, correlation_stability = _stability(
            alive,
            layout,
            None if half_correlations is None else [*map(as_correlation, half_correlations)],
            half_positions,
        )
        for name, value, halves in (
            ("stability", stability, half_positions),
            ("correlation_stability", correlation_stability, half_correlations),
        ):
            if value is None:
                reasons[name] = (
                    no_halves
                    if halves is None
                    else "too few neurons are defined in both halves of the corpus"
                )
    return Faithfulness(
        stress,
        stress_1,
        rank_correlation,
        overlap,
        chance,
        stability,
        correlation_stability,
        reasons,
    )


def _stability(
    alive: Tensor,
    layout: Layout,
    correlations: Sequence[Correlation] | None,
    positions: tuple[Tensor, Tensor] | None,
) -> tuple[float | None, float | None]:
    """The neighbours on which the two halves agree: on their maps, and by ρ."""
    if correlations is None:
        return None, None
    both = alive.clone()
    for rho in correlations:
        both &= rho.is_defined
    for points in positions or ():
        both &= points.isfinite().all(dim=1)
    if int(both.sum()) < N_NEIGHBOURS + 2:
        return None, None
    by_rho = [nearest_by_target(rho.target(layout.absolute, both)) for rho in correlations]
    if positions is None:
        return None, overlap_of(*by_rho)
    on_map = [nearest_on_map(points[both], layout.p) for points in positions]
    return overlap_of(*on_map), overlap_of(*by_rho)


def nearest_on_map(positions: Tensor, p: float = 2.0, k: int = N_NEIGHBOURS) -> Tensor:
    """(N, k) indices of each neuron's nearest on the map, itself left out."""
    found = []
    for rows in row_blocks(positions.shape[0]):
        distance = torch.cdist(positions[rows], positions, p=p, compute_mode=EXACT)
        found.append(_nearest(distance, rows, k))
    return torch.cat(found)


def nearest_by_target(target: Tensor | Target, k: int = N_NEIGHBOURS) -> Tensor:
    """(N, k) indices of each neuron's nearest by wanted distance, itself left out.

    Args:
        target: (N, N) distances wanted, or another form of them.
    """
    form = as_target(target)
    everyone = slice(0, form.n)
    return torch.cat(
        [_nearest(form.block(rows, everyone).clone(), rows, k) for rows in row_blocks(form.n)]
    )


def _nearest(distance: Tensor, rows: slice, k: int) -> Tensor:
    own = torch.arange(rows.start, rows.stop, device=distance.device)
    distance[own - rows.start, own] = torch.inf
    return distance.topk(k, dim=1, largest=False).indices


def overlap_of(a: Tensor, b: Tensor) -> float:
    """Mean over rows of the share of entries that ``a`` and ``b``, both (N, k), have in common."""
    shared = sum(int((a[:, [i]] == b).sum()) for i in range(a.shape[1]))
    return shared / a.numel()


def _rank_correlation(positions: Tensor, target: Target, p: float) -> float | None:
    """Spearman's, over all pairs, or half a million drawn at random with replacement where more."""
    n = positions.shape[0]
    if n < 3:
        return None
    if n * (n - 1) // 2 <= _MOST_PAIRS:
        first, second = torch.triu_indices(n, n, offset=1, device=positions.device)
    else:
        generator = torch.Generator().manual_seed(0)
        first = torch.randint(n, (_MOST_PAIRS,), generator=generator)
        second = (first + torch.randint(1, n, (_MOST_PAIRS,), generator=generator)) % n
        first, second = first.to(positions.device), second.to(positions.device)
    difference = positions[first] - positions[second]
    distance = torch.linalg.vector_norm(difference, ord=p, dim=1).cpu().numpy()
    wanted = target.pairs(first, second).cpu().numpy()
    # Side by side: sorting is most of the work, and NumPy sorts on one core, without Python's lock.
    with ThreadPoolExecutor(2) as pool:
        ranks = list(pool.map(_ranks, (distance, wanted)))
    if any(np.ptp(r) == 0 for r in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """(n,) ranks from 0 on of values (n,); equal ones share the mean of theirs.

    As scipy.stats.rankdata, which takes twice as long and half a second to import.
    """
    order = np.argsort(values)
    ordered = values[order]
    begins = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    ends = np.append(begins[1:], len(values))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((begins + ends - 1) / 2, ends - begins)
    return ranks
