"""Sweeps as jobs of their own: a process each, its progress in a file, stopped by a signal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from projector.errors import UserError
from pruning.report import JSON_FILE, PruningReport
from pruning.saving import PLAN_FILE
from pruning.sweep import SweepSettings

if TYPE_CHECKING:
    from dashboard.frame import Scene

_JOBS = ".jobs"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class State:
    """How a job is doing: in words, and the share of its models that are done."""

    is_running: bool
    failed: bool
    share: float
    text: str


@dataclass(frozen=True)
class Job:
    """One sweep that was started from the page, told by the file that it left below the root."""

    name: str
    folder: Path
    log: Path
    pid: int
    created: float
    n_models: int

    def state(self) -> State:
        """Read anew each time."""
        n_done = 0
        if (self.folder / JSON_FILE).exists():
            try:
                report = PruningReport.load(self.folder)
                n_done = len({row.combination for row in report.rows if row.windows == "sample"})
            except UserError:
                n_done = 0
        is_running = self._process() is not None
        text = f"{n_done:,} of {self.n_models:,} models"
        if is_running:
            return State(True, False, min(1.0, n_done / self.n_models), text)
        if n_done >= self.n_models:
            return State(False, False, 1.0, f"done, {text}")
        return State(False, True, n_done / self.n_models, f"{text}; {self._reason()}")

    def _reason(self) -> str:
        """Why it ended early."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            lines = []
        # Python's own word for Ctrl-C, where it came before the sweep had begun.
        was_stopped = not lines or lines[-1] == "KeyboardInterrupt"
        return "stopped" if was_stopped else json_error(lines[-1])

    def stop(self) -> None:
        """As Ctrl-C does: what is done stays, and the sweep can be gone on with."""
        process = self._process()
        if process is not None:
            process.send_signal(signal.SIGINT)

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            # Numbers of processes are used again.
            same = abs(process.create_time() - self.created) < 2
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


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
            if not _NAME.fullmatch(values["name"]):
                continue
            found.append(
                Job(
                    values["name"],
                    root / values["name"],
                    path.with_suffix(".log"),
                    int(values["pid"]),
                    float(values["created"]),
                    max(1, int(values["n_models"])),
                )
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found, key=lambda job: -job.created)


def start(
    scene: Scene,
    *,
    name: str,
    methods: Sequence[str],
    refits: Sequence[str],
    sparsities: str,
    n_seeds: int,
    calibration: str,
    evaluation: str,
) -> Job:
    """Start ``pruning sweep`` in a process of its own.

    Raises:
        UserError: for what it would refuse at once.
    """
    root = scene.settings.roots[0]
    if not _NAME.fullmatch(name):
        raise UserError(f"{name[:80]!r} can't be a report's name: take letters, digits and dashes")
    try:
        shares = tuple(float(part) for part in sparsities.split(",") if part.strip())
    except ValueError as error:
        raise UserError(f"'{sparsities}' can't be read: write for example 0.1, 0.3") from error
    settings = SweepSettings(tuple(methods), shares, tuple(refits), n_seeds)
    if (root / name).exists():
        raise UserError(f"there is a folder '{name}' already: give another name")
    # Its folder comes later than it does.
    if any(job.name == name and job.state().is_running for job in find(root)):
        raise UserError(f"a sweep '{name}' is running already: give another name")
    # Several texts may be scored on; each of them lies below a root.
    texts = [
        ",".join(scene.settings.text_source(part.strip()) for part in text.split(","))
        for text in (calibration, evaluation)
    ]
    jobs = root / _JOBS
    jobs.mkdir(parents=True, exist_ok=True)
    log = jobs / f"{name}.log"
    command = [
        sys.executable, "-m", "pruning", "sweep",
        "--projection", str(scene.path),
        "--methods", ",".join(settings.methods),
        "--refits", ",".join(settings.refits),
        "--sparsities", ",".join(map(str, settings.sparsities)),
        "--seeds", str(settings.n_seeds),
        "--calibration", texts[0],
        "--evaluation", texts[1],
        "--out", str(root / name),
        # A small sweep: all of a text takes longer than the rest of it.
        "--no-winners",
        "--json",
        # A model's name comes from a projection: whatever it is, it is no option.
        "--", scene.model_name,
    ]  # fmt: skip
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            # The app's own Ctrl-C is none of its business.
            start_new_session=True,
        )
    # The dense model, and the others; a share of 0 is the dense model again.
    n_shares = sum(share > 0 for share in settings.sparsities)
    n_models = 1 + len(settings.methods) * len(settings.refits) * n_shares * settings.n_seeds
    values = {
        "name": name,
        "pid": process.pid,
        "created": psutil.Process(process.pid).create_time(),
        "n_models": n_models,
    }
    partial = jobs / f".{name}.{os.getpid()}.partial"
    partial.write_text(json.dumps(values), encoding="utf-8")
    partial.replace(jobs / f"{name}.json")
    return Job(name, root / name, log, process.pid, float(values["created"]), n_models)


def source_of(folder: Path) -> str | None:
    """Hash of the weights that a pruned model was cut from."""
    try:
        values = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
        return str(values["model"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
