"""The processes of a sweep: this one alone, or several that share the work."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import torch

from projector.errors import SettingError, UserError, check_least, named
from projector.progress import Progress
from pruning.sweep.bench import Workbench
from pruning.sweep.job import SweepJob, prepare_sweep
from pruning.sweep.report import Row
from pruning.sweep.settings import SweepRequest
from pruning.sweep.tasks import Task


def check_workers(n_workers: int) -> None:
    """Raise a SettingError if this machine can't run that many workers."""
    check_least("n_workers", n_workers, 1)


class Workers:
    """Runs tasks in this process, or in several with one thread each, which scale better than
    threads.

    Args:
        folder, spilled: see :class:`Workbench`.
    """

    def __init__(
        self, job: SweepJob, n_workers: int, folder: Path, *, spilled: bool = False
    ) -> None:
        check_workers(n_workers)
        if n_workers > 1 and job.request is None:
            raise UserError(
                "several workers need a model that each can load by its name",
                setting="n_workers",
                value=n_workers,
            )
        if n_workers > 1 and next(job.loaded.model.parameters()).device.type != "cpu":
            raise SettingError(
                "n_workers", n_workers, "works only on a CPU", "give 1 on an accelerator"
            )
        self._bench = Workbench(job, folder, spilled=spilled)
        self._n_workers = n_workers
        self._pool = None
        # The caller's own processes, which this one must leave alone.
        self._others = set(multiprocessing.active_children())
        if n_workers > 1:
            self._pool = ProcessPoolExecutor(
                n_workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(job.request, folder, spilled),
            )

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            children = set(multiprocessing.active_children()) - self._others
            self._pool.shutdown(wait=False, cancel_futures=True)
            # Don't wait for their current work: finished rows are in the report.
            for child in children:
                child.terminate()

    def make(self, seed: int, progress: Progress) -> None:
        """Make the layers of a seed that are missing: each process makes some of them."""
        maker = self._bench.prepare(seed)
        for layers, here, there in (
            (maker.missing_costs, self._bench.gather_costs, _gather_costs),
            (maker.missing, self._bench.make, _make),
        ):
            if self._pool is None:
                here(seed, layers, progress)
                continue
            parts = [layers[i :: self._n_workers] for i in range(self._n_workers)]
            futures = [self._pool.submit(there, seed, part) for part in parts if part]
            if futures:
                progress.begin("Planning and refitting in processes", len(futures), "parts")
            with _told_of_death():
                for future in as_completed(futures):
                    future.result()
                    progress.advance(1)

    def run(self, tasks: Sequence[Task]) -> Iterator[list[Row]]:
        """Yield the rows of each task, as they are ready."""
        if self._pool is None:
            for task in tasks:
                yield self._bench.rows(task)
            return
        futures = [self._pool.submit(_work, task) for task in tasks]
        with _told_of_death():
            for future in as_completed(futures):
                yield future.result()


@contextmanager
def _told_of_death() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise UserError(
            f"a worker process died; memory may have run out: add {named('resume', True)} and use "
            f"fewer {named('n_workers')}"
        ) from error


_bench: Workbench | Exception | None = None


def _start(request: SweepRequest | None, folder: Path, spilled: bool) -> None:
    """Runs first in each process: load the same model and texts."""
    assert request is not None
    global _bench
    # Only the main process handles Ctrl-C, and then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        _bench = Workbench(prepare_sweep(request), folder, spilled=spilled)
    except Exception as error:
        # Raised here, it would only show that a process died.
        _bench = error


def _end_with_parent() -> None:
    """End this process if its parent dies, because a killed parent can't end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _bench_here() -> Workbench:
    if isinstance(_bench, Exception):
        raise _bench
    assert _bench is not None
    return _bench


def _work(task: Task) -> list[Row]:
    return _bench_here().rows(task)


def _make(seed: int, layers: Sequence[int]) -> None:
    _bench_here().make(seed, layers)


def _gather_costs(seed: int, layers: Sequence[int]) -> None:
    _bench_here().gather_costs(seed, layers)
