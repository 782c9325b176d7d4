"""The 1-D layout: an order in which neurons that fire together are close.

Minimum linear arrangement with weights w_ij = (1 + ρ_ij)/2 is NP-hard, so the order is improved
from good starts: the spectral order (Juvan & Mohar 1992) and the leaves of an average-linkage tree,
with branches turned so that similar ends meet (Gruvaeus & Wainer 1972).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from projector.layouts.costs import arrangement_cost, dissimilarity

_MOST_FOR_DENSE = 1024
# A pass tries every neuron at every place; what a pass gains falls off quickly.
_MOST_PASSES = 50
_LEAST_GAIN = 1e-6


@dataclass(frozen=True)
class Arrangement:
    """An order of neurons, its cost, and the costs of the two orders it was improved from.

    ``order`` (N,) lists neurons from first to last; ``ranks`` is its inverse. ``random_cost`` is
    the mean cost of a random order.
    """

    order: Tensor
    cost: float
    spectral_cost: float
    leaf_cost: float
    random_cost: float

    @property
    def ranks(self) -> Tensor:
        return ranks_of(self.order)


def ranks_of(order: Tensor) -> Tensor:
    """The rank of each neuron in ``order``, a permutation (N,)."""
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(order.numel(), device=order.device)
    return ranks


def positions_of(ranks: Tensor) -> Tensor:
    """Ranks as positions evenly spaced on [0, √N]: (N, 1) float32."""
    n = ranks.numel()
    return (ranks.float() * (math.sqrt(n) / max(n - 1, 1)))[:, None]


def spectral_order(correlation: Tensor) -> Tensor:
    """Neurons sorted by their entry in the Fiedler vector of the graph with weights (1 + ρ)/2."""
    n = correlation.shape[0]
    if n < 3:
        return torch.arange(n)
    weights = (1 + correlation.double().cpu().numpy()) / 2
    np.fill_diagonal(weights, 0)
    degrees = weights.sum(axis=1)
    laplacian = np.diag(degrees) - weights
    if n <= _MOST_FOR_DENSE:
        fiedler = np.linalg.eigh(laplacian)[1][:, 1]
    else:
        from scipy.sparse.linalg import eigsh

        # The constant vector, eigenvalue 0, is lifted out of the way of the one wanted.
        laplacian += 2 * degrees.max() / n
        start = np.linspace(-1, 1, n)
        fiedler = eigsh(laplacian, k=1, which="SA", v0=start, tol=1e-4, ncv=64)[1][:, 0]
    return torch.from_numpy(np.argsort(_signed(fiedler), kind="stable"))


def leaf_order(correlation: Tensor) -> Tensor:
    """Leaves of the average-linkage tree of 1 − ρ, with branches turned so that similar ends meet.

    Where two branches join, they are turned, out of four ways, so that the touching neurons are
    most correlated (Gruvaeus & Wainer 1972). This is O(N²) in total, while the optimal order of all
    leaves (Bar-Joseph, Gifford & Jaakkola 2001) takes minutes on some layers of 1,500 neurons.
    """
    n = correlation.shape[0]
    if n < 3:
        return torch.arange(n)
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    apart = dissimilarity(correlation.double().cpu()).numpy()
    joins = linkage(squareform(apart, checks=False), method="average")[:, :2].astype(np.int64)
    return torch.from_numpy(_turned_leaves(joins, apart))


def _turned_leaves(joins: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """The (N,) leaves of a tree, each join's two branches turned so that the nearest ends touch.

    Args:
        joins: (N − 1, 2) numbers of the branches that are joined: a leaf, or N + an earlier join.
        apart: (N, N) distances.
    """
    rows = {k: np.array([k]) for k in range(len(apart))}
    for number, (first, second) in enumerate(joins.tolist(), start=len(apart)):
        left, right = rows.pop(first), rows.pop(second)
        ends = apart[np.ix_(left[[0, -1]], right[[0, -1]])]
        left_end, right_end = divmod(int(ends.argmin()), 2)
        rows[number] = np.concatenate(
            [left if left_end else left[::-1], right[::-1] if right_end else right]
        )
    return rows[len(apart) + len(joins) - 1]


def arrange(correlation: Tensor) -> Arrangement:
    """Improve the better of both starts until no move of a single neuron lowers the cost.

    Args:
        correlation: (N, N) without NaN.
    """
    rho = correlation.double().cpu()
    spectral, leaf = spectral_order(rho), leaf_order(rho)
    costs = [arrangement_cost(ranks_of(order), rho) for order in (spectral, leaf)]
    order = improve_order((spectral, leaf)[int(costs[1] < costs[0])], rho)
    cost = arrangement_cost(ranks_of(order), rho)
    return Arrangement(order, cost, costs[0], costs[1], random_order_cost(rho))


def random_order_cost(correlation: Tensor) -> float:
    """The mean cost of all orders: the mean weight of a pair times Σ_ij |π_i − π_j| = N(N² −
    1)/3.
    """
    n = correlation.shape[0]
    if n < 2:
        return 0.0
    weights = (1 + correlation.double()) / 2
    mean = (weights.sum() - weights.diagonal().sum()) / (n * (n - 1))
    return float(mean) * n * (n**2 - 1) / 3


def improve_order(order: Tensor, correlation: Tensor) -> Tensor:
    """Move single neurons to their best places until no move lowers the cost.

    The costs of all ranks of one neuron are computed at once, in O(N): moving v between new
    neighbours changes v's own distances, and adds one to the distance of every pair on opposite
    sides of it. A pass over all neurons is O(N²). The cost never rises.
    """
    n = order.numel()
    if n < 3:
        return order
    weights = (1 + correlation.double().cpu().numpy()) / 2
    np.fill_diagonal(weights, 0)
    places = order.cpu().numpy().copy()
    cuts = _cuts(weights[np.ix_(places, places)])
    steps = np.arange(n, dtype=np.float64)
    scale = weights.sum() * n
    for _ in range(_MOST_PASSES):
        gained = 0.0
        for neuron in places.copy():
            place = int(np.flatnonzero(places == neuron)[0])
            rest = np.delete(places, place)
            pull = weights[neuron, rest]
            # Sums of the weights to the first k of the rest, k = 0 … n − 1.
            left = np.concatenate([[0.0], np.cumsum(pull)])
            right = left[-1] - left
            moment = np.concatenate([[0.0], np.cumsum(pull * steps[:-1])])
            # Distances from place k: k − i to those before it, i − k + 1 to those after.
            own = (steps * left - moment) + (moment[-1] - moment) + (1 - steps) * right
            # cuts[m] is the weight between the first m neurons and the others, this one included.
            rest_cuts = np.concatenate(
                [cuts[: place + 1] - left[: place + 1], cuts[place + 2 :] - right[place + 1 :]]
            )
            cost = own + rest_cuts
            best = int(cost.argmin())
            gain = cost[place] - cost[best]
            if gain <= 1e-12 * scale:
                continue
            gained += gain
            places = np.insert(rest, best, neuron)
            cuts = np.concatenate(
                [rest_cuts[: best + 1] + left[: best + 1], rest_cuts[best:] + right[best:]]
            )
        if gained <= _LEAST_GAIN * float(cuts.sum()):
            break
    return torch.from_numpy(places)


def _cuts(ordered: np.ndarray) -> np.ndarray:
    """Weight between the first m neurons and the rest, for m = 0 … N; (N + 1,)."""
    forward = np.triu(ordered, 1).sum(axis=1)
    backward = np.tril(ordered, -1).sum(axis=1)
    return np.concatenate([[0.0], np.cumsum(forward - backward)])


def _signed(vector: np.ndarray) -> np.ndarray:
    return vector if vector[np.abs(vector).argmax()] > 0 else -vector
