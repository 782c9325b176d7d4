"""The app's settings: ``streamlit run dashboard -- --projection DIR [--model M]``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dashboard.roots import name_of, text_source
from projector.errors import UserError
from projector.hub import is_hub_id
from projector.model.loading import BUNDLED

USUAL_ROOT = Path("runs")
USUAL_PROJECTION = "demo"


@dataclass(frozen=True)
class Settings:
    """The folders that the app may read, and what it opens.

    Attributes:
        roots: folders below which projections, models and reports are found; the app reads nothing
            else.
        projection: name of the projection to open first, see :func:`dashboard.roots.find_folders`;
            None for any. A missing projection has its whole path as name.
        model: the model of ``--model``; None for the projection's model.
        device, dtype: see :func:`projector.model.loading.load_model`.
        finds_poles: whether missing poles of all maps are found in the background.
    """

    roots: tuple[Path, ...]
    projection: str | None = None
    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    finds_poles: bool = True

    def text_source(self, source: str) -> str:
        """See :func:`dashboard.roots.text_source`."""
        return text_source(self.roots, source)

    def may_load(self, model: str) -> bool:
        """Whether a page may load a model: that of ``--model``, below a root, or on the hub."""
        if model in (BUNDLED, self.model) or is_hub_id(model):
            return True
        path = Path(model).resolve()
        return any(path.is_relative_to(root) for root in self.roots)

    def check_model(self, model: str) -> None:
        """Raise a UserError unless a page may load a model; see :meth:`may_load`."""
        if not self.may_load(model):
            raise UserError(
                f"model '{model[:80]}' is not on the hub, and not below the folders that the app "
                "was started with: start it with --model and the model's folder"
            )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message}: start with `streamlit run dashboard -- --projection DIR`")


def parse_settings(arguments: list[str]) -> Settings:
    """Read the arguments after ``--`` on the command line.

    A missing projection isn't an error here: the user can open another, or make it.

    Raises:
        UserError: if the arguments can't be read, or a root doesn't exist.
    """
    parser = _Parser(prog="streamlit run dashboard --", add_help=False)
    parser.add_argument("--projection", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--root", type=Path, action="append", default=[])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--no-poles", action="store_true")
    given = parser.parse_args(arguments)
    roots = [path.resolve() for path in given.root]
    for path in given.root:
        if not path.is_dir():
            raise UserError(f"--root '{path}' isn't a folder: check its name")
    opened = None
    if given.projection is not None and not given.projection.exists():
        # Its parent folder doesn't become a root, because that may be the whole disk.
        opened = str(given.projection.resolve())
    elif given.projection is not None:
        if not given.projection.is_dir():
            raise UserError(f"--projection '{given.projection}' isn't a folder: check its name")
        where = given.projection.resolve()
        if not any(where.is_relative_to(root) for root in roots):
            roots.insert(0, where.parent)
        opened = name_of(where, tuple(roots))
    if not roots:
        roots = [USUAL_ROOT.resolve()]
    finds_poles = not given.no_poles
    return Settings(tuple(roots), opened, given.model, given.device, given.dtype, finds_poles)


def model_for(identifier: str, folders: Mapping[str, Path]) -> str:
    """The model to load for a name in a projection's facts: a folder's name, or a hub id.

    A local model is identified by its folder's name only; on the hub, that name would be another
    model.
    """
    if identifier == BUNDLED:
        return identifier
    return next((name for name, path in folders.items() if path.name == identifier), identifier)
