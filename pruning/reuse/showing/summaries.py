"""Rows of an experiment on reuse over seeds, and comparisons, as tables and figures show them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pruning.reuse.records import DENSE, METHODS_HELP, Comparison, ReuseReport, ReuseRow

WINS, LOSES, TIES = "wins", "loses", "ties"


@dataclass(frozen=True)
class Summary:
    """A method at one share over all seeds.

    Attributes:
        saved: mean share of the MLPs' operations that is really saved; None without a model.
        n_changed: mean neurons reused or removed.
        n_seeds: that were scored.
        perplexity: mean; None where a seed has none, with the ``reason``.
        spread: sample standard deviation; None for one seed.
        r2: mean over seeds of the median share of a reused neuron's variance that is explained.
        seconds: mean.
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

    @property
    def name(self) -> str:
        """The method, and its partners where they are several."""
        return name_of(self.method, self.n_partners)

    @property
    def text(self) -> str:
        """Perplexity and its spread; a dash where there is none."""
        if self.perplexity is None:
            return "–"
        spread = f" ± {self.spread:.3f}" if self.spread else ""
        return f"{self.perplexity:,.3f}{spread}"


def summaries(report: ReuseReport) -> list[Summary]:
    """Over seeds, in the order of the rows."""
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
    )


def dense_of(found: Sequence[Summary]) -> Summary | None:
    """The dense model's; None where it is not there yet."""
    return next((each for each in found if each.method == DENSE), None)


def name_of(method: str, n_partners: int) -> str:
    """``reuse``; ``reuse of 4 partners``."""
    return method if n_partners < 2 else f"{method} of {n_partners} partners"


def label_of(method: str) -> str:
    """What a method is called within a sentence."""
    words = {"random-partners": "random partners", "early-write": "early write"}
    if method in METHODS_HELP:
        return words.get(method, method)
    return f"{method} with least squares"


def verdict(comparison: Comparison) -> str:
    """Whether reuse wins, loses, or neither is shown."""
    if comparison.wins:
        return WINS
    return LOSES if comparison.loses else TIES


def errors_apart(comparison: Comparison) -> float | None:
    """The difference in standard errors, without its sign; None where there is no such number."""
    if not comparison.standard_error:
        return None
    return abs(comparison.difference) / comparison.standard_error
