"""Find and read reports of contrasts that the command wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from projector.errors import UserError
from projector.figures.contrast.series import Facts, facts_of
from projector.figures.report import JSON_FILE
from projector.storage.versions import read_json

# A report of thirty layers takes half a MB.
_MOST_BYTES = 64 * 2**20


def read_report(folder: Path) -> Facts:
    """Read the report of a contrast in a folder.

    Raises:
        UserError: if there is none, or it is damaged.
    """
    path = folder / JSON_FILE
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"'{path.name}' can't be read: {error.strerror}") from error
    if size > _MOST_BYTES:
        raise UserError(f"'{path.name}' is too large for a report: {size / 2**20:,.0f} MB")
    content, _ = read_json(path)
    if not isinstance(content, Mapping):
        raise UserError(f"'{path.name}' holds no report")
    return facts_of(content)


def rows_of(facts: Facts) -> pa.Table:
    """The rows of a report as a table, one per model, layer and stream.

    Unknown figures are null, and reasons are JSON, as in the command's table.
    """
    return pa.Table.from_pylist(
        [{name: _cell(value) for name, value in row.items()} for row in facts["rows"]]
    )


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping) else value
