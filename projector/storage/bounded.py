"""A folder of files that can be made again: bounded in bytes, the longest unused file goes first.

Several processes and threads may use one folder at once. A file is replaced whole or not at all,
and one that is read by somebody while it goes is read to its end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from projector.storage.replacing import STAGED, replacing_file

_LOCK = ".lock"
# Trimming takes moments: a page does not wait for a lock that hangs.
_PATIENCE_S = 10.0
# A file that nobody has written to for so long was left by a process that was killed.
_ABANDONED_AFTER_S = 24 * 3600.0


@dataclass(frozen=True)
class BoundedFolder:
    """Files below one folder, and how many bytes they may take together.

    Attributes:
        path: the folder; it is made when something is written.
        patterns: which files are its own, such as ``prompts/[0-9][0-9].json``: as exact as their
            names are. Nothing else that lies in the folder is counted or removed: a user may have
            named any folder.
        most_bytes: of all its files together. The file written last stays, however large it is.
    """

    path: Path
    patterns: tuple[str, ...]
    most_bytes: int

    def find(self, name: str) -> Path | None:
        """The file of a name, which counts as used now; None where there is none.

        Args:
            name: a path below the folder, such as ``prompts/0123.json``.
        """
        path = self.path / name
        try:
            found = path.stat()
            # The time of its last change stays: others tell by it whether it was replaced. Where
            # nothing can be written, it is there all the same.
            with suppress(OSError):
                os.utime(path, ns=(time.time_ns(), found.st_mtime_ns))
        except (OSError, ValueError):
            return None
        return path

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A path to write to; at the end it takes the place of ``name``, and what is too much goes.

        Raises:
            OSError: if it can't be written. The file of that name is as it was.
            ValueError: if the name matches none of the patterns.
        """
        if not any(Path(name).match(pattern) for pattern in self.patterns):
            raise ValueError(f"{name} matches none of {', '.join(self.patterns)}")
        path = self.path / name
        with replacing_file(path, is_shared=True) as partial:
            yield partial
        self.trim(keep=path)

    def trim(self, keep: Path | None = None) -> None:
        """Remove the longest unused files until the others take no more than they may.

        Where another program holds the lock for long, or nothing can be written, they stay: the
        next call removes them.

        Args:
            keep: a file that stays in any case.
        """
        if not self.path.is_dir():
            return
        lock = FileLock(self.path / _LOCK, timeout=_PATIENCE_S)
        try:
            lock.acquire()
        except (Timeout, OSError, NotImplementedError):
            return
        try:
            self._sweep()
            self._remove(keep)
        finally:
            lock.release()

    def _remove(self, keep: Path | None) -> None:
        found: list[tuple[int, int, Path]] = []
        for path in self.files():
            with suppress(OSError):
                stat = path.stat()
                found.append((max(stat.st_atime_ns, stat.st_mtime_ns), stat.st_size, path))
        n_bytes = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if n_bytes <= self.most_bytes:
                break
            if path != keep:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                    n_bytes -= size

    def files(self) -> list[Path]:
        """Its own files, in no order; what is being written is not among them."""
        return [
            path
            for pattern in self.patterns
            for path in self.path.glob(pattern)
            if not path.name.startswith(".") and path.is_file()
        ]

    def _sweep(self) -> None:
        """Remove what killed processes had begun to write."""
        for pattern in self.patterns:
            place = self.path / pattern
            begun = f".{place.name}.[0-9]*{STAGED}"
            # What writes there in one step has a partial file of the partial file.
            for path in (*place.parent.glob(begun), *place.parent.glob(f".{begun}")):
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                        path.unlink()
