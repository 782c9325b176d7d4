"""Correlations as the cells of a picture: in an order, blocks of several pairs where many are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_CELLS = 512
_MOST_NAMED = 4


@dataclass(frozen=True, eq=False)
class Cells:
    """ρ of N neurons in an order.

    Attributes:
        values: (C, C) float32, to three digits; NaN where a cell holds no pair.
        labels: of each row and column: its neurons, or the first of them.
        order: (N,) the neurons.
        n_per_cell: neurons of a row, the last one's may be fewer.
    """

    values: NDArray[np.float32]
    labels: tuple[str, ...]
    order: NDArray[np.int64]
    n_per_cell: int

    def within(self, boxes: Iterable[Mapping[str, Any]]) -> list[int]:
        """The neurons of the rows and columns that boxes touch, ascending.

        Args:
            boxes: as Plotly tells them on axes of names: ``x`` and ``y`` from one number of a cell
                to another, a cell reaching half a number to either side.
        """
        found: set[int] = set()
        for box in boxes:
            for axis in ("x", "y"):
                ends = [float(v) for v in box.get(axis) or ()]
                if len(ends) == 2:
                    low, high = sorted(ends)
                    # Beside the picture there is nothing, and not the other end.
                    first = max(0, int(np.floor(low + 0.5)) * self.n_per_cell)
                    last = max(0, (int(np.floor(high + 0.5)) + 1) * self.n_per_cell)
                    found |= {int(j) for j in self.order[first:last]}
        return sorted(found)

    def named(self, neurons: Iterable[int]) -> list[str]:
        """The labels of the rows in which neurons are, in order."""
        places = np.flatnonzero(np.isin(self.order, list(neurons)))
        return [self.labels[k] for k in dict.fromkeys(int(p) // self.n_per_cell for p in places)]


def cells_of(rho: NDArray[np.float32], order: NDArray[np.int64]) -> Cells:
    """The cells of (N, N) correlations, rows and columns in an order of neurons.

    Where there are more than 512 neurons, a cell is the mean over the pairs of several.
    """
    n = len(order)
    n_per_cell = max(1, -(-n // MOST_CELLS))
    shown = rho[order][:, order]
    if n_per_cell == 1:
        labels = tuple(f"N{j}" for j in order)
        return Cells(np.round(shown, 3), labels, order, n_per_cell)
    starts = np.arange(0, n, n_per_cell)
    counts = np.diff(np.append(starts, n))
    # A neuron with itself is no pair: averaged in, it would draw a diagonal.
    np.fill_diagonal(shown, 0)
    sums = np.add.reduceat(np.add.reduceat(shown, starts, 0, np.float64), starts, 1)
    n_pairs = np.outer(counts, counts) - np.diag(counts)
    means = np.where(n_pairs > 0, sums / np.maximum(n_pairs, 1), np.nan).astype(np.float32)
    labels = tuple(_label(order[s : s + n_per_cell]) for s in starts)
    return Cells(np.round(means, 3), labels, order, n_per_cell)


def usual_limit(rho: NDArray[np.float32]) -> float:
    """The |ρ| that one pair in a thousand exceeds, of an evenly drawn part of a large matrix."""
    step = max(1, len(rho) // 2000)
    part = rho[::step, ::step]
    upper = np.abs(part[np.triu_indices(len(part), 1)])
    finite = upper[np.isfinite(upper)]
    return float(np.quantile(finite, 0.999)) if finite.size else 1.0


def _label(neurons: NDArray[np.int64]) -> str:
    named = ", ".join(f"N{j}" for j in neurons[:_MOST_NAMED])
    more = len(neurons) - _MOST_NAMED
    return named if more <= 0 else f"{named}, {more} more"
