"""Kernel densities of particles in the plane, frame by frame, on one grid with one bandwidth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Bandwidths between the outermost particle and the edge.
_AROUND = 3.0
# Where all particles are at one place in most frames: the share of the map that a kernel is wide.
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Clouds:
    """Particles in the plane.

    Attributes:
        positions: (F, P, 2) float64, in the map's own units.
        is_shown: (F, P) bool: the particle exists in the frame, has a position, and is no outlier.
        prompts: (P,) int, 0 or 1.
        names: of the F frames.
        bandwidth: of every kernel, in the map's units; see :func:`choose_bandwidth`.
        low: (2,) the corner of the map with the lowest coordinates.
        high: (2,) the opposite corner.
        n_left_out: particles that are left out of all frames: outliers, and those without position.
        model: what the model is called.
        texts: the prompts.
        reduction: what the map was made by.
    """

    positions: Floats
    is_shown: NDArray[np.bool_]
    prompts: NDArray[np.int64]
    names: tuple[str, ...]
    bandwidth: float
    low: Floats
    high: Floats
    n_left_out: int
    model: str
    texts: tuple[str, ...]
    reduction: str

    def density(self, frame: int, prompt: int, n_cells: tuple[int, int]) -> Floats:
        """The kernel density of a prompt's particles in a frame, which sums to 1 over the plane.

        A Gaussian kernel of the same width in both directions, evaluated exactly (Rosenblatt 1956,
        Parzen 1962).

        Args:
            n_cells: columns and rows of the grid.

        Returns:
            (rows, columns) float64, at the cells' middles, the highest second coordinate first; 0
            where there is no particle.
        """
        chosen = self.positions[frame][self.is_shown[frame] & (self.prompts == prompt)]
        if not len(chosen):
            return np.zeros((n_cells[1], n_cells[0]))
        kernels = []
        for axis, n in enumerate(n_cells):
            step = (self.high[axis] - self.low[axis]) / n
            middles = self.low[axis] + (np.arange(n) + 0.5) * step
            away = (middles[:, None] - chosen[None, :, axis]) / self.bandwidth
            kernels.append(np.exp(-0.5 * away**2))
        scale = len(chosen) * 2 * np.pi * self.bandwidth**2
        found: Floats = (kernels[1] @ kernels[0].T / scale)[::-1]
        return found


def read_clouds(report: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Clouds:
    """Particles of a saved layer-time; see :func:`projector.figures.layers.density.write_density`
    for what it takes.

    Raises:
        ValueError: if there is no particle to show.
    """
    positions = np.asarray(tensors["positions"], dtype=np.float64)[..., :2]
    n_frames, n_particles = positions.shape[:2]
    prompts = np.asarray(tensors.get("owner_prompt", np.zeros(n_particles)), dtype=np.int64)
    born = np.asarray(tensors.get("born", np.zeros(n_particles)), dtype=np.int64)
    is_out = ~np.isfinite(positions).all(axis=-1)
    is_out[:, outliers_of(report, n_particles)] = True
    is_shown = ~is_out & (born[None, :] <= np.arange(n_frames)[:, None])
    if not is_shown.any():
        raise ValueError("no particle has a position that can be shown")
    return Clouds(
        positions=np.nan_to_num(positions),
        is_shown=is_shown,
        prompts=prompts,
        names=tuple(str(each["name"]) for each in report["frames"]),
        **_box(positions, is_shown),
        n_left_out=int((~is_shown.any(axis=0)).sum()),
        model=str(report.get("model", "")),
        texts=tuple(str(each["text"]) for each in report["prompts"]),
        reduction=str(report.get("settings", {}).get("reduction") or ""),
    )


def outliers_of(report: Mapping[str, Any], n_particles: int) -> list[int]:
    """The numbers of particles that a report names as outliers."""
    found = []
    for each in report.get("outliers") or ():
        number = each.get("particle") if isinstance(each, Mapping) else each
        if isinstance(number, int) and 0 <= number < n_particles:
            found.append(number)
    return found


def choose_bandwidth(positions: Floats, is_shown: NDArray[np.bool_]) -> float:
    """σ · n^(−1/6), Scott's rule in the plane (Scott 1992), one number for all frames.

    σ is the spread of a frame's particles along an axis (root of the mean variance of both) and n
    their number; of both the median over frames is taken.
    """
    spreads, counts = [], []
    for frame, shown in zip(positions, is_shown, strict=True):
        if shown.any():
            spreads.append(float(np.sqrt(frame[shown].var(axis=0).mean())))
            counts.append(int(shown.sum()))
    return float(np.median(spreads) * np.median(counts) ** (-1 / 6))


def _box(positions: Floats, is_shown: NDArray[np.bool_]) -> dict[str, Any]:
    """The bandwidth, and the corners of a map that has room for every kernel."""
    shown = positions[is_shown]
    low, high = shown.min(axis=0), shown.max(axis=0)
    reach = float((high - low).max()) or 1.0
    bandwidth = max(choose_bandwidth(positions, is_shown), _LEAST_SHARE * reach)
    around = _AROUND * bandwidth
    return {"bandwidth": bandwidth, "low": low - around, "high": high + around}
