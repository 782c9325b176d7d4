"""Run an experiment on reuse: make each row once, and write the report after each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Protocol

from projector.errors import UserError
from projector.fitting.cross_layer.finding import check_folder
from projector.progress import Progress, Silent
from projector.storage.replacing import remove_folder
from projector.storage.resuming import Step, told_difference
from pruning.reporting.kinds import REUSE
from pruning.reporting.places import alone_in, step_of
from pruning.reuse.comparing import report_of
from pruning.reuse.experiment import Experiment, plan_rows
from pruning.reuse.job import ReuseJob
from pruning.reuse.partners import gather_partners
from pruning.reuse.records import ReuseReport, ReuseRow, RowKey
from pruning.reuse.report import load_reuse, save_reuse
from pruning.reuse.settings import ReuseSettings

PAGE_FILE = "report.html"
# Facts of a report that a user sets, by the names of fields.
_SETTINGS = ("device", "dtype", "projection", *(each.name for each in fields(ReuseSettings)))


class Rows(Protocol):
    """Makes the rows of an experiment."""

    def row(self, key: RowKey, made: Sequence[ReuseRow] = ()) -> ReuseRow:
        """Make one row, given the rows that were made before it."""
        ...

    def notes(self) -> tuple[str, ...]:
        """Notes for readers of the rows."""
        ...


def experiment_of(job: ReuseJob, folder: Path, progress: Progress) -> Rows:
    """The object that makes the rows of a job. It first finds partners if no projection gives them.

    Args:
        folder: keeps finished parts of the search for partners.
    """
    partners = job.partners or gather_partners(
        job.loaded,
        job.architecture,
        job.calibration.corpus,
        memory_budget=job.memory_budget,
        folder=folder,
        progress=progress,
    )
    return Experiment(
        job.loaded,
        job.architecture,
        job.calibration,
        job.text,
        partners,
        job.settings,
        memory_budget=job.memory_budget,
        progress=progress,
    )


def next_step(job: ReuseJob, out: Path, *, resume: bool, force: bool) -> Step:
    """The next step of an experiment, from what ``out`` holds.

    Raises:
        UserError: if ``out`` holds rows of other settings and may not be replaced.
    """

    def compare() -> tuple[str | None, bool]:
        report = load_reuse(out)
        difference = told_difference(
            {**report.settings, "model": report.model},
            {**job.facts(), "model": job.model_facts()},
            settings=_SETTINGS,
        )
        if difference is None and not {row.key for row in report.rows} <= set(keys_of(job)):
            raise UserError(
                f"the report in '{out}' is damaged: it holds a row of another experiment"
            )
        return difference, difference is None and not missing(job, report.rows)

    check_folder(work_path(out))
    return step_of(out, REUSE, compare, resume=resume, force=force)


def keys_of(job: ReuseJob) -> tuple[RowKey, ...]:
    """The keys of all rows, in the order in which they are made."""
    return plan_rows(job.settings)


def missing(job: ReuseJob, rows: Sequence[ReuseRow]) -> list[RowKey]:
    """The keys of rows that are still missing."""
    known = {row.key for row in rows}
    return [key for key in keys_of(job) if key not in known]


def run_reuse(
    job: ReuseJob,
    out: Path,
    *,
    make: Callable[[ReuseJob, Path, Progress], Rows] = experiment_of,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> ReuseReport:
    """Make every missing row, and write the report after each.

    A finished experiment is left unchanged.

    Args:
        make: returns the object that makes rows, given the job, a folder for temporary files, and
            an object that receives progress.
        resume, force: see :func:`projector.storage.resuming.decide`.

    Raises:
        UserError: see :func:`next_step`; or another experiment is running in ``out``.
    """
    progress = progress or Silent()
    job.check()
    if next_step(job, out, resume=resume, force=force) is Step.LEAVE:
        return load_reuse(out)
    folder = work_path(out)
    with alone_in(out, REUSE):
        # Another run may have written since.
        is_new = next_step(job, out, resume=resume, force=force) is Step.START
        known = _report(job, ()) if is_new else load_reuse(out)
        rows, notes = list(known.rows), tuple(known.notes)
        if not rows:
            remove_folder(folder)
        save_reuse(known, out)
        if not rows:
            # They show the report that was replaced.
            (out / PAGE_FILE).unlink(missing_ok=True)
        left = missing(job, rows)
        if left:
            counted = _Counted(progress, len(rows) + len(left))
            maker = make(job, folder, counted)
            notes = maker.notes()
        for key in left:
            with counted.one(len(rows)):
                rows.append(maker.row(key, rows))
            known = _report(job, rows, notes)
            save_reuse(known, out)
        progress.end()
    remove_folder(folder)
    return known


def work_path(out: Path) -> Path:
    """The folder next to ``out`` that keeps activations for the search for partners meanwhile."""
    whole = out.resolve()
    return whole.with_name(f"{whole.name}.partners")


class _Counted:
    """Progress that counts models in one bar, which starts again after each other stage."""

    def __init__(self, progress: Progress, n_models: int) -> None:
        self._progress, self._n_models = progress, n_models
        self._is_counting = False

    @contextmanager
    def one(self, n_done: int) -> Iterator[None]:
        """Context manager: a model is made and scored, after ``n_done`` others."""
        self._count(n_done)
        yield
        if self._is_counting:
            self._progress.advance(1)
        else:
            self._count(n_done + 1)

    def _count(self, n_done: int) -> None:
        if not self._is_counting:
            self._progress.begin("Making and scoring", self._n_models, "models")
            self._progress.advance(n_done)
            self._is_counting = True

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """Begin another stage."""
        self._is_counting = False
        self._progress.begin(stage, total, unit)

    def advance(self, n: int) -> None:
        """Advance within that stage."""
        self._progress.advance(n)

    def end(self) -> None:
        """End that stage."""
        self._progress.end()


def _report(job: ReuseJob, rows: Sequence[ReuseRow], notes: Sequence[str] = ()) -> ReuseReport:
    place = {key: i for i, key in enumerate(keys_of(job))}
    ordered = sorted(rows, key=lambda row: place[row.key])
    return report_of(job.facts(), job.model_facts(), ordered, job.settings.pruning_method, notes)
