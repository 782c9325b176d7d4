"""A plan: which neurons stay, and which stand in for removed ones.

It can be saved and applied again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from projector.errors import SettingError, UserError
from projector.storage.versions import Upgrade, upgraded

FORMAT = "transformer-pruning-plan"
FORMAT_VERSION = 1
# Version → function that upgrades a plan from it to the next version.
UPGRADES: Mapping[int, Upgrade] = {}
# The file that keeps a plan, next to the checkpoint.
PLAN_FILE = "pruning.json"
_REMEDY = "make the plan again with `pruning prune`"


class NotApplicable(UserError):
    """A combination of method, refit and architecture that is impossible."""


@dataclass(frozen=True)
class StandIn:
    """Kept neuron ``by`` stands in for a removed one: h_neuron ≈ Σ_by coefficient · h_by."""

    neuron: int
    by: int
    coefficient: float


@dataclass(frozen=True)
class LayerPlan:
    """The plan of one layer.

    Attributes:
        n_neurons: number of neurons before pruning.
        kept: indices of the neurons that stay, ascending.
        stand_ins: which kept neurons stand in for which removed ones; a removed neuron without any
            has no replacement.
        groups: for plans that average: for every neuron, the place in ``kept`` of the neuron it is
            averaged into; empty for other plans.
    """

    n_neurons: int
    kept: tuple[int, ...]
    stand_ins: tuple[StandIn, ...] = ()
    groups: tuple[int, ...] = ()

    @property
    def removed(self) -> tuple[int, ...]:
        """Indices of the removed neurons, ascending."""
        kept = set(self.kept)
        return tuple(j for j in range(self.n_neurons) if j not in kept)

    @property
    def kept_index(self) -> Tensor:
        """Indices of the K neurons that stay, (K,) int64, ascending."""
        return torch.tensor(self.kept, dtype=torch.int64)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "n_neurons": self.n_neurons,
            "kept": list(self.kept),
            # Three lists, not a list of objects: a tenth of the size.
            "stand_ins": {
                "neuron": [each.neuron for each in self.stand_ins],
                "by": [each.by for each in self.stand_ins],
                "coefficient": [each.coefficient for each in self.stand_ins],
            },
            "groups": list(self.groups),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LayerPlan:
        """The plan that :meth:`to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: if it isn't a plan.
        """
        stand_ins = values["stand_ins"]
        columns = (stand_ins["neuron"], stand_ins["by"], stand_ins["coefficient"])
        return cls(
            int(values["n_neurons"]),
            tuple(int(j) for j in values["kept"]),
            tuple(StandIn(int(j), int(r), float(c)) for j, r, c in zip(*columns, strict=True)),
            tuple(int(g) for g in values["groups"]),
        )

    def problem(self) -> str | None:
        """Why the plan is inconsistent; None if it is consistent."""
        kept = set(self.kept)
        if not self.kept or list(self.kept) != sorted(kept):
            return "the neurons that stay are not in ascending order, or there are none"
        if not all(0 <= j < self.n_neurons for j in kept):
            return f"a neuron that stays isn't one of the layer's {self.n_neurons:,}"
        for each in self.stand_ins:
            if each.by not in kept or each.neuron in kept or not 0 <= each.neuron < self.n_neurons:
                return f"neuron {each.by} can't stand in for neuron {each.neuron}"
            if not isfinite(each.coefficient):
                return f"a coefficient of neuron {each.by} is {each.coefficient}"
        if self.groups and (
            len(self.groups) != self.n_neurons or set(self.groups) != set(range(len(self.kept)))
        ):
            return "the groups that are averaged do not fit the neurons that stay"
        return None


@dataclass(frozen=True)
class PruningPlan:
    """A plan for every layer of a model, and how it was made.

    Attributes:
        method: the method that chose the neurons, one of :data:`pruning.methods.registry.METHODS`.
        sparsity: the requested share of each layer's neurons to remove.
        seed: seed of everything random.
        allocation: ``uniform``, or ``global`` over all layers.
        round_to: the kept widths are multiples of this.
        layers: one plan per layer.
    """

    method: str
    sparsity: float
    seed: int
    allocation: str
    round_to: int
    layers: tuple[LayerPlan, ...]

    @property
    def widths(self) -> list[int]:
        """Number of neurons that stay in each layer."""
        return [len(layer.kept) for layer in self.layers]

    @property
    def changes_nothing(self) -> bool:
        """Whether every neuron stays as it is."""
        return all(len(layer.kept) == layer.n_neurons for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **{k: v for k, v in asdict(self).items() if k != "layers"},
            "layers": [layer.to_dict() for layer in self.layers],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: Path = Path(PLAN_FILE)) -> PruningPlan:
        """The plan that :meth:`to_dict` gave, or one of an older format version.

        Args:
            path: its file, for error messages.

        Raises:
            UserError: if it isn't a plan, has a newer format version, or is inconsistent.
        """
        values = upgraded(
            values,
            path,
            format_name=FORMAT,
            newest=FORMAT_VERSION,
            upgrades=UPGRADES,
            remedy=_REMEDY,
        )
        try:
            layers = tuple(LayerPlan.from_dict(layer) for layer in values["layers"])
            plan = cls(
                str(values["method"]),
                float(values["sparsity"]),
                int(values["seed"]),
                str(values["allocation"]),
                int(values["round_to"]),
                layers,
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"the plan in '{path}' is damaged: {error} is missing or wrong; {_REMEDY}"
            ) from error
        for i, layer in enumerate(plan.layers):
            problem = layer.problem()
            if problem:
                raise UserError(
                    f"the plan in '{path}' is damaged: in layer {i} {problem}; {_REMEDY}"
                )
        return plan


def kept_width(n_neurons: int, sparsity: float, round_to: int = 1) -> int:
    """Number of neurons that stay: m · round(N(1 − s)/m), from m to the largest multiple up to N; N
    at s = 0.

    Args:
        round_to: m; widths that are multiples of it run faster on some machines.

    Raises:
        UserError: if m is more than N.
    """
    if sparsity == 0:
        return n_neurons
    if round_to > n_neurons:
        raise SettingError(
            "round_to", round_to, f"is more than the {n_neurons:,} neurons of a layer", "give less"
        )
    multiple = round_to * round(n_neurons * (1 - sparsity) / round_to)
    return min(n_neurons // round_to * round_to, max(round_to, multiple))
