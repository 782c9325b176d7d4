"""What an experiment on reuse found, in sentences that are made of its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from pruning.reuse.records import EARLY_WRITE, RANDOM_PARTNERS, REUSE, Comparison, ReuseReport
from pruning.reuse.showing.summaries import (
    LOSES,
    TIES,
    WINS,
    errors_apart,
    label_of,
    name_of,
    verdict,
)

_OF_REUSE = {
    WINS: ("beats {other}", "by"),
    LOSES: ("loses to {other}", "by"),
    TIES: ("ties with {other}", "with differences of"),
}
# Of the other method, which is another way to reuse.
_OF_OTHERS = {
    WINS: ("do worse", "by"),
    LOSES: ("do better", "by"),
    TIES: ("do as well", "with differences of"),
}
_VARIANTS = {
    RANDOM_PARTNERS: "Partners drawn at random",
    EARLY_WRITE: "Partners that write in their own layer",
}


def answer(report: ReuseReport) -> str:
    """Whether reuse is worth what it costs, in two or three sentences."""
    if not report.comparisons:
        return "Nothing can be compared: no share has both a model of reuse and another one."
    if all(each.standard_error is None for each in report.comparisons):
        return "Nothing can be told: one window gives no standard error."
    sentences = []
    for n_partners in dict.fromkeys(each.n_partners for each in report.comparisons):
        own = [each for each in report.comparisons if each.n_partners == n_partners]
        others = dict.fromkeys(each.against for each in own if each.against not in _VARIANTS)
        clauses = [
            part
            for other in others
            for part in _parts([c for c in own if c.against == other], _OF_REUSE, label_of(other))
        ]
        if clauses:
            subject = name_of(REUSE, n_partners)
            sentences.append(f"At equal operations {subject} {_listed(clauses)}.")
        if n_partners > 1:
            continue
        for other, subject in _VARIANTS.items():
            parts = _parts([c for c in own if c.against == other], _OF_OTHERS, "")
            if parts:
                sentences.append(f"{subject} {_listed(parts)}.")
    sentences.append(outcome(report))
    return " ".join(sentences)


def outcome(report: ReuseReport) -> str:
    """What follows from it."""
    if report.wins:
        return (
            "Reuse wins over removal and over the best method of pruning at one share at least: "
            "there it is worth building."
        )
    return (
        "At no share does reuse win over both removal and the best method of pruning by more than "
        "two paired standard errors, so the experiment ends with this report."
    )


def _parts(found: Sequence[Comparison], words: dict[str, tuple[str, str]], other: str) -> list[str]:
    """For each verdict, at which shares, and by how many standard errors."""
    parts = []
    for kind, (told, by) in words.items():
        own = [each for each in found if verdict(each) == kind]
        if own:
            shares = _listed([percent(each.share) for each in own])
            apart = [errors_apart(each) for each in own]
            known = _listed([f"{each:.1f}" for each in apart if each is not None])
            errors = f" ({by} {known} paired standard errors)" if known else ""
            parts.append(f"{told.format(other=other)} at {shares}{errors}")
    return parts


def percent(share: float) -> str:
    """``5 %``, ``12.5 %``; no line is broken in it."""
    return f"{100 * share:.4g}\N{NO-BREAK SPACE}%"


def signed(value: float, digits: int = 4) -> str:
    """``+0.0123``, ``−0.0045``."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
