"""Add files to an artifact's folder under a lock: all of them or none, and nothing is rewritten.

Do the long work first, and take the lock only for writing::

    with adding(folder, belongs_to=fingerprint) as addition:
        known = json.loads(addition.read("poles/a.json") or "{}")
        addition.write("poles/a.json", json_text(known | found), force=True)

Two programs that add at the same time take turns, and the second sees the files of the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from projector.errors import UserError, named
from projector.storage.places import alone, disk_errors
from projector.storage.replacing import COMMITTED, finish_replacing, replacing_files

# Within the folder, while something is written to it.
LOCK = ".lock"
# Writing takes moments: who waits longer waits for something that hangs.
_PATIENCE_S = 120.0


class Addition:
    """Files that are about to be added to ``folder``."""

    def __init__(self, folder: Path, staging: Path) -> None:
        self.folder, self._staging = folder, staging

    def has(self, name: str) -> bool:
        """Whether the folder holds a file with this name, such as ``layouts/stress-3d.json``."""
        return (self.folder / _checked(name)).exists()

    def read(self, name: str) -> bytes | None:
        """The content of the file with this name; None if it doesn't exist."""
        with suppress(FileNotFoundError):
            return (self.folder / _checked(name)).read_bytes()
        return None

    def names(self, below: str = "") -> list[str]:
        """Names of the files in a subfolder, sorted: ``layouts`` gives ``layouts/a.json`` …"""
        where = self.folder / below
        if not where.is_dir():
            return []
        return sorted(
            path.relative_to(self.folder).as_posix()
            for path in where.iterdir()
            if path.is_file() and not path.name.startswith(".")
        )

    def path(self, name: str, *, force: bool = False) -> Path:
        """The path to write to for adding a file with this name.

        Raises:
            UserError: if the file exists and ``force`` is False.
        """
        if self.has(name) and not force:
            raise UserError(
                f"'{self.folder / name}' exists already: give another name, or add "
                f"{named('force', True)} to replace it",
                setting="force",
                value=False,
            )
        path = self._staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, content: str | bytes, *, force: bool = False) -> None:
        """Add a file with this content, which must not be empty.

        Raises:
            UserError: if the file exists and ``force`` is False.
            ValueError: if the content is empty, because an empty file means a removed one.
        """
        data = content.encode() if isinstance(content, str) else content
        if not data:
            raise ValueError(f"{name} would be empty: remove it instead")
        self.path(name, force=force).write_bytes(data)

    def remove(self, name: str) -> None:
        """Remove a file together with this addition."""
        if self.has(name):
            # An empty file stands for none.
            self.path(name, force=True).touch()


@contextmanager
def adding(
    folder: Path, *, belongs_to: str | None = None, main_file: str = "projection.json"
) -> Iterator[Addition]:
    """Add files to an artifact: at the end of the block all files are added, or none after an
    error.

    Args:
        folder: the artifact's folder.
        belongs_to: SHA-256 of the text of the ``main_file`` that the additions were made for. If
            the artifact has been replaced since, nothing is added.

    Raises:
        UserError: if the artifact was removed or replaced, the disk is full or not writable, or
            another program keeps writing to the folder for minutes.
    """
    with alone_at(folder), disk_errors(folder):
        finish_replacing(folder)
        if belongs_to is not None:
            main = folder / main_file
            if not main.exists():
                raise UserError(f"'{main}' is gone: nothing can be added to '{folder}'")
            if hashlib.sha256(main.read_bytes()).hexdigest() != belongs_to:
                raise UserError(
                    f"'{folder}' was replaced while this command ran, so its results don't belong "
                    "to it: run the command again"
                )
        with replacing_files(folder) as staging:
            yield Addition(folder, staging)


@contextmanager
def alone_at(folder: Path) -> Iterator[None]:
    """Lock the folder in this context, so that no other program adds to it or replaces it.

    Raises:
        UserError: if another program holds the lock for minutes, or the folder doesn't exist or
            isn't writable.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder '{folder}': check its name")
    told = (
        f"another program has been writing to '{folder}' for {_PATIENCE_S:.0f} seconds: wait for "
        "it, or end it"
    )
    with disk_errors(folder), alone(folder / LOCK, patience_s=_PATIENCE_S, told=told):
        yield


def finish_additions(folder: Path) -> None:
    """Finish an addition that was killed while it moved its files; otherwise do nothing.

    Raises:
        UserError: if a file can't be moved, or another program keeps writing to the folder for
            minutes.
    """
    # Not without the lock: a file that somebody adds meanwhile might be taken for an old one.
    if (folder / COMMITTED).is_dir():
        with alone_at(folder), disk_errors(folder):
            finish_replacing(folder)


def _checked(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or PurePosixPath(name).is_absolute() or "\\" in name:
        raise ValueError(f"{name!r} isn't a file in the folder")
    return name
