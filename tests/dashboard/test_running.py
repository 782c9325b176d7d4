"""What the process of a job says of itself, however its command ends."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from dashboard import running
from dashboard.jobs import FOLDER, Progress, Word
from dashboard.running import run_job
from projector.errors import SettingError, UserError
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


def test_an_error_keeps_its_parts(jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that a page can word it in its own terms."""

    def command() -> None:
        try:
            with Screen(True).errors():
                raise SettingError("n_seeds", 0, "is too small", "give 1 or more")
        except typer.Exit as end:
            raise SystemExit(end.exit_code) from None

    assert run_job(jobs, "mine", command) == 2
    error = word(jobs).error
    assert error is not None
    assert (
        error.worded(lambda name, value: f"<{name}>") == "<n_seeds> 0 is too small: give 1 or more"
    )
    assert (error.setting, error.value, error.expected) == ("n_seeds", 0, "give 1 or more")
    # The log has what the command printed.
    printed = json.loads(capsys.readouterr().out)
    assert printed["error"] == "--seeds 0 is too small: give 1 or more"


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
