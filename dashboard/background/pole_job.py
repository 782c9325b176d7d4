"""Find the poles of all maps of a projection in the background with ``pruning poles``.

All apps and sessions share one process per projection: in the projection's folder, ``.jobs`` holds
a JSON file that identifies the process, and its log. The command saves the poles it finds with the
projection, and continues from there when it is started again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from dashboard.jobs import FOLDER, living_process
from projector.errors import UserError
from projector.storage.replacing import replacing_file

# Seconds that a process has to end.
_PATIENCE_S = 5.0
# It shares the machine with the pages.
_NICE = 10


@dataclass(frozen=True)
class PoleJob:
    """The current or last process that finds the poles of a projection.

    Attributes:
        folder: folder of the projection.
        stamp: identifies the projection's files; it changes when they are replaced.
        pid, created: number and start time of the process.
        is_stopped: whether the user stopped it.
    """

    folder: str
    stamp: str
    pid: int
    created: float
    is_stopped: bool = False

    @property
    def is_running(self) -> bool:
        return self._process() is not None

    def end(self) -> None:
        """End the process and wait for it; poles that it saved stay."""
        process = self._process()
        if process is None:
            return
        with suppress(psutil.Error):
            process.terminate()
            try:
                process.wait(_PATIENCE_S)
            except psutil.TimeoutExpired:
                process.kill()

    def _process(self) -> psutil.Process | None:
        return living_process(self.pid, self.created)


def find_job(folder: Path, stamp: str) -> PoleJob | None:
    """The job of a projection; None if there is none, or it belongs to a replaced projection."""
    job = _read(_place(folder), folder)
    return job if job is not None and job.stamp == stamp else None


def _read(place: Path, folder: Path) -> PoleJob | None:
    """The job of a folder, for any projection in it."""
    try:
        values = json.loads(place.read_text(encoding="utf-8"))
        job = PoleJob(
            str(values["folder"]),
            str(values["stamp"]),
            int(values["pid"]),
            float(values["created"]),
            values.get("is_stopped") is True,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return job if job.folder == str(folder) else None


def start_job(folder: Path, stamp: str) -> PoleJob:
    """Start to find poles, unless a process is already running.

    A process for an earlier projection in this folder is ended first.

    Raises:
        UserError: if the folder can't be written to.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"folder '{folder.name}' can't be written to, so poles can't be saved there: copy the "
            "projection to another folder"
        )
    with _alone(folder) as place:
        known = _read(place, folder)
        if known is not None and known.is_running:
            if known.stamp == stamp:
                return known
            known.end()
        job = _launch(place, folder, stamp)
        _write(place, job)
        return job


def stop_job(job: PoleJob) -> None:
    """End the process; poles that it saved stay, and it can be started again.

    Raises:
        UserError: if the folder can't be written to; the process is ended anyway.
    """
    try:
        with _alone(Path(job.folder)) as place:
            known = _read(place, Path(job.folder))
            # Another process may have replaced it meanwhile.
            if known is None or (known.pid, known.created) == (job.pid, job.created):
                _write(place, replace(job, is_stopped=True))
    finally:
        job.end()


def error_of(job: PoleJob) -> UserError | None:
    """Why a process ended early, if it reported an error."""
    try:
        text = _place(Path(job.folder)).with_suffix(".log").read_text(encoding="utf-8")
        lines = [line for line in text.strip().splitlines() if line.startswith("{")]
        return UserError.of_record(json.loads(lines[-1])) if lines else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """The file of a folder's job; no other session or app reads or writes it meanwhile.

    Raises:
        UserError: if the folder can't be written to.
    """
    place = _place(folder)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_suffix(".lock")):
            yield place
    except OSError as error:
        raise UserError(
            f"folder '{folder.name}' can't be written to, so work can't run in the background: "
            f"{error.strerror}"
        ) from error


def _launch(place: Path, folder: Path, stamp: str) -> PoleJob:
    with place.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            # A folder's name is no option, whatever it is.
            [sys.executable, "-m", "pruning", "poles", "--json", "--", str(folder)],
            stdout=log,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            # Ctrl-C in the app must not reach it.
            start_new_session=True,
        )
    found = psutil.Process(process.pid)
    created = found.create_time()
    if hasattr(os, "nice"):
        found.nice(_NICE)
    return PoleJob(str(folder), stamp, process.pid, created)


def _place(folder: Path) -> Path:
    return folder / FOLDER / "poles.json"


def _write(path: Path, job: PoleJob) -> None:
    values: dict[str, Any] = asdict(job)
    with replacing_file(path, is_shared=True) as partial:
        partial.write_text(json.dumps(values), encoding="utf-8")
