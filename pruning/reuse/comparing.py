"""Compare methods window by window.

Both models of a pair predict the same windows, so the comparison is of the difference d_sw of their
nats a token in window w with seed s. Over W windows and S seeds,

    SE² = Var_w(mean_s d_sw) / W + Var_s(mean_w d_sw) / S,

with variances of W − 1 and S − 1 degrees of freedom: windows are a sample of text, and seeds a
sample of calibration text. With one seed the second term is left out, and the error doesn't include
the effect of the calibration text. With few seeds that term is a rough estimate: three seeds give
two degrees of freedom, so a 95 % interval extends 4.3 standard errors to either side instead of 2.
All windows count the same, short or long.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pruning.reuse.records import (
    CANDIDATES,
    COMPARED,
    EARLY_WRITE,
    N_ERRORS,
    REMOVAL,
    Comparison,
    ReuseReport,
    ReuseRow,
)


def report_of(
    settings: Mapping[str, Any],
    model: Mapping[str, Any],
    rows: Sequence[ReuseRow],
    pruning_method: str,
    notes: Sequence[str] = (),
) -> ReuseReport:
    """Make the report of the given rows.

    Args:
        settings, model: facts of both, for JSON.
        pruning_method: the pruning method to compare with.
    """
    comparisons = compare_rows(rows, pruning_method)
    wins = reuse_wins(comparisons, pruning_method)
    check = flop_check(rows)
    return ReuseReport(settings, model, tuple(rows), comparisons, check, tuple(notes), wins)


def flop_check(rows: Sequence[ReuseRow]) -> dict[str, dict[str, int]]:
    """Multiply-adds by PyTorch's count and by the formula, of each method's row that saves most."""
    found: dict[str, dict[str, int]] = {}
    for row in sorted(rows, key=lambda row: row.share):
        if row.counted is not None and row.products is not None:
            found[row.method] = {"counted": row.counted, "formula": row.products}
    return found


def compare_rows(rows: Sequence[ReuseRow], pruning_method: str) -> tuple[Comparison, ...]:
    """Compare each method of :data:`COMPARED` at each share, over the seeds that both have.

    Args:
        pruning_method: the pruning method to compare with.
    """
    found = []
    for method, others in COMPARED.items():
        for share, n_partners in dict.fromkeys(
            (row.share, row.n_partners) for row in rows if row.method == method and row.share > 0
        ):
            own = _by_seed(rows, method, share, n_partners)
            for against in (pruning_method if each is None else each for each in others):
                if against == EARLY_WRITE and n_partners > 1:
                    continue
                other = _by_seed(rows, against, share, n_partners)
                seeds = [seed for seed in own if seed in other]
                if seeds:
                    differences = np.array(
                        [
                            np.subtract(own[seed].nll_windows, other[seed].nll_windows)
                            for seed in seeds
                        ]
                    )
                    found.append(compared(method, share, against, n_partners, differences))
    return tuple(found)


def compared(
    method: str, share: float, against: str, n_partners: int, differences: np.ndarray
) -> Comparison:
    """Make one comparison from the differences of each seed and window, (S, W)."""
    difference = float(differences.mean())
    error = standard_error(differences)
    distance = 0.0 if error is None else N_ERRORS * error
    is_known = error is not None
    return Comparison(
        method,
        share,
        against,
        n_partners,
        difference,
        error,
        wins=is_known and difference < -distance,
        loses=is_known and difference > distance,
    )


def standard_error(differences: np.ndarray) -> float | None:
    """The standard error of the mean of differences (S, W), as above; None with one window."""
    n_seeds, n_windows = differences.shape
    if n_windows < 2:
        return None
    square = float(differences.mean(axis=0).var(ddof=1)) / n_windows
    if n_seeds > 1:
        square += float(differences.mean(axis=1).var(ddof=1)) / n_seeds
    return math.sqrt(square)


def reuse_wins(comparisons: Iterable[Comparison], pruning_method: str) -> bool:
    """Whether reuse or mixed beats both removal and the pruning method at the same share."""
    won = {(c.method, c.share, c.n_partners, c.against) for c in comparisons if c.wins}
    return any(
        {(method, share, n, REMOVAL), (method, share, n, pruning_method)} <= won
        for method, share, n, _ in won
        if method in CANDIDATES
    )


def _by_seed(
    rows: Sequence[ReuseRow], method: str, share: float, n_partners: int
) -> dict[int, ReuseRow]:
    """The scored rows of a method, by seed.

    Args:
        n_partners: partners of a reused neuron; methods without reuse have no such number.
    """
    return {
        row.seed: row
        for row in rows
        if row.method == method
        and row.share == share
        and row.reason is None
        and row.n_partners in (0, n_partners)
    }
