"""A folder with a report: ``report.json``, the same as one page for people, and its rows as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from projector.storage.folders import replacing_folder
from projector.storage.places import check_replaceable, disk_errors
from projector.storage.versions import json_text

JSON_FILE, PAGE_FILE, CSV_FILE = "report.json", "report.html", "report.csv"


def check_report_place(out: Path, *, force: bool) -> None:
    """Raise a UserError if no report may be written at ``out``.

    What is there is replaced only where it is a report, and ``force`` is given.
    """
    check_replaceable(out, JSON_FILE, "a report", force=force)


def write_report(
    out: Path,
    content: Mapping[str, Any],
    page: str,
    *,
    rows: Sequence[Mapping[str, Any]] | None = None,
    beside: Callable[[Path], None] | None = None,
    force: bool = False,
) -> None:
    """Write a report in one step; see :func:`check_report_place` for what it replaces.

    Args:
        content: what ``report.json`` holds; no NaN and no infinity.
        page: HTML, see :func:`projector.figures.page.page_html`.
        rows: what ``report.csv`` holds, all of the same columns; None for no such file.
        beside: writes what else belongs to the report into the folder that it is given.

    Raises:
        UserError: if it may not be written there, or the disk refuses.
    """
    check_report_place(out, force=force)
    with disk_errors(out), replacing_folder(out) as new:
        new.mkdir()
        (new / JSON_FILE).write_text(json_text(content), encoding="utf-8")
        (new / PAGE_FILE).write_text(page, encoding="utf-8")
        if rows is not None:
            (new / CSV_FILE).write_text(_csv(rows), encoding="utf-8", newline="")
        if beside is not None:
            beside(new)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV under a line of titles: None is an empty cell, and a mapping is JSON."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return out.getvalue()


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping) else value
