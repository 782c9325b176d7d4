"""The poles method: kept neurons stand in for correlated neurons that are removed.

The map proposes and the statistics decide. Candidates for neuron j come from the projection (its
pole, the pole opposite to it, and its nearest neighbours on the map, so noise neurons take part)
and from the calibration text (the neurons with the highest |ρ| to it). The loss at the block's
output,

    E‖w_j (h_j − Σ_r c_r h_r)‖² = ‖w_j‖² (M_jj − M_jS M_SS⁻¹ M_Sj),     c = M_SS⁻¹ M_Sj,

is computed for all stand-ins S of j together; M is the covariance if a bias absorbs the mean, else
E[h hᵀ]. With one stand-in r this is Var(h_j)(1 − ρ_jr²)‖w_j‖², or (E[h_j²] − E[h_j
h_r]²/E[h_r²])‖w_j‖². The sign of c does not matter: neurons of an opposite pole can stand in as
well as those of the same pole.

The cheapest neuron is removed first, and its weights are added to its stand-ins (w_r ← w_r + c_r
w_j). Then neurons are traded: a removed neuron replaces a kept one of its surroundings if that
lowers the loss of the whole layer, with all neurons scored jointly. The neurons that stay are
neurons of the model, never averages.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.methods.elimination import Exchange, damped
from pruning.methods.method import Layer, Method, Proposals
from pruning.methods.plan import LayerPlan, StandIn

# Sizes of a neuron's surroundings: by the map, and by |ρ| on the calibration text.
N_ON_MAP = 8
N_BY_CORRELATION = 24
# A pole can hold thousands of neurons; only the most correlated members are candidates.
N_OF_POLE = 16
# Most stand-ins of one removed neuron.
MOST_STAND_INS = N_ON_MAP + N_BY_CORRELATION + N_OF_POLE
_MOST_ROUNDS = 4
# Share of a neuron's second moment that float32 sums leave uncertain.
_COEFFICIENT_DAMPING = 1e-6
_ROWS_AT_ONCE = 256
# How many of the cheapest neurons are recomputed together.
_AT_ONCE = 16


@dataclass(frozen=True)
class Surroundings:
    """Candidates for stand-ins of each neuron: ``index`` (N, S) int64, ``exists`` (N, S) bool."""

    index: Tensor
    exists: Tensor


def find_surroundings(proposals: Proposals, moments: Tensor) -> Surroundings:
    """Find each neuron's candidates for stand-ins, by map, pole and correlation, each once.

    Args:
        moments: M, (N, N) float64.

    Costs N² for the correlations, in blocks of rows.
    """
    n = len(moments)
    spread = moments.diagonal().clamp_min(torch.finfo(moments.dtype).tiny).sqrt()
    # Opposites of poles, with −2 (no neuron's label) where there is none.
    opposite = torch.tensor([-2 if o is None else o for o in proposals.opposites] + [-2])
    own = proposals.labels
    facing = opposite[own.clamp_min(-1)]
    has_place = proposals.positions.isfinite().all(dim=1)
    places = torch.where(has_place[:, None], proposals.positions.double(), 0.0)
    columns = []
    for rows in torch.arange(n).split(_ROWS_AT_ONCE):
        strength = (moments[rows] / spread[rows, None] / spread).abs()
        strength[torch.arange(len(rows)), rows] = -1
        parts = [_best(strength, N_BY_CORRELATION)]
        mates = (own[rows, None] == own) & (own[rows, None] >= 0) | (facing[rows, None] == own)
        parts.append(_best(torch.where(mates, strength, -1.0), N_OF_POLE))
        distance = torch.cdist(places[rows], places)
        near = torch.where(has_place[rows, None] & has_place, 1 / (1 + distance), -1.0)
        near[torch.arange(len(rows)), rows] = -1
        parts.append(_best(near, N_ON_MAP))
        columns.append(torch.cat(parts, dim=1))
    index = torch.cat(columns)
    # After sorting, equal ones are next to each other.
    index = index.sort(dim=1, descending=True).values
    exists = index >= 0
    exists[:, 1:] &= index[:, 1:] != index[:, :-1]
    return Surroundings(index.clamp_min(0), exists)


def _best(values: Tensor, n: int) -> Tensor:
    """The places of the n largest values ≥ 0 of each row; −1 where there are fewer."""
    top = values.topk(min(n, values.shape[1]), dim=1)
    return torch.where(top.values >= 0, top.indices, -1)


def plan_layer(moments: Tensor, output: Tensor, proposals: Proposals, n_kept: int) -> LayerPlan:
    """Choose the neurons that stay, and their coefficients for the removed ones.

    Args:
        moments: M, (N, N) float64.
        output: W, (H, N) float64.

    Besides its arguments it holds one (N, N) matrix, and those of :class:`Exchange`.
    """
    n = len(moments)
    if n_kept >= n:
        return LayerPlan(n, tuple(range(n)))
    regular = damped(moments)
    surroundings = find_surroundings(proposals, moments)
    kept = _hand_over(regular, output, surroundings, n - n_kept)
    kept = _trade(regular, output, surroundings, kept)
    # Far less damping than for the choice: an exact copy's coefficient must be 1 in float32.
    own = moments.diagonal()
    level = _COEFFICIENT_DAMPING * own + torch.finfo(own.dtype).tiny
    regular.diagonal().copy_(own + level)
    return LayerPlan(n, tuple(kept.tolist()), _stand_ins(regular, surroundings, kept))


def _hand_over(moments: Tensor, output: Tensor, around: Surroundings, n_removed: int) -> Tensor:
    """Remove the cheapest neuron, hand its weights on, and so forth; who is left, (K,).

    A neuron is told worse with each stand-in that goes, so what was computed before is at most what
    it costs now. Only the cheapest are computed again: the choice is the same.
    """
    n = len(moments)
    is_left = torch.ones(n, dtype=torch.bool)
    columns = output.T.clone(memory_format=torch.contiguous_format)
    power = columns.pow(2).sum(dim=1)
    rest, coefficients = _predict(moments, around, torch.arange(n), is_left)
    losses = power * rest
    relied_on_by = _who_relies_on(around)
    is_stale = torch.zeros(n, dtype=torch.bool)
    for _ in range(n_removed):
        j = int(losses.argmin())
        while is_stale[j]:
            cheapest = losses.topk(min(_AT_ONCE, n), largest=False).indices
            # Of many equally cheap ones it may be left out.
            cheapest[0] = j
            asked = cheapest[is_stale[cheapest] & is_left[cheapest]]
            rest[asked], coefficients[asked] = _predict(moments, around, asked, is_left)
            losses[asked] = power[asked] * rest[asked]
            is_stale[asked] = False
            j = int(losses.argmin())
        stand_ins = around.index[j]
        usable = around.exists[j] & is_left[stand_ins]
        stand_ins = stand_ins[usable]
        columns[stand_ins] += torch.outer(coefficients[j][usable], columns[j])
        power[stand_ins] = columns[stand_ins].pow(2).sum(dim=1)
        losses[stand_ins] = power[stand_ins] * rest[stand_ins]
        is_left[j], losses[j] = False, torch.inf
        is_stale[relied_on_by[j]] = True
        is_stale[j] = False
    return is_left.nonzero()[:, 0]


def _who_relies_on(around: Surroundings) -> tuple[Tensor, ...]:
    """Of each neuron, all that it may stand in for."""
    n = len(around.index)
    neuron = torch.arange(n)[:, None].expand_as(around.index)[around.exists]
    by = around.index[around.exists]
    return neuron[by.argsort(stable=True)].split(torch.bincount(by, minlength=n).tolist())


def _predict(
    moments: Tensor, around: Surroundings, neurons: Tensor, is_left: Tensor
) -> tuple[Tensor, Tensor]:
    """What of each neuron its stand-ins do not tell, (n,), and their coefficients, (n, S)."""
    parts = [_predict_few(moments, around, rows, is_left) for rows in neurons.split(_ROWS_AT_ONCE)]
    return torch.cat([rest for rest, _ in parts]), torch.cat([found for _, found in parts])


def _predict_few(
    moments: Tensor, around: Surroundings, neurons: Tensor, is_left: Tensor
) -> tuple[Tensor, Tensor]:
    index = around.index[neurons]
    usable = around.exists[neurons] & is_left[index]
    both = usable[:, :, None] & usable[:, None, :]
    inner = torch.where(both, moments[index[:, :, None], index[:, None, :]], 0.0)
    # An unusable stand-in's row becomes one of the identity, its coefficient nothing.
    inner.diagonal(dim1=1, dim2=2).add_((~usable).to(inner.dtype))
    cross = torch.where(usable, moments[neurons[:, None], index], 0.0)
    coefficients = torch.linalg.solve(inner, cross)
    rest = moments[neurons, neurons] - (coefficients * cross).sum(dim=1)
    return rest.clamp_min(0), coefficients


def _trade(moments: Tensor, output: Tensor, around: Surroundings, kept: Tensor) -> Tensor:
    """Trade while a removed neuron is worth more than one of its surroundings; (K,).

    A few rounds over all removed neurons: later ones find next to nothing.
    """
    exchange = Exchange(moments, output, kept)
    for _ in range(_MOST_ROUNDS):
        outside, gains = exchange.gains()
        traded = False
        for taken in outside[gains.argsort(descending=True)].tolist():
            near = around.index[taken][around.exists[taken]]
            givers = near[exchange.is_kept[near]]
            if len(givers) and not exchange.is_kept[taken]:
                traded |= exchange.trade(taken, givers)
        if not traded:
            break
    return exchange.is_kept.nonzero()[:, 0]


def _stand_ins(moments: Tensor, around: Surroundings, kept: Tensor) -> tuple[StandIn, ...]:
    """The kept ones of each removed neuron's surroundings, and their joint coefficients.

    Where none of them is left, the kept neuron that tells most of it. Moments (N, N) are regular.
    """
    is_kept = torch.zeros(len(moments), dtype=torch.bool)
    is_kept[kept] = True
    removed = (~is_kept).nonzero()[:, 0]
    _, coefficients = _predict(moments, around, removed, is_kept)
    usable = around.exists[removed] & is_kept[around.index[removed]]
    result = []
    for row, j in enumerate(removed.tolist()):
        mine = usable[row]
        by, factors = around.index[j][mine].tolist(), coefficients[row][mine].tolist()
        if not by:
            told = moments[j, kept].pow(2) / moments[kept, kept]
            by = [int(kept[told.argmax()])]
            factors = [float(moments[j, by[0]] / moments[by[0], by[0]])]
        result += [StandIn(j, r, c) for r, c in zip(by, factors, strict=True)]
    return tuple(result)


def _plan(layer: Layer, n_kept: int) -> LayerPlan:
    # A plan of a method that reads a projection is refused without one.
    assert layer.proposals is not None
    return plan_layer(layer.matrix, layer.output, layer.proposals, n_kept)


POLES = Method(
    name="poles",
    help="neurons that others of their pole can stand in for",
    reads=("weights", "regular moments", "projection"),
    plan=_plan,
    costs=Layer.rising_costs,
    matrices=5.5,
    hands_on=True,
)
