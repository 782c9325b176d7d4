"""The pipeline: model + corpus → ``Projection``."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from projector.corpus.batches import Batch
from projector.corpus.documents import Document
from projector.errors import UserError, named
from projector.fitting.budget import Plan, check_disk
from projector.fitting.checkpoint import (
    Checkpoint,
    Gathered,
    State,
    check_unfinished,
    checkpoint_path,
    has_checkpoint,
)
from projector.fitting.pace import Pace
from projector.fitting.placing import PlacedMap, kept_statistics, place_map
from projector.fitting.preparing import Job, prepare, split_options
from projector.fitting.processes import OthersEnded, Processes, join_processes
from projector.fitting.training import Training, make_gatherer, make_trainings
from projector.interrupt import DeferredInterrupt
from projector.memory import give_back, memory_errors
from projector.model.loading import BUNDLED, LoadedModel
from projector.progress import Progress, Silent
from projector.projection.overview import FACTS_FILE, read_saved
from projector.projection.projection import PlacedLayout, Projection, check_out
from projector.projection.provenance import layout_settings, projection_facts, run_facts, versions
from projector.sites import MapKey, map_name
from projector.statistics.gathering import Gatherer, gather
from projector.storage.places import disk_errors
from projector.threads import in_threads

# Between two checkpoints: seconds at least, and what share of the time writing them may take.
_CHECKPOINT_EVERY_S = 5.0
_CHECKPOINT_SHARE = 0.03
# Bytes a second, before a first write tells.
_USUAL_DISK_SPEED = 5e8


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
    """Fit neuron positions: everything from a model and a corpus to a ``Projection``.

    Args:
        model: ``bundled``, a local folder, a hub id; or a model in memory, with its ``tokenizer``.
        corpus: see :func:`projector.corpus.sources.read_documents`, or the documents themselves.
        out: folder to save the projection to; with it, a fit leaves checkpoints beside it, and
            statistics are read from there when they are asked for.
        force: replace a projection that is there.
        resume: go on from the checkpoint that a stopped fit left.
        **options: fields of :class:`projector.fitting.preparing.FitSettings` and of
            :class:`projector.layouts.solving.Layout`, by name: ``sites``, ``layers``, ``dim``,
            ``objective``, ``solver``, ``seed``, ``max_tokens`` …

    Raises:
        UserError: for anything that can't be fitted.
    """
    settings, layout = split_options(options)
    processes = join_processes(device)
    if out is not None:
        check_out(Path(out), force=force or resume)
        if processes.is_first or not resume:
            check_unfinished(Path(out), force=force, resume=resume)
    job = prepare(
        model,
        corpus,
        settings,
        layout,
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
    """Gather statistics, find positions, measure them, and save where ``out`` is given.

    Args:
        log_with: tracker of the online solver, with ``log_dir`` for its files.
        processes: who else runs this job, each with a copy of it. All call this; the first writes,
            and has the statistics.

    Raises:
        UserError: if memory or disk do not suffice, another process has ended, or there is nothing
            to resume.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint is written.
    """
    progress, processes = progress or Silent(), processes or Processes()
    folder = None if out is None else Path(out)
    if resume and folder is None:
        raise UserError("there is nothing to resume without an output folder")
    if processes.n > 1 and job.layout.how.trains:
        raise UserError(
            "adamw learns from one batch after another, in one process: leave --solver out, or "
            "start the fit without a launcher"
        )
    with ExitStack() as until_done:
        checkpoint, state, before = None, State({}, None), {}
        if folder is not None:
            check_out(folder, force=force or resume)
            # On a machine with a disk of its own, another may have been killed before it wrote.
            if processes.is_first or not resume:
                check_unfinished(folder, force=force, resume=resume)
            check_disk(job.disk_bytes, folder, beside=job.checkpoint_bytes)
            checkpoint = _checkpoint(folder, job, processes)
            if processes.is_first:
                until_done.enter_context(checkpoint.alone())
            if resume and has_checkpoint(folder):
                state = checkpoint.load()
                before = state.choices
            if resume and processes.is_first:
                _check_own(folder, job, force=force or bool(before.get("force")))
            # Nothing is written before all have looked.
            processes.wait()
            if not resume:
                with disk_errors(checkpoint.folder):
                    checkpoint.remove()
            processes.wait()
            before = processes.of_the_first(before)
        # The least memory decides for all.
        plan = _plan_of(before) or min(processes.collected(job.plan), key=lambda plan: plan.room)
        job = replace(job, plan=plan)
        if checkpoint is not None:
            checkpoint.choices = {
                "threads": torch.get_num_threads(),
                "plan": plan.as_json(),
                "force": force,
                **before,
            }
        with memory_errors(*job.widest), in_threads(before.get("threads")):
            fitting = _Fit(job, checkpoint, state, processes, progress)
            # Its sums are the gatherer's from now on, and go with it.
            del state
            fitting.run(log_with, log_dir)
        projection = fitting.projection()
        if folder is None or checkpoint is None:
            return projection
        # Ctrl-C now comes too late: what is left takes no longer than stopping would.
        with DeferredInterrupt():
            if processes.is_first:
                projection.save(folder, force=force or _may_replace(folder, projection, before))
            processes.wait()
            with disk_errors(checkpoint.folder):
                checkpoint.remove()
        return Projection.load(folder) if processes.is_first else projection


def going_on(job: Job, out: Path, processes: Processes) -> Job:
    """The job as the stopped fit into ``out`` had chosen to run it.

    Raises:
        UserError: if its checkpoint is damaged, or that of another run.
    """
    if not has_checkpoint(out):
        return job
    checkpoint = _checkpoint(out, job, processes)
    return replace(job, plan=_plan_of(checkpoint.load_choices()) or job.plan)


def _checkpoint(out: Path, job: Job, processes: Processes) -> Checkpoint:
    """That of this process, written or not."""
    names = {"model": job.loaded.identifier, "corpus": job.corpus.source}
    return Checkpoint(checkpoint_path(out), run_facts(job, processes.n), processes.rank, names)


def _plan_of(choices: Mapping[str, Any]) -> Plan | None:
    """How the maps shared the memory of a stopped run."""
    return Plan.from_json(choices["plan"]) if "plan" in choices else None


def _check_own(folder: Path, job: Job, *, force: bool) -> None:
    """Raise a UserError if what a fit is resumed into holds the projection of another."""
    if force or not (folder / FACTS_FILE).exists():
        return
    try:
        theirs = read_saved(folder)
        facts = replace(theirs.facts, maps={})
        settings = {name: each.settings for name, each in theirs.layouts.items()}
    except UserError:
        facts, settings = None, {}
    ours = {layout.name: layout_settings(layout) for layout in job.layouts}
    # Layouts that were added since are no reason.
    if facts != projection_facts(job, {}) or not ours.items() <= settings.items():
        raise UserError(
            f"folder '{folder}' holds a projection already: add {named('force', True)} to replace "
            "it, or give another folder",
            setting="force",
            value=False,
        )


def _may_replace(folder: Path, projection: Projection, choices: Mapping[str, Any]) -> bool:
    """Whether a resumed run may replace what it finds: its own work, or what it was told to."""
    return bool(choices.get("force")) or projection.is_saved_at(folder)


def _rounds(
    widths: Mapping[MapKey, int], keys: Sequence[MapKey], n_processes: int
) -> list[list[MapKey]]:
    """Maps in groups of one for each process; of several processes, none waits long in any."""
    if n_processes > 1:
        keys = sorted(keys, key=lambda key: -widths[key])
    return [list(keys[i : i + n_processes]) for i in range(0, len(keys), n_processes)]


class _Fit:
    """A fit under way: pass by pass over the corpus, and map by map.

    Args:
        checkpoint: where its state is kept; None where nothing is.
        state: what it goes on from.
        processes: who else is at it.
    """

    def __init__(
        self,
        job: Job,
        checkpoint: Checkpoint | None,
        state: State,
        processes: Processes,
        progress: Progress,
    ) -> None:
        self.job, self.checkpoint, self.state = job, checkpoint, state
        self.processes, self.progress = processes, progress
        self.n_batches = math.ceil(job.corpus.n_sequences / job.settings.batch_size)
        self.placed = dict(state.placed)
        # Placed maps that are in memory only, by name.
        self._unwritten: dict[str, PlacedMap] = {}
        # The last of the sums that were written: pass and batches.
        self._written: tuple[int, int] | None = None
        self._pace = Pace(
            _CHECKPOINT_EVERY_S, _CHECKPOINT_SHARE, job.plan.n_bytes / _USUAL_DISK_SPEED
        )
        self._pace_of_maps = Pace(_CHECKPOINT_EVERY_S, _CHECKPOINT_SHARE)

    def run(self, log_with: str | None, log_dir: Path | None) -> None:
        """Place every map that is not yet placed."""
        with DeferredInterrupt() as interrupt:
            try:
                self._run(interrupt, log_with, log_dir)
            except OthersEnded:
                if interrupt.is_asked:
                    # Whoever is stopped leaves the others, who are stopped by that.
                    raise KeyboardInterrupt from None
                raise

    def _run(
        self, interrupt: DeferredInterrupt, log_with: str | None, log_dir: Path | None
    ) -> None:
        job = self.job
        is_placed = set(self.processes.of_the_first(list(self.placed)))
        for i_pass, keys in enumerate(job.plan.passes):
            left = [key for key in keys if map_name(*key) not in is_placed]
            if not left:
                continue
            gathered = self.state.gathered
            # Whatever it holds is taken here, or is of a pass that is behind.
            self.state = State(self.state.choices, None)
            if gathered is not None and gathered.i_pass != i_pass:
                gathered = None
            n_done = 0 if gathered is None else gathered.n_batches
            # Maps that are trained side by side draw from one source of randomness.
            together = job.layout.how.trains and n_done < self.n_batches
            give_back()
            trainings = make_trainings(job, log_with, log_dir)
            gatherer = make_gatherer(job, keys if together else left, trainings)
            if gathered is not None:
                gatherer.load_state(gathered.tensors)
                self._written = (i_pass, n_done)
            del gathered
            self._gather(i_pass, gatherer, n_done, interrupt)
            if self.processes.n > 1:
                # What is added up is no longer a share: it could not be gone on from.
                self._write(i_pass, self.n_batches, gatherer)
                gatherer.reduce(self.processes)
            self._place(i_pass, gatherer, trainings, interrupt)

    def _gather(
        self, i_pass: int, gatherer: Gatherer, n_done: int, interrupt: DeferredInterrupt
    ) -> None:
        job, progress = self.job, self.progress

        def after_batch(n_batches: int, batch: Batch) -> None:
            progress.advance(batch.n_tokens)
            if interrupt.is_asked or self._pace.is_due:
                self._write(i_pass, n_batches, gatherer)
            if interrupt.is_asked:
                raise KeyboardInterrupt

        n_passes = len(job.plan.passes)
        which = f", pass {i_pass + 1} of {n_passes}" if n_passes > 1 else ""
        if self.processes.n > 1:
            which += f", share {self.processes.rank + 1} of {self.processes.n}"
        n_tokens = [
            batch.n_tokens if self.processes.mine(number) else 0
            for number, batch in enumerate(job.corpus.batches(job.settings.batch_size))
        ]
        progress.begin(f"Running the model{which}", sum(n_tokens), "tokens")
        progress.advance(sum(n_tokens[:n_done]))
        # Ctrl-C between two batches, not within one: half a batch counted in can't be gone on from.
        gather(
            gatherer,
            job.corpus,
            job.settings.batch_size,
            n_done=n_done,
            is_mine=self.processes.mine,
            after_batch=after_batch,
        )
        progress.end()

    def _place(
        self,
        i_pass: int,
        gatherer: Gatherer,
        trainings: Mapping[str, Training],
        interrupt: DeferredInterrupt,
    ) -> None:
        # What batches took is room for what maps take.
        give_back()
        trained = {name: training.finish() for name, training in trainings.items()}
        self.progress.begin("Placing neurons", len(gatherer.gathered), "maps")
        try:
            self._write_if_due(i_pass, gatherer)
            for keys in _rounds(self.job.widths, list(gatherer.gathered), self.processes.n):
                self._place_round(keys, gatherer, trained, interrupt)
                self.progress.advance(len(keys))
                self._write_if_due(i_pass, gatherer)
                if interrupt.is_asked:
                    raise KeyboardInterrupt
        except (KeyboardInterrupt, UserError) as stopped:
            try:
                self._write(i_pass, self.n_batches, gatherer)
            except UserError as error:
                # Told beside what it was stopped for: what was found since is lost.
                raise error from stopped
            raise
        self.progress.end()
        if i_pass + 1 < len(self.job.plan.passes):
            # Room for the sums of the next.
            self._write_maps()

    def _place_round(
        self,
        keys: Sequence[MapKey],
        gatherer: Gatherer,
        trained: Mapping[str, Mapping[str, Tensor]],
        interrupt: DeferredInterrupt,
    ) -> None:
        """Place one map in each process; the first keeps all."""
        own = None
        if self.processes.rank < len(keys):
            key = keys[self.processes.rank]
            name = map_name(*key)
            if name not in self.placed:
                with interrupt.at_once(), memory_errors(*key, self.job.widths[key]):
                    own = place_map(
                        name,
                        gatherer.gathered[key],
                        self.job.layouts,
                        trained={
                            layout: positions[name]
                            for layout, positions in trained.items()
                            if name in positions
                        },
                    )
        found = self.processes.collected(own)
        for key, placed in zip(keys, found, strict=False):
            if placed is not None:
                keeps = self.processes.is_first and self.job.settings.keep_statistics
                statistics = kept_statistics(placed.name, gatherer.gathered[key]) if keeps else {}
                whole = replace(placed, statistics=statistics)
                self.placed[placed.name] = self._unwritten[placed.name] = whole
            del gatherer.gathered[key]
        give_back()

    def _write_if_due(self, i_pass: int, gatherer: Gatherer) -> None:
        if self._pace.is_due and self._written != (i_pass, self.n_batches):
            self._write(i_pass, self.n_batches, gatherer)
        elif self._unwritten and self._pace_of_maps.is_due:
            self._write_maps()

    def _write(self, i_pass: int, n_batches: int, gatherer: Gatherer) -> None:
        """Write the maps that were placed, and the sums of those that are not."""
        if self.checkpoint is None:
            return
        # First, for the sums of placed maps are gone.
        self._write_maps()
        if self._written == (i_pass, n_batches) or not gatherer.gathered:
            return
        with self._pace.writing(), disk_errors(self.checkpoint.folder):
            self.checkpoint.save_gathered(Gathered(i_pass, n_batches, gatherer.state()))
        self._written = (i_pass, n_batches)

    def _write_maps(self) -> None:
        if self.checkpoint is None or not self._unwritten:
            return
        if not self.processes.is_first:
            self._unwritten.clear()
            return
        with self._pace_of_maps.writing(), disk_errors(self.checkpoint.folder):
            self.placed |= self.checkpoint.save_placed(list(self._unwritten.values()))
        self._unwritten.clear()

    def projection(self) -> Projection:
        """What was placed, in the order of the job.

        In a process that is not the first: since the fit was last gone on with.
        """
        names = [map_name(*key) for key in self.job.widths]
        maps = [self.placed[name] for name in names if name in self.placed]
        statistics = ChainMap(*(cast(dict[str, Tensor], m.statistics) for m in maps))
        layouts = {
            layout.name: PlacedLayout(
                layout_settings(layout),
                {m.name: m.placements[layout.name].figures for m in maps},
                versions(),
                {m.name: m.placements[layout.name].positions for m in maps},
            )
            for layout in self.job.layouts
        }
        return Projection(
            projection_facts(self.job, {m.name: m.facts for m in maps}),
            layouts,
            cast(Mapping[str, Tensor], statistics),
        )
