"""Poles, groups of neurons that fire together, and what makes a group one."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from projector.errors import SettingError, check_choice, check_least

SPACES = ("positions", "correlation", "abs-correlation")
SELECTIONS = ("eom", "leaf")


@dataclass(frozen=True)
class PoleSettings:
    """What makes a group of neurons a pole.

    Attributes:
        space: where distances are taken: ``positions``, ``correlation`` (1 − ρ) or
            ``abs-correlation`` (1 − |ρ|).
        min_cluster_size: the fewest neurons of a pole.
        min_samples: how many neighbours make a neighbourhood dense: the more, the more noise.
            None: ``min_cluster_size``.
        selection: ``eom``, the poles that last longest as density rises, or ``leaf``, the smallest.
        epsilon: poles closer than this are one, in the distance of the space.
    """

    space: str = "positions"
    # Of a layer of some hundred neurons, larger ones leave two poles, one of them nearly all.
    min_cluster_size: int = 3
    min_samples: int | None = None
    selection: str = "eom"
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        check_choice("space", self.space, SPACES)
        check_choice("selection", self.selection, SELECTIONS)
        if self.min_cluster_size < 2:
            raise SettingError(
                "min_cluster_size", self.min_cluster_size, "makes no groups", "give 2 or more"
            )
        check_least("min_samples", self.min_samples, 1)
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise SettingError(
                "epsilon", self.epsilon, "can't be a distance", "give 0 or a positive number"
            )

    @property
    def effective_min_samples(self) -> int:
        return self.min_cluster_size if self.min_samples is None else self.min_samples

    @property
    def name(self) -> str:
        """What their file is called: space and size, and what differs from the usual; equal for
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


@dataclass(frozen=True)
class Pole:
    """One group of neurons. A ρ that can't be given is None, and the layer's ``reasons`` say why.

    Attributes:
        size: neurons in it.
        exemplars: neurons that stand for it, most central first: in ``positions`` those where it is
            densest, ordered by the distance to its mean position; in the others its medoid, the
            neuron with the least mean distance to the rest.
        within_rho: mean ρ over its pairs.
        within_absolute_rho: mean |ρ| over its pairs.
        between_rho: mean ρ to the pole for which that is highest.
        between_absolute_rho: the same of |ρ|.
        opposite: the pole to which its mean ρ is lowest, where that is below 0.
        opposite_rho: that mean ρ.
    """

    size: int
    exemplars: tuple[int, ...]
    within_rho: float | None = None
    within_absolute_rho: float | None = None
    between_rho: float | None = None
    between_absolute_rho: float | None = None
    opposite: int | None = None
    opposite_rho: float | None = None


@dataclass(frozen=True, eq=False)
class Poles:
    """The poles of one layer and site, largest first.

    Poles of equal size stand in the order of their first neuron: by position, first coordinate
    first, and in the spaces of ρ by the sum of a neuron's ρ.

    Attributes:
        layer, site, settings: where they were found, and how.
        labels: (N,) int64, the pole of each neuron; −1 for noise and for undefined neurons.
        strengths: (N,) float32 in [0, 1], how firmly a neuron belongs to its pole; 0 for noise.
        poles: pole k is the one that ``labels`` call k.
        undefined: neurons without a place in the space, such as dead ones.
        noise_share: neurons in no pole, as a share of the defined ones.
        validity: DBCV in [−1, 1]; see :func:`pruning.poles.validity.measure_validity`.
        reasons: figure → why it is None.
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
