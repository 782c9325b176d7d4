"""The pipeline: model + corpus → ``Projection``."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from projector.corpus.documents import Document
from projector.errors import UserError, named
from projector.fitting.budget import Plan, check_disk
from projector.fitting.checkpoint import (
    Checkpoint,
    OtherRun,
    State,
    check_checkpoint_place,
    checkpoint_path,
    has_checkpoint,
)
from projector.fitting.cross_layer.adding import (
    add_partners,
    check_one_process,
    half_found_words,
    lacks_partners,
    partners_path,
    with_partners,
)
from projector.fitting.cross_layer.finding import check_folder, has_begun
from projector.fitting.preparing import Job, prepare
from projector.fitting.processes import Processes, join_processes
from projector.fitting.provenance import difference_from, fact_words, run_facts
from projector.fitting.running import RunningFit
from projector.fitting.settings import split_options
from projector.interrupt import DeferredInterrupt
from projector.memory import memory_errors
from projector.model.loading import BUNDLED, LoadedModel
from projector.processor import in_threads
from projector.progress import Progress, Silent, shown_on_terminal
from projector.projection.overview import FACTS_FILE, read_saved
from projector.projection.projection import Projection
from projector.projection.writing import check_out
from projector.storage.places import disk_errors
from projector.storage.replacing import remove_folder
from projector.storage.resuming import Step, Work, decide

_log = logging.getLogger(__name__)


def fit(
    model: str | nn.Module | LoadedModel = BUNDLED,
    corpus: str | Iterable[Document] = "stdlib",
    *,
    out: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    tokenizer: Any = None,
    revision: str | None = None,
    device: str = "auto",
    device_map: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Projection:
    """Fit neuron positions: from a model and a corpus to a ``Projection``.

    Args:
        model: ``bundled``, a local folder, a hub id; or a model in memory, with its ``tokenizer``.
        corpus: see :func:`projector.corpus.sources.read_documents`, or the documents themselves.
        out: folder to save the projection to. The fit then writes checkpoints next to it, and
            statistics are read from it on access.
        force: replace existing results; with ``resume``, only those of another run.
        resume: resume this run if it was stopped, start it if it has not begun, and do nothing if
            it is finished; see :func:`projector.storage.resuming.decide`. The choice is logged.
        tokenizer: of a model in memory; a model with a name has its own.
        revision: branch, tag or commit of a hub model.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        device_map: ``auto`` to spread the model over all devices, if it doesn't fit on one.
        dtype: dtype that the model computes in: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        trust_remote_code: run the code that comes with the model.
        progress: receives progress reports. None writes a line to standard error if it is a
            terminal, and nothing otherwise; :class:`projector.progress.Silent` never writes.
        **options: fields of :class:`projector.fitting.settings.FitSettings`, by name: ``sites``,
            ``layers``, ``max_tokens`` …; and either ``layouts``, several by name
            (``"stress-3d,neighbours-2d"``, or a list), or fields of the one
            :class:`projector.layouts.settings.Layout`: ``dim``, ``objective``, ``seed`` …

    Raises:
        UserError: for anything that can't be fitted.
    """
    settings, layouts = split_options(options)
    processes = join_processes(device)
    progress = shown_on_terminal(progress) if processes.is_first else Silent()
    if out is not None:
        check_start(Path(out), force=force, resume=resume)
    job = prepare(
        model,
        corpus,
        settings,
        layouts,
        tokenizer=tokenizer,
        revision=revision,
        device=device,
        device_map=device_map,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        in_memory=out is None,
        progress=progress,
    )
    return run(job, out=out, force=force, resume=resume, progress=progress, processes=processes)


def run(
    job: Job,
    *,
    out: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    log_with: str | None = None,
    log_dir: Path | None = None,
    processes: Processes | None = None,
) -> Projection:
    """Gather statistics, find positions, measure them, and save the projection if ``out`` is given.

    Args:
        force, resume: see :func:`fit`.
        log_with: tracker of the online solver, with ``log_dir`` for its files.
        processes: the processes that run this job together, each with a copy of it. All of them
            call this function; only the first reads and writes ``out``.

    Returns:
        In the first process, the projection at ``out``. In every other process, the projection
        without statistics; for a resumed fit, only with the maps that were finished since.

    Raises:
        UserError: if memory or disk space is too small, another process has ended, or ``out`` must
            not be replaced.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint is written.
    """
    progress, processes = progress or Silent(), processes or Processes()
    if resume and out is None:
        raise UserError(
            f"there is nothing to resume without an output folder: give {named('out')}, or leave "
            f"{named('resume', True)} out",
            setting="resume",
            value=True,
        )
    if processes.n > 1 and any(layout.how.trains for layout in job.layouts):
        raise UserError(
            "a trained layout learns from one batch after another, in one process: leave "
            f"{named('solver')} out, or start the fit without a launcher"
        )
    check_one_process(job, processes.n)
    if out is None:
        made = _run(job, None, processes, progress, log_with, log_dir)
        return made if job.cross_layer is None else with_partners(job, made, progress)
    folder = Path(out)
    with ExitStack() as until_done:
        checkpoint = _checkpoint(folder, job, processes)
        if processes.is_first:
            until_done.enter_context(checkpoint.alone())
        step = next_step(job, folder, processes, force=force, resume=resume)
        if step is Step.LEAVE:
            return _leave(job, folder, processes, progress, force)
        check_disk(job.disk_bytes, folder, beside=job.checkpoint_bytes)
        if resume:
            _log.info("Resuming" if step is Step.GO_ON else "Starting from the beginning")
        # Nothing is written before all have looked.
        processes.wait()
        if step is Step.START:
            with disk_errors(checkpoint.folder):
                checkpoint.remove()
                if processes.is_first:
                    remove_folder(partners_path(folder))
        processes.wait()
        checkpoint.choices = {"force": force}
        projection = _run(job, checkpoint, processes, progress, log_with, log_dir)
        # Ctrl-C now comes too late: what is left takes no longer than stopping would.
        with DeferredInterrupt():
            # A fit that was killed after this had saved everything; more may have been added since.
            if processes.is_first and not projection.is_saved_at(folder):
                # What it was told to replace, now or when it was begun.
                projection.save(folder, force=bool(checkpoint.choices["force"]), setting="out")
            processes.wait()
            with disk_errors(checkpoint.folder):
                checkpoint.remove()
        if job.cross_layer is not None:
            return add_partners(job, folder, progress)
        return Projection.load(folder) if processes.is_first else projection


def _run(
    job: Job,
    checkpoint: Checkpoint | None,
    processes: Processes,
    progress: Progress,
    log_with: str | None,
    log_dir: Path | None,
) -> Projection:
    """The work itself, from the beginning or from what a checkpoint holds."""
    state = State({}, None)
    if checkpoint is not None and checkpoint.is_begun:
        asked = checkpoint.choices
        state = checkpoint.load()
        checkpoint.choices = asked
    before = processes.of_the_first(state.choices)
    # The least memory decides for all.
    plan = _plan_of(before) or min(processes.collected(job.plan), key=lambda plan: plan.room)
    job = replace(job, plan=plan)
    if checkpoint is not None:
        own = {"threads": torch.get_num_threads(), "plan": plan.as_json()}
        force = bool(checkpoint.choices["force"] or before.get("force"))
        checkpoint.choices = {**own, **before, "force": force}
    with memory_errors(*job.widest), in_threads(before.get("threads")):
        fitting = RunningFit(job, checkpoint, state, processes, progress)
        # Its sums are the gatherer's from now on, and go with it.
        del state
        fitting.run(log_with, log_dir)
    return fitting.projection()


def check_start(out: Path, *, force: bool, resume: bool) -> None:
    """Raise a UserError if a fit into ``out`` can't begin, before a model is loaded.

    The decision of :func:`next_step` needs the model and the corpus.
    """
    check_folder(partners_path(out))
    if not (force or resume) and has_begun(partners_path(out)):
        unfinished = Work(str(partners_path(out)))
        decide(unfinished, None, resume=False, force=False, what="fit")
    check_out(out, force=force or resume)
    check_checkpoint_place(out)
    if not (force or resume):
        unfinished_fit = Work(str(checkpoint_path(out))) if has_checkpoint(out) else None
        decide(unfinished_fit, None, resume=False, force=False, what="fit")


def next_step(job: Job, out: Path, processes: Processes, *, force: bool, resume: bool) -> Step:
    """Decide what a run of ``job`` into ``out`` does next; the same in every process.

    Raises:
        UserError: if the run is refused; see :func:`projector.storage.resuming.decide`.
    """
    found: Step | UserError | None = None
    # On a machine with a disk of its own, another may have been killed before it wrote.
    if processes.is_first or not resume:
        try:
            check_start(out, force=force, resume=resume)
            unfinished, finished = _unfinished(job, out, processes, force), _finished(job, out)
            found = decide(unfinished, finished, resume=resume, force=force, what="fit")
        except UserError as error:
            found = error
    if resume:
        found = processes.of_the_first(found)
    if isinstance(found, UserError):
        raise found
    assert found is not None
    return found


def _leave(
    job: Job, folder: Path, processes: Processes, progress: Progress, force: bool
) -> Projection:
    """The projection that is there, with the partners across layers that it may lack."""
    if lacks_partners(job, folder, force=force):
        _log.info("This fit is already finished at %s: adding partners", folder)
        return add_partners(job, folder, progress)
    _log.info("This fit is already finished at %s: there is nothing to do", folder)
    if job.cross_layer is not None:
        # A run that was killed once it had added them.
        with disk_errors(folder):
            remove_folder(partners_path(folder))
    elif (half_found := half_found_words(folder)) is not None:
        _log.warning(str(UserError(half_found)))
    return _finished_projection(folder, processes)


def _finished_projection(folder: Path, processes: Processes) -> Projection:
    """What is there, in every process; the first alone reads it, and has the statistics.

    Raises:
        UserError: in all of them, if it can't be read.
    """
    read: Projection | None = None
    found: Projection | UserError | None = None
    if processes.is_first:
        try:
            read = Projection.load(folder)
            layouts = {
                name: replace(each, positions=dict(each.positions))
                for name, each in read.layouts.items()
            }
            found = replace(
                read, layouts=layouts, statistics={}, example_facts=None, example_tensors={}
            )
        except UserError as error:
            found = error
    if processes.n > 1:
        found = processes.of_the_first(found)
    if isinstance(found, UserError):
        raise found
    made = read or found
    assert made is not None
    return made


def _unfinished(job: Job, out: Path, processes: Processes, force: bool) -> Work | None:
    """The checkpoint that a stopped fit left."""
    where = str(checkpoint_path(out))
    if not has_checkpoint(out):
        return None
    try:
        choices = _checkpoint(out, job, processes).load_choices()
    except OtherRun as error:
        return Work(where, error.difference)
    except UserError:
        if force:
            return Work(where, "it is damaged")
        raise
    return Work(where, may_replace=bool(choices.get("force")))


def _finished(job: Job, out: Path) -> Work | None:
    """The projection that is there."""
    if not (out / FACTS_FILE).exists():
        return None
    try:
        return Work(str(out), difference_from(job, read_saved(out)))
    except UserError as error:
        return Work(str(out), f"it can't be read ({error})")


def going_on(job: Job, out: Path, processes: Processes) -> Job:
    """The job with the choices of the stopped fit into ``out``.

    Raises:
        UserError: if its checkpoint is damaged, or belongs to another run.
    """
    if not has_checkpoint(out):
        return job
    checkpoint = _checkpoint(out, job, processes)
    return replace(job, plan=_plan_of(checkpoint.load_choices()) or job.plan)


def _checkpoint(out: Path, job: Job, processes: Processes) -> Checkpoint:
    """That of this process, written or not."""
    facts, words = run_facts(job, processes.n), fact_words(job)
    return Checkpoint(checkpoint_path(out), facts, processes.rank, words)


def _plan_of(choices: Mapping[str, Any]) -> Plan | None:
    """How the maps shared the memory of a stopped run."""
    return Plan.from_json(choices["plan"]) if "plan" in choices else None
