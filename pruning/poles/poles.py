"""Poles, groups of neurons that fire together, and what makes a group one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from projector.errors import SettingError, check_choice, check_least
from projector.projection.overview import Overview

SPACES = ("positions", "correlation", "abs-correlation")
SELECTIONS = ("eom", "leaf")
# Why there are no controls.
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
        min_cluster_size: the fewest neurons of a pole.
        min_samples: how many neighbours make a neighbourhood dense: the more, the more noise.
            None: ``min_cluster_size``.
        selection: ``eom``, the poles that last longest as density rises, or ``leaf``, the smallest.
        epsilon: poles closer than this are one, in the distance of the space.
    """

    space: str = "correlation"
    # Of a layer of some hundred neurons, larger ones leave two poles, one of them nearly all.
    min_cluster_size: int = 3
    min_samples: int | None = None
    selection: str = "leaf"
    epsilon: float = 0.0

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
        return self.min_cluster_size if self.min_samples is None else self.min_samples

    @property
    def name(self) -> str:
        """What their file is called: space and size, what differs from ``eom``; equal for
        settings that mean the same."""
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
        """All of them in one text; equal for settings that mean the same."""
        return (
            f"space={self.space},min_cluster_size={self.min_cluster_size},"
            f"min_samples={self.effective_min_samples},selection={self.selection},"
            f"epsilon={abs(float(self.epsilon))!r}"
        )


# Poles on the map. In ρ `eom` takes a fourth of a layer whose mean ρ is 0 for one pole; a map is
# evener.
MAP_POLES = PoleSettings("positions", selection="eom")


def usual_settings(projection: Overview, layer: int, site: str) -> PoleSettings:
    """Poles in ρ, or on the map where the projection keeps no statistics of this layer and site.

    Raises:
        UserError: if the projection has no such map.
    """
    has_statistics = projection.has_statistics_of(layer, site)
    return PoleSettings() if has_statistics else MAP_POLES


@dataclass(frozen=True)
class Pole:
    """One group of neurons. A ρ that can't be given is None, and the layer's ``reasons`` say why.

    Attributes:
        size: neurons in it.
        exemplars: neurons that stand for it, most central first: in ``positions`` those where it is
            densest, ordered by the distance to its mean position; in the others its medoid, the
            neuron with the least mean distance to the rest.
        within_rho: mean ρ over its pairs.
        within_absolute_rho: mean ``|ρ|`` over its pairs.
        between_rho: mean ρ to the pole for which that is highest.
        between_absolute_rho: the same of ``|ρ|``.
        opposite: the pole to which its mean ρ is lowest, where that is below 0.
        opposite_rho: that mean ρ.
        label: what it fires on, by the tokens of its neurons' strongest examples.
        distinct: whether both halves of the corpus and the shuffled control confirm it; see
            :mod:`pruning.poles.judging`.
        beyond_spectrum: whether it is distinct, and the control of the same spectrum confirms it.
        axis: the pole at the other end, where the two are the ends of the leading axis of ρ.
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
    """What the same search finds in control draws, where there is nothing to find.

    Attributes:
        n_draws: how many there were.
        n_poles: poles of a draw, the mean over draws.
        n_distinct: of these, the distinct ones; None without halves of the corpus.
        n_beyond_spectrum: of these, those beyond the spectrum; None without halves.
        largest_size: neurons of a draw's largest pole, the mean over draws that have one.
        largest_within: mean ρ inside of that pole (``|ρ|`` in ``abs-correlation``), likewise.
        n_axes: pairs of poles that are the ends of an axis, the mean over draws; None in
            ``abs-correlation``, and of poles that an older version judged.
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
        shuffled: of ρ whose entries off the diagonal are exchanged at random.
        same_spectrum: of ρ with its eigenvalues and random axes.
    """

    shuffled: Control
    same_spectrum: Control


@dataclass(frozen=True, eq=False)
class Poles:
    """The poles of one layer and site, numbered by their margin, the largest first.

    The margin is the mean ρ inside a pole minus the mean ρ to the pole where that is highest (of
    ``|ρ|`` in ``abs-correlation``). Where ρ is not known, they are numbered by size; equal ones in
    the order of their first neuron: by position, first coordinate first, and in the spaces of ρ by
    the sum of a neuron's ρ.

    Attributes:
        layer, site, settings: where they were found, and how.
        labels: (N,) int64, the pole of each neuron; −1 for noise and for undefined neurons.
        strengths: (N,) float32 in [0, 1], how firmly a neuron belongs to its pole; 0 for noise.
        poles: pole k is the one that ``labels`` call k.
        undefined: neurons without a place in the space, such as dead ones.
        noise_share: neurons in no pole, as a share of the defined ones.
        validity: DBCV in [−1, 1]; see :func:`pruning.poles.validity.measure_validity`.
        reasons: figure → why it is None.
        controls: what the same search finds where there is nothing; None where it was not asked.
        label_rules: by which rules of :mod:`projector.naming.labels` labels were made; 0 for none.
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
        return self.labels.numel()

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(pole.size for pole in self.poles)

    @property
    def exemplars(self) -> tuple[tuple[int, ...], ...]:
        """Of each pole, the neurons that stand for it, most central first."""
        return tuple(pole.exemplars for pole in self.poles)

    @property
    def opposites(self) -> tuple[int | None, ...]:
        """Of each pole, the pole that is most opposed to it, if any."""
        return tuple(pole.opposite for pole in self.poles)

    @property
    def n_distinct(self) -> int | None:
        """Distinct poles; None where that is not known."""
        return self._n_of("distinct")

    @property
    def n_beyond_spectrum(self) -> int | None:
        """Distinct poles that lie beyond the spectrum; None where that is not known."""
        return self._n_of("beyond_spectrum")

    @property
    def n_axes(self) -> int | None:
        """Pairs of poles that are the ends of an axis; None where that is not known."""
        if self.controls is None or self.settings.space != "correlation":
            return None
        return sum(pole.axis is not None for pole in self.poles) // 2

    @property
    def distinct_first(self) -> tuple[int, ...]:
        """The numbers of the poles as lists show them: distinct ones, then the others."""
        return tuple(sorted(range(len(self.poles)), key=lambda k: not self.poles[k].distinct))

    def margin(self, pole: int) -> float | None:
        """ρ inside a pole minus ρ to the pole where that is highest, in the space's own terms.

        Of an only pole it is ρ inside; None where ρ is not known.
        """
        return margin_of(self.poles[pole], self.settings.space)

    def _n_of(self, name: str) -> int | None:
        if self.controls is None or self.controls.shuffled.n_distinct is None:
            return None
        return sum(bool(getattr(pole, name)) for pole in self.poles)

    def figures(self) -> dict[str, Any]:
        """All but the neurons of each pole, for JSON."""
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
        """Everything, for JSON: each pole has its neurons and their strengths."""
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
    """The order in which poles are numbered, from margins in the order of their sizes."""
    return sorted(range(len(margins)), key=lambda k: (margins[k] is None, -(margins[k] or 0.0)))


def finding_words(poles: Poles, pole: int | None = None) -> str:
    """The finding for a map's poles, or for one of them: an axis, groups beyond the spectrum, or
    both.

    Empty where it is not known.
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


def axes_words(poles: Poles) -> str:
    """How many axes with two ends the controls have, if the map has one; otherwise empty."""
    if not poles.n_axes or poles.controls is None:
        return ""
    both = poles.controls.shuffled.n_axes, poles.controls.same_spectrum.n_axes
    if None in both:
        return ""
    return "shuffled ρ gives {:.1f} axes, the same spectrum {:.1f}".format(*both)
