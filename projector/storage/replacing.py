"""Replace files atomically: after a crash or power cut, the old or the new files exist, never a
part.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Within a folder: files that are being written, and files that have only to be moved into place.
STAGED = ".partial"
COMMITTED = ".replacing"


def is_unfinished(name: str) -> bool:
    """Whether a file name is one of the temporary names used here, left by a killed process."""
    return name in (STAGED, COMMITTED) or (name.startswith(".") and name.endswith(STAGED))


@contextmanager
def replacing_file(path: Path, *, is_shared: bool = False) -> Iterator[Path]:
    """Yield a path to write to; at the end its file replaces ``path``.

    Args:
        is_shared: whether other threads and processes may replace the file at the same time. Each
            then writes to its own temporary file, and the last one wins. Temporary files of a
            killed process are then not overwritten.

    Raises:
        OSError: if it can't be written. ``path`` is unchanged, and no temporary file is left.
    """
    make_folder(path.parent)
    own = f".{os.getpid()}.{threading.get_ident()}" if is_shared else ""
    partial = path.with_name(f".{path.name}{own}{STAGED}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_files(folder: Path) -> Iterator[Path]:
    """Yield a folder to write to; its files replace the files with the same names in ``folder``.

    Either all files are replaced, including those in subfolders, or none. Once all are written, a
    single rename commits them; if the process is killed after that, the next program that opens the
    folder moves the remaining files (:func:`finish_replacing`). An empty file means that the file
    with its name is removed. Other files in ``folder`` are kept.

    Raises:
        OSError: if they can't be written. ``folder`` is unchanged.
    """
    finish_replacing(folder)
    is_new = not folder.exists()
    staging = folder.parent / f".{folder.name}{STAGED}" if is_new else folder / STAGED
    try:
        shutil.rmtree(staging, ignore_errors=True)
        make_folder(staging.parent)
        staging.mkdir()
        yield staging
        # What stands deepest comes first: a folder's names are on the disk before its own is.
        for path in sorted(staging.rglob("*"), reverse=True):
            if is_new and path.is_file() and not path.stat().st_size:
                path.unlink()
            else:
                sync(path)
        sync(staging)
        if is_new:
            staging.replace(folder)
            sync(folder.parent)
        elif any(staging.iterdir()):
            staging.replace(folder / COMMITTED)
            sync(folder)
            finish_replacing(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def finish_replacing(folder: Path) -> None:
    """Finish a :func:`replacing_files` that was killed after its commit; otherwise do nothing."""
    committed = folder / COMMITTED
    if not committed.is_dir():
        return
    _move_all(committed, folder)
    sync(folder)


def _move_all(source: Path, target: Path) -> None:
    """Move the files of one folder into another, and remove the folder that held them."""
    paths: list[Path] = []
    # Two that open the folder at once move the same files.
    with suppress(FileNotFoundError):
        # Tensors before the JSON that names them: who finds the one finds the other.
        paths = sorted(source.iterdir(), reverse=True)
    for path in paths:
        there = target / path.name
        with suppress(FileNotFoundError):
            if path.is_dir():
                there.mkdir(exist_ok=True)
                _move_all(path, there)
                sync(there)
                # Where all that it held was removed.
                with suppress(OSError):
                    there.rmdir()
            elif path.stat().st_size:
                path.replace(there)
            else:
                there.unlink(missing_ok=True)
                path.unlink()
    with suppress(FileNotFoundError):
        source.rmdir()


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, and flush them to the disk."""
    missing = [folder, *folder.parents]
    missing = missing[: next(i for i, path in enumerate(missing) if path.exists())]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync(path.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder with its content: it disappears in one step, its files afterwards."""
    going = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(going, ignore_errors=True)
    with suppress(FileNotFoundError):
        folder.replace(going)
        sync(folder.parent)
    shutil.rmtree(going, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no such thing for a folder.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
