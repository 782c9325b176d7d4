"""The folders that the app was started with; the app finds only files below them."""

from __future__ import annotations

from pathlib import Path

from projector.corpus.sources import find_source
from projector.errors import UserError

_MOST_DEPTH = 4


def find_folders(roots: tuple[Path, ...], file: str) -> dict[str, Path]:
    """Folders below the roots that hold ``file``, by name: the path below the root.

    Links that lead out of a root are not followed.
    """
    found: dict[str, Path] = {}
    for root in roots:
        if not root.is_dir():
            continue
        for path in sorted(_walk(root, 0)):
            try:
                is_there = (path / file).is_file()
                is_below = is_there and (path / file).resolve().is_relative_to(root)
            except OSError:
                # A folder that this user may not read.
                continue
            if is_below:
                found.setdefault(name_of(path, roots), path)
    return found


def _walk(folder: Path, depth: int) -> list[Path]:
    """Folders to search, to a limited depth, because a root may be a home folder."""
    result = [folder]
    if depth < _MOST_DEPTH:
        try:
            below = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
        except OSError:
            below = []
        for path in below:
            if not path.is_symlink():
                result += _walk(path, depth + 1)
    return result


def _leads_out(folder: Path, root: Path) -> bool:
    """Whether a folder is a link that leads out of the root; False for a file."""
    return any(
        path.is_symlink() and not path.resolve().is_relative_to(root) for path in folder.rglob("*")
    )


def name_of(path: Path, roots: tuple[Path, ...]) -> str:
    """The path below the first root that holds it; the folder's name for a root itself."""
    for number, root in enumerate(roots):
        if path.is_relative_to(root):
            below = path.relative_to(root).as_posix()
            name = root.name if below == "." else below
            # Roots may hold folders with equal names, and may have equal names themselves.
            is_only = sum(other.name == root.name for other in roots[1:]) == 1
            prefix = root.name if is_only else f"{root.name}-{number + 1}"
            return name if number == 0 else f"{prefix}:{name}"
    raise ValueError(f"{path} is below no root")


def text_source(roots: tuple[Path, ...], source: str) -> str:
    """A source of text that a page may read: the hub, the standard library, or a file below a root.

    Raises:
        UserError: if it is a file anywhere else, or doesn't exist.
    """
    found = find_source(source)
    # For a command that takes a list, a comma would make two sources of it.
    has_form = bool(found.reader.prefix) and "," not in source
    if has_form and found.local_path is None:
        return source
    for root in roots if source else ():
        try:
            path = (root / source).resolve()
            if path.exists() and path.is_relative_to(root) and not _leads_out(path, root):
                return str(path)
        except (OSError, ValueError):
            # No file can have such a name.
            continue
    names = ", ".join(root.name for root in roots)
    if has_form:
        raise UserError(
            f"'{source[:80]}' can't be read from a page: write {found.reader.form}, or name a file "
            f"or folder below {names}"
        )
    raise UserError(
        f"there is no text '{source[:80]}' below {names}: "
        "put it there, or start with --root and its folder"
    )
