"""What the app was started with: ``streamlit run dashboard -- --projection DIR [--model M]``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from projector.corpus.sources import find_source
from projector.errors import UserError
from projector.hub import is_hub_id
from projector.model.loading import BUNDLED

USUAL_ROOT = Path("runs")
USUAL_PROJECTION = "demo"
_MOST_DEPTH = 4


@dataclass(frozen=True)
class Settings:
    """Where the app may look, and what it opens.

    Attributes:
        roots: folders below which projections, models and reports are found; nothing else is read.
        projection: name of the one to open first, see :func:`find_folders`; None for any. One that
            is not there goes by its whole path, which is no such name.
        model: what ``--model`` named; None for the one that the projection names.
        device, dtype: see :func:`projector.model.loading.load_model`.
    """

    roots: tuple[Path, ...]
    projection: str | None = None
    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"

    def text_source(self, source: str) -> str:
        """A source of text that a page may read: the hub, the standard library, or below a root.

        Raises:
            UserError: if it is a file anywhere else, or not there.
        """
        found = find_source(source)
        # A comma would make two sources of it for a command that takes a list.
        has_form = bool(found.reader.prefix) and "," not in source
        if has_form and found.local_path is None:
            return source
        for root in self.roots if source else ():
            try:
                path = (root / source).resolve()
                if path.exists() and path.is_relative_to(root) and not _leads_out(path, root):
                    return str(path)
            except (OSError, ValueError):
                # No file has such a name.
                continue
        roots = ", ".join(root.name for root in self.roots)
        if has_form:
            raise UserError(
                f"'{source[:80]}' can't be read from a page: write {found.reader.form}, or "
                f"name a file or folder below {roots}"
            )
        raise UserError(
            f"there is no text '{source[:80]}' below {roots}: "
            "put it there, or start with --root and its folder"
        )

    def may_load(self, model: str) -> bool:
        """Whether a page may load a model: the given one, one below a root, or one of the hub."""
        if model in (BUNDLED, self.model) or is_hub_id(model):
            return True
        path = Path(model).resolve()
        return any(path.is_relative_to(root) for root in self.roots)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message}: start with `streamlit run dashboard -- --projection DIR`")


def parse_settings(arguments: list[str]) -> Settings:
    """Read what stands behind ``--`` on the command line.

    A projection that is not there is no mistake here: the others can be looked at, or it be made.

    Raises:
        UserError: if it can't be read, or a root is not there.
    """
    parser = _Parser(prog="streamlit run dashboard --", add_help=False)
    parser.add_argument("--projection", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--root", type=Path, action="append", default=[])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    given = parser.parse_args(arguments)
    roots = [path.resolve() for path in given.root]
    for path in given.root:
        if not path.is_dir():
            raise UserError(f"--root '{path}' is no folder: check its name")
    opened = None
    if given.projection is not None and not given.projection.exists():
        # What it would lie in is no root: that may be the whole disk.
        opened = str(given.projection.resolve())
    elif given.projection is not None:
        if not given.projection.is_dir():
            raise UserError(f"--projection '{given.projection}' is no folder: check its name")
        where = given.projection.resolve()
        if not any(where.is_relative_to(root) for root in roots):
            roots.insert(0, where.parent)
        opened = _name_of(where, tuple(roots))
    if not roots:
        roots = [USUAL_ROOT.resolve()]
    return Settings(tuple(roots), opened, given.model, given.device, given.dtype)


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
                # Someone else's.
                continue
            if is_below:
                found.setdefault(_name_of(path, roots), path)
    return found


def _walk(folder: Path, depth: int) -> list[Path]:
    """Folders to look into, not too deep: a root may be someone's home."""
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
    """Whether a folder holds a link to what is not below the root; False for a file."""
    return any(
        path.is_symlink() and not path.resolve().is_relative_to(root) for path in folder.rglob("*")
    )


def _name_of(path: Path, roots: tuple[Path, ...]) -> str:
    """Below the first root that holds it; the folder's own name for a root itself."""
    for number, root in enumerate(roots):
        if path.is_relative_to(root):
            below = path.relative_to(root).as_posix()
            name = root.name if below == "." else below
            # Roots may hold folders of one name, and have one name themselves.
            is_only = sum(other.name == root.name for other in roots[1:]) == 1
            prefix = root.name if is_only else f"{root.name}-{number + 1}"
            return name if number == 0 else f"{prefix}:{name}"
    raise ValueError(f"{path} is below no root")


def model_for(identifier: str, folders: Mapping[str, Path]) -> str:
    """What to load for a projection whose facts name a model so: a folder's name, or a hub id.

    A local model is known by its folder's name alone, wherever that lies; looked for on the hub, it
    would be another one.
    """
    if identifier == BUNDLED:
        return identifier
    return next((name for name, path in folders.items() if path.name == identifier), identifier)
