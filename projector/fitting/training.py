"""Layouts that are trained while the model runs, and the gatherer that shows them its batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from projector.fitting.preparing import Job
from projector.layouts.settings import Layout
from projector.layouts.solving import OnlineTrainer, loss_of
from projector.model.loading import input_device
from projector.sites import MapKey
from projector.statistics.gathering import Gatherer


class Training:
    """A layout under training; a :class:`projector.statistics.gathering.Learner`.

    Args:
        device: where its positions are.
        log_with: tracker that is told the losses, with ``log_dir`` for its files.
    """

    def __init__(
        self,
        layout: Layout,
        device: object,
        log_with: str | None = None,
        log_dir: Path | None = None,
    ) -> None:
        self.layout = layout
        self._trainer = OnlineTrainer(
            layout.dim,
            loss=loss_of(layout),
            start=layout.start,
            lr=layout.lr,
            p=layout.p,
            accumulate=layout.accumulate,
            seed=layout.seed,
            device=str(device),
            log_with=log_with,
            log_dir=log_dir,
        )

    def step(self, correlations: Mapping[str, Tensor]) -> None:
        """Learn from a batch: map name → its (N, N) correlations, NaN where undefined."""
        if self.layout.absolute:
            correlations = {name: rho.abs() for name, rho in correlations.items()}
        self._trainer.step(correlations)

    def state(self) -> dict[str, Tensor]:
        """All that it has learned, exactly."""
        return self._trainer.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        self._trainer.load_state(state)

    def finish(self) -> dict[str, Tensor]:
        """The corpus is over: map name → (N, dim) float32 positions."""
        self._trainer.close()
        return self._trainer.positions()


def make_trainings(
    job: Job, log_with: str | None = None, log_dir: Path | None = None
) -> dict[str, Training]:
    """Layout name → its training, for the layouts of a job that are trained."""
    device = input_device(job.trunk)
    return {
        layout.name: Training(layout, device, log_with, log_dir)
        for layout in job.layouts
        if layout.how.trains
    }


def make_gatherer(
    job: Job, keys: Sequence[MapKey], trainings: Mapping[str, Training] | None = None
) -> Gatherer:
    """A gatherer of some maps of a job, which shows its batches to ``trainings``."""
    taps = job.architecture.taps(job.sites, job.layers)
    return Gatherer(
        job.trunk,
        {key: taps[key] for key in keys},
        {key: job.widths[key] for key in keys},
        job.corpus,
        samples=job.plan.samples,
        correlation=job.settings.correlation,
        learners=trainings,
    )
