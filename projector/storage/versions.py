"""Formats and their versions: files of older versions are upgraded in memory, step by step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from projector.errors import UserError
from projector.storage.entries import Wrong

# From the content of one version to that of the next.
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]


def json_text(content: Any) -> str:
    """The text of a JSON file as this program writes all of them. Equal content, equal text."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> tuple[Any, bytes]:
    """What a JSON file holds, and its bytes.

    Raises:
        UserError: if it can't be read, or is not JSON, which has neither NaN nor infinities.
    """
    try:
        text = path.read_bytes()
        return json.loads(text, parse_constant=_refuse), text
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"'{path}' is damaged: it can't be read as JSON ({reason})") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number of JSON")


def check_format(
    content: Any, path: Path, *, format_name: str, if_foreign: str = "give another folder"
) -> dict[str, Any]:
    """The content of a file, if it is of a format, in whatever version.

    Args:
        if_foreign: what a person can do where it is not.

    Raises:
        UserError: if it is of another format, or of none.
    """
    if not isinstance(content, dict) or content.get("format") != format_name:
        raise UserError(
            f"'{path}' is not a file of this program (its format is not {format_name}): "
            f"{if_foreign}"
        )
    return content


def upgraded(
    content: Any,
    path: Path,
    *,
    format_name: str,
    newest: int,
    upgrades: Mapping[int, Upgrade],
    remedy: str,
    if_foreign: str = "give another folder",
) -> dict[str, Any]:
    """The content of a file as the newest version of its format has it.

    Args:
        content: what the file holds, with ``format`` and ``format_version`` among it.
        path: the file, for what a person is told.
        format_name: what ``format`` has to be.
        newest: the version that this program writes.
        upgrades: version → what turns its content into that of the next; one for each step.
        remedy: what a person can do where the version is newer, or too old to be upgraded.
        if_foreign: what a person can do where the file is of another format.

    Raises:
        UserError: if the file is of another format, or of a version that has no way up.
    """
    content = check_format(content, path, format_name=format_name, if_foreign=if_foreign)
    version = content.get("format_version")
    if isinstance(version, bool) or not isinstance(version, int):
        raise UserError(f"'{path}' is damaged: its format_version is {version!r}; {remedy}")
    if version > newest:
        raise UserError(
            f"'{path}' has format version {version}, and this program reads versions up to "
            f"{newest}: upgrade the program, or {remedy}"
        )
    while version < newest:
        if version not in upgrades:
            raise UserError(
                f"'{path}' has format version {version}, which this program does not read: {remedy}"
            )
        try:
            content = upgrades[version](content)
        except Wrong as error:
            raise UserError(f"'{path}' is damaged: {error}; {remedy}") from error
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"'{path}' is damaged: version {version} has something else there ({reason}); "
                f"{remedy}"
            ) from error
        version += 1
    return dict(content)
