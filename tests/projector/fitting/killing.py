"""``projector fit`` in a process of its own that can be killed, also in the middle of a write."""

from __future__ import annotations

import json
import multiprocessing.process
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import projector.fitting.running
import projector.statistics.gathering
import projector.storage.replacing
import projector.storage.tensors
import projector.terminal.cli
from tests.projector.fitting.forked import server


class _Disk:
    """Counts what changes the disk, and kills this process at one of these moments."""

    def __init__(self, kill_at: int | None) -> None:
        self.kill_at, self.n_moments = kill_at, 0

    def moment(self, before_the_end: Callable[[], Any] = lambda: None) -> None:
        self.n_moments += 1
        if self.n_moments == self.kill_at:
            before_the_end()
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """A moment before and after each rename and removal, before each sync, in each write."""
        path: Any = Path
        replace, unlink, open_, sync = (
            path.replace,
            path.unlink,
            path.open,
            projector.storage.replacing.sync,
        )

        def watched_replace(this: Path, target: Path) -> Path:
            self.moment()
            moved: Path = replace(this, target)
            self.moment()
            return moved

        def watched_unlink(this: Path, missing_ok: bool = False) -> None:
            if this.exists():
                self.moment()
            unlink(this, missing_ok)

        def watched_open(this: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
            file = open_(this, mode, *args, **options)
            return _Watched(file, self) if "w" in mode else file

        def watched_sync(this: Path) -> None:
            self.moment()
            sync(this)

        path.replace, path.unlink, path.open = watched_replace, watched_unlink, watched_open
        projector.storage.replacing.sync = watched_sync


class _Watched:
    """A file of whose writes each may be the last, and end half-way."""

    def __init__(self, file: Any, disk: _Disk) -> None:
        self.file, self.disk = file, disk

    def write(self, data: Any) -> int:
        def half() -> None:
            self.file.write(data[: len(data) // 2])
            self.file.flush()

        self.disk.moment(half)
        return int(self.file.write(data))

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def fit(
    arguments: list[str], kill_at: int | None, report: Path, slow_s: float, most_bytes: int | None
) -> None:
    """The command, with a checkpoint after every batch and every map.

    Args:
        kill_at: the moment of the disk at which to be killed.
        report: file for the number of moments there were, and for what the command said.
        slow_s: pause after each batch and map, for those who kill by the clock.
        most_bytes: size at which the system lets no file grow any more.
    """
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    torch.set_num_threads(1)
    fitting: Any = projector.fitting.running
    fitting._CHECKPOINT_EVERY_S, fitting._CHECKPOINT_SHARE = 0.0, float("inf")
    calls = {"run": 0, "place_map": 0}
    for name, module in (("run", projector.statistics.gathering.Gatherer), ("place_map", fitting)):
        setattr(module, name, _slowed(getattr(module, name), slow_s, name, calls))
    with report.with_suffix(".log").open("w", buffering=1) as log:
        sys.stdout = sys.stderr = log
        disk = _Disk(kill_at)
        disk.watch()
        sys.argv = ["projector", "fit", *arguments]
        try:
            projector.terminal.cli.main()
        finally:
            report.write_text(json.dumps({"moments": disk.n_moments, **calls}))


def _slowed(
    function: Callable[..., Any], seconds: float, name: str, calls: dict[str, int]
) -> Callable[..., Any]:
    def slowed(*args: Any, **options: Any) -> Any:
        calls[name] += 1
        print(f"<{name} {calls[name]}>", flush=True)
        done = function(*args, **options)
        time.sleep(seconds)
        return done

    return slowed


class Fits:
    """Starts fits; ``folder`` takes what they report."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self.folder, self.arguments = folder, arguments
        self.context = server()

    def start(
        self,
        out: Path,
        *more: str,
        kill_at: int | None = None,
        slow_s: float = 0.0,
        most_bytes: int | None = None,
    ) -> multiprocessing.process.BaseProcess:
        """A fit that runs beside the caller."""
        arguments = [*self.arguments, "--out", str(out), *more]
        # Until this one speaks, nothing is said: who waits for its words must not find those of
        # the one before.
        self._log.write_text("")
        process = self.context.Process(
            target=fit, args=(arguments, kill_at, self.folder / "report", slow_s, most_bytes)
        )
        process.start()
        return process

    def run(self, out: Path, *more: str, **options: Any) -> int | None:
        """A fit's exit status once it has ended; −9 where it was killed."""
        process = self.start(out, *more, **options)
        process.join(300)
        return process.exitcode

    @property
    def report(self) -> dict[str, int]:
        """Of the last fit that was not killed: moments of the disk, and calls of what works."""
        found: dict[str, int] = json.loads((self.folder / "report").read_text())
        return found

    @property
    def said(self) -> str:
        """What the last one printed."""
        return self._log.read_text()

    @property
    def _log(self) -> Path:
        return (self.folder / "report").with_suffix(".log")
