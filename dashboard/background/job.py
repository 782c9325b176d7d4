"""Run requests of pages in separate processes, which end with the app.

A run continues when the user leaves its page, and pages that use the model meanwhile don't wait for
it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dashboard.background.work import LOADING, Request, Say
from dashboard.background.works import WORKS, Order
from projector.errors import UserError

Report = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """The current stage of a run and its progress; ``began`` is a :func:`time.monotonic` time."""

    title: str = LOADING
    done: int = 0
    total: int | None = None
    unit: str = ""
    began: float = 0.0

    @property
    def share(self) -> float:
        """Progress of the stage, from 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def text(self) -> str:
        """The progress in words."""
        elapsed = time.monotonic() - self.began
        if not self.total:
            text = f"{self.title} …"
            if self.done:
                text += f" {self.done:,} {self.unit},"
            return f"{text} {elapsed:.0f} s" if elapsed >= 1 else text.rstrip(",")
        text = f"{self.title} … {self.done:,} of {self.total:,} {self.unit}"
        if self.share > 0.02 and elapsed > 1:
            text += f", {elapsed / self.share - elapsed:.0f} s left"
        return text


class Job:
    """One run; a thread reads the messages of its process.

    Args:
        keep: called with the report when the run has made it.
    """

    def __init__(self, request: Request, keep: Callable[[Report], None]) -> None:
        self.request, self._keep = request, keep
        self.stage, self.error = Stage(began=time.monotonic()), None
        self._is_over, self._is_stopped = threading.Event(), threading.Event()
        threading.Thread(target=self._follow, daemon=True).start()

    stage: Stage
    error: UserError | None

    @property
    def order(self) -> Order:
        return self.request.order

    @property
    def is_running(self) -> bool:
        return not self._is_over.is_set()

    def stop(self) -> None:
        """End the run without keeping a result."""
        self._is_stopped.set()

    def wait(self, seconds: float) -> bool:
        """Wait for this time, and return whether the run has ended."""
        return self._is_over.wait(seconds)

    def _follow(self) -> None:
        try:
            follow_process(self.request, self._hear, self._is_stopped)
        except UserError as error:
            self.error = error
        except OSError as error:
            self.error = UserError(f"no process can be started: {error.strerror}")
        finally:
            self._is_over.set()

    def _hear(self, record: Report) -> None:
        if self._is_stopped.is_set():
            return
        if "report" in record:
            self._keep(record["report"])
        elif "error" in record:
            self.error = UserError.of_record(record["error"])
        else:
            is_same = record["stage"] == self.stage.title and record["done"]
            began = self.stage.began if is_same else time.monotonic()
            self.stage = Stage(
                record["stage"], record["done"], record["total"], record["unit"], began
            )


def follow_process(request: Request, hear: Say, is_stopped: threading.Event) -> None:
    """Run a request in a process, until the process ends or is stopped.

    Raises:
        UserError: if the process ended without a result or an error.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "dashboard.background.work"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        # Ctrl-C in the app must not reach it: it ends when the app closes its input.
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    threading.Thread(target=_end_when, args=(process, is_stopped), daemon=True).start()
    is_told = False
    try:
        with suppress(OSError):
            process.stdin.write(request.to_line() + "\n")
            process.stdin.flush()
        for line in process.stdout:
            record = json.loads(line)
            is_told = is_told or not record.keys().isdisjoint(("report", "error"))
            hear(record)
    finally:
        if process.poll() is None and not is_told:
            process.kill()
        process.wait()
        with suppress(OSError):
            process.stdin.close()
        process.stdout.close()
    if not is_told and not is_stopped.is_set():
        name = f"the process that {WORKS[request.work].doing}"
        raise UserError(
            f"{name} was killed from outside; memory may have run out"
            if process.returncode < 0
            else f"{name} ended with status {process.returncode}"
        )


def _end_when(process: subprocess.Popen[str], is_stopped: threading.Event) -> None:
    while process.poll() is None:
        if is_stopped.wait(0.2):
            process.kill()
            return


class Jobs:
    """The runs of an app; one run at a time for each kind and model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[tuple[str, str], Job] = {}

    def start(self, request: Request, keep: Callable[[Report], None]) -> Job:
        """Start a run, or return the run of its kind with this model that is already running."""
        place = (request.work, request.sha256)
        with self._lock:
            known = self._jobs.get(place)
            if known is None or not known.is_running:
                known = self._jobs[place] = Job(request, keep)
            return known

    def running(self, work: str, sha256: str) -> Job | None:
        """The current run of a kind with a model."""
        job = self._jobs.get((work, sha256))
        return job if job is not None and job.is_running else None

    def take_ended(self, work: str, sha256: str) -> Job | None:
        """The run of a kind with a model that has ended; returned once."""
        with self._lock:
            job = self._jobs.get((work, sha256))
            if job is None or job.is_running:
                return None
            return self._jobs.pop((work, sha256))
