"""Settings of pruning, and help texts that several settings share.

Imports nothing heavy: the methods and refits are loaded when a setting is checked or shown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from projector.corpus.sources import read_documents
from projector.errors import SettingError, UserError, check_least, named
from projector.settings import Template, setting
from pruning.limits import (
    ALLOCATIONS,
    DEFAULT_SEQUENCES,
    DEFAULT_STEPS,
    LEAST_SEQUENCES,
    MOST_SEEDS,
)
from pruning.poles.poles import MAP_POLES, PoleSettings

# |ρ|, because a neuron that fires oppositely can stand in too; leaves, because on ρ one pole would
# hold nearly all neurons.
CORRELATION_POLES = PoleSettings(space="abs-correlation", selection="leaf")

SEEDS_HELP = "Number of seeds; each draws its own calibration sequences."
SEQUENCES_HELP = "Number of calibration sequences that each seed draws."
SEQUENCE_LENGTH_HELP = (
    "Tokens per calibration sequence. By default 256, or the model's maximum if that is less."
)
WINDOWS_HELP = (
    "Number of windows of each evaluation text that every model is scored on; all models are "
    "scored on the same ones. A number larger than a text has selects all of its windows."
)
MEMORY_HELP = (
    "Maximum memory to use in addition to the model's own, for example 8GiB. By default all free "
    "memory, minus a margin."
)
ALLOCATION_HELP = (
    "[b]uniform[/b]: the same share of neurons is removed from every layer. [b]global[/b]: fewer "
    "neurons are removed from layers where they matter more, if the model's config can hold a "
    "width per layer."
)
ROUND_TO_HELP = "Make each layer's width a multiple of this."


class _Record(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def help(self) -> str: ...


def registered_words() -> Mapping[str, str]:
    """The registered methods and refits, as help texts list them."""
    from pruning.methods.registry import METHODS
    from pruning.refit.registry import REFITS

    methods, refits = METHODS.values(), REFITS.values()
    return {
        "methods": _listed(methods),
        "refits": _listed(refits),
        "method_names": ", ".join(METHODS),
        "refit_names": ", ".join(REFITS),
        "projection_methods": _named("method", (m.name for m in methods if m.needs_projection)),
        "training_refits": _named("refit", (r.name for r in refits if r.trains)),
    }


def _listed(records: Iterable[_Record]) -> str:
    return "; ".join(f"[b]{each.name}[/b]: {each.help}" for each in records)


def _named(what: str, names: Iterable[str]) -> str:
    found = list(names)
    return f"{what}{'' if len(found) == 1 else 's'} {' and '.join(found)}"


def registered(text: str) -> Template:
    """A help text with the names of :func:`registered_words`."""
    return Template(text, registered_words)


STEPS_HELP = registered("Training steps in each layer, for {training_refits}.")
POLES_HELP = registered(
    "How to find poles for {projection_methods}: `space`, `min_cluster_size` and `selection`."
)
PROJECTION_HELP = registered("Folder of the model's projection, for {projection_methods}.")


@dataclass(frozen=True)
class PoleOptions:
    """Settings of the poles that propose stand-ins; None is the default.

    Raises:
        UserError: on creation, if a value isn't possible.
    """

    space: str | None = setting(
        None,
        help=registered(
            "Space in which to find poles for {projection_methods}, as for `pruning poles`. "
            "By default abs-correlation, or positions if the projection keeps no statistics."
        ),
    )
    min_cluster_size: int | None = setting(
        None, help="Minimum size of these poles, as for `pruning poles`."
    )
    selection: str | None = setting(
        None,
        help="How these poles are selected, as for `pruning poles`. By default leaf, or eom if "
        "the space is positions.",
    )

    def __post_init__(self) -> None:
        self.settings(has_statistics=True)

    def settings(self, *, has_statistics: bool) -> PoleSettings:
        """The given settings; by default poles on ``|ρ|``, or on the map if there are no
        statistics.

        Args:
            has_statistics: whether the projection keeps them.
        """
        given = {name: value for name, value in asdict(self).items() if value is not None}
        on_map = self.space == "positions" or (self.space is None and not has_statistics)
        return replace(MAP_POLES if on_map else CORRELATION_POLES, **given)


@dataclass(frozen=True)
class PruneSettings:
    """What to remove, and how to refit the rest.

    Attributes:
        poles: for methods that read a projection, see :func:`pruning.preparing.read_proposals`.

    Raises:
        SettingError: on creation, for a value that isn't possible.
    """

    method: str = setting(
        "poles", help=registered("How to choose the neurons to remove. {methods}.")
    )
    sparsity: float = setting(
        0.3, help="Share of each layer's MLP neurons to remove, between 0 and 1."
    )
    refit: str = setting(
        "reconstruct", help=registered("How to refit the weights that stay. {refits}.")
    )
    n_sequences: int = setting(DEFAULT_SEQUENCES, help="Number of calibration sequences.")
    n_steps: int = setting(DEFAULT_STEPS, help=STEPS_HELP)
    allocation: str = setting("uniform", help=ALLOCATION_HELP, choices=ALLOCATIONS)
    round_to: int = setting(1, help=ROUND_TO_HELP)
    seed: int = setting(0, help="Random seed.")
    poles: PoleOptions | None = setting(None, help=POLES_HELP)

    def __post_init__(self) -> None:
        from pruning.methods.planning import check_options
        from pruning.refit.registry import refit_named

        check_options(self.method, self.sparsity, self.allocation, self.round_to)
        refit_named(self.refit)
        check_least("n_sequences", self.n_sequences, LEAST_SEQUENCES)
        check_least("n_steps", self.n_steps, 1)
        check_least("seed", self.seed, 0)
        if self.seed >= MOST_SEEDS:
            raise SettingError("seed", self.seed, "is too large", f"give less than {MOST_SEEDS:,}")


def check_each_once(name: str, values: Collection[object]) -> None:
    """Raise a UserError if a setting lists nothing, or something twice."""
    if not values:
        raise UserError(f"{named(name)} is empty: give at least one", setting=name)
    if len(set(values)) < len(values):
        raise UserError(f"{named(name)} repeats a value: give each once", setting=name)


def check_texts(calibration: str, evaluations: Collection[str]) -> None:
    """Raise a UserError if a text can't be read, or models would be scored on what they are
    calibrated on.

    Args:
        calibration, evaluations: see :func:`projector.corpus.sources.read_documents`.
    """
    for source in (calibration, *evaluations):
        read_documents(source)
    if calibration in evaluations:
        raise UserError(
            f"calibration and evaluation are the same text, '{calibration}': give two",
            setting="calibration",
            value=calibration,
        )
