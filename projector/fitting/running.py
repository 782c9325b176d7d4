"""Run a fit: the model runs over the corpus, and every map is placed in every layout."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from torch import Tensor

from projector.corpus.batches import Batch
from projector.errors import UserError
from projector.fitting.checkpoint import Checkpoint, Gathered, State
from projector.fitting.placing import PlacedMap, example_tensors, found_examples, place_map
from projector.fitting.preparing import Job
from projector.fitting.processes import OthersEnded, Processes
from projector.fitting.provenance import projection_facts
from projector.interrupt import DeferredInterrupt
from projector.layouts.settings import Layout
from projector.layouts.solving import OnlineTrainer
from projector.memory import give_back, memory_errors
from projector.model.loading import input_device
from projector.pace import Pace
from projector.progress import Progress
from projector.projection.projection import PlacedLayout, Projection
from projector.projection.provenance import layout_settings, versions
from projector.sites import MapKey, map_name
from projector.statistics.gathering import Gatherer, gather
from projector.statistics.summary import kept_statistics
from projector.storage.places import disk_errors

# Between two checkpoints: seconds at least, and what share of the time writing them may take.
_CHECKPOINT_EVERY_S = 5.0
_CHECKPOINT_SHARE = 0.03
# Bytes a second, before a first write tells.
_USUAL_DISK_SPEED = 5e8


class Training:
    """The training of a layout; a :class:`projector.statistics.gathering.Learner`.

    Args:
        device: the device of its positions.
        log_with: tracker that records the losses, with ``log_dir`` for its files.
    """

    def __init__(
        self,
        layout: Layout,
        device: object,
        log_with: str | None = None,
        log_dir: Path | None = None,
    ) -> None:
        self.layout = layout
        self._trainer = OnlineTrainer.of(
            layout, device=str(device), log_with=log_with, log_dir=log_dir
        )

    def step(self, correlations: Mapping[str, Tensor]) -> None:
        """Learn from a batch: map name → (N, N) correlations, NaN if undefined."""
        if self.layout.absolute:
            correlations = {name: rho.abs() for name, rho in correlations.items()}
        self._trainer.step(correlations)

    def state(self) -> dict[str, Tensor]:
        """The exact state."""
        return self._trainer.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the result of :meth:`state`."""
        self._trainer.load_state(state)

    def finish(self) -> dict[str, Tensor]:
        """Finish after the last batch; returns map name → (N, dim) float32 positions."""
        self._trainer.close()
        return self._trainer.positions()


def make_trainings(
    job: Job, log_with: str | None = None, log_dir: Path | None = None
) -> dict[str, Training]:
    """Create the trainings of a job: layout name → training, for trained layouts only."""
    device = input_device(job.trunk)
    return {
        layout.name: Training(layout, device, log_with, log_dir)
        for layout in job.layouts
        if layout.how.trains
    }


def make_gatherer(
    job: Job, keys: Sequence[MapKey], trainings: Mapping[str, Training] | None = None
) -> Gatherer:
    """Create a gatherer for some maps of a job that passes its batches to ``trainings``."""
    taps = job.architecture.taps(job.sites, job.layers)
    return Gatherer(
        job.trunk,
        {key: taps[key] for key in keys},
        {key: job.widths[key] for key in keys},
        job.corpus,
        samples=job.plan.samples,
        correlation=job.settings.correlation,
        examples=job.examples,
        learners=trainings,
    )


def _rounds(
    widths: Mapping[MapKey, int], keys: Sequence[MapKey], n_processes: int
) -> list[list[MapKey]]:
    """Maps in groups of one for each process; of several processes, none waits long in any."""
    if n_processes > 1:
        keys = sorted(keys, key=lambda key: -widths[key])
    return [list(keys[i : i + n_processes]) for i in range(0, len(keys), n_processes)]


class RunningFit:
    """A running fit: pass by pass over the corpus, and map by map.

    Args:
        checkpoint: the checkpoint to write; None for no checkpoint.
        state: the state to resume from.
        processes: the processes that run the fit together.
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
        """Place every map that has not been placed yet."""
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
            together = any(layout.how.trains for layout in job.layouts) and n_done < self.n_batches
            give_back()
            trainings = make_trainings(job, log_with, log_dir)
            gatherer = make_gatherer(job, keys if together else left, trainings)
            if gathered is not None:
                gatherer.load_state(gathered.tensors)
                self._written = (i_pass, n_done)
            del gathered
            self._gather(i_pass, gatherer, n_done, interrupt)
            if self.processes.n > 1:
                # Once added up it is no longer this process's share, and could not be resumed.
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
        # Ctrl-C between two batches, not within one: half a counted batch could not be resumed.
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
                whole = placed
                # The first process alone keeps what is large.
                if self.processes.is_first:
                    keeps = self.job.settings.keep_statistics
                    sums = gatherer.gathered[key]
                    whole = replace(
                        placed,
                        statistics=kept_statistics(placed.name, sums) if keeps else {},
                        examples=found_examples(placed.name, gatherer.examples.get(key)),
                    )
                self.placed[placed.name] = self._unwritten[placed.name] = whole
            gatherer.forget(key)
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
        # First, because the sums of placed maps are gone.
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
        """The projection of the placed maps, in the order of the job.

        In every process except the first, only maps placed since the fit was last resumed.
        """
        names = [map_name(*key) for key in self.job.widths]
        maps = [self.placed[name] for name in names if name in self.placed]
        statistics = ChainMap(*(cast(dict[str, Tensor], m.statistics) for m in maps))
        # The first process alone has them.
        example_facts = self.job.examples if self.processes.is_first else None
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
            example_facts,
            example_tensors=example_tensors(self.job, maps) if example_facts is not None else {},
        )
