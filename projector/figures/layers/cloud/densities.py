"""Kernel densities of particles in the plane, frame by frame, with one bandwidth rule.

If the stream grows strongly from layer to layer, as in most language models, one window for all
frames would show the first frames as a dot in a corner. The window then follows the particles: its
width is a fixed multiple of their spread in every frame, and so are bandwidths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Bandwidths between the outermost particle and the edge.
_AROUND = 3.0
# Of what all frames take up, a frame takes up at least this part, or the window follows.
_LEAST_PART = 0.3
# Where all particles are at one place: the least spread, as a share of the usual one or of the
# whole map.
_LEAST_SHARE = 0.05
_NOTHING = 1e-6
# Cells a side, where only the highest density is asked for.
_GRID = 256


@dataclass(frozen=True)
class Clouds:
    """Particles in the plane.

    Attributes:
        positions: (F, P, 2) float64, in the map's own units.
        is_shown: (F, P) bool: the particle exists in the frame, has a position, and is no outlier.
        prompts: (P,) int, 0 or 1.
        names: names of the F frames.
        spread: (F,) float64, the spread of a frame's particles along an axis, in the map's units;
            with a fixed window, the median over frames.
        bandwidth: bandwidth of the kernel in spreads: n^(−1/6), for the median number n of
            particles per frame.
        low: (F, 2), the corner of a frame's window with the lowest coordinates, in the map's units.
        high: (F, 2), the opposite corner.
        follows: whether the window follows the particles.
        n_left_out: number of particles left out of all frames: outliers, and particles without a
            position.
        model: name of the model.
        texts: the prompts.
    """

    positions: Floats
    is_shown: NDArray[np.bool_]
    prompts: NDArray[np.int64]
    names: tuple[str, ...]
    spread: Floats
    bandwidth: float
    low: Floats
    high: Floats
    follows: bool
    n_left_out: int
    model: str
    texts: tuple[str, ...]

    def density(self, frame: int, prompt: int, n_cells: tuple[int, int]) -> Floats:
        """The kernel density of a prompt's particles in a frame, as a share of all particles per
        square of one spread by one spread; it integrates to 1 over the plane.

        A Gaussian kernel of the same width in both directions, evaluated exactly (Rosenblatt 1956,
        Parzen 1962).

        Args:
            n_cells: numbers of columns and rows of the grid.

        Returns:
            (rows, columns) float64, at the cells' middles, the highest second coordinate first; 0
            if there are no particles.
        """
        chosen = self.positions[frame][self.is_shown[frame] & (self.prompts == prompt)]
        if not len(chosen):
            return np.zeros((n_cells[1], n_cells[0]))
        width = self.bandwidth * self.spread[frame]
        kernels = []
        for axis, n in enumerate(n_cells):
            low, high = self.low[frame, axis], self.high[frame, axis]
            middles = low + (np.arange(n) + 0.5) * (high - low) / n
            away = (middles[:, None] - chosen[None, :, axis]) / width
            kernels.append(np.exp(-0.5 * away**2))
        scale = len(chosen) * 2 * np.pi * self.bandwidth**2
        found: Floats = (kernels[1] @ kernels[0].T / scale)[::-1]
        return found

    def highest(self) -> float:
        """The highest density over all frames and prompts.

        Particles are distributed to the four surrounding grid cells before the kernels are applied,
        so it may be up to 1 % lower than on a finer grid.
        """
        found = 0.0
        for frame in range(len(self.names)):
            # Kernels between the cells' middles, along each axis.
            width = self.bandwidth * self.spread[frame]
            sides = self.high[frame] - self.low[frame]
            away = np.subtract.outer(np.arange(_GRID), np.arange(_GRID))[None] / _GRID
            down, across = np.exp(-0.5 * (away * sides[::-1, None, None] / width) ** 2)
            for prompt in range(len(self.texts)):
                chosen = self.is_shown[frame] & (self.prompts == prompt)
                if not chosen.any():
                    continue
                places = (self.positions[frame][chosen] - self.low[frame]) / sides * _GRID - 0.5
                counts = _binned(places)
                scale = len(places) * 2 * np.pi * self.bandwidth**2
                found = max(found, float((down @ counts @ across).max()) / scale)
        return found


def read_clouds(report: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Clouds | None:
    """Read the particles of a saved layer-time, with arguments as for
    :func:`projector.figures.layers.density.write_density`; None if no particle can be shown.
    """
    positions = np.asarray(tensors["positions"], dtype=np.float64)[..., :2]
    n_frames, n_particles = positions.shape[:2]
    prompts = np.asarray(tensors.get("owner_prompt", np.zeros(n_particles)), dtype=np.int64)
    born = np.asarray(tensors.get("born", np.zeros(n_particles)), dtype=np.int64)
    is_out = ~np.isfinite(positions).all(axis=-1)
    is_out |= np.asarray(tensors.get("outlying", np.zeros(n_particles)), dtype=bool)
    is_shown = ~is_out & (born[None, :] <= np.arange(n_frames)[:, None])
    if not is_shown.any():
        return None
    return Clouds(
        positions=np.nan_to_num(positions),
        is_shown=is_shown,
        prompts=prompts,
        names=tuple(str(each["name"]) for each in report["frames"]),
        **_windows(positions, is_shown),
        n_left_out=int((~is_shown.any(axis=0)).sum()),
        model=str(report.get("model", "")),
        texts=tuple(str(each.get("text") or "") for each in report["prompts"]),
    )


def _binned(places: Floats) -> Floats:
    """(_GRID, _GRID), rows by the second coordinate: particles (n, 2) in cells, each shared among
    the four cells around it by how near they are."""
    first = np.clip(np.floor(places).astype(np.int64), 0, _GRID - 2)
    share = np.clip(places - first, 0, 1)
    found = np.zeros(_GRID * _GRID)
    for right in (0, 1):
        for up in (0, 1):
            weights = np.abs(1 - right - share[:, 0]) * np.abs(1 - up - share[:, 1])
            cells = (first[:, 1] + up) * _GRID + first[:, 0] + right
            found += np.bincount(cells, weights, _GRID * _GRID)
    return found.reshape(_GRID, _GRID)


def spreads_of(positions: Floats, is_shown: NDArray[np.bool_]) -> Floats:
    """The root of the mean variance along both axes, (F,) float64; NaN if there are no
    particles.
    """
    found = np.full(len(positions), np.nan)
    for i, (frame, shown) in enumerate(zip(positions, is_shown, strict=True)):
        if shown.any():
            found[i] = np.sqrt(frame[shown].var(axis=0).mean())
    return found


def _windows(positions: Floats, is_shown: NDArray[np.bool_]) -> dict[str, Any]:
    """Spreads, the bandwidth and windows with room for every kernel: Scott's rule in the plane,
    σ · n^(−1/6) (Scott 1992), with σ of all frames or of each."""
    spread = spreads_of(positions, is_shown)
    lows, highs = np.zeros((len(positions), 2)), np.zeros((len(positions), 2))
    for i, (frame, shown) in enumerate(zip(positions, is_shown, strict=True)):
        if shown.any():
            lows[i], highs[i] = frame[shown].min(axis=0), frame[shown].max(axis=0)
    there = ~np.isnan(spread)
    low, high = lows[there].min(axis=0), highs[there].max(axis=0)
    reach = float((high - low).max()) or 1.0
    usual = float(np.median((highs - lows)[there].max(axis=1)))
    counts = is_shown.sum(axis=1)[there]
    bandwidth = float(np.median(counts) ** (-1 / 6))
    follows = bool(usual < _LEAST_PART * reach and np.median(spread[there]) > _NOTHING * reach)
    if not follows:
        one = max(float(np.median(spread[there])), _LEAST_SHARE * reach)
        around = _AROUND * bandwidth * one
        spread = np.full(len(positions), one)
        lows, highs = np.tile(low - around, (len(lows), 1)), np.tile(high + around, (len(lows), 1))
    else:
        # A frame with one particle, or all at one place, has the window of its neighbours' size.
        least = _LEAST_SHARE * float(np.median(spread[there]))
        spread = np.maximum(np.where(there, spread, least), least)
        middles = (lows + highs) / 2
        half = ((highs - lows) / 2 / spread[:, None]).max(axis=0) + _AROUND * bandwidth
        lows, highs = middles - half * spread[:, None], middles + half * spread[:, None]
    return {
        "spread": spread,
        "bandwidth": bandwidth,
        "low": lows,
        "high": highs,
        "follows": follows,
    }
