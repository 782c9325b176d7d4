"""The standard library of the running interpreter as a source of text."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from projector.corpus.documents import Document
from projector.corpus.reader import Reader
from projector.errors import UserError

SPLITS = ("train", "heldout")
_HELD_OUT_DIVISOR = 20
_NOT_THE_LIBRARY = ("site-packages", "dist-packages")
# Written when the interpreter was built: full of the build machine's own paths and flags.
_GENERATED = "_sysconfigdata"


def is_held_out(module_path: str) -> bool:
    """Whether a standard-library module belongs to the ``heldout`` split.

    Args:
        module_path: path below the library's root, in posix form (``json/decoder.py``).
    """
    digest = hashlib.sha256(module_path.encode()).digest()
    return int.from_bytes(digest, "big") % _HELD_OUT_DIVISOR == 0


def stdlib_modules(split: str, root: Path | None = None) -> Iterator[tuple[str, str]]:
    """Yield (path below the root, text) of the running interpreter's own ``.py`` files.

    Files that are not UTF-8 are skipped (the library ships some on purpose, to test decoders), and
    so are installed packages and the build's generated configuration.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    for module_path, path in sorted(_python_files(root)):
        if is_held_out(module_path) != (split == "heldout"):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip():
            yield module_path, text


def _python_files(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, names, files in os.walk(root):
        # Pruned, not passed over: installed packages can be many times the library.
        names[:] = [name for name in names if name not in _NOT_THE_LIBRARY]
        for file in files:
            if file.endswith(".py") and not file.startswith(_GENERATED):
                path = Path(folder, file)
                yield path.relative_to(root).as_posix(), path


def _read(split: str) -> Iterator[Document]:
    split = split or "train"
    if split not in SPLITS:
        raise UserError(
            f"the corpus stdlib has no split '{split}': choose from {', '.join(SPLITS)}"
        )
    return (text for _, text in stdlib_modules(split))


READER = Reader(
    prefix="stdlib",
    form=f"stdlib[{'|'.join(f':{split}' for split in SPLITS)}]",
    example="stdlib",
    read=_read,
)
