"""``projector dashboard``: maps in a browser, from any folder."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from projector.errors import SettingError, UserError
from projector.projection.overview import read_saved
from projector.settings import setting
from projector.terminal.commands import command

ShownProjection = Annotated[
    Path | None,
    typer.Argument(metavar="DIR", help="The projection to open first. By default any in runs/."),
]
_HOST = "localhost"
_MOST_PORTS = 65_535


@dataclass(frozen=True)
class DashboardOptions:
    """Options for starting the dashboard."""

    model: str | None = setting(
        None, help="The model to run prompts on. By default the one that the projection names."
    )
    root: Path | None = setting(
        None,
        help="Folder with projections and reports to show. By default DIR's parent folder, or "
        "runs/ without DIR.",
    )
    port: int | None = setting(
        None, help="Port of the page on this machine. By default 8501, or the next free one."
    )
    device: str = setting("auto", help="Device to run prompts on: auto, cpu, cuda, cuda:1 or mps.")
    no_poles: bool = setting(False, help="Don't find missing poles in the background.")

    def __post_init__(self) -> None:
        if self.port is not None and not 0 < self.port <= _MOST_PORTS:
            raise SettingError("port", self.port, "isn't a port", f"give 1 to {_MOST_PORTS:,}")
        if self.root is not None and not self.root.is_dir():
            raise SettingError("root", self.root, "isn't a folder", "check its name")


@command
def dashboard(projection_dir: ShownProjection = None, *, options: DashboardOptions) -> None:
    """Show projections in a browser, on this machine alone; Ctrl-C ends it.

    Runs `streamlit run` on the installed dashboard.
    """
    line = dashboard_line(projection_dir, options)
    sys.stdout.flush()
    os.execv(line[0], line)


def dashboard_line(projection: Path | None, options: DashboardOptions) -> list[str]:
    """The command line that starts the dashboard.

    Raises:
        UserError: if the dashboard isn't installed, or the folder isn't a projection.
        SettingError: if another program uses the port.
    """
    # Found, not imported: this package stands below the dashboard.
    found = find_spec("dashboard")
    if found is None or found.submodule_search_locations is None:
        raise UserError("the dashboard isn't installed: install transformer-projector again")
    if projection is not None:
        read_saved(projection)
    line = [sys.executable, "-m", "streamlit", "run", next(iter(found.submodule_search_locations))]
    if options.port is not None:
        _check_free(options.port)
        # Without it Streamlit takes the first free port from 8501 on.
        line += ["--server.port", str(options.port)]
    line.append("--")
    given = {
        "--projection": projection,
        "--model": options.model,
        "--root": options.root,
        "--device": options.device if options.device != "auto" else None,
    }
    for name, value in given.items():
        if value is not None:
            line += [name, str(value)]
    return [*line, "--no-poles"] if options.no_poles else line


def _check_free(port: int) -> None:
    """Raise a SettingError if the port can't be listened on."""
    with socket.socket() as trial:
        # A port that was closed a moment ago is free.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((_HOST, port))
        except PermissionError as error:
            raise SettingError(
                "port", port, "needs an administrator", "give 1024 or more"
            ) from error
        except OSError as error:
            raise SettingError(
                "port", port, "is in use by another program", "give another port"
            ) from error
