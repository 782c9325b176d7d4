"""Background jobs, in one process each, which reports its state in a file.

Below the first root, ``.jobs`` holds three files per job: ``NAME.json``, the order and the process;
``NAME.state``, written by that process (:mod:`dashboard.running`); and ``NAME.log``, the command's
output, for people.
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
# Most characters of an error in a file, because a page shows it.
_MOST_CHARACTERS = 300


@dataclass(frozen=True)
class Progress:
    """The progress of a job: scored models, and the current step."""

    n_done: int = 0
    doing: str = ""


@dataclass(frozen=True)
class Word:
    """The state that a job's process reports.

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
        """Read a state file; None if it is missing or can't be read."""
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
    """The state of a job in words, with the share of finished models.

    Attributes:
        error: why it failed, if the process reported it.
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
    """One sweep that was started from the page, read from its file below the root.

    Attributes:
        name: name of its report's ``folder``.
        log: output of its command; its other files are next to it.
        is_stopping: whether it was asked to stop, even if it still runs.
        order: the order that it was started from; None if unknown, and then it can't resume.
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
        """The file with its process's state."""
        return self.log.with_name(f"{self.name}.state")

    def state(self) -> State:
        """The current state, read again on each access."""
        # Checked before its state is read, because the last state is written before it ends.
        is_running = self._process() is not None
        word = Word.read(self.word_path)
        # A job of an earlier version of the app has no state file, only its report.
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
        # It had no time to report it.
        return State(
            "failed", share, f"{text}; it was killed from outside; memory may have run out"
        )

    def stop(self) -> None:
        """Stop it as Ctrl-C does: finished rows stay, and the sweep can be resumed.

        A second call ends it at once.
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
        """Remove it from the list, if it has ended; its report stays."""
        if self._process() is None:
            for path in (self.log.with_name(f"{self.name}.json"), self.word_path, self.log):
                path.unlink(missing_ok=True)

    def _process(self) -> psutil.Process | None:
        return living_process(self.pid, self.created)


def living_process(pid: int, created: float) -> psutil.Process | None:
    """The process of a job, if it still runs.

    Args:
        created: its start, in seconds since 1970, because process numbers are reused.
    """
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < 2
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def progress_of(folder: Path, order: Order | None) -> Progress:
    """The progress of a sweep from its report; no progress if the report is damaged."""
    if not (folder / JSON_FILE).exists():
        return Progress(0, "loading the model and the texts")
    try:
        rows = PruningReport.load(folder).rows
    except UserError:
        rows = []
    done = {row.combination for row in rows if row.windows == "sample"}
    return Progress(len(done), "" if order is None else _doing(done, order))


def _doing(done: set[tuple[str, str, float, int]], order: Order) -> str:
    """The current step, from the finished models."""
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
    """Jobs that were started below a root, the newest first."""
    found = []
    for path in (root / FOLDER).glob("*.json") if (root / FOLDER).is_dir() else ():
        job = read(root, path.stem)
        if job is not None:
            found.append(job)
    return sorted(found, key=lambda job: -job.created)


def read(root: Path, name: str) -> Job | None:
    """The job with this name; None without a valid file."""
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
    """Start a process that runs ``pruning`` with these arguments and reports its state."""
    jobs = root / FOLDER
    jobs.mkdir(parents=True, exist_ok=True)
    log = jobs / f"{order.name}.log"
    # The state of an earlier process doesn't belong to this one.
    log.with_name(f"{order.name}.state").unlink(missing_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "dashboard.running", str(root), order.name, "--", *command],
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            # Ctrl-C in the app must not reach it.
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
    """Write the file that identifies the job."""
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
    """An error, cut to the length that a page can show."""
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
