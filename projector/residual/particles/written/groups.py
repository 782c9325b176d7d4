"""Groups of MLP neurons: neurons that write in similar directions, or the poles of a projection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from projector.errors import SettingError
from projector.naming.poles import saved_poles
from projector.projection.overview import read_saved

_SITE = "mlp_post"


@dataclass(frozen=True, eq=False)
class NeuronGroup:
    """Some neurons of one layer.

    Attributes:
        name: "neurons 3.0", "pole 3.0", or "no pole 3" for the neurons outside poles.
        neurons: int64.
    """

    name: str
    neurons: Tensor


def group_by_directions(
    layer: int, weight: Tensor, n_groups: int, *, seed: int
) -> tuple[NeuronGroup, ...]:
    """Group neurons by the directions that they write in, by k-means; every neuron is in a group.

    Args:
        weight: (H, N), the output projection; column n is the direction of neuron n.
        n_groups: number of groups; fewer if there are fewer distinct directions.
    """
    from sklearn.cluster import KMeans

    columns = weight.detach().T.double().cpu().numpy()
    lengths = np.linalg.norm(columns, axis=1, keepdims=True)
    directions = columns / np.where(lengths > 0, lengths, 1)
    n_unlike = len(np.unique(directions, axis=0)) if len(directions) <= n_groups else n_groups
    found = KMeans(min(n_groups, n_unlike), n_init=1, random_state=seed).fit(directions)
    return _named(layer, torch.from_numpy(found.labels_.astype(np.int64)))


def _named(layer: int, labels: Tensor) -> tuple[NeuronGroup, ...]:
    """Groups in the order of their first neurons, so that numbers mean the same in equal runs."""
    members = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
    members.sort(key=lambda each: int(each[0]))
    return tuple(NeuronGroup(f"neurons {layer}.{i}", each) for i, each in enumerate(members))


def group_by_poles(
    folder: Path, weights_sha256: str, widths: Mapping[int, int]
) -> dict[int, tuple[NeuronGroup, ...]]:
    """Use the poles of each layer as groups, and the neurons outside poles as one more group.

    Args:
        weights_sha256: hash of the model's weights.
        widths: number of MLP neurons of each layer.

    Raises:
        SettingError: on ``projection``, if it belongs to another model, or has no poles of MLP
            neurons.
        UserError: if there is no projection in ``folder``.
    """
    if read_saved(folder).facts.model.sha256 != weights_sha256:
        raise SettingError(
            "projection",
            str(folder),
            "belongs to a model with other weights",
            "give a projection of this model, or leave it out",
        )
    poles = [each for each in saved_poles(folder) if each.is_searched and each.site == _SITE]
    if not poles:
        raise SettingError(
            "projection",
            str(folder),
            "has no poles of MLP neurons",
            "find them with `pruning poles`, or leave it out",
        )
    found: dict[int, tuple[NeuronGroup, ...]] = {}
    for layer, n_neurons in widths.items():
        is_free = torch.ones(n_neurons, dtype=torch.bool)
        groups = []
        for pole in (each for each in poles if each.layer == layer):
            members = torch.tensor([n for n in pole.neurons if n < n_neurons], dtype=torch.int64)
            members = members[is_free[members]]
            is_free[members] = False
            if len(members):
                groups.append(NeuronGroup(f"pole {layer}.{pole.number}", members))
        if bool(is_free.any()):
            groups.append(NeuronGroup(f"no pole {layer}", is_free.nonzero()[:, 0]))
        found[layer] = tuple(groups)
    return found
