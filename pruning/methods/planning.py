"""Make the plans of all methods at equal kept widths, from the same calibration text."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from projector.errors import SettingError, UserError, check_choice, check_least, named
from pruning.limits import ALLOCATIONS
from pruning.methods.importance import standardized
from pruning.methods.method import Layer, Method
from pruning.methods.plan import LayerPlan, NotApplicable, kept_width
from pruning.methods.registry import METHODS, method_named


def costs_of(method: Method, layer: Layer) -> Tensor:
    """The cost of each further removal from a layer, (N,) float64, comparable between layers.

    A method's own costs are used unchanged; scores are standardized layer by layer first.
    """
    if method.costs is not None:
        return method.costs(layer)
    assert method.scores is not None
    return standardized(method.scores(layer)).sort().values


def global_widths(costs: Sequence[Tensor], sparsity: float, round_to: int) -> list[int]:
    """Widths after the cheapest neurons of all layers together are removed.

    Args:
        costs: for each layer, see :func:`costs_of`.
    """
    total = sum(len(each) for each in costs)
    n_removed = total - kept_width(total, sparsity)
    # By rank, not by a limit: neurons with equal costs, such as dead ones, need not all be removed.
    cheapest = torch.cat(list(costs)).argsort(stable=True)[:n_removed]
    layer_of = torch.repeat_interleave(torch.tensor([len(each) for each in costs]))
    counts = torch.bincount(layer_of[cheapest], minlength=len(costs))
    kept = []
    for each, removed in zip(costs, counts.tolist(), strict=True):
        left = max(1, len(each) - removed)
        # The same rule for widths as everywhere.
        kept.append(kept_width(len(each), 1 - left / len(each), round_to))
    return kept


def plan_layer(method: Method, layer: Layer, n_kept: int) -> LayerPlan:
    """Plan a layer in which a method has to keep ``n_kept`` neurons."""
    n = layer.n_neurons
    if n_kept >= n:
        return LayerPlan(n, tuple(range(n)))
    if method.plan is not None:
        return method.plan(layer, n_kept)
    assert method.scores is not None
    kept = torch.ones(n, dtype=torch.bool)
    kept[method.scores(layer).argsort(stable=True)[: n - n_kept]] = False
    return LayerPlan(n, tuple(kept.nonzero()[:, 0].tolist()))


def check_options(method: str, sparsity: float, allocation: str, round_to: int) -> None:
    """Raise a SettingError if one of a plan's options is impossible."""
    method_named(method)
    check_sparsity(sparsity)
    check_choice("allocation", allocation, ALLOCATIONS)
    check_least("round_to", round_to, 1)


def check_sparsity(sparsity: float, setting: str = "sparsity") -> None:
    """Raise a SettingError unless the sparsity is at least 0 and below 1."""
    if not 0 <= sparsity < 1:
        raise SettingError(setting, sparsity, "is impossible", "give 0 or more and less than 1")


def check_allocates(method: Method) -> None:
    """Raise NotApplicable if a method can't share removals out between layers."""
    if not method.allocates:
        raise NotApplicable(
            f"the scores of method {method.name} can't be compared between layers: choose "
            f"{named('allocation', 'uniform')}",
            setting="allocation",
            value="global",
        )


def check_projection(methods: Collection[str], *, is_given: bool) -> None:
    """Raise a UserError if a method reads the model's projection and none is given."""
    for method in methods:
        if METHODS[method].needs_projection and not is_given:
            raise UserError(
                f"method {method} needs the model's projection: give {named('projection', 'DIR')}",
                setting="projection",
            )


def reads_projection(methods: Collection[str]) -> bool:
    """Whether one of the methods reads the model's projection."""
    return any(METHODS[method].needs_projection for method in methods)
