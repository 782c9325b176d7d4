"""The process of a background job: runs one command, and keeps its state in a file.

``python -m dashboard.running ROOT NAME -- sweep …`` runs ``pruning sweep …`` within itself.
"""

from __future__ import annotations

import io
import json
import runpy
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

from dashboard.jobs import FOLDER, Progress, Word, progress_of, read
from projector.errors import UserError
from pruning.reporting.files import JSON_FILE

_LOOK_EVERY_S = 1.0
# Exit status of commands after Ctrl-C.
_STOPPED = 130


def run_job(root: Path, name: str, command: Callable[[], object]) -> int:
    """Run a command, and keep its progress and its result in ``.jobs/NAME.state``.

    Args:
        command: prints one JSON object at the end, with an ``error`` if it failed, and raises a
            SystemExit with its status; without one the status is 0.

    Returns:
        The exit status.
    """
    path = root / FOLDER / f"{name}.state"
    word = Word("begun")
    word.write(path)
    told, ended = io.StringIO(), threading.Event()
    watch = threading.Thread(target=_watch, args=(root, name, word, ended), daemon=True)
    watch.start()
    status, unforeseen = 0, None
    try:
        with redirect_stdout(told):
            command()
    except KeyboardInterrupt:
        status = _STOPPED
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        status, unforeseen = 1, error
    ended.set()
    watch.join()
    print(told.getvalue(), end="", flush=True)
    progress = replace(_progress(root, name), doing="")
    if status == 0:
        word = replace(word, phase="finished", progress=progress)
    elif status == _STOPPED:
        word = replace(word, phase="stopped", progress=progress)
    else:
        reason = _error(told.getvalue()) or UserError(
            f"the command ended with status {status}: see its log, {FOLDER}/{name}.log"
        )
        word = replace(word, phase="failed", progress=progress, error=reason)
    if unforeseen is not None:
        word = replace(word, error=UserError(f"{type(unforeseen).__name__}: {unforeseen}"))
    word.write(path)
    if unforeseen is not None:
        raise unforeseen
    return status


def _watch(root: Path, name: str, word: Word, ended: threading.Event) -> None:
    """Write the progress whenever the report grows."""
    path, seen = root / FOLDER / f"{name}.state", Progress(-1)
    stamp: object = ""
    while not ended.is_set():
        report = root / name / JSON_FILE
        now = report.stat().st_mtime_ns if report.exists() else None
        if now != stamp:
            stamp, progress = now, _progress(root, name)
            if progress != seen:
                seen = progress
                replace(word, phase="running", progress=progress).write(path)
        ended.wait(_LOOK_EVERY_S)


def _progress(root: Path, name: str) -> Progress:
    job = read(root, name)
    return progress_of(root / name, None if job is None else job.order)


def _error(told: str) -> UserError | None:
    """The error that a command printed as JSON."""
    lines = told.strip().splitlines()
    try:
        return UserError.of_record(json.loads(lines[-1])) if lines else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def main() -> None:
    """Entry point of ``python -m dashboard.running``."""
    root, name, _, *arguments = sys.argv[1:]
    # An app that was started in the background makes its processes ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def command() -> None:
        sys.argv = ["pruning", *arguments]
        runpy.run_module("pruning", run_name="__main__")

    sys.exit(run_job(Path(root), name, command))


if __name__ == "__main__":
    main()
