"""The plans and refits of a sweep, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pruning.sweep.report import DENSE, SAMPLE
from pruning.sweep.settings import SweepSettings

# Method, refit, sparsity and seed.
Combination = tuple[str, str, float, int]


@dataclass(frozen=True)
class Task:
    """One plan, and its refits to score.

    ``windows`` is ``sample`` or ``all``, see :class:`pruning.sweep.report.Row`.
    """

    method: str
    sparsity: float
    seed: int
    refits: tuple[str, ...]
    windows: str

    @property
    def combinations(self) -> list[Combination]:
        """Method, refit, sparsity and seed of every row."""
        return [(self.method, kind, self.sparsity, self.seed) for kind in self.refits]


DENSE_TASK = Task(DENSE, 0.0, 0, ("none",), SAMPLE)


def tasks_of(settings: SweepSettings) -> list[Task]:
    """Every plan of a sweep with its refits, in the order in which they run."""
    return [DENSE_TASK, *_tasks(settings)]


def _tasks(settings: SweepSettings) -> Iterator[Task]:
    """Seed by seed, with the highest sparsity first, because removals are nested and found once."""
    for seed in range(settings.n_seeds):
        for sparsity in sorted((s for s in settings.sparsities if s > 0), reverse=True):
            for method in settings.methods:
                yield Task(method, sparsity, seed, settings.refits, SAMPLE)
