"""Folding: average neurons with similar weights into one, by k-means on the weights.

Wang et al. 2025, "Forget the data and fine-tuning! Just fold the network to compress"
(arXiv:2502.10216): cluster the rows that make the neurons, replace each cluster by its mean, and
sum the columns that read them.
"""

from __future__ import annotations

import warnings

import torch

from projector.model.architecture.weights import MlpWeights
from pruning.methods.method import Method
from pruning.methods.plan import LayerPlan


def plan_layer(weights: MlpWeights, n_kept: int, seed: int) -> LayerPlan:
    """Cluster a layer's neurons by what makes them (all input rows and biases) into ``n_kept``.

    Each cluster is named by the member nearest its mean.
    """
    # Imported here: it takes half a second, which commands that only list methods don't need.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    n = weights.n_neurons
    if n_kept >= n:
        return LayerPlan(n, tuple(range(n)))
    columns = [matrix.double().cpu() for matrix in weights.inputs]
    columns += [b.double().cpu()[:, None] for b in weights.input_biases if b is not None]
    rows = torch.cat(columns, dim=1).numpy()
    with warnings.catch_warnings():
        # Fewer distinct neurons than clusters: mended below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(n_kept, n_init=1, random_state=seed).fit(rows)
    groups = torch.from_numpy(found.labels_.astype("int64"))
    distance = torch.from_numpy(((rows - found.cluster_centers_[found.labels_]) ** 2).sum(axis=1))
    _fill_empty(groups, distance, n_kept)
    names = []
    for group in range(n_kept):
        members = (groups == group).nonzero()[:, 0]
        names.append(int(members[distance[members].argmin()]))
    # Clusters in the order of the neurons that name them.
    order = sorted(range(n_kept), key=lambda group: names[group])
    place = {group: i for i, group in enumerate(order)}
    return LayerPlan(
        n,
        tuple(names[group] for group in order),
        groups=tuple(place[int(group)] for group in groups),
    )


def _fill_empty(groups: torch.Tensor, distance: torch.Tensor, n_groups: int) -> None:
    """Give every empty cluster the neuron that is farthest from its cluster's mean."""
    for empty in range(n_groups):
        counts = torch.bincount(groups, minlength=n_groups)
        if counts[empty]:
            continue
        spare = torch.where(counts[groups] > 1, distance, -1.0)
        groups[int(spare.argmax())] = empty


FOLDING = Method(
    name="folding",
    help="averaged into clusters of neurons with similar weights",
    source="Wang et al. 2025 (arXiv:2502.10216)",
    plan=lambda layer, n_kept: plan_layer(layer.weights, n_kept, layer.seed + layer.index),
    depends_on_seed=True,
    averages=True,
    # Holds rows, clusters and their copies, but no moments.
    matrices=2,
)
