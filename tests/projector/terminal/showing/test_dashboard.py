"""``projector dashboard`` starts Streamlit on the installed package, from any folder."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import dashboard
from dashboard.state.settings import parse_settings
from projector.errors import SettingError, UserError
from projector.terminal.cli import app
from projector.terminal.showing.dashboard import DashboardOptions, dashboard_line

PROJECTION = Path(__file__).parents[3] / "golden" / "projection-v1" / "stress"


def test_the_line_runs_the_installed_app_with_what_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    options = DashboardOptions(model="bundled", port=port, root=tmp_path, no_poles=True)
    line = dashboard_line(PROJECTION, options)
    assert line[:4] == [sys.executable, "-m", "streamlit", "run"]
    assert Path(line[4]) == Path(dashboard.__file__).parent
    assert line[5:8] == ["--server.port", str(port), "--"]
    # The app reads it as it was meant.
    read = parse_settings(line[8:])
    assert (read.model, read.device, read.finds_poles) == ("bundled", "auto", False)
    assert tmp_path.resolve() in read.roots
    assert read.projection == PROJECTION.name

    # Streamlit looks for a free port itself where none is named.
    assert dashboard_line(None, DashboardOptions())[5:] == ["--"]


def test_nothing_is_started_for_what_can_not_be(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError):
            dashboard_line(folder, DashboardOptions())
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(SettingError) as caught:
            dashboard_line(None, DashboardOptions(port=taken))
        assert (caught.value.setting, caught.value.value) == ("port", taken)
    for name, value in {"port": 0, "root": tmp_path / "none"}.items():
        with pytest.raises(SettingError) as caught:
            DashboardOptions(**{name: value})  # type: ignore[arg-type]
        assert (caught.value.setting, caught.value.value) == (name, value)
    # It prints nothing that a script could read.
    assert CliRunner().invoke(app, ["dashboard", "--json"]).exit_code == 2
