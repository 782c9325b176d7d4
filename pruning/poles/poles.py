"""Poles, which are groups of neurons that fire together, and the settings that define them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from projector.errors import SettingError, check_choice, check_least
from projector.settings import setting

if TYPE_CHECKING:
    # Loaded for their names alone: a command line reads the settings here.
    from torch import Tensor

    from projector.projection.overview import Overview

SPACES = ("positions", "correlation", "abs-correlation")
SELECTIONS = ("eom", "leaf")
# Reasons for missing controls.
ON_THE_MAP = (
    "controls need ρ, and these poles were found on a map: find poles in the space correlation, "
    "which needs a fit with statistics"
)
NOT_JUDGED = "these poles were not compared with controls: run `pruning poles` with controls"


@dataclass(frozen=True)
class PoleSettings:
    """What makes a group of neurons a pole.

    Attributes:
        space: where distances are taken: ``positions``, ``correlation`` (1 − ρ) or
            ``abs-correlation`` (1 − ``|ρ|``).
        min_samples: None for ``min_cluster_size``.
        epsilon: in the distance of the space.

    Raises:
        SettingError: on creation, for a value that isn't possible.
    """

    space: str = setting(
        "correlation",
        help="Distances to cluster: [b]correlation[/b] (1 − ρ), [b]abs-correlation[/b] (1 − |ρ|: "
        "anti-correlated neurons are close too), or [b]positions[/b] on the map. If the "
        "projection keeps no statistics, the default is positions.",
        choices=SPACES,
    )
    # In a layer of some hundred neurons, a larger size leaves two poles, one with nearly all.
    min_cluster_size: int = setting(3, help="Minimum pole size, in neurons.")
    min_samples: int | None = setting(
        None,
        help="Number of neighbours that define density; a higher number leaves more neurons as "
        "noise. By default the minimum pole size.",
    )
    selection: str = setting(
        "leaf",
        help="[b]leaf[/b]: the smallest groups. [b]eom[/b]: those that last longest as density "
        "rises. If the space is positions, the default is eom.",
        choices=SELECTIONS,
    )
    epsilon: float = setting(
        0.0, help="Merge poles whose distance, measured in the space, is below this."
    )

    def __post_init__(self) -> None:
        check_choice("space", self.space, SPACES)
        check_choice("selection", self.selection, SELECTIONS)
        if self.min_cluster_size < 2:
            raise SettingError(
                "min_cluster_size",
                self.min_cluster_size,
                "is too small for a group",
                "give 2 or more",
            )
        check_least("min_samples", self.min_samples, 1)
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise SettingError(
                "epsilon", self.epsilon, "isn't a distance", "give 0 or a positive number"
            )

    @property
    def effective_min_samples(self) -> int:
        """``min_samples``, or its default, the minimum pole size."""
        return self.min_cluster_size if self.min_samples is None else self.min_samples

    @property
    def name(self) -> str:
        """The name of their file: space, size, and settings that differ from ``eom``; equal for
        settings with the same meaning.
        """
        parts = [self.space, str(self.min_cluster_size)]
        if self.effective_min_samples != self.min_cluster_size:
            parts.append(f"samples{self.effective_min_samples}")
        if self.selection != "eom":
            parts.append(self.selection)
        if self.epsilon:
            parts.append(f"epsilon{float(self.epsilon)!r}")
        return "-".join(parts)

    @property
    def key(self) -> str:
        """All settings in one text; equal for settings with the same meaning."""
        return (
            f"space={self.space},min_cluster_size={self.min_cluster_size},"
            f"min_samples={self.effective_min_samples},selection={self.selection},"
            f"epsilon={abs(float(self.epsilon))!r}"
        )


# Poles on the map. In ρ, `eom` makes one pole of a fourth of a layer whose mean ρ is 0; density on
# a map is more even.
MAP_POLES = PoleSettings("positions", selection="eom")


def usual_settings(projection: Overview, layer: int, site: str) -> PoleSettings:
    """Settings for poles in ρ, or on the map if the projection keeps no statistics of this layer
    and site.

    Raises:
        UserError: if the projection has no such map.
    """
    has_statistics = projection.has_statistics_of(layer, site)
    return PoleSettings() if has_statistics else MAP_POLES


@dataclass(frozen=True)
class Pole:
    """One group of neurons. A ρ that is not known is None, and the layer's ``reasons`` give the
    cause.

    Attributes:
        size: number of neurons.
        exemplars: neurons that represent it, most central first: in ``positions`` the neurons where
            it is densest, ordered by the distance to its mean position; in the spaces of ρ its
            medoid, the neuron with the lowest mean distance to the rest.
        within_rho: mean ρ over its pairs of neurons.
        within_absolute_rho: mean ``|ρ|`` over its pairs of neurons.
        between_rho: highest mean ρ to another pole.
        between_absolute_rho: highest mean ``|ρ|`` to another pole.
        opposite: the pole with the lowest mean ρ to it, if that is below 0.
        opposite_rho: that mean ρ.
        label: what it fires on, by the tokens of its neurons' strongest examples.
        distinct: whether both halves of the corpus and the shuffled control confirm it; see
            :mod:`pruning.poles.judging`.
        beyond_spectrum: whether it is distinct, and the same-spectrum control confirms it.
        axis: the pole at the other end, if the two are the ends of the leading axis of ρ.
    """

    size: int
    exemplars: tuple[int, ...]
    within_rho: float | None = None
    within_absolute_rho: float | None = None
    between_rho: float | None = None
    between_absolute_rho: float | None = None
    opposite: int | None = None
    opposite_rho: float | None = None
    label: str | None = None
    distinct: bool | None = None
    beyond_spectrum: bool | None = None
    axis: int | None = None


@dataclass(frozen=True)
class Control:
    """The result of the same clustering in control draws, where there is nothing to find.

    Attributes:
        n_draws: number of draws.
        n_poles: mean number of poles in a draw.
        n_distinct: mean number of distinct poles; None without halves of the corpus.
        n_beyond_spectrum: mean number of poles beyond the spectrum; None without halves.
        largest_size: mean number of neurons in a draw's largest pole, over draws with a pole.
        largest_within: mean ρ inside that pole (``|ρ|`` in ``abs-correlation``), over the same
            draws.
        n_axes: mean number of pole pairs that are the ends of an axis; None in ``abs-correlation``,
            and for poles that an older version judged.
    """

    n_draws: int
    n_poles: float
    n_distinct: float | None = None
    n_beyond_spectrum: float | None = None
    largest_size: float | None = None
    largest_within: float | None = None
    n_axes: float | None = None


@dataclass(frozen=True)
class Controls:
    """Both controls of one map.

    Attributes:
        shuffled: ρ with its entries off the diagonal exchanged at random.
        same_spectrum: ρ with the same eigenvalues and random axes.
    """

    shuffled: Control
    same_spectrum: Control


@dataclass(frozen=True, eq=False)
class Poles:
    """The poles of one layer and site, numbered by their margin, the largest first.

    The margin is the mean ρ inside a pole minus the highest mean ρ to another pole (``|ρ|`` in
    ``abs-correlation``). If ρ is not known, poles are numbered by size. Ties are in the order of
    the first neuron: by position, first coordinate first, and in the spaces of ρ by the sum of a
    neuron's ρ.

    Attributes:
        layer, site, settings: the map and the settings that they were found with.
        labels: (N,) int64, the pole of each neuron; −1 for noise and for undefined neurons.
        strengths: (N,) float32 in [0, 1], each neuron's strength of membership in its pole; 0 for
            noise.
        poles: pole k holds the neurons with label k.
        undefined: neurons without a place in the space, such as dead neurons.
        noise_share: share of the defined neurons that are in no pole.
        validity: DBCV in [−1, 1]; see :func:`pruning.poles.validity.measure_validity`.
        reasons: name of a figure → why it is None.
        controls: results of the same clustering in both controls; None if they were not run.
        label_rules: version of the rules of :mod:`projector.naming.labels` that made the labels; 0
            for none.
    """

    layer: int
    site: str
    settings: PoleSettings
    labels: Tensor
    strengths: Tensor
    poles: tuple[Pole, ...]
    undefined: tuple[int, ...]
    noise_share: float | None
    validity: float | None
    reasons: dict[str, str]
    controls: Controls | None = None
    label_rules: int = 0

    @property
    def n_neurons(self) -> int:
        """Number of neurons of the layer and site."""
        return self.labels.numel()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of neurons in each pole."""
        return tuple(pole.size for pole in self.poles)

    @property
    def exemplars(self) -> tuple[tuple[int, ...], ...]:
        """The neurons that represent each pole, most central first."""
        return tuple(pole.exemplars for pole in self.poles)

    @property
    def opposites(self) -> tuple[int | None, ...]:
        """The pole that is most opposed to each pole, if any."""
        return tuple(pole.opposite for pole in self.poles)

    @property
    def n_distinct(self) -> int | None:
        """Number of distinct poles; None if that is not known."""
        return self._n_of("distinct")

    @property
    def n_beyond_spectrum(self) -> int | None:
        """Number of distinct poles beyond the spectrum; None if that is not known."""
        return self._n_of("beyond_spectrum")

    @property
    def n_axes(self) -> int | None:
        """Number of pole pairs that are the ends of an axis; None if that is not known."""
        if self.controls is None or self.settings.space != "correlation":
            return None
        return sum(pole.axis is not None for pole in self.poles) // 2

    @property
    def distinct_first(self) -> tuple[int, ...]:
        """The numbers of the poles in the order of lists: distinct poles first."""
        return tuple(sorted(range(len(self.poles)), key=lambda k: not self.poles[k].distinct))

    def margin(self, pole: int) -> float | None:
        """Mean ρ inside a pole minus the highest mean ρ to another pole; |ρ| in
        ``abs-correlation``.

        For an only pole it is ρ inside; None if ρ is not known.
        """
        return margin_of(self.poles[pole], self.settings.space)

    def _n_of(self, name: str) -> int | None:
        if self.controls is None or self.controls.shuffled.n_distinct is None:
            return None
        return sum(bool(getattr(pole, name)) for pole in self.poles)

    def figures(self) -> dict[str, Any]:
        """Everything except the neurons of each pole, for JSON."""
        return {
            "layer": self.layer,
            "site": self.site,
            "n_neurons": self.n_neurons,
            "undefined": list(self.undefined),
            "noise_share": self.noise_share,
            "validity": self.validity,
            "reasons": self.reasons,
            "label_rules": self.label_rules,
            "controls": None if self.controls is None else asdict(self.controls),
            "poles": [asdict(pole) | {"exemplars": list(pole.exemplars)} for pole in self.poles],
        }

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON, with the neurons of each pole and their strengths."""
        figures = self.figures()
        for k, pole in enumerate(figures["poles"]):
            neurons = (self.labels == k).nonzero()[:, 0]
            pole["neurons"] = neurons.tolist()
            # The shortest decimals that read back as the same float32.
            pole["strengths"] = [float(str(s)) for s in self.strengths[neurons].numpy()]
        return figures


def margin_of(pole: Pole, space: str) -> float | None:
    """See :meth:`Poles.margin`."""
    is_absolute = space == "abs-correlation"
    within = pole.within_absolute_rho if is_absolute else pole.within_rho
    between = pole.between_absolute_rho if is_absolute else pole.between_rho
    return None if within is None else within - (between or 0.0)


def by_margin(margins: Sequence[float | None]) -> list[int]:
    """The order in which poles are numbered, given their margins in order of size."""
    return sorted(range(len(margins)), key=lambda k: (margins[k] is None, -(margins[k] or 0.0)))


def finding_words(poles: Poles, pole: int | None = None) -> str:
    """The finding for a map's poles, or for one pole: an axis, groups beyond the spectrum, or both.

    Empty if it is not known.
    """
    chosen = poles.poles if pole is None else (poles.poles[pole],)
    group = "groups" if pole is None else "a group"
    words = []
    if any(each.axis is not None for each in chosen):
        words.append("an axis with two ends" if pole is None else "an end of the axis")
    if any(each.beyond_spectrum for each in chosen):
        words.append(f"{group} beyond the spectrum")
    if words or not chosen:
        return " and ".join(words) or "no group"
    if all(each.distinct is None for each in chosen):
        return ""
    if any(each.distinct for each in chosen):
        return f"{group} within the spectrum"
    return "weak groups" if pole is None else "a weak group"


def counts_words(found: Sequence[Poles]) -> str:
    """The poles of some maps that each control confirms, next to the control's own count.

    Distinct poles are compared with distinct poles of shuffled ρ, and poles beyond the spectrum
    with those of ρ with the same spectrum. All counts are sums over the maps; those of the controls
    are means over draws. Empty if no map was judged.
    """
    judged = [poles for poles in found if poles.n_distinct is not None]
    if not judged:
        return ""
    controls = [poles.controls for poles in judged if poles.controls is not None]
    distinct = sum(poles.n_distinct or 0 for poles in judged)
    beyond = sum(poles.n_beyond_spectrum or 0 for poles in judged)
    of_shuffled = _summed([each.shuffled.n_distinct for each in controls])
    of_spectrum = _summed([each.same_spectrum.n_beyond_spectrum for each in controls])
    return (
        f"{distinct:,} distinct (shuffled ρ: {of_shuffled}), {beyond:,} beyond the spectrum "
        f"(ρ with the same spectrum: {of_spectrum})"
    )


def _summed(counts: Sequence[float | None]) -> str:
    known = [count for count in counts if count is not None]
    return f"{sum(known):,.1f}" if len(known) == len(counts) else "–"


def axes_words(poles: Poles) -> str:
    """How many axes with two ends the controls have, if the map has one; otherwise empty."""
    if not poles.n_axes or poles.controls is None:
        return ""
    both = poles.controls.shuffled.n_axes, poles.controls.same_spectrum.n_axes
    if None in both:
        return ""
    return "shuffled ρ gives {:.1f} axes, the same spectrum {:.1f}".format(*both)
