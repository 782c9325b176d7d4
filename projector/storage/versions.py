"""Formats and their versions: files of older versions are upgraded in memory, step by step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from projector.errors import UserError
from projector.storage.entries import Wrong
from projector.storage.folders import restore_folder
from projector.storage.places import disk_errors

if TYPE_CHECKING:
    from projector.storage.tensors import TensorFile

T = TypeVar("T")
# From the content of one version to that of the next.
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]


def json_text(content: Any) -> str:
    """Format content as JSON text, in a canonical form: equal content gives equal text."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> tuple[Any, bytes]:
    """Read a JSON file; returns its content and its bytes.

    Raises:
        UserError: if it can't be read, or isn't JSON; NaN and infinities aren't JSON.
    """
    try:
        text = path.read_bytes()
        return json.loads(text, parse_constant=_refuse), text
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"'{path}' is damaged: it can't be read as JSON ({reason})") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def check_format(
    content: Any, path: Path, *, format_name: str, if_foreign: str = "give another folder"
) -> dict[str, Any]:
    """Check that a file's content has the right format, in any version.

    Args:
        if_foreign: what the user can do otherwise; ends the message.

    Raises:
        UserError: if it has another format or none.
    """
    if not isinstance(content, dict) or content.get("format") != format_name:
        raise UserError(
            f"'{path}' is not a file of this program (its format isn't {format_name}): {if_foreign}"
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
    """Upgrade the content of a file to the newest version of its format.

    Args:
        content: the content of the file, including ``format`` and ``format_version``.
        path: the file, for messages.
        format_name: the required value of ``format``.
        newest: the version that this program writes.
        upgrades: version → function that upgrades its content to the next version.
        remedy: what the user can do if the version is newer, or too old to upgrade.
        if_foreign: what the user can do if the file has another format.

    Raises:
        UserError: if the file has another format, or a version that can't be upgraded.
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
                f"'{path}' is damaged: its content isn't valid for version {version} ({reason}); "
                f"{remedy}"
            ) from error
        version += 1
    return dict(content)


@dataclass(frozen=True)
class Artifact:
    """A kind of folder with tensors and a JSON file that describes them.

    Attributes:
        what: its name in a sentence, such as "tuned lens".
        json_file, tensor_file: names of the two files.
        format_name, version: values of ``format`` and ``format_version`` in the JSON file.
        setting: the setting that names such a folder.
        source: where such a folder comes from, as in "give a folder {source}".
        remedy: what the user can do if it is damaged or newer.
    """

    what: str
    json_file: str
    tensor_file: str
    format_name: str
    version: int
    setting: str
    source: str
    remedy: str

    def read(self, folder: Path, parse: Callable[[dict[str, Any], TensorFile], T]) -> T:
        """Read a folder, and parse the JSON content and the tensors with ``parse``.

        Args:
            parse: raises a KeyError, TypeError, ValueError or RuntimeError if they are damaged.

        Raises:
            UserError: on :attr:`setting`, if the folder holds no such artifact, or it is damaged or
                newer.
        """
        # Here, since much that reads versions needs no PyTorch.
        from safetensors import SafetensorError

        from projector.storage.tensors import TensorFile

        with disk_errors(folder):
            restore_folder(folder)
        path = folder / self.json_file
        if not path.is_file():
            raise self.missing(folder)
        content, _ = read_json(path)
        content = upgraded(
            content,
            path,
            format_name=self.format_name,
            newest=self.version,
            upgrades={},
            remedy=self.remedy,
        )
        try:
            return parse(content, TensorFile(folder / self.tensor_file))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"the {self.what} in '{folder}' can't be read ({reason}): {self.remedy}",
                setting=self.setting,
                value=str(folder),
            ) from error

    def missing(self, folder: Path) -> UserError:
        """The error for a folder without such an artifact."""
        why = f"holds no {self.what}" if folder.is_dir() else "isn't a folder"
        return UserError(
            f"'{folder}' {why}: give a folder {self.source}",
            setting=self.setting,
            value=str(folder),
        )
