"""``projector dashboard``: maps in a browser, from any folder."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from projector.errors import SettingError, UserError
from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.screen import Screen

ShownProjection = Annotated[
    Path | None,
    typer.Argument(metavar="DIR", help="The projection to open first. By default any in runs/."),
]
_MOST_PORTS = 65_535


@dataclass(frozen=True)
class DashboardOptions:
    """How the dashboard is started."""

    model: str | None = setting(
        None, help="The model to run prompts on. By default the one that the projection names."
    )
    root: Path | None = setting(
        None, help="Folder with projections and reports. By default runs/, and DIR's own folder."
    )
    port: int = setting(8501, help="Port of the page on this machine.")
    device: str = setting("auto", help="auto, cpu, cuda, cuda:1, mps.")

    def __post_init__(self) -> None:
        if not 0 < self.port <= _MOST_PORTS:
            raise SettingError("port", self.port, "isn't a port", f"give 1 to {_MOST_PORTS:,}")


@command
def dashboard(
    screen: Screen, projection_dir: ShownProjection = None, *, options: DashboardOptions
) -> None:
    """Show projections in a browser, on this machine alone; Ctrl-C ends it.

    Runs `streamlit run` on the installed dashboard.
    """
    line = dashboard_line(projection_dir, options)
    sys.stdout.flush()
    os.execv(line[0], line)


def dashboard_line(projection: Path | None, options: DashboardOptions) -> list[str]:
    """The program that shows the dashboard, and its arguments.

    Raises:
        UserError: if the dashboard isn't installed, or the projection isn't a folder.
    """
    # Found, not imported: this package stands below the dashboard.
    found = find_spec("dashboard")
    if found is None or found.submodule_search_locations is None:
        raise UserError("the dashboard isn't installed: install transformer-projector again")
    if projection is not None and not projection.is_dir():
        raise UserError(
            f"'{projection}' isn't a folder: give one that `projector fit` made, or none at all"
        )
    app = str(Path(next(iter(found.submodule_search_locations))))
    line = [sys.executable, "-m", "streamlit", "run", app, "--server.port", str(options.port), "--"]
    given = {
        "--projection": projection,
        "--model": options.model,
        "--root": options.root,
        "--device": options.device if options.device != "auto" else None,
    }
    for name, value in given.items():
        if value is not None:
            line += [name, str(value)]
    return line
