"""Settings and request of a sweep. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from projector.errors import SettingError, UserError, check_choice, check_least, named
from projector.settings import setting
from pruning.limits import ALLOCATIONS, DEFAULT_SEQUENCES, DEFAULT_STEPS, LEAST_SEQUENCES
from pruning.settings import (
    ALLOCATION_HELP,
    MEMORY_HELP,
    POLES_HELP,
    PROJECTION_HELP,
    ROUND_TO_HELP,
    SEEDS_HELP,
    SEQUENCE_LENGTH_HELP,
    SEQUENCES_HELP,
    STEPS_HELP,
    WINDOWS_HELP,
    PoleOptions,
    check_each_once,
    check_texts,
    registered,
)


def _all_methods() -> tuple[str, ...]:
    from pruning.methods.registry import METHODS

    return tuple(METHODS)


def _all_refits() -> tuple[str, ...]:
    from pruning.refit.registry import REFITS

    return tuple(REFITS)


@dataclass(frozen=True)
class SweepSettings:
    """What to compare. Every field decides the rows.

    Attributes:
        methods, refits: by default all that are registered.
        n_seeds: seeds 0 … n − 1.
        poles: for methods that read a projection, see :func:`pruning.preparing.read_proposals`.

    Raises:
        SettingError, UserError: on creation, for a value that isn't possible.
    """

    methods: tuple[str, ...] = setting(
        factory=_all_methods,
        help=registered(
            "Methods to compare, comma-separated. By default all: {method_names}; "
            "`pruning prune --help` describes each."
        ),
    )
    sparsities: tuple[float, ...] = setting(
        (0.1, 0.2, 0.3, 0.5),
        help="Shares of each layer's MLP neurons to remove, comma-separated.",
    )
    refits: tuple[str, ...] = setting(
        factory=_all_refits,
        help=registered("Refits to compare, comma-separated. By default all: {refit_names}."),
    )
    n_seeds: int = setting(3, help=SEEDS_HELP)
    n_sequences: int = setting(DEFAULT_SEQUENCES, help=SEQUENCES_HELP)
    n_steps: int = setting(DEFAULT_STEPS, help=STEPS_HELP)
    allocation: str = setting("uniform", help=ALLOCATION_HELP, choices=ALLOCATIONS)
    round_to: int = setting(1, help=ROUND_TO_HELP)
    poles: PoleOptions | None = setting(None, help=POLES_HELP)

    def __post_init__(self) -> None:
        from pruning.methods.planning import check_sparsity
        from pruning.methods.registry import method_named
        from pruning.refit.registry import refit_named

        for method in self.methods:
            method_named(method, "methods")
        for sparsity in self.sparsities:
            check_sparsity(sparsity, "sparsities")
        for kind in self.refits:
            refit_named(kind, "refits")
        check_choice("allocation", self.allocation, ALLOCATIONS)
        check_least("round_to", self.round_to, 1)
        check_each_once("methods", self.methods)
        check_each_once("sparsities", self.sparsities)
        check_each_once("refits", self.refits)
        if not any(self.sparsities):
            raise SettingError("sparsities", 0, "removes nothing", "give one above 0")
        check_least("n_seeds", self.n_seeds, 1)
        check_least("n_sequences", self.n_sequences, LEAST_SEQUENCES)
        check_least("n_steps", self.n_steps, 1)

    @property
    def needs_regular_moments(self) -> bool:
        """Whether a method or a refit inverts the neurons' moments."""
        from pruning.methods.registry import METHODS
        from pruning.refit.registry import REFITS

        return any(METHODS[name].needs_regular_moments for name in self.methods) or any(
            REFITS[name].needs_regular_moments for name in self.refits
        )

    @property
    def reads_projection(self) -> bool:
        """Whether a method reads the model's projection."""
        from pruning.methods.planning import reads_projection

        return reads_projection(self.methods)


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
        memory_budget: bytes it may take in addition to the loaded model; None for all free memory,
            minus a margin.
    """

    model: str = setting(told_by="model")
    settings: SweepSettings = setting(told_by="settings")
    calibration: str = setting(told_by="calibration")
    evaluations: tuple[str, ...] = setting(told_by="evaluations")
    projection: Path | None = setting(None, help=PROJECTION_HELP, told_by="projection")
    n_windows: int = setting(64, help=WINDOWS_HELP, told_by="evaluations")
    with_winners: bool = setting(
        True,
        help="Whether to score the best combination at each sparsity again on all windows. By "
        "default yes.",
        may_differ=True,
    )
    sequence_length: int | None = setting(None, help=SEQUENCE_LENGTH_HELP, told_by="calibration")
    revision: str | None = setting(None, told_by="model")
    device: str = setting("auto", told_by="device")
    dtype: str = setting("auto", told_by="dtype")
    trust_remote_code: bool = setting(False, may_differ=True)
    memory_budget: int | None = setting(None, help=MEMORY_HELP, may_differ=True, unit="bytes")

    def check(self) -> None:
        """Raise a UserError for mistakes that can be seen before anything is loaded."""
        from pruning.methods.planning import check_projection

        check_texts(self.calibration, self.evaluations)
        if not self.evaluations:
            raise UserError(
                f"{named('evaluations')} is empty: give at least one text", setting="evaluations"
            )
        check_least("n_windows", self.n_windows, 1)
        check_least("memory_budget", self.memory_budget, 1)
        check_projection(self.settings.methods, is_given=self.projection is not None)
