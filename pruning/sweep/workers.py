"""The rows of a sweep: one combination after another, or several at once in processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from threading import Thread

import torch
from torch import nn

from projector.errors import SettingError, UserError, check_least, named
from pruning.calibration.budget import pruning_memory
from pruning.calibration.gathering import calibrate, check_enough
from pruning.calibration.mlps import mlps_of
from pruning.methods.plan import NotApplicable
from pruning.methods.planning import Planner
from pruning.refit.refits import is_centred, make_plan, refit
from pruning.refit.registry import REFITS
from pruning.refit.streams import DenseStreams
from pruning.scoring.perplexity import score
from pruning.scoring.windows import EvaluationText
from pruning.surgery import count_parameters, round_weights
from pruning.sweep.job import SweepJob, prepare_sweep
from pruning.sweep.report import DENSE, NOT_APPLICABLE, SAMPLE, Row
from pruning.sweep.settings import SweepRequest
from pruning.sweep.tasks import Combination, Task


class Workbench:
    """Makes rows; holds the planner of the seed that is worked on, for it is costly."""

    def __init__(self, job: SweepJob) -> None:
        self.job = job
        self._seed: int | None = None
        self._planner: Planner | None = None
        self._streams: DenseStreams | None = None
        self._plan_seconds: dict[tuple[int, str, float, bool], float] = {}

    def rows(self, task: Task) -> list[Row]:
        """A row for each refit and evaluation text."""
        texts = self.job.samples if task.windows == SAMPLE else self.job.wholes
        with pruning_memory(self.job.architecture):
            return self._rows(task, texts)

    def _rows(self, task: Task, texts: Sequence[EvaluationText]) -> list[Row]:
        result: list[Row] = []
        if task.method != DENSE:
            # Shared by all methods, so that none is charged for it.
            planner = self._planner_of(task.seed)
            if any(REFITS[kind].trains for kind in task.refits):
                self._streams_of(planner).run()
        for combination in task.combinations:
            try:
                model, seconds = self._model(combination)
            except NotApplicable as error:
                result += [_missing(self.job, combination, t, task.windows, error) for t in texts]
                continue
            result += [
                _scored(self.job, combination, model, t, task.windows, seconds) for t in texts
            ]
        return result

    def _model(self, combination: Combination) -> tuple[nn.Module, float]:
        """The pruned model, as it would be saved, and the seconds it took to plan and refit."""
        method, kind, sparsity, seed = combination
        job, settings = self.job, self.job.settings
        if method == DENSE:
            return job.loaded.model, 0.0
        planner = self._planner_of(seed)
        began = time.perf_counter()
        plan = make_plan(planner, method, kind, sparsity, settings.allocation, settings.round_to)
        planned = time.perf_counter()
        # Refits share a plan: each is charged for it.
        key = (seed, method, sparsity, is_centred(planner, kind))
        plan_seconds = self._plan_seconds.setdefault(key, planned - began)
        pruned = refit(
            job.loaded.model,
            job.architecture,
            plan,
            kind,
            planner.calibration,
            n_steps=settings.n_steps,
            seed=seed,
            streams=self._streams_of(planner) if REFITS[kind].trains else None,
        )
        round_weights(pruned, job.loaded.stored_dtype)
        return pruned, plan_seconds + time.perf_counter() - planned

    def _streams_of(self, planner: Planner) -> DenseStreams:
        if self._streams is None:
            self._streams = DenseStreams(planner.model, planner.architecture, planner.calibration)
        return self._streams

    def _planner_of(self, seed: int) -> Planner:
        if self._planner is None or self._seed != seed:
            job = self.job
            calibration = calibrate(
                job.loaded,
                job.architecture,
                job.calibration,
                n_sequences=job.settings.n_sequences,
                seed=seed,
            )
            if job.settings.needs_regular_moments:
                check_enough(calibration, [mlp.n_neurons for mlp in mlps_of(job.architecture)])
            self._planner = Planner(
                job.loaded.model, job.architecture, calibration, job.proposals, seed
            )
            self._seed, self._streams = seed, None
        return self._planner


def check_workers(n_workers: int) -> None:
    """Raise a SettingError if there can't be so many."""
    check_least("n_workers", n_workers, 1)


class Workers:
    """Runs tasks here, or in processes of one thread each, which scale where threads wait."""

    def __init__(self, job: SweepJob, n_workers: int) -> None:
        check_workers(n_workers)
        if n_workers > 1 and job.request is None:
            raise UserError("several workers need a model that can be loaded by its name")
        if n_workers > 1 and next(job.loaded.model.parameters()).device.type != "cpu":
            raise SettingError("n_workers", n_workers, "is for the CPU", "on an accelerator give 1")
        self._bench = Workbench(job)
        self._pool = None
        # The caller's own processes, which are none of this one's business.
        self._others = set(multiprocessing.active_children())
        if n_workers > 1:
            self._pool = ProcessPoolExecutor(
                n_workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(job.request,),
            )

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            children = set(multiprocessing.active_children()) - self._others
            self._pool.shutdown(wait=False, cancel_futures=True)
            # What they are at is not waited for: the rows that count are in the report.
            for child in children:
                child.terminate()

    def run(self, tasks: Sequence[Task]) -> Iterator[list[Row]]:
        """The rows of each task, as they come."""
        if self._pool is None:
            for task in tasks:
                yield self._bench.rows(task)
            return
        futures = [self._pool.submit(_work, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died, perhaps because memory ran out: go on with "
                f"{named('resume', True)} and fewer {named('n_workers')}"
            ) from error


_bench: Workbench | Exception | None = None


def _start(request: SweepRequest | None) -> None:
    """What each process does first: load for itself what this one has."""
    assert request is not None
    global _bench
    # Ctrl-C is for the one that has the screen, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        _bench = Workbench(prepare_sweep(request))
    except Exception as error:
        # Raised here it would only say that a process died.
        _bench = error


def _end_with_parent() -> None:
    """A parent that was killed can't end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(task: Task) -> list[Row]:
    if isinstance(_bench, Exception):
        raise _bench
    assert _bench is not None
    return _bench.rows(task)


def _scored(
    job: SweepJob,
    combination: Combination,
    model: nn.Module,
    text: EvaluationText,
    windows: str,
    seconds: float,
) -> Row:
    method, kind, sparsity, seed = combination
    n_dense, n_left = count_parameters(job.loaded.model), count_parameters(model)
    found = score(model, text)
    problem = found.problem
    return Row(
        method=method,
        refit=kind,
        sparsity=sparsity,
        seed=seed,
        evaluation=text.source,
        windows=windows,
        perplexity=None if problem else found.perplexity,
        bits_per_byte=None if problem else found.bits_per_byte,
        n_tokens=found.n_tokens,
        parameters=n_left,
        removed_share=1 - n_left / n_dense,
        seconds=round(seconds, 3),
        reason=problem or "",
    )


def _missing(
    job: SweepJob, combination: Combination, text: EvaluationText, windows: str, error: UserError
) -> Row:
    method, kind, sparsity, seed = combination
    return Row(
        method=method,
        refit=kind,
        sparsity=sparsity,
        seed=seed,
        evaluation=text.source,
        windows=windows,
        perplexity=None,
        bits_per_byte=None,
        n_tokens=0,
        parameters=None,
        removed_share=None,
        seconds=None,
        status=NOT_APPLICABLE,
        reason=str(error),
    )
