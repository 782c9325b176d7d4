"""Summarize an experiment's rows over seeds, and its comparisons, for tables and figures."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pruning.reuse.records import (
    DENSE,
    EARLY_WRITE,
    METHODS_HELP,
    MIXED,
    MIXED_RANDOM,
    RANDOM_PARTNERS,
    Comparison,
    ReuseReport,
    ReuseRow,
)

WINS, LOSES, TIES = "wins", "loses", "ties"


@dataclass(frozen=True)
class Summary:
    """A method at one share, over all seeds.

    Attributes:
        saved: mean share of the MLPs' operations that models actually save; None without a model.
        n_changed: mean number of neurons reused or removed; ``n_reused``, ``n_removed``: mean
            number of each kind; None in reports without these counts.
        n_seeds: number of scored seeds.
        perplexity: mean; None if a seed has none, with the ``reason``.
        spread: sample standard deviation of the perplexity; None for one seed.
        r2: mean over seeds of the median explained share of a reused neuron's variance.
        seconds: mean time.
    """

    method: str
    share: float
    n_partners: int
    saved: float | None
    n_changed: float
    n_seeds: int
    perplexity: float | None
    spread: float | None
    r2: float | None
    seconds: float
    reason: str | None
    n_reused: float | None = None
    n_removed: float | None = None

    @property
    def name(self) -> str:
        """The method, with its number of partners if there are several."""
        return name_of(self.method, self.n_partners)

    @property
    def text(self) -> str:
        """Perplexity and its spread; a dash without a perplexity."""
        if self.perplexity is None:
            return "–"
        spread = f" ± {self.spread:.3f}" if self.spread else ""
        return f"{self.perplexity:,.3f}{spread}"


def summaries(report: ReuseReport) -> list[Summary]:
    """Summaries over seeds, in the order of the rows."""
    groups: dict[tuple[str, float, int], list[ReuseRow]] = {}
    for row in report.rows:
        groups.setdefault((row.method, row.share, row.n_partners), []).append(row)
    return [_summary(rows) for rows in groups.values()]


def _summary(rows: Sequence[ReuseRow]) -> Summary:
    first = rows[0]
    values = [row.perplexity for row in rows if row.perplexity is not None]
    is_whole = len(values) == len(rows)
    saved = [row.saved for row in rows if row.saved is not None]
    r2 = [row.r2 for row in rows if row.r2 is not None]
    return Summary(
        first.method,
        first.share,
        first.n_partners,
        statistics.fmean(saved) if saved else None,
        statistics.fmean(row.n_changed for row in rows),
        len(values),
        statistics.fmean(values) if is_whole else None,
        statistics.stdev(values) if is_whole and len(values) > 1 else None,
        statistics.fmean(r2) if r2 else None,
        statistics.fmean(row.seconds for row in rows),
        next((row.reason for row in rows if row.reason is not None), None),
        _mean([row.n_reused for row in rows]),
        _mean([row.n_removed for row in rows]),
    )


def _mean(counts: Sequence[int | None]) -> float | None:
    known = [count for count in counts if count is not None]
    return statistics.fmean(known) if known else None


def dense_of(found: Sequence[Summary]) -> Summary | None:
    """The dense model's summary; None if it is missing."""
    return next((each for each in found if each.method == DENSE), None)


def name_of(method: str, n_partners: int) -> str:
    """``reuse``; ``reuse of 4 partners``."""
    return method if n_partners < 2 else f"{method} of {n_partners} partners"


def label_of(method: str) -> str:
    """A method's name within a sentence."""
    words = {
        RANDOM_PARTNERS: "random partners",
        EARLY_WRITE: "early write",
        MIXED: "reuse where it pays",
        MIXED_RANDOM: "its random control",
    }
    if method in METHODS_HELP:
        return words.get(method, method)
    return f"{method} with least squares"


def pair_name(comparison: Comparison) -> str:
    """``mixed against removal``; ``reuse of 4 partners against removal``."""
    own = name_of(comparison.method, comparison.n_partners)
    return f"{own} against {_against(comparison)}"


def _against(comparison: Comparison) -> str:
    """Of a comparison, the other method."""
    is_random = comparison.against == RANDOM_PARTNERS and comparison.n_partners > 1
    several = f" ({comparison.n_partners} of them)" if is_random else ""
    return f"{label_of(comparison.against)}{several}"


def counts_of(summary: Summary) -> str | None:
    """``331 reused, 12 removed``; None in reports without these counts."""
    if summary.n_reused is None or summary.n_removed is None:
        return None
    kinds = ((summary.n_reused, "reused"), (summary.n_removed, "removed"))
    return ", ".join(f"{n:,.0f} {kind}" for n, kind in kinds if n) or "none"


def verdict(comparison: Comparison) -> str:
    """Whether the method wins, loses, or neither is significant."""
    if comparison.wins:
        return WINS
    return LOSES if comparison.loses else TIES


def errors_apart(comparison: Comparison) -> float | None:
    """The absolute difference in standard errors; None without a standard error."""
    if not comparison.standard_error:
        return None
    return abs(comparison.difference) / comparison.standard_error
