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

from dashboard import jobs as background
from dashboard.drawing.text import page_words
from dashboard.jobs import Job, Progress, State, Word, find
from dashboard.orders import MOST_SEEDS, Order
from dashboard.state.scene import Scene
from dashboard.sweeping import next_name, resume, source_of, start
from projector.errors import UserError, named
from pruning.sweep.report import PruningReport, Row
from tests.conftest import make_text
from tests.dashboard.conftest import DECODER, make_scene
from tests.refused import lacking, refused, refused_naming

ORDER = Order(
    name="tiny",
    projection=DECODER,
    model="",
    methods=("random",),
    refits=("none",),
    sparsities="0.3",
    n_seeds=1,
    n_sequences=64,
    calibration="seen.txt",
    evaluation="unseen.txt",
)


@pytest.fixture
def scene(copied: Callable[..., Path]) -> Iterator[Scene]:
    """A root of one's own; whatever was started there is ended."""
    root = copied(DECODER, "models", "unseen.txt")
    # Enough of it for what is asked for below.
    (root / "seen.txt").write_text(make_text(4_000), encoding="utf-8")
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


def order_of(scene: Scene, **changes: Any) -> Order:
    return replace(ORDER, model=scene.model_name, **changes)


def test_a_job_runs_to_its_report(scene: Scene) -> None:
    job = start(scene.settings, order_of(scene))
    root = scene.settings.roots[0]
    # Another session, or the app after it was started anew, finds it.
    assert find(root) == [job]
    state = wait(job)
    assert state == State("done", 1.0, "done, 2 of 2 models")
    report = PruningReport.load(root / "tiny")
    assert {row.combination for row in report.rows} == {
        ("dense", "none", 0.0, 0),
        ("random", "none", 0.3, 0),
    }
    assert report.model["sha256"] == scene.sha256
    assert {row.evaluation for row in report.rows} == {"unseen.txt"}
    assert find(root) == [job]
    # The name is taken now.
    with refused("name", "tiny"):
        start(scene.settings, order_of(scene))
    job.forget()
    assert find(root) == []
    assert list((root / ".jobs").iterdir()) == []
    assert PruningReport.load(root / "tiny").rows == report.rows


def test_a_job_is_stopped_and_goes_on(scene: Scene) -> None:
    root = scene.settings.roots[0]
    job = start(scene.settings, order_of(scene, n_seeds=2))
    assert job.state().is_running
    # Its page may be of before it was started once more.
    with refused("name", "tiny"):
        resume(scene.settings, job)
    job.stop()
    (stopping,) = find(root)
    assert stopping.is_stopping
    state = wait(stopping)
    assert state == State("stopped", 0.0, "stopped, 0 of 3 models")
    stopping.stop()
    again = resume(scene.settings, stopping)
    assert find(root) == [again]
    assert not again.is_stopping
    assert again.pid != job.pid
    assert wait(again) == State("done", 1.0, "done, 3 of 3 models")
    rows = PruningReport.load(root / "tiny").rows
    assert len(rows) == 3


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
    ("changes", "setting", "names"),
    [
        ({"name": ""}, "name", ()),
        ({"name": "../outside"}, "name", ()),
        ({"name": "/tmp/outside"}, "name", ()),
        ({"name": ".hidden"}, "name", ()),
        ({"name": "a/b"}, "name", ()),
        ({"name": "-rf"}, "name", ()),
        ({"name": "a b"}, "name", ()),
        ({"name": "a\n"}, "name", ()),
        ({"name": "x" * 65}, "name", ()),
        ({"name": "é"}, "name", ()),
        ({"name": "<script>" * 100}, "name", ()),
        ({"name": "models"}, "name", ("'models'",)),
        ({"sparsities": "a lot"}, "sparsities", ("'a lot'",)),
        ({"sparsities": "%"}, "sparsities", ("'%'",)),
        ({"sparsities": " , "}, "sparsities", ()),
        ({"sparsities": "1.5"}, "sparsities", ("1.5",)),
        ({"sparsities": "150%"}, "sparsities", ("1.5",)),
        ({"sparsities": "nan"}, "sparsities", ("nan",)),
        ({"sparsities": "0"}, "sparsities", ()),
        ({"sparsities": "0.1, 10%"}, "sparsities", ("'0.1, 10%'",)),
        ({"methods": ()}, "methods", ()),
        ({"refits": ()}, "refits", ()),
        ({"methods": ("magic",)}, "methods", ("magic", "random")),
        ({"refits": ("magic",)}, "refits", ("magic", "none")),
        ({"n_seeds": 0}, "n_seeds", ("1",)),
        ({"n_seeds": 10**9}, "n_seeds", (str(MOST_SEEDS),)),
        ({"n_sequences": 4}, "n_sequences", ("5",)),
        ({"calibration": "../secret.txt"}, None, ("'../secret.txt'", "--root")),
        ({"calibration": ""}, "calibration", ("stdlib",)),
        ({"calibration": "seen.txt, stdlib"}, "calibration", ("'seen.txt, stdlib'",)),
        ({"evaluation": " ,"}, "evaluation", ("stdlib",)),
        ({"evaluation": "/etc/passwd"}, None, ("'/etc/passwd'", "--root")),
        ({"evaluation": "stdlib:heldout,../secret.txt"}, None, ("'../secret.txt'", "--root")),
        ({"evaluation": "unseen.txt, seen.txt"}, "calibration", ("'seen.txt'",)),
        ({"projection": "../outside"}, "projection", ("'../outside'",)),
        ({"model": "/etc"}, None, ("'/etc'", "--model")),
        ({"name": "linked"}, "name", ("'linked'",)),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_started(
    changes: dict[str, Any],
    setting: str | None,
    names: tuple[str, ...],
    scene: Scene,
    started: list[list[str]],
) -> None:
    root = scene.settings.roots[0]
    (root.parent / "secret.txt").write_text("secret", encoding="utf-8")
    (root / "linked").symlink_to(root.parent / "elsewhere")
    before = sorted(root.rglob("*"))
    with refused_naming(*names) as caught:
        start(scene.settings, replace(order_of(scene), **changes))
    assert caught.value.setting == setting
    assert len(str(caught.value)) < 400
    assert started == []
    assert sorted(root.rglob("*")) == before


def test_the_command_is_what_was_asked_for(scene: Scene, started: list[list[str]]) -> None:
    root = scene.settings.roots[0]
    # Whatever a model is called, it is no option of the command.
    settings = replace(scene.settings, model="--trust-remote-code", device="cpu", dtype="float32")
    order = order_of(
        scene,
        methods=("random", "flap"),
        refits=("none", "bias"),
        sparsities=" 0, 0.1,30% ",
        n_seeds=2,
        evaluation="unseen.txt, stdlib:heldout",
    )
    order = replace(order, model="--trust-remote-code")
    job = start(settings, order)
    # The dense model; two methods, refits, shares above 0, and seeds.
    assert job.n_models == order.n_models == 1 + 2 * 2 * 2 * 2
    (command,) = started
    assert command[:3] == [sys.executable, "-m", "dashboard.running"]
    assert command[3:5] == [str(root), "tiny"]
    command = command[4:]
    assert command[1:3] == ["--", "sweep"]
    assert command[-4:] == ["--no-winners", "--json", "--", "--trust-remote-code"]
    options = dict(zip(command[3:-4:2], command[4:-4:2], strict=True))
    assert options == {
        "--projection": str(scene.path),
        "--methods": "random,flap",
        "--refits": "none,bias",
        "--sparsities": "0.0,0.1,0.3",
        "--seeds": "2",
        "--sequences": "64",
        "--calibration": str(root / "seen.txt"),
        "--evaluation": f"{root / 'unseen.txt'},stdlib:heldout",
        "--device": "cpu",
        "--dtype": "float32",
        "--out": str(root / "tiny"),
    }


def test_a_job_goes_on_from_what_was_asked_for_alone(
    scene: Scene, started: list[list[str]]
) -> None:
    """Its file could be anyone's: it tells of no command, and each of its values is checked."""
    root = scene.settings.roots[0]
    start(scene.settings, order_of(scene))
    path = root / ".jobs" / "tiny.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values |= {"created": 1.0, "command": ["touch", "evil"]}

    def found(**changes: Any) -> Job:
        text = json.dumps(values | {"order": values["order"] | changes})
        path.write_text(text, encoding="utf-8")
        (job,) = find(root)
        return job

    resume(scene.settings, found())
    first, second = started
    place = second.index("--resume")
    assert second[:place] + second[place + 1 :] == first
    assert place < len(second) - 2
    for changes in (
        {"name": "other"},
        {"methods": ["--force"]},
        {"methods": "random"},
        {"methods": [1]},
        {"refits": []},
        {"n_seeds": True},
        {"n_seeds": 10**9},
        {"sparsities": "x"},
        {"model": None},
    ):
        job = found(**changes)
        assert job.order is None
        with refused("name", "tiny"):
            resume(scene.settings, job)
    for changes, name in (
        ({"calibration": "../secret.txt"}, "'../secret.txt'"),
        ({"evaluation": "/etc/passwd"}, "'/etc/passwd'"),
        ({"projection": "../x"}, "'../x'"),
        ({"model": "/etc"}, "'/etc'"),
    ):
        job = found(**changes)
        assert job.order is not None
        with refused_naming(name):
            resume(scene.settings, job)
    assert len(started) == 2


def test_the_next_name_is_free(tmp_path: Path) -> None:
    assert next_name(tmp_path) == "sweep-1"
    (tmp_path / "sweep-1").mkdir()
    assert next_name(tmp_path) == "sweep-2"
    # A job whose folder is not there yet, or never came to be.
    (tmp_path / ".jobs").mkdir()
    values = {"name": "sweep-2", "pid": os.getpid(), "created": 1.0, "n_models": 2}
    (tmp_path / ".jobs" / "sweep-2.json").write_text(json.dumps(values), encoding="utf-8")
    assert next_name(tmp_path) == "sweep-3"
    assert next_name(tmp_path, "mine") == "mine"
    (tmp_path / "mine").mkdir()
    assert next_name(tmp_path, "mine") == "mine-2"


def row(method: str, sparsity: float, windows: str = "sample", seed: int = 0) -> Row:
    return Row(method, "none", sparsity, seed, "t", windows, 9.0, None, 10, 100, sparsity, 1.0)


def job_of(tmp_path: Path, process: psutil.Process, n_models: int = 3) -> Job:
    log = tmp_path / "x.log"
    return Job("x", tmp_path / "x", log, process.pid, process.create_time(), n_models)


def test_a_running_job_tells_how_many_models_are_done(tmp_path: Path) -> None:
    job = job_of(tmp_path, psutil.Process())
    loading = "0 of 3 models; loading the model and the texts"
    assert job.state() == State("running", 0.0, loading)
    rows = [row("dense", 0.0), row("dense", 0.0, "all"), row("random", 0.3)]
    PruningReport({}, {}, rows).save(job.folder)
    assert job.state() == State("running", 2 / 3, "2 of 3 models")
    # A report that is being replaced, or was damaged, is no reason to fail.
    (job.folder / "report.json").write_text("{", encoding="utf-8")
    assert job.state() == State("running", 0.0, "0 of 3 models")
    assert replace(job, is_stopping=True).state().text == "0 of 3 models; stopping …"


def test_a_running_job_tells_what_it_is_at(tmp_path: Path) -> None:
    order = replace(ORDER, methods=("random", "flap"), sparsities="0.125, 0.3", n_seeds=2)
    job = replace(job_of(tmp_path, psutil.Process(), order.n_models), order=order)
    rows: list[Row] = []
    told = []
    made = [("random", 0.3), ("flap", 0.3), ("random", 0.125), ("flap", 0.125)]
    for each in [None, row("dense", 0.0), *(row(m, s, seed=n) for n in (0, 1) for m, s in made)]:
        rows += [] if each is None else [each]
        PruningReport({}, {}, rows).save(job.folder)
        told.append(job.state().text.partition("; ")[2])
    assert told == [
        "scoring the dense model",
        "calibrating for random at 30%, seed 1 of 2",
        "flap at 30%, seed 1 of 2",
        "random at 12.5%, seed 1 of 2",
        "flap at 12.5%, seed 1 of 2",
        "calibrating for random at 30%, seed 2 of 2",
        "flap at 30%, seed 2 of 2",
        "random at 12.5%, seed 2 of 2",
        "flap at 12.5%, seed 2 of 2",
        "drawing the figure",
    ]


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


def ended(tmp_path: Path, word: Word | None, n_done: int = 1) -> Job:
    """A job whose process is gone, and what that said of itself."""
    job = replace(job_of(tmp_path, psutil.Process()), created=1.0)
    rows = [row("dense", 0.0), row("random", 0.3), row("flap", 0.3)]
    PruningReport({}, {}, rows[:n_done]).save(job.folder)
    if word is not None:
        word.write(job.word_path)
    return job


REFUSED = UserError(f"{named('n_sequences')} 4 is too small", setting="n_sequences", value=4)


@pytest.mark.parametrize(
    ("word", "phase", "text", "reasons"),
    [
        (Word("finished", Progress(3)), "done", "done, 3 of 3 models", ()),
        (Word("stopped", Progress(2)), "stopped", "stopped, 2 of 3 models", ()),
        (Word("failed", Progress(2), REFUSED), "failed", "2 of 3 models", ()),
        (Word("failed", Progress(2)), "failed", "2 of 3 models", ()),
        # It was killed, and had no time to say so.
        (Word("running", Progress(2, "scoring")), "failed", "2 of 3 models", ("killed", "memory")),
        (Word("begun"), "failed", "0 of 3 models", ("killed", "memory")),
    ],
)
def test_how_a_job_ended_is_what_its_process_said(
    word: Word, phase: str, text: str, reasons: tuple[str, ...], tmp_path: Path
) -> None:
    """Whatever its log holds: that is for people."""
    job = ended(tmp_path, word)
    job.log.write_text('stopped\nKeyboardInterrupt\n{"report": "x"}\n{"error": "y"}\n')
    state = job.state()
    assert state.phase == phase
    count, _, reason = state.text.partition("; ")
    assert count == text
    assert lacking(reason, *reasons) == []
    assert bool(reason) == bool(reasons)
    if word.phase == "failed" and word.error is None:
        assert "log" in str(state.error)
    if word.error is not None:
        assert state.error is not None
        assert state.error.worded(page_words).startswith("Calibration sequences 4 ")
        assert (state.error.setting, state.error.value) == ("n_sequences", 4)
    # Whoever pressed Stop is told so, however it ended; but for the end itself.
    stopped = replace(job, is_stopping=True).state()
    assert stopped.phase == ("done" if phase == "done" else "stopped")


def test_a_job_that_ends_while_it_is_asked_is_not_taken_for_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ended(tmp_path, Word("running", Progress(2)))

    def end(_: Job) -> None:
        """Its process says its last word, and is gone."""
        Word("finished", Progress(3)).write(job.word_path)

    monkeypatch.setattr(Job, "_process", end)
    assert job.state() == State("done", 1.0, "done, 3 of 3 models")


@pytest.mark.parametrize(
    ("n_done", "phase", "text", "reasons"),
    [
        (1, "failed", "1 of 3 models", ("unknown",)),
        (3, "done", "done, 3 of 3 models", ()),
    ],
)
def test_a_job_of_an_earlier_version_is_told_by_its_report(
    n_done: int, phase: str, text: str, reasons: tuple[str, ...], tmp_path: Path
) -> None:
    state = ended(tmp_path, None, n_done).state()
    assert state.phase == phase
    count, _, reason = state.text.partition("; ")
    assert count == text
    assert lacking(reason, *reasons) == []
    assert bool(reason) == bool(reasons)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"phase": "eaten", "pid": 1, "created": 1, "n_done": 0, "doing": ""}',
     '{"phase": "failed", "pid": 1, "created": 1, "n_done": 0, "doing": "", "error": {}}',
     '{"phase": "failed", "pid": 1, "created": 1, "n_done": 0, "doing": "", "error": "x"}',
     '{"phase": ["failed"], "pid": 1, "created": 1, "n_done": 0, "doing": ""}'],
)  # fmt: skip
def test_a_damaged_word_is_none(content: str, tmp_path: Path) -> None:
    job = ended(tmp_path, None)
    job.word_path.write_text(content, encoding="utf-8")
    assert Word.read(job.word_path) is None
    assert job.state().phase == "failed"


def test_a_job_that_is_told_twice_is_ended_at_once(tmp_path: Path) -> None:
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True);"
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        jobs = tmp_path / background.FOLDER
        jobs.mkdir()
        job = replace(job_of(tmp_path, psutil.Process(process.pid)), log=jobs / "x.log")
        job.stop()
        (job,) = find(tmp_path)
        assert job.is_stopping
        assert job.state().is_running
        # It is on the list for as long as it runs.
        job.forget()
        assert find(tmp_path) == [job]
        job.stop()
        assert process.wait(30) != 0
        assert wait(job).phase == "stopped"
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"name": "a"}', '{"name": 3, "pid": 1, "created": 1, "n_models": 1}',
     '{"name": "../out", "pid": 1, "created": 1, "n_models": 1}',
     '{"name": "a", "pid": "x", "created": 1, "n_models": 1}'],
)  # fmt: skip
def test_files_that_tell_of_no_job_are_passed_over(content: str, tmp_path: Path) -> None:
    jobs = tmp_path / background.FOLDER
    assert find(tmp_path) == []
    jobs.mkdir()
    (jobs / "bad.json").write_text(content, encoding="utf-8")
    assert find(tmp_path) == []


def test_the_youngest_job_comes_first(tmp_path: Path) -> None:
    jobs = tmp_path / background.FOLDER
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
