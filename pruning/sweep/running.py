"""Run a sweep: make every combination once, and write the report after each plan's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

from projector.errors import UserError
from projector.progress import Progress, Silent
from projector.storage.resuming import Step, told_difference
from pruning.layerwise.budget import Needs, check_disk
from pruning.reporting.kinds import SWEEP
from pruning.reporting.places import alone_in, step_of
from pruning.sweep.bench import needs_of_sweep, remove_layers
from pruning.sweep.job import SweepJob
from pruning.sweep.report import ALL, DENSE, SAMPLE, PruningReport, Row, figure_names_at
from pruning.sweep.settings import SweepSettings
from pruning.sweep.tasks import DENSE_TASK, Task, tasks_of
from pruning.sweep.workers import Workers, check_workers

# Facts of a report that a user sets, by the names of fields or arguments.
_SETTINGS = ("device", "dtype", "projection", *(each.name for each in fields(SweepSettings)))


def next_step(job: SweepJob, out: Path, *, resume: bool, force: bool) -> Step:
    """The next step of a sweep, from what ``out`` holds: see :mod:`projector.storage.resuming`.

    Raises:
        UserError: if ``out`` is in use, or holds rows of other settings and may not be replaced.
    """

    def compare() -> tuple[str | None, bool]:
        report = PruningReport.load(out)
        difference = told_difference(
            {**report.settings, "model": report.model},
            {**job.facts(), "model": job.model_facts()},
            settings=_SETTINGS,
        )
        if difference is None:
            _check_rows(job, report, out)
        return difference, difference is None and is_finished(job, report)

    return step_of(out, SWEEP, compare, resume=resume, force=force)


def _check_rows(job: SweepJob, report: PruningReport, out: Path) -> None:
    known = {c for task in tasks_of(job.settings) for c in task.combinations}
    texts = {text.source for text in job.samples}
    for row in report.rows:
        if row.combination not in known or row.evaluation not in texts:
            raise UserError(f"the report in '{out}' is damaged: it holds a row of another sweep")


def begin_report(job: SweepJob, out: Path, *, resume: bool, force: bool) -> PruningReport:
    """The report to work on: a new one, or the one that ``out`` holds.

    Raises:
        UserError: see :func:`next_step`.
    """
    if next_step(job, out, resume=resume, force=force) is Step.START:
        return PruningReport(job.facts(), job.model_facts())
    return PruningReport.load(out)


def is_finished(job: SweepJob, report: PruningReport) -> bool:
    """Whether a report is complete: it has every row, including those of winners."""
    wanted = tasks_of(job.settings)
    if job.wholes and all(_without(task, report) is None for task in wanted):
        wanted = _winners(job, report)
    return all(_without(task, report) is None for task in wanted)


def run_sweep(
    job: SweepJob,
    out: Path,
    *,
    resume: bool = False,
    force: bool = False,
    n_workers: int = 1,
    progress: Progress | None = None,
    tell: Callable[[Needs], None] | None = None,
) -> PruningReport:
    """Plan, prune, refit and score every combination; write the report after each plan's rows.

    The dense model is the row with sparsity 0. An impossible combination is ``not_applicable``,
    with the reason. At the end, the winner of each sparsity is scored again on all windows. A
    finished sweep is left unchanged.

    Args:
        job: from :func:`prepare_sweep`.
        out: folder of the report.
        resume, force: see :func:`projector.storage.resuming.decide`.
        n_workers: number of processes that share the combinations, with one thread each; 1 for this
            process alone. Several need a job from :func:`prepare_sweep`.
        progress: receives progress reports; None for none.
        tell: called before the work begins, with the memory and disk space that it needs.

    Raises:
        UserError: see :func:`next_step`; or another sweep is running in ``out``, one layer doesn't
            fit in memory, or all layers don't fit on the disk.
    """
    progress = progress or Silent()
    job.check()
    report = begin_report(job, out, resume=resume, force=force)
    if is_finished(job, report):
        return report
    folder = layers_path(out)
    check_workers(n_workers)
    needs = needs_of_sweep(job, n_workers)
    if tell is not None:
        tell(needs)
    check_disk(needs, folder, n_at_once=n_workers)
    with (
        alone_in(out, SWEEP),
        Workers(job, n_workers, folder, spilled=needs.spilled) as workers,
    ):
        # Another sweep may have written since.
        if next_step(job, out, resume=resume, force=force) is Step.START:
            remove_layers(folder)
        report = begin_report(job, out, resume=resume, force=force)
        stale = [] if report.rows else [out / name for name in figure_names_at(out)]
        report.save(out)
        for path in stale:
            # They show the report that was replaced.
            path.unlink(missing_ok=True)
        tasks, is_last = tasks_of(job.settings), not job.wholes
        _run(report, tasks, job, workers, out, progress, "Sweeping", drop=is_last)
        if job.wholes:
            again, stage = _winners(job, report), "Scoring winners on all windows"
            _run(report, again, job, workers, out, progress, stage, drop=True)
    remove_layers(folder)
    return report


def layers_path(out: Path) -> Path:
    """The folder next to ``out`` that keeps layers until the sweep is done."""
    whole = out.resolve()
    return whole.with_name(f"{whole.name}.layers")


def _winners(job: SweepJob, report: PruningReport) -> list[Task]:
    """The models to score again on all windows: the dense model, and the best of each sparsity."""
    chosen = dict.fromkeys(
        Task(winner.method, winner.sparsity, seed, (winner.refit,), ALL)
        # Seed by seed, because each seed's calibration is in memory.
        for seed in range(job.settings.n_seeds)
        for text in job.samples
        for winner in report.winners(text.source)
    )
    return [replace(DENSE_TASK, windows=ALL), *chosen]


def _run(
    report: PruningReport,
    tasks: Sequence[Task],
    job: SweepJob,
    workers: Workers,
    out: Path,
    progress: Progress,
    stage: str,
    *,
    drop: bool,
) -> None:
    """Make the rows that the report lacks, and keep its rows in the order of the tasks.

    Args:
        drop: whether a seed's layers can be deleted once its rows are made.
    """
    place = {c: i for i, c in enumerate(c for task in tasks for c in task.combinations)}
    texts = {text.source: i for i, text in enumerate(job.samples)}
    missing = [left for task in tasks if (left := _without(task, report)) is not None]
    n_models = sum(len(task.refits) for task in tasks)
    done_with = layers_path(out) if drop else None
    for rows in _rows(missing, workers, progress, stage, n_models, done_with):
        windows = rows[0].windows
        others = [row for row in report.rows if row.windows != windows]
        own = [row for row in report.rows if row.windows == windows] + list(rows)
        own.sort(key=lambda row: (place[row.combination], texts[row.evaluation]))
        report.rows = own + others if windows == SAMPLE else others + own
        report.save(out)
        progress.advance(len({row.combination for row in rows}))
    progress.end()


def _rows(
    missing: Sequence[Task],
    workers: Workers,
    progress: Progress,
    stage: str,
    n_models: int,
    done_with: Path | None,
) -> Iterator[list[Row]]:
    """The rows of each task, seed by seed; makes their layers first.

    Args:
        done_with: the folder from which a seed's layers are deleted after its last row.
    """
    n_done = n_models - sum(len(task.refits) for task in missing)
    for seed in dict.fromkeys(task.seed for task in missing):
        own = [task for task in missing if task.seed == seed]
        if any(task.method != DENSE for task in own):
            workers.make(seed, progress)
        progress.begin(stage, n_models, "models")
        progress.advance(n_done)
        yield from workers.run(own)
        if done_with is not None:
            remove_layers(done_with, seed)
        n_done += sum(len(task.refits) for task in own)


def _without(task: Task, report: PruningReport) -> Task | None:
    """The part of a task that the report lacks; None if it lacks nothing."""
    left = tuple(
        combination[1]
        for combination in task.combinations
        if not report.has(combination, task.windows)
    )
    return replace(task, refits=left) if left else None
