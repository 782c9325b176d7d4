"""Folders replaced whole: what stood there, or all of the new one, never a part."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from projector.storage.replacing import make_folder


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new folder to fill; at the end it stands in the place of ``folder``, with nothing else.

    The one that is given does not exist yet, and what stands beside it goes with it: room for what
    is needed only until the end.

    Raises:
        OSError: if it can't be written or moved. ``folder`` is as it was.
    """
    make_folder(folder.absolute().parent)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
    new, old = staging / "new", staging / "old"
    try:
        yield new
        try:
            if folder.exists():
                folder.replace(old)
            new.replace(folder)
        except BaseException:
            # Ctrl-C too: what was there must not go with the staging folder.
            if old.exists() and not folder.exists():
                old.replace(folder)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
