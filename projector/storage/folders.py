"""Replace folders atomically: after a crash, either the old or the new folder exists, never a
part.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from projector.storage.places import alone
from projector.storage.replacing import make_folder, sync

# The moment of two renames: whoever waits longer waits for something that hangs.
_PATIENCE_S = 60.0


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder to fill; at the end it replaces ``folder``.

    The new folder doesn't exist yet. Its parent folder may hold temporary files, and is removed at
    the end. If the process is killed at any moment, either the old folder or the new one is left.
    Between the two renames it is the old one under another name, and :func:`restore_folder`, or the
    next write, moves it back.

    Raises:
        OSError: if it can't be written or moved. ``folder`` is unchanged.
        UserError: if another program is writing the folder.
    """
    folder = folder.absolute()
    make_folder(folder.parent)
    told = f"another program is writing '{folder}': wait for it, or give another folder"
    with alone(_beside(folder, "lock"), patience_s=0, told=told):
        _restore(folder)
        staging, old = _beside(folder, "partial"), _beside(folder, "replaced")
        # What a killed one left.
        for path in (staging, old):
            shutil.rmtree(path, ignore_errors=True)
        staging.mkdir()
        new = staging / "new"
        try:
            yield new
            # What stands deepest comes first: names are on the disk before their folder's is.
            for path in sorted(new.rglob("*"), reverse=True):
                sync(path)
            sync(new)
            _put_in_place(new, folder, old)
        finally:
            for path in (old, staging):
                shutil.rmtree(path, ignore_errors=True)


def _put_in_place(new: Path, folder: Path, old: Path) -> None:
    try:
        if folder.exists():
            folder.replace(old)
        new.replace(folder)
        sync(folder.parent)
    except BaseException:
        # Ctrl-C too: what was there must not be lost.
        _restore(folder)
        raise


def restore_folder(folder: Path) -> None:
    """Restore the old folder if a :func:`replacing_folder` was killed; otherwise do nothing.

    Raises:
        OSError: if it can't be moved.
    """
    folder = folder.absolute()
    if _is_aside(folder):
        told = f"another program is writing '{folder}': wait for it"
        with alone(_beside(folder, "lock"), patience_s=_PATIENCE_S, told=told):
            _restore(folder)


def _restore(folder: Path) -> None:
    if _is_aside(folder):
        _beside(folder, "replaced").replace(folder)
        sync(folder.parent)


def _is_aside(folder: Path) -> bool:
    return bool(folder.name) and not folder.exists() and _beside(folder, "replaced").is_dir()


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}")
