"""Sweeps as jobs of their own: a process each, its progress in a file, stopped by a signal.

What was asked for is kept in a file too, never the command itself: a sweep that goes on is started
from what was asked, which is checked anew.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from dashboard.state.settings import Settings, find_folders
from projector.corpus.sources import sources_hint
from projector.errors import UserError
from projector.projection.projection import FACTS_FILE
from pruning.saving import PLAN_FILE
from pruning.sweep.report import DENSE, JSON_FILE, PruningReport
from pruning.sweep.settings import SweepSettings
from pruning.sweep.tasks import tasks_of

_JOBS = ".jobs"
# A small sweep: a large one is for the command line.
MOST_SEEDS = 10
LEAST_SEQUENCES, MOST_SEQUENCES = 5, 100_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Order:
    """What a sweep is to compare, as it was typed.

    Attributes:
        name: of the report: its folder below the first root.
        projection: its name below the roots; ``model``: what to load for it.
        sparsities: such as ``0.1, 30%``.
        n_sequences: calibration sequences a seed.
        evaluation: one text, or several with commas between.
    """

    name: str
    projection: str
    model: str
    methods: tuple[str, ...]
    refits: tuple[str, ...]
    sparsities: str
    n_seeds: int
    n_sequences: int
    calibration: str
    evaluation: str

    def settings(self) -> SweepSettings:
        """What it comes to.

        Raises:
            UserError: if it can't be.
        """
        for kind, chosen in (("method", self.methods), ("refit", self.refits)):
            if not chosen:
                raise UserError(f"no {kind} is chosen: choose one or more")
        parts = [part.strip() for part in self.sparsities.split(",") if part.strip()]
        try:
            shares = tuple(
                float(part.removesuffix("%")) / (100 if part.endswith("%") else 1) for part in parts
            )
        except ValueError as error:
            raise UserError(
                f"the shares '{self.sparsities[:80]}' can't be read: write for example 0.1, 0.3"
            ) from error
        if not shares:
            raise UserError("no share to remove is given: write for example 0.1, 0.3")
        if not any(shares):
            raise UserError("a share of 0 removes nothing: give one above 0")
        if len(set(shares)) < len(shares):
            raise UserError(f"the shares '{self.sparsities[:80]}' name one twice: give each once")
        if self.n_seeds > MOST_SEEDS:
            raise UserError(f"{self.n_seeds} seeds are too many: give {MOST_SEEDS} or fewer")
        return SweepSettings(self.methods, shares, self.refits, self.n_seeds, self.n_sequences)

    @property
    def n_models(self) -> int:
        """The dense model, and the others.

        Raises:
            UserError: see :meth:`settings`.
        """
        return sum(len(task.refits) for task in tasks_of(self.settings()))


@dataclass(frozen=True)
class State:
    """How a job is doing: in words, and the share of its models that are done."""

    phase: Literal["running", "done", "stopped", "failed"]
    share: float
    text: str

    @property
    def is_running(self) -> bool:
        return self.phase == "running"


@dataclass(frozen=True)
class Job:
    """One sweep that was started from the page, told by the file that it left below the root.

    Attributes:
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

    def state(self) -> State:
        """Read anew each time."""
        rows = []
        if (self.folder / JSON_FILE).exists():
            try:
                rows = PruningReport.load(self.folder).rows
            except UserError:
                rows = []
        done = {row.combination for row in rows if row.windows == "sample"}
        share = min(1.0, len(done) / self.n_models)
        text = f"{len(done):,} of {self.n_models:,} models"
        if self._process() is not None:
            doing = "stopping …" if self.is_stopping else self._doing(done)
            return State("running", share, f"{text}; {doing}" if doing else text)
        lines = self._said()
        if _is_result(lines[-1] if lines else ""):
            return State("done", 1.0, f"done, {text}")
        # The command's word for Ctrl-C, and Python's own, where it came before the sweep had begun.
        last = lines[-1] if lines else ""
        if self.is_stopping or last == "KeyboardInterrupt" or last.startswith("stopped"):
            return State("stopped", share, f"stopped, {text}")
        reason = json_error(last) if last else "it was ended from outside: is memory short?"
        # By the name of its field on the page.
        reason = reason.replace("--sequences", "calibration sequences")
        return State("failed", share, f"{text}; {reason}")

    def _doing(self, done: set[tuple[str, str, float, int]]) -> str:
        """What the models that are there tell of what is done now."""
        if not (self.folder / JSON_FILE).exists():
            return "loading the model and the texts"
        if self.order is None:
            return ""
        calibrated = {seed for method, _, _, seed in done if method != DENSE}
        for task in tasks_of(self.order.settings()):
            if done.issuperset(task.combinations):
                continue
            if task.method == DENSE:
                return "scoring the dense model"
            at = f"{task.method} at {100 * task.sparsity:g}%"
            if self.order.n_seeds > 1:
                at += f", seed {task.seed + 1} of {self.order.n_seeds}"
            return at if task.seed in calibrated else f"calibrating for {at}"
        return "drawing the figure"

    def _said(self) -> list[str]:
        """The lines that the command left."""
        try:
            return self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return []

    def stop(self) -> None:
        """As Ctrl-C does: what is done stays, and the sweep can be gone on with.

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
            self.log.with_name(f"{self.name}.json").unlink(missing_ok=True)
            self.log.unlink(missing_ok=True)

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            # Numbers of processes are used again.
            same = abs(process.create_time() - self.created) < 2
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


def _is_result(line: str) -> bool:
    """Whether a line is what the command prints when all is done."""
    if not line.startswith("{"):
        return False
    try:
        return "report" in json.loads(line)
    except (ValueError, RecursionError):
        return False


def json_error(line: str) -> str:
    """The reason in the last line that a command left."""
    try:
        return str(json.loads(line)["error"])
    except (ValueError, KeyError, TypeError):
        return line.removeprefix("error: ")[:300]


def find(root: Path) -> list[Job]:
    """Jobs that were started below a root, the youngest first."""
    found = []
    for path in (root / _JOBS).glob("*.json") if (root / _JOBS).is_dir() else ():
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not _NAME.fullmatch(values["name"]) or path.stem != values["name"]:
                continue
            found.append(
                Job(
                    values["name"],
                    root / values["name"],
                    root / _JOBS / f"{values['name']}.log",
                    int(values["pid"]),
                    float(values["created"]),
                    max(1, int(values["n_models"])),
                    values.get("is_stopping") is True,
                    _order_of(values["name"], values.get("order")),
                )
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found, key=lambda job: -job.created)


def _order_of(name: str, values: Any) -> Order | None:
    """What a file says was asked for, if that is whole and could be asked for on the page."""
    if not isinstance(values, dict) or values.get("name") != name:
        return None
    try:
        for field in fields(Order):
            value = values[field.name]
            if field.type == "tuple[str, ...]":
                is_right = isinstance(value, list) and all(isinstance(each, str) for each in value)
            else:
                is_right = type(value).__name__ == field.type
            if not is_right:
                return None
        order = Order(**values)
        order = replace(order, methods=tuple(order.methods), refits=tuple(order.refits))
        order.settings()
    except (KeyError, TypeError, UserError):
        return None
    return order


def next_name(root: Path, like: str = "sweep-1") -> str:
    """A report's name that is free below a root: ``like``, or that with another number."""
    stem = re.sub(r"-\d+$", "", like)
    taken = {job.name for job in find(root)}
    name, n = like, 2
    while name in taken or (root / name).exists():
        name, n = f"{stem}-{n}", n + 1
    return name


def start(settings: Settings, order: Order) -> Job:
    """Start ``pruning sweep`` in a process of its own.

    Raises:
        UserError: for what it would refuse at once.
    """
    root, name = settings.roots[0], order.name
    if not _NAME.fullmatch(name):
        raise UserError(f"{name[:80]!r} can't be a report's name: take letters, digits and dashes")
    command = _command(settings, order, resume=False)
    if (root / name).exists():
        raise UserError(f"there is a folder '{name}' already: give another name")
    # Its folder comes later than it does.
    if any(job.name == name and job.state().is_running for job in find(root)):
        raise UserError(f"a sweep '{name}' is running already: give another name")
    return _launch(root, order, command)


def resume(settings: Settings, job: Job) -> Job:
    """Go on with a sweep that has ended early, from the models that it has.

    Raises:
        UserError: if what it was started from is not known, or can't be any more.
    """
    if job.order is None:
        raise UserError(f"of '{job.name}' it is not known what was asked: start another sweep")
    if any(each.name == job.name and each.state().is_running for each in find(settings.roots[0])):
        raise UserError(f"a sweep '{job.name}' is running already: let it end first")
    command = _command(settings, job.order, resume=True)
    return _launch(settings.roots[0], job.order, command)


def _command(settings: Settings, order: Order, *, resume: bool) -> list[str]:
    """The command for what was asked, all of it checked."""
    sweep = order.settings()
    root = settings.roots[0]
    out = root / order.name
    if not out.resolve().is_relative_to(root):
        raise UserError(f"folder '{order.name}' leads out of {root.name}: give another name")
    projection = find_folders(settings.roots, FACTS_FILE).get(order.projection)
    if projection is None:
        raise UserError(f"there is no projection '{order.projection[:80]}' here: choose another")
    if not settings.may_load(order.model):
        raise UserError(
            f"'{order.model[:80]}' is neither a model of the hub nor below the folders that the "
            "app was started with: start it with --model and the model's folder"
        )
    # Several texts may be scored on; each of them lies below a root.
    texts = []
    for kind, text in (("calibration", order.calibration), ("evaluation", order.evaluation)):
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts:
            raise UserError(
                f"no {kind} text is given: write {sources_hint()}; files lie below {root.name}"
            )
        texts.append([settings.text_source(part) for part in parts])
    if len(texts[0]) > 1:
        raise UserError(f"'{order.calibration[:80]}' names several texts: calibrate on one")
    if texts[0][0] in texts[1]:
        raise UserError(
            f"calibration and evaluation are the same text, '{order.calibration[:80]}': give two"
        )
    return [
        sys.executable, "-m", "pruning", "sweep",
        "--projection", str(projection),
        "--methods", ",".join(sweep.methods),
        "--refits", ",".join(sweep.refits),
        "--sparsities", ",".join(map(str, sweep.sparsities)),
        "--seeds", str(sweep.n_seeds),
        "--sequences", str(sweep.n_sequences),
        "--calibration", texts[0][0],
        "--evaluation", ",".join(texts[1]),
        "--device", settings.device,
        "--dtype", settings.dtype,
        "--out", str(out),
        # A small sweep: all of a text takes longer than the rest of it.
        "--no-winners",
        "--json",
        *(["--resume"] if resume else []),
        # A model's name comes from a projection: whatever it is, it is no option.
        "--", order.model,
    ]  # fmt: skip


def _launch(root: Path, order: Order, command: list[str]) -> Job:
    jobs = root / _JOBS
    jobs.mkdir(parents=True, exist_ok=True)
    log = jobs / f"{order.name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
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
    """Keep what finds the job again, replaced in one step."""
    values = {
        "name": job.name,
        "pid": job.pid,
        "created": job.created,
        "n_models": job.n_models,
        "is_stopping": job.is_stopping,
        "order": None if job.order is None else asdict(job.order),
    }
    partial = job.log.with_name(f".{job.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(values), encoding="utf-8")
    partial.replace(job.log.with_name(f"{job.name}.json"))


def source_of(folder: Path) -> str | None:
    """Hash of the weights that a pruned model was cut from."""
    try:
        values = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
        return str(values["model"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
