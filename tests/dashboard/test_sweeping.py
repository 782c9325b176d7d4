"""Sweeps that are started from the page: refused at once, or run, told of, and stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from dashboard import sweeping
from dashboard.frame import Scene
from dashboard.sweeping import Job, State, find, json_error, source_of, start
from projector.errors import UserError
from pruning.report import PruningReport, Row
from tests.conftest import make_text
from tests.dashboard.conftest import DECODER, make_scene

OPTIONS: dict[str, Any] = {
    "name": "tiny",
    "methods": ["random"],
    "refits": ["none"],
    "sparsities": "0.3",
    "n_seeds": 1,
    "calibration": "seen.txt",
    "evaluation": "unseen.txt",
}


@pytest.fixture
def scene(copied: Callable[..., Path]) -> Iterator[Scene]:
    """A root of one's own; whatever was started there is ended."""
    root = copied(DECODER, "models", "unseen.txt")
    # A sweep wants as many sequences as make its figures firm.
    (root / "seen.txt").write_text(make_text(13_000), encoding="utf-8")
    yield make_scene(root, DECODER)
    for job in find(root):
        if job.pid != os.getpid():
            job.stop()


def wait(job: Job) -> State:
    """The state a job comes to."""
    for _ in range(1200):
        state = job.state()
        if not state.is_running:
            return state
        time.sleep(0.1)
    pytest.fail(f"still running: {job.log.read_text()}")


def test_a_job_runs_to_its_report(scene: Scene) -> None:
    job = start(scene, **OPTIONS)
    root = scene.settings.roots[0]
    # Another session, or the app after it was started anew, finds it.
    assert find(root) == [job]
    state = wait(job)
    assert state == State(False, False, 1.0, "done, 2 of 2 models")
    report = PruningReport.load(root / "tiny")
    assert {row.combination for row in report.rows} == {
        ("dense", "none", 0.0, 0),
        ("random", "none", 0.3, 0),
    }
    assert report.model["sha256"] == scene.sha256
    assert {row.evaluation for row in report.rows} == {"unseen.txt"}
    assert find(root) == [job]
    # The name is taken now.
    with pytest.raises(UserError, match="there is a folder 'tiny' already"):
        start(scene, **OPTIONS)


def test_a_job_that_can_not_be_says_why(scene: Scene) -> None:
    """The two texts are one, which only the sweep sees."""
    job = start(scene, **OPTIONS | {"evaluation": "seen.txt"})
    state = wait(job)
    assert state.failed
    assert state.share == 0.0
    assert state.text.startswith("0 of 2 models; ")
    reason = state.text.partition("; ")[2]
    assert "seen.txt" in reason
    assert "{" not in reason


def test_a_job_is_stopped(scene: Scene) -> None:
    job = start(scene, **OPTIONS)
    assert job.state().is_running
    job.stop()
    state = wait(job)
    assert state.failed
    assert state.text == "0 of 2 models; stopped"
    job.stop()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands, instead of running them."""
    commands: list[list[str]] = []

    def popen(command: list[str], **options: Any) -> Any:
        commands.append(command)
        assert options["start_new_session"]
        return psutil.Process()

    monkeypatch.setattr(subprocess, "Popen", popen)
    return commands


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ""}, "can't be a report's name"),
        ({"name": "../outside"}, "can't be a report's name"),
        ({"name": "/tmp/outside"}, "can't be a report's name"),
        ({"name": ".hidden"}, "can't be a report's name"),
        ({"name": "a/b"}, "can't be a report's name"),
        ({"name": "-rf"}, "can't be a report's name"),
        ({"name": "a b"}, "can't be a report's name"),
        ({"name": "a\n"}, "can't be a report's name"),
        ({"name": "x" * 65}, "can't be a report's name"),
        ({"name": "é"}, "can't be a report's name"),
        ({"name": "<script>" * 100}, "can't be a report's name"),
        ({"name": "models"}, "there is a folder 'models' already"),
        ({"sparsities": "a lot"}, "'a lot' can't be read"),
        ({"sparsities": ""}, "--sparsities names none"),
        ({"sparsities": "1.5"}, "1.5"),
        ({"sparsities": "nan"}, "nan"),
        ({"sparsities": "0"}, "removes nothing"),
        ({"sparsities": "0.1, 0.1"}, "names one twice"),
        ({"methods": []}, "--methods names none"),
        ({"refits": []}, "--refits names none"),
        ({"n_seeds": 0}, "--seeds 0 is too small"),
        ({"calibration": "../secret.txt"}, "there is no text"),
        ({"calibration": ""}, "there is no text"),
        ({"evaluation": "/etc/passwd"}, "there is no text"),
        ({"evaluation": "stdlib:heldout,../secret.txt"}, "there is no text"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_started(
    changes: dict[str, Any], says: str, scene: Scene, started: list[list[str]]
) -> None:
    root = scene.settings.roots[0]
    (root.parent / "secret.txt").write_text("secret", encoding="utf-8")
    before = sorted(root.rglob("*"))
    with pytest.raises(UserError, match=says) as refused:
        start(scene, **OPTIONS | changes)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400
    assert started == []
    assert sorted(root.rglob("*")) == before


def test_the_command_is_what_was_asked_for(scene: Scene, started: list[list[str]]) -> None:
    root = scene.settings.roots[0]
    # A projection names its model: whatever that is, it is no option of the command.
    hostile = replace(scene, model_name="--trust-remote-code")
    job = start(
        hostile,
        **OPTIONS
        | {
            "methods": ["random", "flap"],
            "refits": ["none", "bias"],
            "sparsities": " 0, 0.1,0.3 ",
            "n_seeds": 2,
            "evaluation": "unseen.txt, stdlib:heldout",
        },
    )
    # The dense model; two methods, refits, shares above 0, and seeds.
    assert job.n_models == 1 + 2 * 2 * 2 * 2
    (command,) = started
    assert command[:4] == [sys.executable, "-m", "pruning", "sweep"]
    assert command[-2:] == ["--", "--trust-remote-code"]
    options = dict(zip(command[4:-4:2], command[5:-4:2], strict=True))
    assert options == {
        "--projection": str(scene.path),
        "--methods": "random,flap",
        "--refits": "none,bias",
        "--sparsities": "0.0,0.1,0.3",
        "--seeds": "2",
        "--calibration": str(root / "seen.txt"),
        "--evaluation": f"{root / 'unseen.txt'},stdlib:heldout",
        "--out": str(root / "tiny"),
    }


def row(method: str, sparsity: float, windows: str = "sample") -> Row:
    return Row(method, "none", sparsity, 0, "t", windows, 9.0, None, 10, 100, sparsity, 1.0)


def job_of(tmp_path: Path, process: psutil.Process, n_models: int = 3) -> Job:
    log = tmp_path / "x.log"
    return Job("x", tmp_path / "x", log, process.pid, process.create_time(), n_models)


def test_a_running_job_tells_how_many_models_are_done(tmp_path: Path) -> None:
    job = job_of(tmp_path, psutil.Process())
    assert job.state() == State(True, False, 0.0, "0 of 3 models")
    rows = [row("dense", 0.0), row("dense", 0.0, "all"), row("random", 0.3)]
    PruningReport({}, {}, rows).save(job.folder)
    assert job.state() == State(True, False, 2 / 3, "2 of 3 models")
    # A report that is being replaced, or was damaged, is no reason to fail.
    (job.folder / "report.json").write_text("{", encoding="utf-8")
    assert job.state() == State(True, False, 0.0, "0 of 3 models")


def test_another_process_of_the_same_number_is_not_the_job(tmp_path: Path) -> None:
    """And is not stopped in its place."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        other = replace(job_of(tmp_path, psutil.Process(process.pid)), created=1.0)
        assert not other.state().is_running
        other.stop()
        time.sleep(0.2)
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (None, "stopped"),
        ("", "stopped"),
        ("Traceback …\nKeyboardInterrupt\n", "stopped"),
        ("loading\nerror: the corpus is empty\n", "the corpus is empty"),
        ('{"error": "no <b>such</b> model"}\n', "no <b>such</b> model"),
        ("Killed", "Killed"),
    ],
)
def test_a_job_that_ended_early_says_what_its_log_ends_with(
    log: str | None, reason: str, tmp_path: Path
) -> None:
    job = replace(job_of(tmp_path, psutil.Process()), created=1.0)
    if log is not None:
        job.log.write_text(log, encoding="utf-8")
    PruningReport({}, {}, [row("dense", 0.0)]).save(job.folder)
    assert job.state() == State(False, True, 1 / 3, f"1 of 3 models; {reason}")


def test_a_log_is_no_book() -> None:
    assert len(json_error("x" * 10_000)) <= 300
    assert json_error('["error"]') == '["error"]'


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"name": "a"}', '{"name": 3, "pid": 1, "created": 1, "n_models": 1}',
     '{"name": "../out", "pid": 1, "created": 1, "n_models": 1}',
     '{"name": "a", "pid": "x", "created": 1, "n_models": 1}'],
)  # fmt: skip
def test_files_that_tell_of_no_job_are_passed_over(content: str, tmp_path: Path) -> None:
    jobs = tmp_path / sweeping._JOBS
    assert find(tmp_path) == []
    jobs.mkdir()
    (jobs / "bad.json").write_text(content, encoding="utf-8")
    assert find(tmp_path) == []


def test_the_youngest_job_comes_first(tmp_path: Path) -> None:
    jobs = tmp_path / sweeping._JOBS
    jobs.mkdir()
    for name, created in (("a", 5.0), ("b", 9.0), ("c", 7.0)):
        values = {"name": name, "pid": os.getpid(), "created": created, "n_models": 2}
        (jobs / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    assert [job.name for job in find(tmp_path)] == ["b", "c", "a"]


def test_a_plan_tells_which_model_it_is_of(tmp_path: Path) -> None:
    path = tmp_path / "pruning.json"
    assert source_of(tmp_path) is None
    for content in ("{", "[]", '{"model": null}', '{"model": {}}'):
        path.write_text(content, encoding="utf-8")
        assert source_of(tmp_path) is None
    path.write_text('{"model": {"sha256": "abc"}}', encoding="utf-8")
    assert source_of(tmp_path) == "abc"
