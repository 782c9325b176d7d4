"""A folder with a report: ``report.json``, an HTML page, and its rows as CSV."""

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
    """Raise a UserError if a report must not be written at ``out``.

    An existing folder is replaced only if it is a report and ``force`` is True.
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
    """Write a report atomically; see :func:`check_report_place` for replaced folders.

    Args:
        content: the content of ``report.json``, without NaN and infinities.
        page: HTML, see :func:`projector.figures.page.page_html`.
        rows: the rows of ``report.csv``, all with the same columns; None for no such file.
        beside: function that writes additional files of the report into a given folder.

    Raises:
        UserError: if it must not be written there, or can't be written.
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
