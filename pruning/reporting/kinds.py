"""The kinds of reports that this package makes: what tells them apart, and what makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from projector.storage.versions import Upgrade


@dataclass(frozen=True)
class ReportKind:
    """A kind of report.

    Attributes:
        format: what ``format`` is in its ``report.json``.
        version: the version of that which is written.
        what: what a run that makes one is called: ``sweep``.
        command: the command that makes one.
        upgrades: version → what turns a report of it into one of the next.
    """

    format: str
    version: int
    what: str
    command: str
    upgrades: Mapping[int, Upgrade] = field(default_factory=dict)

    @property
    def remedy(self) -> str:
        """What a user can do if a report can't be read."""
        return f"make the report again with `{self.command}`"


SWEEP = ReportKind("transformer-pruning-report", 1, "sweep", "pruning sweep")
REUSE = ReportKind("transformer-reuse-report", 1, "reuse experiment", "pruning reuse")
KINDS = {kind.format: kind for kind in (SWEEP, REUSE)}
