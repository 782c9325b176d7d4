"""Make plans: every method at the same kept width, from the same calibration text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from projector.errors import UserError
from projector.model.architecture.records import Architecture
from projector.model.architecture.weights import MlpWeights, read_weights
from projector.model.architecture.widths import config_with_widths
from pruning.calibration import Calibration, Moments, check_enough, mlps_of
from pruning.methods import folding, importance, standins
from pruning.methods.elimination import Elimination, damped, eliminate
from pruning.methods.plan import LayerPlan, NotApplicable, PruningPlan, kept_width
from pruning.methods.standins import Proposals

METHODS = ("random", "magnitude", "activation", "wanda", "flap", "folding", "poles", "obs")
ALLOCATIONS = ("uniform", "global")
# Those that weigh neurons by the inverse of their moments, which must not be singular.
NEEDS_REGULAR_MOMENTS = ("poles", "obs")
NO_GLOBAL_FOLDING = (
    "method folding has no scores that could be compared between layers: choose --allocation "
    "uniform"
)


@dataclass
class Planner:
    """Makes plans for one model from one calibration; what plans share is computed once.

    Attributes:
        proposals: of each layer, who may stand in for whom; needed by ``poles`` alone.
        seed: of ``random`` and of ``folding``.
    """

    model: nn.Module
    architecture: Architecture
    calibration: Calibration
    proposals: tuple[Proposals, ...] | None = None
    seed: int = 0
    _eliminations: dict[tuple[int, bool], Elimination] = field(default_factory=dict)
    _plans: dict[tuple[str, int, int, bool], LayerPlan] = field(default_factory=dict)

    def plan(
        self,
        method: str,
        sparsity: float,
        *,
        allocation: str = "uniform",
        round_to: int = 1,
        centred: bool = False,
    ) -> PruningPlan:
        """Decide which neurons of every layer stay.

        Args:
            method: one of :data:`METHODS`.
            sparsity: share of the neurons to remove, in [0, 1).
            allocation: ``uniform``, the same width in every layer; or ``global``, where layers that
                lose little by it give more.
            round_to: widths are multiples of it.
            centred: a bias will absorb what removed neurons give on average.

        Raises:
            UserError: if the model can't hold the widths, or the calibration text is too short.
        """
        check_options(method, sparsity, allocation, round_to)
        mlps = mlps_of(self.architecture)
        widths = [mlp.n_neurons for mlp in mlps]
        if sparsity > 0 and method in NEEDS_REGULAR_MOMENTS:
            check_enough(self.calibration, widths)
        if allocation == "global":
            kept = self._allocate(method, sparsity, round_to, centred)
        else:
            kept = [kept_width(n, sparsity, round_to) for n in widths]
        config_with_widths(self.model, self.architecture, kept)
        layers = tuple(self._plan_layer(method, layer, n, centred) for layer, n in enumerate(kept))
        return PruningPlan(method, sparsity, self.seed, allocation, round_to, layers)

    def _plan_layer(self, method: str, layer: int, n_kept: int, centred: bool) -> LayerPlan:
        key = (method, layer, n_kept, centred)
        if key not in self._plans:
            self._plans[key] = self._decide(method, layer, n_kept, centred)
        return self._plans[key]

    def _decide(self, method: str, layer: int, n_kept: int, centred: bool) -> LayerPlan:
        weights = self._weights(layer)
        n = weights.n_neurons
        if n_kept >= n:
            return LayerPlan(n, tuple(range(n)))
        if method == "folding":
            return folding.plan_layer(weights, n_kept, self.seed + layer)
        if method == "poles":
            if self.proposals is None:
                raise UserError("method poles needs the model's projection: give --projection DIR")
            matrix = self._moments(layer, centred)
            return standins.plan_layer(
                matrix, weights.output.double().cpu(), self.proposals[layer], n_kept
            )
        ranking = self._ranking(method, layer, n - n_kept, centred)
        kept = torch.ones(n, dtype=torch.bool)
        kept[ranking] = False
        return LayerPlan(n, tuple(kept.nonzero()[:, 0].tolist()))

    def _ranking(self, method: str, layer: int, n_removed: int, centred: bool) -> Tensor:
        """The neurons to remove, (n_removed,) int64."""
        if method == "obs":
            return self._elimination(layer, n_removed, centred).order[:n_removed]
        return self._scores(method, layer).argsort(stable=True)[:n_removed]

    def _scores(self, method: str, layer: int) -> Tensor:
        moments, weights = self.calibration.layers[layer].all, self._weights(layer)
        scorers: Mapping[str, Callable[[], Tensor]] = {
            "random": lambda: importance.random_scores(
                weights.n_neurons, torch.Generator().manual_seed(self.seed * 1009 + layer)
            ),
            "magnitude": lambda: importance.magnitude(weights),
            "activation": lambda: importance.activation(moments),
            "wanda": lambda: importance.wanda(moments, weights),
            "flap": lambda: importance.flap(moments, weights),
        }
        return scorers[method]()

    def _elimination(self, layer: int, n_removed: int, centred: bool) -> Elimination:
        """Removals are nested: what was found for more holds for fewer."""
        known = self._eliminations.get((layer, centred))
        if known is None or len(known.order) < n_removed:
            known = eliminate(
                damped(self._moments(layer, centred)),
                self._weights(layer).output.double().cpu(),
                n_removed,
            )
            self._eliminations[layer, centred] = known
        return known

    def _moments(self, layer: int, centred: bool) -> Tensor:
        moments: Moments = self.calibration.layers[layer].all
        return moments.covariance if centred else moments.second

    def _weights(self, layer: int) -> MlpWeights:
        # On the CPU, where the moments are, and where there is float64.
        return read_weights(mlps_of(self.architecture)[layer]).to("cpu")

    def _allocate(self, method: str, sparsity: float, round_to: int, centred: bool) -> list[int]:
        """Widths that remove the cheapest neurons of all layers together.

        Losses at the block's output are compared as they are (``obs``, and ``poles``, whose own
        trades come after); scores of other methods are standardized layer by layer first.
        """
        if method == "folding":
            raise NotApplicable(NO_GLOBAL_FOLDING)
        costs: list[Tensor] = []
        for layer, mlp in enumerate(mlps_of(self.architecture)):
            n = mlp.n_neurons
            if method in NEEDS_REGULAR_MOMENTS:
                # All but one: a layer keeps at least a neuron. Costs made to rise, for removals
                # come in order.
                elimination = self._elimination(layer, n - 1, centred)
                rising = elimination.costs.cummax(dim=0).values
                costs.append(torch.cat([rising, rising.new_tensor([torch.inf])]))
            else:
                costs.append(importance.standardized(self._scores(method, layer)).sort().values)
        total = sum(len(each) for each in costs)
        n_removed = total - kept_width(total, sparsity)
        # By rank, not by a limit: of equal costs, as those of neurons that never fire, not all go.
        cheapest = torch.cat(costs).argsort(stable=True)[:n_removed]
        layer_of = torch.repeat_interleave(torch.tensor([len(each) for each in costs]))
        counts = torch.bincount(layer_of[cheapest], minlength=len(costs))
        kept = []
        for each, removed in zip(costs, counts.tolist(), strict=True):
            left = max(1, len(each) - removed)
            # By the one rule for widths.
            kept.append(kept_width(len(each), 1 - left / len(each), round_to))
        return kept


def check_options(method: str, sparsity: float, allocation: str, round_to: int) -> None:
    """Raise a UserError if one of a plan's options is impossible."""
    if method not in METHODS:
        raise UserError(f"unknown method '{method}': choose from {', '.join(METHODS)}")
    if not 0 <= sparsity < 1:
        raise UserError(f"sparsity {sparsity} is impossible: give 0 or more and less than 1")
    if allocation not in ALLOCATIONS:
        raise UserError(f"unknown allocation '{allocation}': choose from {', '.join(ALLOCATIONS)}")
    if round_to < 1:
        raise UserError(f"--round-to {round_to} is impossible: give 1 or more")
