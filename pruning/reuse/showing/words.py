"""Describe the result of an experiment on reuse in sentences with its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from pruning.reuse.records import EARLY_WRITE, MIXED, REUSE, Comparison, ReuseReport
from pruning.reuse.showing.summaries import (
    LOSES,
    TIES,
    WINS,
    errors_apart,
    label_of,
    verdict,
)

_SUBJECTS = {
    MIXED: "At equal operations reuse where it pays",
    REUSE: "At equal operations reuse{} throughout",
    EARLY_WRITE: "Early write",
}
_SAME = "same"
# Two standard errors are near a 95 % interval: 2.3 at nine degrees of freedom, 12.7 at one.
_ENOUGH_WINDOWS = 10
_WORDS = {
    WINS: ("beats {other}", "by"),
    LOSES: ("loses to {other}", "by"),
    TIES: ("ties with {other}", "with differences of"),
    _SAME: ("gives the same as {other}", ""),
}


def answer(report: ReuseReport) -> str:
    """Whether reuse is worth its cost, in a few sentences."""
    if not report.comparisons:
        return "No methods can be compared: no share has models both with and without reuse."
    if all(each.standard_error is None for each in report.comparisons):
        return "No method can be shown to win: one window gives no standard error."
    sentences = []
    for method, n_partners in dict.fromkeys((c.method, c.n_partners) for c in report.comparisons):
        own = [c for c in report.comparisons if (c.method, c.n_partners) == (method, n_partners)]
        clauses = [
            part
            for other in dict.fromkeys(each.against for each in own)
            for part in _parts([c for c in own if c.against == other], label_of(other))
        ]
        sentences.append(
            f"{_SUBJECTS.get(method, method).format(_kinds(n_partners))} {_listed(clauses)}."
        )
    return " ".join([*sentences, outcome(report)])


def outcome(report: ReuseReport) -> str:
    """The conclusion from the answer."""
    if report.wins:
        return (
            "At one share or more, reuse beats both removal and the best pruning method: there it "
            "is worth building."
        )
    return (
        "At no share does reuse, throughout or where it pays, beat both removal and the best "
        "pruning method by more than two paired standard errors, so the experiment ends with this "
        "report."
    )


def error_words(report: ReuseReport) -> str:
    """The sources of variation that the standard errors include."""
    n_seeds = int(report.settings.get("n_seeds", 1))
    windows = max((len(row.nll_windows) for row in report.rows), default=0)
    few = (
        f" {windows:,} windows are too few for a verdict: score {_ENOUGH_WINDOWS} or more."
        if windows < _ENOUGH_WINDOWS
        else ""
    )
    if n_seeds < 2:
        return (
            "Standard errors are over windows only: with one seed, they don't include the effect "
            f"of the calibration text.{few}"
        )
    return (
        f"Standard errors are over windows and over {n_seeds:,} seeds. The seeds' part has only "
        f"{n_seeds - 1:,} degree{'' if n_seeds == 2 else 's'} of freedom, so if it is the larger "
        f"part, two standard errors aren't a 95 % interval.{few}"
    )


def _kinds(n_partners: int) -> str:
    return "" if n_partners < 2 else f" of {n_partners} partners"


def _parts(found: Sequence[Comparison], other: str) -> list[str]:
    """For each verdict, at which shares, and by how many standard errors."""
    parts = []
    for kind, (told, by) in _WORDS.items():
        own = [each for each in found if (_SAME if _is_same(each) else verdict(each)) == kind]
        if own:
            shares = _listed([percent(each.share) for each in own])
            apart = [errors_apart(each) for each in own]
            known = _listed([f"{each:.1f}" for each in apart if each is not None])
            errors = f" ({by} {known} paired standard errors)" if known else ""
            parts.append(f"{told.format(other=other)} at {shares}{errors}")
    return parts


def _is_same(comparison: Comparison) -> bool:
    """Whether both methods replace the same neurons in the same way, so that all windows agree."""
    return comparison.difference == 0 and comparison.standard_error == 0


def percent(share: float) -> str:
    """``5 %``, ``12.5 %``; with a no-break space."""
    return f"{100 * share:.4g}\N{NO-BREAK SPACE}%"


def signed(value: float, digits: int = 4) -> str:
    """``+0.0123``, ``−0.0045``."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
