"""The best partners of each neuron in other layers, ranked within one layer and then over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from projector.statistics.cross_layer.records import CONTROL_TENSORS, LAYER_TENSORS


@dataclass(frozen=True)
class Ranked:
    """The best partners of N neurons among the neurons of one layer, the strongest first.

    Attributes:
        rho: (N, k) float32, signed; NaN for missing partners.
        neuron: (N, k) int32, index of the partner; −1 for missing partners.
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
    """The best partners of N neurons among the neurons of several layers, by |ρ|, the strongest
    first.

    Attributes:
        rho: (N, k) float32, signed Pearson correlation; NaN for missing partners.
        layer: (N, k) int32, the partner's layer; −1 for missing partners.
        neuron: (N, k) int32, the partner's index in that layer; −1 for missing partners.
        rotated: (N,) float32, the control: the best |ρ| with as many random axes of the same
            layers; NaN if there is none. The attribute is None for files of format version 1, which
            lack it.
    """

    rho: Tensor
    layer: Tensor
    neuron: Tensor
    rotated: Tensor | None = None


@dataclass(frozen=True)
class SideLevel:
    """Comparison of a layer's neurons with the control of one side (earlier or later layers).

    If there is nothing to find, a neuron's best |ρ| over all layers of a side has the same
    distribution as its control, so 5% of neurons are above the 95th percentile.

    Attributes:
        percentile_95: 95th percentile over neurons of each neuron's best |ρ| among random axes of
            all those layers.
        n_above: number of neurons with a best |ρ| above it.
        n_neurons: number of neurons that have correlations.
    """

    percentile_95: float
    n_above: int
    n_neurons: int


def level_of(found: PartnerList) -> SideLevel | None:
    """Compute the level of one side; None if it has no control, or no neuron has correlations."""
    if found.rotated is None:
        return None
    known = found.rotated.isfinite() & found.rho[:, 0].isfinite()
    if not bool(known.any()):
        return None
    level = float(found.rotated[known].double().quantile(0.95))
    n_above = int((found.rho[known, 0].abs().double() > level).sum())
    return SideLevel(level, n_above, int(known.sum()))


@dataclass(frozen=True)
class Partners:
    """The partners of every neuron of one layer.

    A dead or non-finite neuron has no partners. If there is no layer on a side, no neuron has
    partners on that side.

    Attributes:
        earlier: partners among the neurons of all earlier layers.
        later: partners among the neurons of all later layers.
    """

    earlier: PartnerList
    later: PartnerList

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors to store, by name, for the map with this name."""
        found = {}
        for each in (*LAYER_TENSORS, *CONTROL_TENSORS):
            side, what = each.split("_")
            value = getattr(getattr(self, side), what)
            # Files of format version 1 have no control.
            if value is not None:
                found[f"{name}.{each}"] = value
        return found

    @classmethod
    def of_file(cls, tensors: Mapping[str, Tensor], name: str) -> Partners:
        """Restore the result of :meth:`tensors`."""
        sides = [
            PartnerList(
                tensors[f"{name}.{side}_rho"],
                tensors[f"{name}.{side}_layer"],
                tensors[f"{name}.{side}_neuron"],
                rotated=tensors[own] if (own := f"{name}.{side}_rotated") in tensors else None,
            )
            for side in ("earlier", "later")
        ]
        return cls(*sides)


def best_of_columns(correlations: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """For each column, find the rows of the k largest |ρ|, the largest first.

    Args:
        correlations: (n, b).

    Returns:
        (b, k) signed ρ, and (b, k) int64 rows; NaN and −1 if there are fewer than k rows.
    """
    n_found = min(k, correlations.shape[0])
    rows = correlations.abs().T.contiguous().topk(n_found, dim=1).indices
    rho = correlations.T.gather(1, rows)
    if n_found == k:
        return rho, rows
    n_lacking = (rows.shape[0], k - n_found)
    none = (rho.new_full(n_lacking, torch.nan), rows.new_full(n_lacking, -1))
    return torch.cat([rho, none[0]], dim=1), torch.cat([rows, none[1]], dim=1)


def best_control(parts: Sequence[Tensor], n_neurons: int) -> Tensor:
    """The best |ρ| with random axes over several layers, (N,); NaN if there is none.

    Args:
        parts: the best |ρ| for each layer, (N,) each.
    """
    found = torch.full((n_neurons,), torch.nan)
    for each in parts:
        found = torch.fmax(found, each)
    return found


def strongest(parts: Sequence[tuple[int, Ranked]], n_neurons: int, k: int) -> PartnerList:
    """Find the k best partners of each of N neurons over several layers.

    If two |ρ| are equal, the partner in the earlier layer comes first.

    Args:
        parts: the layers, ascending, and the best partners within each.
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
