"""The files of a report: ``report.json``, and its rows as ``report.csv``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from projector.errors import UserError
from projector.storage.places import disk_errors
from projector.storage.replacing import replacing_file
from projector.storage.versions import check_format, read_json, upgraded
from pruning.reporting.kinds import KINDS, ReportKind

JSON_FILE = "report.json"
CSV_FILE = "report.csv"
Record = TypeVar("Record")


def save_report(
    folder: Path,
    kind: ReportKind,
    content: Mapping[str, Any],
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Write ``report.json`` and ``report.csv``, each replaced in one step.

    Args:
        content: everything in ``report.json`` except its format; no NaN and no infinity.
        columns: columns of the CSV file; ``rows``: its rows. None is an empty cell.

    Raises:
        UserError: if the folder can't be written. Existing files are unchanged then.
        ValueError: if a number is not finite.
    """
    values = {"format": kind.format, "format_version": kind.version, **content}
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # First the file that marks the folder as a report's.
        for name, written in ((JSON_FILE, text), (CSV_FILE, table.getvalue())):
            with replacing_file(folder / name) as path:
                path.write_text(written, encoding="utf-8")


def load_report(folder: str | Path, kind: ReportKind) -> dict[str, Any]:
    """Read a folder's ``report.json``, upgraded to the newest version.

    Raises:
        UserError: if it isn't a report of this kind, is damaged, or has another format version.
    """
    path = Path(folder) / JSON_FILE
    return upgraded(
        read_report(path, kind),
        path,
        format_name=kind.format,
        newest=kind.version,
        upgrades=kind.upgrades,
        remedy=kind.remedy,
    )


def read_report(path: Path, kind: ReportKind) -> Any:
    """Read a report file of any version and format.

    Args:
        kind: the expected kind of report.

    Raises:
        UserError: if the file is missing, isn't JSON, or is a report of another kind.
    """
    if not path.exists():
        raise UserError(
            f"'{path.parent}' isn't a report: {JSON_FILE} is missing; `{kind.command}` makes one"
        )
    content = read_json(path)[0]
    other = _kind_of(content)
    if other is not None and other is not kind:
        raise UserError(
            f"'{path.parent}' holds a report of `{other.command}`, not of `{kind.command}`: give "
            "another folder",
            setting="out",
            value=str(path.parent),
        )
    return content


def check_own(folder: Path, kind: ReportKind) -> None:
    """Raise a UserError unless the folder holds a report of this kind, of any version."""
    path = folder / JSON_FILE
    check_format(read_report(path, kind), path, format_name=kind.format)


def kind_at(folder: Path) -> ReportKind | None:
    """The kind of report in a folder; None without a report, or with a damaged one."""
    try:
        return _kind_of(read_json(folder / JSON_FILE)[0])
    except UserError:
        return None


def is_foreign(folder: Path) -> bool:
    """Whether the folder's ``report.json`` is of a kind that this package doesn't make.

    A file that isn't a JSON object isn't foreign: it may be a damaged report of this package.
    """
    try:
        content = read_json(folder / JSON_FILE)[0]
    except UserError:
        return False
    return isinstance(content, dict) and _kind_of(content) is None


def _kind_of(content: Any) -> ReportKind | None:
    name = content.get("format") if isinstance(content, dict) else None
    return KINDS.get(name) if isinstance(name, str) else None


def checked(record: Record) -> Record:
    """A record from a file, if its values have the types that its fields declare.

    Raises:
        ValueError: if a value has another type.
    """
    for each in fields(record):  # type: ignore[arg-type]
        value, kinds = getattr(record, each.name), str(each.type).split(" | ")
        is_right = (
            (value is None and "None" in kinds)
            or (isinstance(value, str) and "str" in kinds)
            or (isinstance(value, bool) and "bool" in kinds)
            or (isinstance(value, int) and not isinstance(value, bool) and "str" not in kinds)
            or (isinstance(value, float) and "float" in kinds)
            or (isinstance(value, tuple) and "tuple[float, ...]" in kinds and _are_numbers(value))
        )
        if not is_right:
            raise ValueError(f"{each.name} of a row is {value!r}")
    return record


def _are_numbers(values: tuple[Any, ...]) -> bool:
    return all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)
