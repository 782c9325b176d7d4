"""``projector dashboard`` starts Streamlit on the installed package, from any folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import dashboard
from projector.errors import SettingError, UserError
from projector.terminal.showing.dashboard import DashboardOptions, dashboard_line


def test_the_line_runs_the_installed_app_with_what_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = dashboard_line(tmp_path, DashboardOptions(model="bundled", port=8600))
    assert line[:4] == [sys.executable, "-m", "streamlit", "run"]
    assert Path(line[4]) == Path(dashboard.__file__).parent
    assert line[5:] == [
        "--server.port", "8600", "--", "--projection", str(tmp_path), "--model", "bundled"
    ]  # fmt: skip


def test_nothing_is_started_for_what_can_not_be(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        dashboard_line(tmp_path / "none", DashboardOptions())
    with pytest.raises(SettingError) as caught:
        DashboardOptions(port=0)
    assert (caught.value.setting, caught.value.value) == ("port", 0)
