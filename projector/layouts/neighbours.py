"""Positions that keep neighbours, by UMAP (McInnes, Healy & Melville 2018, arXiv:1802.03426)."""

from __future__ import annotations

import warnings
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

N_NEIGHBOURS = 15
# UMAP's spectral start and its neighbour graph need more points than this.
_LEAST_NEURONS = 8


def keep_neighbours(target: Tensor, dim: int, seed: int) -> Tensor:
    """UMAP on precomputed distances; (N, dim) float32.

    One thread, so that equal seeds give equal positions. Fewer than eight neurons are too few for
    a neighbour graph and are placed by classical scaling.

    Args:
        target: (N, N) distances wanted, symmetric, at least 0, with a zero diagonal.

    Raises:
        SettingError: if there are too many dimensions for so few neurons.
    """
    import torch

    from projector.layouts.start import classical_start
    from projector.threads import in_threads

    n = target.shape[0]
    if n < _LEAST_NEURONS:
        return classical_start(target, dim, torch.Generator().manual_seed(seed))
    if dim > n - 3:
        raise SettingError(
            "dim",
            dim,
            f"is too much for UMAP with {n:,} neurons",
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
    return torch.from_numpy(positions).to(target.device, torch.float32)


def _place(correlation: Tensor, layout: Settings) -> Placement:
    from projector.layouts.costs import dissimilarity

    return Placement(keep_neighbours(dissimilarity(correlation), layout.dim, layout.seed))


def _seconds(n: int, layout: Settings, device: torch.device) -> float:
    """Scaled from 768 neurons on two cores."""
    return 6 * (n / 768) ** 1.2


NEIGHBOURS = Objective(
    name="neighbours",
    help="UMAP, keeps neighbours",
    methods={
        DEFAULT_SOLVER: Method(
            name="umap",
            place=each_placed(_place),
            pair_bytes=38,
            library_bytes=288 << 20,
            seconds=_seconds,
        )
    },
    lacks={"distances": "the distances of a neighbours map are not meant to be 1 − ρ"},
)
