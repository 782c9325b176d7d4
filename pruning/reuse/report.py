"""The files of an experiment on reuse: ``report.json``, and its rows as ``report.csv``."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from projector.errors import UserError
from pruning.reporting.files import JSON_FILE, checked, load_report, save_report
from pruning.reporting.kinds import REUSE
from pruning.reuse.comparing import report_of
from pruning.reuse.records import ReuseReport, ReuseRow

# Columns of report.csv; ``standard_error`` is the perplexity's, over windows.
COLUMNS = (
    "method",
    "share",
    "seed",
    "partners",
    "perplexity",
    "standard_error",
    "operations",
    "operations_saved",
    "neurons_changed",
    "neurons_reused",
    "neurons_removed",
    "r2",
    "seconds",
    "reason",
)


def save_reuse(report: ReuseReport, folder: Path) -> None:
    """Write ``report.json`` and ``report.csv``, each replaced in one step.

    Raises:
        UserError: if the folder can't be written. Existing files are unchanged then.
    """
    save_report(folder, REUSE, report.as_dict(), COLUMNS, [_line(row) for row in report.rows])


def load_reuse(folder: str | Path) -> ReuseReport:
    """Read what :func:`save_reuse` wrote, and compare the rows again.

    Raises:
        UserError: if it isn't such a report, is damaged, or has another format version.
    """
    content = load_report(folder, REUSE)
    try:
        settings, model = dict(content["settings"]), dict(content["model"])
        rows = [checked(ReuseRow.from_dict(row)) for row in content["rows"]]
        _check_windows(rows)
        notes = [str(note) for note in content["notes"]]
        return report_of(settings, model, rows, str(settings["pruning_method"]), notes)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        path = Path(folder) / JSON_FILE
        raise UserError(f"'{path}' is damaged: {error}") from error


def standard_error(row: ReuseRow) -> float | None:
    """The standard error of a row's perplexity P over its W windows: P · s/√W. s² is the variance
    of the windows' nats a token. None with one window, or without a perplexity.
    """
    if row.perplexity is None or len(row.nll_windows) < 2:
        return None
    spread = statistics.stdev(row.nll_windows) / math.sqrt(len(row.nll_windows))
    return row.perplexity * spread


def _line(row: ReuseRow) -> dict[str, Any]:
    return {
        "method": row.method,
        "share": row.share,
        "seed": row.seed,
        "partners": row.n_partners,
        "perplexity": row.perplexity,
        "standard_error": standard_error(row),
        "operations": row.operations,
        "operations_saved": row.saved,
        "neurons_changed": row.n_changed,
        "neurons_reused": row.n_reused,
        "neurons_removed": row.n_removed,
        "r2": row.r2,
        "seconds": row.seconds,
        "reason": row.reason,
    }


def _check_windows(rows: list[ReuseRow]) -> None:
    """Raise a ValueError unless all scored rows have the same number of windows."""
    counts = {len(row.nll_windows) for row in rows if row.perplexity is not None}
    if len(counts) > 1:
        raise ValueError(f"its rows are of {' and '.join(map(str, sorted(counts)))} windows")
