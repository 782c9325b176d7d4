"""HDBSCAN's condensed tree as shapes that show how groups split and shrink as density rises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Branch:
    """One group, from the density at which it splits from another to the density at which it ends.

    Attributes:
        pole: the pole that all its neurons belong to; None if there is no such pole.
        outline_x, outline_y: its outline: neurons across, density λ = 1 / distance along. Its width
            at each λ is the number of neurons that are left.
        n_neurons: number of neurons at its start.
    """

    pole: int | None
    outline_x: tuple[float, ...]
    outline_y: tuple[float, ...]
    n_neurons: int


@dataclass(frozen=True)
class CondensedTree:
    """All groups, first that of all neurons (Campello, Moulavi and Sander 2013,
    doi:10.1007/978-3-642-37456-2_14).
    """

    branches: tuple[Branch, ...]

    @classmethod
    def of_table(cls, table: NDArray[Any], labels: NDArray[np.int64]) -> CondensedTree:
        """Build the tree from HDBSCAN's table with columns parent, child, lambda_val and
        child_size.

        Args:
            labels: (n,) the pole of each neuron, −1 for none.
        """
        finite = table["lambda_val"][np.isfinite(table["lambda_val"])]
        # Neurons that coincide never separate: they end slightly above all others.
        most = 1.05 * float(finite.max()) if finite.size else 1.0
        lambdas = np.where(np.isfinite(table["lambda_val"]), table["lambda_val"], most)
        rows_of: dict[int, list[int]] = {}
        for row, parent in enumerate(table["parent"].tolist()):
            rows_of.setdefault(int(parent), []).append(row)
        is_group = table["child_size"] > 1
        branches: list[Branch] = []
        root = int(table["parent"].min())
        # Group, where it starts across, and the λ at which it starts.
        waiting = [(root, 0.0, 0.0, len(labels))]
        while waiting:
            group, left, born, size = waiting.pop()
            rows = sorted(rows_of.get(group, []), key=lambda row: lambdas[row])
            groups = [row for row in rows if is_group[row]]
            x, y, n_left = [left + size], [born], size
            for row in rows:
                if is_group[row]:
                    continue
                at = float(lambdas[row])
                x += [left + n_left, left + n_left - 1]
                y += [at, at]
                n_left -= 1
            ends = float(lambdas[groups[0]]) if groups else (y[-1] if rows else born)
            x += [left + n_left, left, left]
            y += [ends, ends, born]
            branches.append(
                Branch(_pole_of(group, rows_of, table, labels), tuple(x), tuple(y), size)
            )
            start = left
            for row in groups:
                n = int(table["child_size"][row])
                waiting.append((int(table["child"][row]), start, float(lambdas[row]), n))
                start += n
        return cls(tuple(branches))


def _pole_of(
    group: int,
    rows_of: dict[int, list[int]],
    table: NDArray[Any],
    labels: NDArray[np.int64],
) -> int | None:
    """The one pole of all neurons below a group, if there is one."""
    found: set[int] = set()
    below = [group]
    while below:
        for row in rows_of.get(below.pop(), []):
            child = int(table["child"][row])
            if table["child_size"][row] > 1:
                below.append(child)
            else:
                found.add(int(labels[child]))
        if len(found) > 1:
            return None
    return found.pop() if found and -1 not in found else None
