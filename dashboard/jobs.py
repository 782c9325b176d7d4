"""Jobs in the background: a process each, which keeps in a file how it is doing.

Below the first root, ``.jobs`` holds three files a job: ``NAME.json``, what was asked and which
process does it; ``NAME.state``, written by that process (:mod:`dashboard.running`); and
``NAME.log``, what the command printed, for people alone.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from dashboard.orders import Order, order_of
from projector.errors import UserError
from projector.storage.replacing import replacing_file
from pruning.reporting.files import JSON_FILE
from pruning.sweep.report import DENSE, PruningReport
from pruning.sweep.tasks import tasks_of

FOLDER = ".jobs"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
Phase = Literal["begun", "running", "finished", "stopped", "failed"]
_PHASES: tuple[Phase, ...] = ("begun", "running", "finished", "stopped", "failed")
# Of what a file says: it is shown on a page.
_MOST_CHARACTERS = 300


@dataclass(frozen=True)
class Progress:
    """How far a job is: models that are scored, and what it does now."""

    n_done: int = 0
    doing: str = ""


@dataclass(frozen=True)
class Word:
    """What the process of a job says of itself.

    Attributes:
        error: why it failed.
    """

    phase: Phase
    progress: Progress = Progress()
    error: UserError | None = None

    def write(self, path: Path) -> None:
        """Replace the file in one step."""
        values: dict[str, Any] = {
            "phase": self.phase,
            "n_done": self.progress.n_done,
            "doing": self.progress.doing,
        }
        if self.error is not None:
            values["error"] = self.error.to_record()
        _replace(path, values)

    @classmethod
    def read(cls, path: Path) -> Word | None:
        """What a file says; None where there is none, or it can't be read."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["phase"] not in _PHASES:
                return None
            progress = Progress(int(values["n_done"]), str(values["doing"])[:_MOST_CHARACTERS])
            error = None if "error" not in values else UserError.of_record(_cut(values["error"]))
            return cls(values["phase"], progress, error)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None


@dataclass(frozen=True)
class State:
    """How a job is doing: in words, and the share of its models that are done.

    Attributes:
        error: why it failed, where the process could say so.
    """

    phase: Literal["running", "done", "stopped", "failed"]
    share: float
    text: str
    error: UserError | None = None

    @property
    def is_running(self) -> bool:
        return self.phase == "running"


@dataclass(frozen=True)
class Job:
    """One sweep that was started from the page, told by the file that it left below the root.

    Attributes:
        name: of its report's ``folder``.
        log: what its command printed; its other files lie beside that.
        is_stopping: it was told to stop, whether or not it has.
        order: what it was started from; None where that is not known, and it can't go on.
    """

    name: str
    folder: Path
    log: Path
    pid: int
    created: float
    n_models: int
    is_stopping: bool = False
    order: Order | None = None

    @property
    def word_path(self) -> Path:
        """What its process says of itself."""
        return self.log.with_name(f"{self.name}.state")

    def state(self) -> State:
        """Read anew each time."""
        # Asked before its word is read: its last one is written before it ends.
        is_running = self._process() is not None
        word = Word.read(self.word_path)
        # One that an earlier version of the app started says nothing: its report does.
        progress = progress_of(self.folder, self.order) if word is None else word.progress
        share = min(1.0, progress.n_done / self.n_models)
        text = f"{progress.n_done:,} of {self.n_models:,} models"
        if is_running:
            doing = "stopping …" if self.is_stopping else progress.doing
            return State("running", share, f"{text}; {doing}" if doing else text)
        if word is not None and word.phase == "finished":
            return State("done", 1.0, f"done, {text}")
        if self.is_stopping or (word is not None and word.phase == "stopped"):
            return State("stopped", share, f"stopped, {text}")
        if word is None and share == 1.0:
            return State("done", 1.0, f"done, {text}")
        if word is None:
            return State("failed", share, f"{text}; it ended for an unknown reason")
        if word.phase == "failed":
            return State("failed", share, text, word.error or UserError("see its log"))
        # It had no time to say so.
        return State(
            "failed", share, f"{text}; it was killed from outside; memory may have run out"
        )

    def stop(self) -> None:
        """As Ctrl-C does: what is done stays, and the sweep can be resumed.

        Told a second time it is ended at once.
        """
        process = self._process()
        if process is None:
            return
        if self.is_stopping:
            process.terminate()
            return
        _write(replace(self, is_stopping=True))
        process.send_signal(signal.SIGINT)

    def forget(self) -> None:
        """Take it off the list, if it has ended; its report stays."""
        if self._process() is None:
            for path in (self.log.with_name(f"{self.name}.json"), self.word_path, self.log):
                path.unlink(missing_ok=True)

    def _process(self) -> psutil.Process | None:
        return living_process(self.pid, self.created)


def living_process(pid: int, created: float) -> psutil.Process | None:
    """The process of a job, if it still runs.

    Args:
        created: when it was started, in seconds since 1970: numbers of processes are used again.
    """
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < 2
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def progress_of(folder: Path, order: Order | None) -> Progress:
    """How far a sweep is, as its report tells; a damaged one tells of nothing."""
    if not (folder / JSON_FILE).exists():
        return Progress(0, "loading the model and the texts")
    try:
        rows = PruningReport.load(folder).rows
    except UserError:
        rows = []
    done = {row.combination for row in rows if row.windows == "sample"}
    return Progress(len(done), "" if order is None else _doing(done, order))


def _doing(done: set[tuple[str, str, float, int]], order: Order) -> str:
    """What the models that are there tell of what is done now."""
    calibrated = {seed for method, _, _, seed in done if method != DENSE}
    for task in tasks_of(order.settings()):
        if done.issuperset(task.combinations):
            continue
        if task.method == DENSE:
            return "scoring the dense model"
        at = f"{task.method} at {100 * task.sparsity:g}%"
        if order.n_seeds > 1:
            at += f", seed {task.seed + 1} of {order.n_seeds}"
        return at if task.seed in calibrated else f"calibrating for {at}"
    return "drawing the figure"


def find(root: Path) -> list[Job]:
    """Jobs that were started below a root, the youngest first."""
    found = []
    for path in (root / FOLDER).glob("*.json") if (root / FOLDER).is_dir() else ():
        job = read(root, path.stem)
        if job is not None:
            found.append(job)
    return sorted(found, key=lambda job: -job.created)


def read(root: Path, name: str) -> Job | None:
    """The job of a name; None where its file tells of none."""
    try:
        values = json.loads((root / FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        if not NAME.fullmatch(values["name"]) or name != values["name"]:
            return None
        return Job(
            name,
            root / name,
            root / FOLDER / f"{name}.log",
            int(values["pid"]),
            float(values["created"]),
            max(1, int(values["n_models"])),
            values.get("is_stopping") is True,
            order_of(name, values.get("order")),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def launch(root: Path, order: Order, command: list[str]) -> Job:
    """Start a process that runs ``pruning`` with these arguments and says how it is doing."""
    jobs = root / FOLDER
    jobs.mkdir(parents=True, exist_ok=True)
    log = jobs / f"{order.name}.log"
    # What the process before it said is not of this one.
    log.with_name(f"{order.name}.state").unlink(missing_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "dashboard.running", str(root), order.name, "--", *command],
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            # The app's own Ctrl-C is none of its business.
            start_new_session=True,
        )
    job = Job(
        order.name,
        root / order.name,
        log,
        process.pid,
        psutil.Process(process.pid).create_time(),
        order.n_models,
        order=order,
    )
    _write(job)
    return job


def _write(job: Job) -> None:
    """Keep what finds the job again."""
    values = {
        "name": job.name,
        "pid": job.pid,
        "created": job.created,
        "n_models": job.n_models,
        "is_stopping": job.is_stopping,
        "order": None if job.order is None else asdict(job.order),
    }
    _replace(job.log.with_name(f"{job.name}.json"), values)


def _replace(path: Path, values: dict[str, Any]) -> None:
    """Replace a file in one step; the job, and pages of several sessions, may do so at once."""
    with replacing_file(path, is_shared=True) as partial:
        partial.write_text(json.dumps(values), encoding="utf-8")


def _cut(record: dict[str, Any]) -> dict[str, Any]:
    """What is kept of an error, as long as a page has room for."""
    parts: list[Any] = []
    left = _MOST_CHARACTERS
    for part in record["parts"]:
        n = len(part) if isinstance(part, str) else sum(len(str(each)) for each in part)
        if n > left:
            parts.append(f"{str(part)[:left]} …" if isinstance(part, str) else "…")
            break
        left -= n
        parts.append(part)
    return record | {"parts": parts}
