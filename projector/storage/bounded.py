"""A cache folder with a size limit: the least recently used file is removed first.

Several processes and threads may use the same folder. Files are replaced atomically, and a file
that is removed during a read can still be read to its end.
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
    """The files in a folder and the limit on their total size.

    Attributes:
        path: the folder; it is created when a file is written.
        patterns: patterns of the cache's own files, such as ``prompts/[0-9][0-9].json``. Other
            files are never counted or removed, because a user may choose any folder.
        most_bytes: limit on the total size. The file written last is kept, even if it is larger.
    """

    path: Path
    patterns: tuple[str, ...]
    most_bytes: int

    def find(self, name: str) -> Path | None:
        """Find a file and mark it as used; None if it doesn't exist.

        Args:
            name: a path relative to the folder, such as ``prompts/0123.json``.
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
        """Yield a path to write to; at the end it replaces ``name``, and old files are removed.

        Raises:
            OSError: if it can't be written. An existing file is unchanged.
            ValueError: if the name matches none of the patterns.
        """
        if not any(Path(name).match(pattern) for pattern in self.patterns):
            raise ValueError(f"{name} matches none of {', '.join(self.patterns)}")
        path = self.path / name
        with replacing_file(path, is_shared=True) as partial:
            yield partial
        self.trim(keep=path)

    def trim(self, keep: Path | None = None) -> None:
        """Remove the least recently used files until the total size is within the limit.

        If another program holds the lock for long, or the folder isn't writable, nothing is removed
        until the next call.

        Args:
            keep: a file that is never removed.
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
        """The cache's own files, in no order; unfinished files are left out."""
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
