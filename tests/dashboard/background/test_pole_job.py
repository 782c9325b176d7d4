"""Poles of all maps in the background: one process a projection, stopped and resumed."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.background import pole_job
from dashboard.background.pole_job import error_of, find_job, start_job, stop_job
from dashboard.jobs import FOLDER
from projector.errors import SettingError
from tests.dashboard.conftest import DECODER, Open
from tests.dashboard.pages import errors
from tests.refused import refused_by_the_disk, refused_naming

Copied = Callable[..., Path]
STAMP = "1"


class Started:
    """Processes in the place of the command: they wait until they are ended, or say something."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.commands: list[list[str]] = []
        self.says: str | None = None
        self._start = subprocess.Popen

    def __call__(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        if "pruning" not in command:
            return self._start(command, **options)
        self.commands.append(command)
        instead = ["sleep", "300"] if self.says is None else ["echo", self.says]
        self.processes.append(self._start(instead, **options))
        return self.processes[-1]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    found = Started()
    monkeypatch.setattr(subprocess, "Popen", found)
    yield found
    for process in found.processes:
        process.kill()
        process.wait()


def test_a_projection_has_one_job_whoever_asks(started: Started, tmp_path: Path) -> None:
    folder, other = tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    other.mkdir()
    assert find_job(folder, STAMP) is None
    with ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda _: start_job(folder, STAMP), range(4)))
    assert len(started.processes) == 1
    assert {job.pid for job in jobs} == {started.processes[0].pid}
    assert started.commands[0][-2:] == ["--", str(folder)]
    job = find_job(folder, STAMP)
    assert job == jobs[0]
    assert job is not None
    assert job.is_running
    # Another projection, and another one in its place, have none.
    assert find_job(other, STAMP) is None
    assert find_job(folder, "2") is None
    start_job(other, STAMP)
    assert len(started.processes) == 2


def test_a_job_of_a_projection_that_was_replaced_is_ended_by_the_next(
    started: Started, tmp_path: Path
) -> None:
    old = start_job(tmp_path, STAMP)
    new = start_job(tmp_path, "2")
    assert started.processes[0].poll() is not None
    assert not old.is_running
    assert new.is_running
    # To stop the old one leaves the new one as it is.
    stop_job(old)
    assert find_job(tmp_path, "2") == new
    assert started.processes[1].poll() is None


def test_a_job_is_stopped_where_it_can_not_be_written_down(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    job = start_job(tmp_path, STAMP)
    monkeypatch.setattr(pole_job, "_write", fail)
    with refused_by_the_disk(errno.EACCES, f"'{tmp_path.name}'"):
        stop_job(job)
    assert started.processes[0].poll() is not None


def test_a_job_is_stopped_and_resumed(started: Started, tmp_path: Path) -> None:
    job = start_job(tmp_path, STAMP)
    stop_job(job)
    assert started.processes[0].poll() is not None
    stopped = find_job(tmp_path, STAMP)
    assert stopped is not None
    assert stopped.is_stopped
    assert not stopped.is_running
    # To stop it once more does no harm.
    stop_job(stopped)
    again = start_job(tmp_path, STAMP)
    assert again.is_running
    assert not again.is_stopped
    assert again.pid == started.processes[1].pid
    assert find_job(tmp_path, STAMP) == again


def test_another_process_of_the_same_number_is_not_the_job(
    started: Started, tmp_path: Path
) -> None:
    job = start_job(tmp_path, STAMP)
    file = tmp_path / FOLDER / "poles.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(values | {"created": job.created - 100}), encoding="utf-8")
    found = find_job(tmp_path, STAMP)
    assert found is not None
    assert not found.is_running
    stop_job(found)
    assert started.processes[0].poll() is None
    file.write_text("[1", encoding="utf-8")
    assert find_job(tmp_path, STAMP) is None


def test_what_the_command_says_of_its_end_is_told(started: Started, tmp_path: Path) -> None:
    said = SettingError("layout", "moon", "is not there", "choose another")
    started.says = json.dumps(said.to_record())
    job = start_job(tmp_path, STAMP)
    started.processes[0].wait(30)
    found = error_of(job)
    assert found is not None
    assert (found.setting, found.value) == ("layout", "moon")
    started.says = "nothing that can be read"
    job = start_job(tmp_path, STAMP)
    started.processes[1].wait(30)
    assert error_of(job) is None


def test_a_folder_that_can_not_be_written_to_starts_nothing(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "projection"
    folder.mkdir()
    # A file is in the way of the jobs' folder.
    (folder / FOLDER).write_text("", encoding="utf-8")
    with refused_naming("'projection'"):
        start_job(folder, STAMP)
    # Who may do everything can write to every folder.
    monkeypatch.setattr(pole_job.os, "access", lambda *_: False)
    with refused_naming("'projection'"):
        start_job(folder, STAMP)
    assert not started.processes


@pytest.fixture
def open_own(
    copied: Copied, start: Open, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], tuple[Path, AppTest]]:
    """The app on a folder of its own, as users start it: poles are found where they are missing."""

    def make() -> tuple[Path, AppTest]:
        own = copied(DECODER)
        at = start(own, "overview", projection=DECODER)
        monkeypatch.setattr(sys, "argv", [each for each in sys.argv if each != "--no-poles"])
        return own, at.run()

    return make


def test_the_sidebar_stops_and_resumes_it(
    started: Started, open_own: Callable[[], tuple[Path, AppTest]]
) -> None:
    _, at = open_own()
    assert errors(at) == []
    assert len(started.processes) == 1
    at.sidebar.button(key="stop poles").click().run()
    assert errors(at) == []
    started.processes[0].wait(30)
    at.run()
    # What was stopped stays so until it is resumed.
    assert len(started.processes) == 1
    assert any("0 of 4 maps" in each.value for each in at.sidebar.caption)
    at.sidebar.button(key="resume poles").click().run()
    assert errors(at) == []
    assert len(started.processes) == 2
    assert started.processes[1].poll() is None
    assert [each.key for each in at.sidebar.button if "poles" in str(each.key)] == ["stop poles"]


def test_a_projection_that_can_not_be_written_to_is_shown_without_a_job(
    started: Started,
    open_own: Callable[[], tuple[Path, AppTest]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pole_job.os, "access", lambda *_: False)
    _, at = open_own()
    assert errors(at) == []
    assert at.title[0].value == "Overview"
    assert any(DECODER in each.value for each in at.sidebar.caption)
    assert not started.processes
