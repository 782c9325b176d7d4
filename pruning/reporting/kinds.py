"""The kinds of reports that this package makes, with their formats and commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from projector.storage.versions import Upgrade


@dataclass(frozen=True)
class ReportKind:
    """A kind of report.

    Attributes:
        format: value of ``format`` in its ``report.json``.
        version: format version that is written.
        what: name of a run that makes one, such as ``sweep``.
        command: the command that makes one.
        upgrades: version → function that upgrades a report from it to the next version.
    """

    format: str
    version: int
    what: str
    command: str
    upgrades: Mapping[int, Upgrade] = field(default_factory=dict)

    @property
    def remedy(self) -> str:
        """The fix for a report that can't be read."""
        return f"make the report again with `{self.command}`"


SWEEP = ReportKind("transformer-pruning-report", 1, "sweep", "pruning sweep")
REUSE = ReportKind("transformer-reuse-report", 1, "reuse experiment", "pruning reuse")
KINDS = {kind.format: kind for kind in (SWEEP, REUSE)}
