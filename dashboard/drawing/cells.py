"""Correlations as the cells of a picture, in an order; large matrices have blocks of pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Orders of rows and columns.
ORDERS = {
    "leaf": "Tree of groups",
    "linear": "Linear projection",
    "pole": "Pole",
    "spectral": "Spectral",
    "index": "Unsorted",
}
USUAL_ORDER = "leaf"
MOST_CELLS = 512
_MOST_NAMED = 4


@dataclass(frozen=True, eq=False)
class Cells:
    """ρ of N neurons in an order.

    Attributes:
        values: (C, C) float32, to three digits; NaN for a cell without pairs.
        labels: neurons of each row and column, or the first of them.
        order: (N,) neurons in this order.
        n_per_cell: neurons per row; the last row may have fewer.
    """

    values: NDArray[np.float32]
    labels: tuple[str, ...]
    order: NDArray[np.int64]
    n_per_cell: int

    def within(self, boxes: Iterable[Mapping[str, Any]]) -> list[int]:
        """The neurons of the rows and columns that boxes touch, ascending.

        Args:
            boxes: as Plotly reports them on category axes: ``x`` and ``y`` from one cell number to
                another; a cell extends half a number to either side.
        """
        found: set[int] = set()
        for box in boxes:
            for axis in ("x", "y"):
                ends = [float(v) for v in box.get(axis) or ()]
                if len(ends) == 2:
                    low, high = sorted(ends)
                    # Outside the picture there are no cells; negative indices must not wrap around.
                    first = max(0, int(np.floor(low + 0.5)) * self.n_per_cell)
                    last = max(0, (int(np.floor(high + 0.5)) + 1) * self.n_per_cell)
                    found |= {int(j) for j in self.order[first:last]}
        return sorted(found)

    def rows_of(self, neurons: Iterable[int]) -> list[int]:
        """The rows that contain these neurons, in order."""
        places = np.flatnonzero(np.isin(self.order, list(neurons)))
        return list(dict.fromkeys(int(p) // self.n_per_cell for p in places))

    def neurons_of(self, row: int) -> NDArray[np.int64]:
        """The neurons of a row or column; empty if there is no such row."""
        if not 0 <= row < len(self.labels):
            return self.order[:0]
        return self.order[row * self.n_per_cell : (row + 1) * self.n_per_cell]

    def strongest_pair(
        self, rho: NDArray[np.float32], row: int, column: int
    ) -> tuple[int, int] | None:
        """The two neurons of a cell with the highest |ρ|; None for a cell without pairs.

        Args:
            rho: (N, N) correlations.
        """
        ours, others = self.neurons_of(row), self.neurons_of(column)
        if not len(ours) or not len(others):
            return None
        part = np.abs(rho[ours][:, others])
        part[ours[:, None] == others[None, :]] = -1.0
        at = int(np.nanargmax(part)) if np.isfinite(part).any() else 0
        first, second = int(ours[at // len(others)]), int(others[at % len(others)])
        return None if first == second else (first, second)

    def called(self, names: Sequence[str]) -> list[str]:
        """The name of each row and column in a hover text: its neurons, and what they fire on.

        Args:
            names: name of each neuron of the map, "" for unknown; or empty for all.
        """
        if not len(names) or not any(names):
            return list(self.labels)
        found = []
        for row in range(len(self.labels)):
            neurons = self.neurons_of(row).tolist()
            parts = [f"N{j} {names[j]}".rstrip() for j in neurons[:_MOST_NAMED]]
            more = len(neurons) - _MOST_NAMED
            found.append(", ".join(parts) + (f", {more} more" if more > 0 else ""))
        return found


def cells_of(rho: NDArray[np.float32], order: NDArray[np.int64]) -> Cells:
    """Make the cells of (N, N) correlations, with rows and columns in an order of neurons.

    With more than 512 neurons, a cell is the mean over the pairs of several neurons.
    """
    n = len(order)
    n_per_cell = max(1, -(-n // MOST_CELLS))
    shown = rho[order][:, order]
    if n_per_cell == 1:
        labels = tuple(f"N{j}" for j in order)
        return Cells(np.round(shown, 3), labels, order, n_per_cell)
    starts = np.arange(0, n, n_per_cell)
    counts = np.diff(np.append(starts, n))
    # A neuron with itself isn't a pair: its ρ of 1 would draw a diagonal.
    np.fill_diagonal(shown, 0)
    sums = np.add.reduceat(np.add.reduceat(shown, starts, 0, np.float64), starts, 1)
    n_pairs = np.outer(counts, counts) - np.diag(counts)
    means = np.where(n_pairs > 0, sums / np.maximum(n_pairs, 1), np.nan).astype(np.float32)
    labels = tuple(_label(order[s : s + n_per_cell]) for s in starts)
    return Cells(np.round(means, 3), labels, order, n_per_cell)


def usual_limit(rho: NDArray[np.float32]) -> float:
    """The |ρ| that one pair in a thousand exceeds; for a large matrix from an even sample."""
    step = max(1, len(rho) // 2000)
    part = rho[::step, ::step]
    upper = np.abs(part[np.triu_indices(len(part), 1)])
    finite = upper[np.isfinite(upper)]
    return float(np.quantile(finite, 0.999)) if finite.size else 1.0


def _label(neurons: NDArray[np.int64]) -> str:
    named = ", ".join(f"N{j}" for j in neurons[:_MOST_NAMED])
    more = len(neurons) - _MOST_NAMED
    return named if more <= 0 else f"{named}, {more} more"
