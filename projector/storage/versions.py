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
                f"'{path}' is damaged: version {version} expects something else ({reason}); "
                f"{remedy}"
            ) from error
        version += 1
    return dict(content)


@dataclass(frozen=True)
class Artifact:
    """A kind of folder that holds tensors, and a JSON file that says what they are of.

    Attributes:
        what: its name in a sentence, such as "tuned lens".
        json_file, tensor_file: names of both files.
        format_name, version: what the JSON file's ``format`` and ``format_version`` are.
        setting: the setting by which a user names such a folder.
        source: where such a folder comes from: "give a folder {source}".
        remedy: what a user can do where it is damaged or newer.
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
        """What ``parse`` makes of the JSON file's content and of the tensors.

        Args:
            parse: raises a KeyError, TypeError, ValueError or RuntimeError where they are damaged.

        Raises:
            UserError: on :attr:`setting`, if the folder holds no such artifact, or one that is
                damaged or newer.
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
        """The error of a folder that holds no such artifact."""
        why = f"holds no {self.what}" if folder.is_dir() else "isn't a folder"
        return UserError(
            f"'{folder}' {why}: give a folder {self.source}",
            setting=self.setting,
            value=str(folder),
        )
