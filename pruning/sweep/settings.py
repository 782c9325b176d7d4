"""What a sweep compares, and what it is asked to do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from projector.corpus.sources import read_documents
from projector.errors import SettingError, UserError, check_choice, check_least, named
from projector.settings import setting
from pruning.calibration.text import DEFAULT_SEQUENCES, LEAST_SEQUENCES
from pruning.methods.planning import ALLOCATIONS, check_projection, check_sparsity, reads_projection
from pruning.methods.registry import METHODS, method_named
from pruning.preparing import PoleOptions
from pruning.refit.reconstruction import DEFAULT_STEPS
from pruning.refit.registry import REFITS, refit_named


@dataclass(frozen=True)
class SweepSettings:
    """What to compare. Every field decides the rows.

    Attributes:
        methods: by default all that are registered; likewise ``refits``.
        n_seeds: seeds 0 … n − 1; each draws its own calibration sequences.
        n_sequences: calibration sequences a seed.
        n_steps: of a refit that trains, in each layer.
        poles: for methods that read a projection, see :func:`pruning.preparing.read_proposals`.
    """

    methods: tuple[str, ...] = field(default_factory=lambda: tuple(METHODS))
    sparsities: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    refits: tuple[str, ...] = field(default_factory=lambda: tuple(REFITS))
    n_seeds: int = 3
    n_sequences: int = DEFAULT_SEQUENCES
    n_steps: int = DEFAULT_STEPS
    allocation: str = "uniform"
    round_to: int = 1
    poles: PoleOptions | None = None

    def __post_init__(self) -> None:
        for method in self.methods:
            method_named(method, "methods")
        for sparsity in self.sparsities:
            check_sparsity(sparsity, "sparsities")
        for kind in self.refits:
            refit_named(kind, "refits")
        check_choice("allocation", self.allocation, ALLOCATIONS)
        check_least("round_to", self.round_to, 1)
        _check_each_once("methods", self.methods)
        _check_each_once("sparsities", self.sparsities)
        _check_each_once("refits", self.refits)
        if not any(self.sparsities):
            raise SettingError("sparsities", 0, "removes nothing", "give one above 0")
        check_least("n_seeds", self.n_seeds, 1)
        check_least("n_sequences", self.n_sequences, LEAST_SEQUENCES)
        check_least("n_steps", self.n_steps, 1)

    @property
    def needs_regular_moments(self) -> bool:
        """Whether a method or a refit inverts the neurons' moments."""
        return any(METHODS[name].needs_regular_moments for name in self.methods) or any(
            REFITS[name].needs_regular_moments for name in self.refits
        )

    @property
    def reads_projection(self) -> bool:
        """Whether a method reads the model's projection."""
        return reads_projection(self.methods)


def _check_each_once(name: str, values: Collection[object]) -> None:
    if not values:
        raise UserError(f"{named(name)} is empty: give at least one", setting=name)
    if len(set(values)) < len(values):
        raise UserError(f"{named(name)} repeats a value: give each once", setting=name)


@dataclass(frozen=True)
class SweepRequest:
    """What a sweep is asked to do, by names alone, so that it can be sent to a process.

    Two runs of one report share every field that does not say otherwise.

    Attributes:
        model: ``bundled``, a local folder, a ``.gguf`` file, or a hub id.
        calibration, evaluations: see :func:`projector.corpus.sources.read_documents`.
        projection: the model's, for methods that read it.
        n_windows: windows of each evaluation text that every row is scored on, drawn evenly.
        with_winners: score the winners on all windows too.
        memory_budget: bytes that may be taken beside the loaded model; None for what is free, less
            a margin.
    """

    model: str = setting(told_by="model")
    settings: SweepSettings = setting(told_by="settings")
    calibration: str = setting(told_by="calibration")
    evaluations: tuple[str, ...] = setting(told_by="evaluations")
    projection: Path | None = setting(None, told_by="projection")
    n_windows: int = setting(64, told_by="evaluations")
    with_winners: bool = setting(True, may_differ=True)
    sequence_length: int | None = setting(None, told_by="calibration")
    revision: str | None = setting(None, told_by="model")
    device: str = setting("auto", told_by="device")
    dtype: str = setting("auto", told_by="dtype")
    trust_remote_code: bool = setting(False, may_differ=True)
    memory_budget: int | None = setting(None, may_differ=True)

    def check(self) -> None:
        """Raise a UserError for mistakes that can be seen before anything is loaded."""
        for source in (self.calibration, *self.evaluations):
            read_documents(source)
        if not self.evaluations:
            raise UserError(
                f"{named('evaluations')} is empty: give at least one text", setting="evaluations"
            )
        if self.calibration in self.evaluations:
            raise UserError(
                f"calibration and evaluation are the same text, '{self.calibration}': give two",
                setting="calibration",
                value=self.calibration,
            )
        check_least("n_windows", self.n_windows, 1)
        check_least("memory_budget", self.memory_budget, 1)
        check_projection(self.settings.methods, is_given=self.projection is not None)
