"""The best partners of each neuron in other layers: ranked within one layer, then over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from projector.statistics.cross_layer.records import LAYER_TENSORS


@dataclass(frozen=True)
class Ranked:
    """The best partners of N neurons among those of one layer, the strongest first.

    Attributes:
        rho: (N, k) float32, signed; NaN for none.
        neuron: (N, k) int32, their numbers; −1 for none.
    """

    rho: Tensor
    neuron: Tensor

    @classmethod
    def none(cls, n_neurons: int, k: int) -> Ranked:
        """No partners yet."""
        return cls(
            torch.full((n_neurons, k), torch.nan), torch.full((n_neurons, k), -1, dtype=torch.int32)
        )


@dataclass(frozen=True)
class PartnerList:
    """The best partners of N neurons among those of several layers, by |ρ|, the strongest first.

    Attributes:
        rho: (N, k) float32, signed Pearson correlation; NaN for none.
        layer: (N, k) int32, the partner's layer; −1 for none.
        neuron: (N, k) int32, its number there; −1 for none.
    """

    rho: Tensor
    layer: Tensor
    neuron: Tensor


@dataclass(frozen=True)
class Partners:
    """The partners of every neuron of one layer.

    A dead or non-finite neuron has none, nor has any neuron where no layer is on that side.

    Attributes:
        earlier: among the neurons of all earlier layers.
        later: among those of all later ones.
    """

    earlier: PartnerList
    later: PartnerList

    def tensors(self, name: str) -> dict[str, Tensor]:
        """As a file holds them: tensor name → tensor, for the map of this name."""
        return {
            f"{name}.{each}": getattr(getattr(self, each.split("_")[0]), each.split("_")[1])
            for each in LAYER_TENSORS
        }

    @classmethod
    def of_file(cls, tensors: Mapping[str, Tensor], name: str) -> Partners:
        """What :meth:`tensors` gave."""
        sides = [
            PartnerList(*(tensors[f"{name}.{side}_{what}"] for what in ("rho", "layer", "neuron")))
            for side in ("earlier", "later")
        ]
        return cls(*sides)


def best_of_columns(correlations: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of each column, the rows of the k greatest |ρ|, the greatest first.

    Args:
        correlations: (n, b).

    Returns:
        (b, k) signed ρ, and (b, k) int64 rows; NaN and −1 where there are fewer than k rows.
    """
    n_found = min(k, correlations.shape[0])
    rows = correlations.abs().T.contiguous().topk(n_found, dim=1).indices
    rho = correlations.T.gather(1, rows)
    if n_found == k:
        return rho, rows
    n_lacking = (rows.shape[0], k - n_found)
    none = (rho.new_full(n_lacking, torch.nan), rows.new_full(n_lacking, -1))
    return torch.cat([rho, none[0]], dim=1), torch.cat([rows, none[1]], dim=1)


def strongest(parts: Sequence[tuple[int, Ranked]], n_neurons: int, k: int) -> PartnerList:
    """The k best partners of each of N neurons over several layers.

    Of equal |ρ| the earlier layer's comes first, as in :class:`Ranked`.

    Args:
        parts: layers, ascending, and the best partners within each.
    """
    none = Ranked.none(n_neurons, k)
    rho = torch.cat([none.rho, *(each.rho for _, each in parts)], dim=1)
    neuron = torch.cat([none.neuron, *(each.neuron for _, each in parts)], dim=1)
    layer = torch.cat(
        [none.neuron]
        + [torch.where(each.neuron < 0, -1, layer).to(torch.int32) for layer, each in parts],
        dim=1,
    )
    size = torch.where(rho.isnan(), -1.0, rho.abs())
    order = size.argsort(dim=1, descending=True, stable=True)[:, :k]
    return PartnerList(*(each.gather(1, order) for each in (rho, layer, neuron)))
