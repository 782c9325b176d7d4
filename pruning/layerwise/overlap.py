"""Measure how far removed neurons are those of poles, compared with chance.

The neurons of a layer that a plan removes are compared with marked ones. If the removed neurons
were drawn at random from the layer, the overlap would be hypergeometric.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, lgamma, sqrt

import torch
from torch import Tensor

from projector.errors import UserError
from pruning.methods.plan import LayerPlan
from pruning.poles.poles import Poles


@dataclass(frozen=True)
class Overlap:
    """A count, and its distribution if the removed neurons were drawn at random from their layer.

    Attributes:
        n_marked: number of marked neurons, or of poles.
        n_both: how many of these are removed.
        expected: mean of ``n_both`` by chance.
        variance: variance of ``n_both`` by chance.
    """

    n_marked: int
    n_both: int
    expected: float
    variance: float

    @property
    def deviation(self) -> float:
        """Standard deviation of the count by chance."""
        return sqrt(self.variance)

    @property
    def ratio(self) -> float | None:
        """The count divided by its mean by chance; None if that mean is 0."""
        return self.n_both / self.expected if self.expected > 0 else None

    @property
    def score(self) -> float | None:
        """Standard deviations above chance; None if the count by chance doesn't vary."""
        return (self.n_both - self.expected) / self.deviation if self.variance > 0 else None


def pooled(found: Iterable[Overlap]) -> Overlap:
    """The overlap of several layers with independent removals: counts, means and variances add."""
    each = list(found)
    return Overlap(
        sum(one.n_marked for one in each),
        sum(one.n_both for one in each),
        sum(one.expected for one in each),
        sum(one.variance for one in each),
    )


def members_of(poles: Poles) -> Tensor:
    """Which neurons belong to a distinct pole, (N,) bool.

    Raises:
        UserError: if it is not known which poles are distinct.
    """
    marked = torch.zeros(poles.n_neurons, dtype=torch.bool)
    for group in _distinct(poles):
        marked[group] = True
    return marked


def redundant_in(poles: Poles) -> Tensor:
    """Neurons that distinct poles make redundant: all but the most central of each pole, (N,) bool.

    Raises:
        UserError: if it is not known which poles are distinct.
    """
    marked = members_of(poles)
    for pole in poles.poles:
        if pole.distinct:
            marked[pole.exemplars[0]] = False
    return marked


def overlap(marked: Tensor, plan: LayerPlan, strata: Tensor | None = None) -> Overlap:
    """Count the marked neurons of a layer that are removed.

    Of N neurons, M marked and R removed, chance gives M R / N, with variance
    R (M/N) (1 − M/N) (N − R) / (N − 1).

    Args:
        marked: (N,) bool.
        strata: (N,) integers; chance then exchanges only neurons of the same number. None exchanges
            all.
    """
    removed = torch.ones(plan.n_neurons, dtype=torch.bool)
    removed[plan.kept_index] = False
    if strata is None:
        return _drawn(marked, removed)
    return pooled(_drawn(marked[strata == s], removed[strata == s]) for s in strata.unique())


def _drawn(marked: Tensor, removed: Tensor) -> Overlap:
    n, n_marked, n_removed = len(marked), int(marked.sum()), int(removed.sum())
    share = n_marked / n
    variance = n_removed * share * (1 - share) * (n - n_removed) / max(1, n - 1)
    return Overlap(n_marked, int((marked & removed).sum()), n_removed * share, variance)


def strata_of(plans: Sequence[LayerPlan]) -> Tensor:
    """Count the plans of a layer that remove each neuron, (N,) int64: rough strata of importance.

    Args:
        plans: plans of a method that scores each neuron separately, at several shares.
    """
    strata = torch.full((plans[0].n_neurons,), len(plans))
    for plan in plans:
        strata[plan.kept_index] -= 1
    return strata


def emptied(poles: Poles, plan: LayerPlan) -> Overlap:
    """Count the distinct poles that lose every neuron.

    A pole of size s does so by chance with probability C(N − s, R − s) / C(N, R); two poles share
    no neuron, so both lose all with the probability of one pole of both sizes together.

    Raises:
        UserError: if it is not known which poles are distinct.
    """
    groups = _distinct(poles)
    kept = torch.zeros(plan.n_neurons, dtype=torch.bool)
    kept[plan.kept_index] = True
    n_removed = plan.n_neurons - len(plan.kept)

    def chance(size: int) -> float:
        return _all_removed(plan.n_neurons, n_removed, size)

    sizes = [len(group) for group in groups]
    alone = [chance(size) for size in sizes]
    variance = sum(p * (1 - p) for p in alone)
    for i in range(len(sizes)):
        for j in range(i):
            variance += 2 * (chance(sizes[i] + sizes[j]) - alone[i] * alone[j])
    n_emptied = sum(not bool(kept[group].any()) for group in groups)
    # Rounding could give a negative number.
    return Overlap(len(groups), n_emptied, sum(alone), max(0.0, variance))


def check_same_layers(poles: Sequence[Poles], plans: Sequence[LayerPlan]) -> None:
    """Raise a UserError unless poles and plans have the same numbers of layers and neurons."""
    ours, theirs = [each.n_neurons for each in poles], [each.n_neurons for each in plans]
    if ours != theirs:
        raise UserError(
            f"the poles cover {len(ours)} layers and {sum(ours):,} neurons, and the plan covers "
            f"{len(theirs)} and {sum(theirs):,}: give a plan and a projection of the same model"
        )


def _distinct(poles: Poles) -> list[Tensor]:
    """The neurons of each distinct pole."""
    if poles.n_distinct is None:
        raise UserError(
            f"it isn't known which poles of layer {poles.layer} are distinct: find poles with "
            "controls, in a projection that keeps both halves of its corpus"
        )
    chosen = [k for k, pole in enumerate(poles.poles) if pole.distinct]
    return [(poles.labels == k).nonzero()[:, 0] for k in chosen]


def _all_removed(n: int, n_removed: int, size: int) -> float:
    """The probability that ``size`` given neurons are all among ``n_removed`` of ``n``."""
    if size > n_removed:
        return 0.0

    def log_choose(a: int, b: int) -> float:
        return lgamma(a + 1) - lgamma(b + 1) - lgamma(a - b + 1)

    return exp(log_choose(n - size, n_removed - size) - log_choose(n, n_removed))
