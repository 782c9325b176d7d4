"""A folder with a report: ``report.json``, and the same as one page for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from projector.storage.folders import replacing_folder
from projector.storage.places import check_replaceable, disk_errors
from projector.storage.versions import json_text

JSON_FILE, PAGE_FILE = "report.json", "report.html"


def check_report_place(out: Path, *, force: bool) -> None:
    """Raise a UserError if no report may be written at ``out``.

    What is there is replaced only where it is a report, and ``force`` is given.
    """
    check_replaceable(out, JSON_FILE, "a report", force=force)


def write_report(out: Path, content: Mapping[str, Any], page: str, *, force: bool = False) -> None:
    """Write a report in one step; see :func:`check_report_place` for what it replaces.

    Args:
        content: what ``report.json`` holds; no NaN and no infinity.
        page: HTML, see :func:`projector.figures.page.page_html`.

    Raises:
        UserError: if it may not be written there, or the disk refuses.
    """
    check_report_place(out, force=force)
    with disk_errors(out), replacing_folder(out) as new:
        new.mkdir()
        (new / JSON_FILE).write_text(json_text(content), encoding="utf-8")
        (new / PAGE_FILE).write_text(page, encoding="utf-8")
