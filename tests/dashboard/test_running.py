"""What the process of a job says of itself, however its command ends."""

from __future__ import annotations

import errno
import importlib
import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from dashboard import running
from dashboard.jobs import FOLDER, Progress, Word
from dashboard.running import run_job
from projector.errors import SettingError, UserError, named
from projector.terminal.screen import Screen
from pruning.sweep.report import PruningReport, Row


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    (tmp_path / FOLDER).mkdir()
    return tmp_path


def word(root: Path) -> Word:
    found = Word.read(root / FOLDER / "mine.state")
    assert found is not None
    return found


def leave(status: object) -> Callable[[], None]:
    def command() -> None:
        raise SystemExit(status)

    return command


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("command", "status", "phase"),
    [
        (lambda: None, 0, "finished"),
        (leave(0), 0, "finished"),
        (leave(None), 0, "finished"),
        (leave(130), 130, "stopped"),
        (interrupt, 130, "stopped"),
        (leave(2), 2, "failed"),
        (leave("a reason"), 1, "failed"),
    ],
)
def test_the_end_is_told(command: Callable[[], None], status: int, phase: str, jobs: Path) -> None:
    assert run_job(jobs, "mine", command) == status
    assert word(jobs).phase == phase


def test_it_tells_of_its_work_before_the_end(jobs: Path) -> None:
    def command() -> None:
        rows = [Row("dense", "none", 0.0, 0, "t", "sample", 9.0, None, 10, 100, 0.0, 1.0)]
        assert word(jobs).phase in ("begun", "running")
        PruningReport({}, {}, rows).save(jobs / "mine")

    run_job(jobs, "mine", command)
    assert word(jobs).progress == Progress(1)


SEEDS = "give 1 or more"


def test_an_error_keeps_its_parts(jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that a page can word it in its own terms."""
    # Names its options, whichever tests ran before.
    importlib.import_module("pruning.terminal.options")

    def command() -> None:
        try:
            with Screen(True).errors():
                raise SettingError("n_seeds", 0, "is wrong", SEEDS)
        except typer.Exit as end:
            raise SystemExit(end.exit_code) from None

    assert run_job(jobs, "mine", command) == 2
    error = word(jobs).error
    assert error is not None
    assert error.worded(lambda name, value: f"<{name}>").startswith("<n_seeds> 0 ")
    assert (error.setting, error.value, error.expected) == ("n_seeds", 0, SEEDS)
    # The log has what the command printed, with the option as pruning names it.
    printed = json.loads(capsys.readouterr().out)
    assert printed["error"].startswith("--seeds 0 ")


def test_what_the_system_refuses_is_told(jobs: Path) -> None:
    def command() -> None:
        try:
            with Screen(True).errors():
                raise PermissionError(errno.EACCES, "Permission denied", "/data/x")
        except typer.Exit as end:
            raise SystemExit(end.exit_code) from None

    assert run_job(jobs, "mine", command) == 2
    assert str(word(jobs).error) == "Permission denied '/data/x'"


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ('{"error": "no such thing"}', "no such thing"),
        ("no JSON", ".jobs/mine.log"),
        ('{"report": 3}', ".jobs/mine.log"),
        ("", ".jobs/mine.log"),
    ],
)
def test_a_failure_is_told_though_it_names_no_error(printed: str, told: str, jobs: Path) -> None:
    def command() -> None:
        print(printed)
        raise SystemExit(3)

    assert run_job(jobs, "mine", command) == 3
    assert told in str(word(jobs).error)


def test_a_long_reason_is_cut(jobs: Path) -> None:
    """A page shows it, whoever wrote the file."""
    long = UserError(f"{named('n_seeds')} {'x' * 200} {named('epsilon', 'y' * 5_000)} and more")
    Word("failed", error=long).write(jobs / FOLDER / "mine.state")
    error = word(jobs).error
    assert error is not None
    told = error.worded(lambda name, value: f"<{name}{value}>")
    assert told.startswith("<n_seeds()> xxx")
    assert len(told) < 400


def test_threads_that_write_one_word_at_once_leave_a_whole_one(jobs: Path) -> None:
    """Each page that is open writes that a job is to stop."""
    path, problems = jobs / FOLDER / "mine.state", list[BaseException]()
    ready = threading.Barrier(8)

    def work() -> None:
        try:
            ready.wait()
            for n in range(20):
                Word("running", Progress(n)).write(path)
                word(jobs)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert [each.name for each in path.parent.iterdir()] == ["mine.state"]


def test_what_nobody_foresaw_is_told_and_goes_on(jobs: Path) -> None:
    def command() -> None:
        raise ZeroDivisionError("by <b>nothing</b>")

    with pytest.raises(ZeroDivisionError):
        run_job(jobs, "mine", command)
    assert word(jobs).phase == "failed"
    assert isinstance(word(jobs).error, UserError)
    assert str(word(jobs).error) == "ZeroDivisionError: by <b>nothing</b>"


def test_ctrl_c_is_heard_though_the_app_was_started_in_the_background(
    monkeypatch: pytest.MonkeyPatch, jobs: Path
) -> None:
    """Shells let such a program, and so all that it starts, ignore it."""
    monkeypatch.setattr(sys, "argv", ["running", str(jobs), "mine", "--", "sweep"])
    heard: list[object] = []

    def run_module(name: str, run_name: str) -> None:
        assert (name, run_name, sys.argv) == ("pruning", "__main__", ["pruning", "sweep"])
        heard.append(signal.getsignal(signal.SIGINT))

    monkeypatch.setattr(running.runpy, "run_module", run_module)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit) as ended:
            running.main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == 0
    assert heard == [signal.default_int_handler]
