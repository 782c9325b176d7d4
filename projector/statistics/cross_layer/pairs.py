"""Correlations of two layers' neurons, computed tile by tile, with both controls.

With Z the standardised activations of T tokens, the correlations of an earlier layer's neurons i
with a later layer's j are C = ZᵢᵀZⱼ/T. Products of up to ``ROWS_AT_ONCE`` tokens are summed in
float32, and these in float64.

**Rotated.** Are single neurons of the earlier layer special, or do arbitrary directions of its
space match as well? The n neurons that have correlations are replaced by n random orthonormal axes,
R zᵢ with R uniform over rotations and reflections (Haar). The axes span the same space: a linear
map of the axes can represent any linear map of the neurons, and the eigenvalues of the layer's own
correlations are unchanged. Only the neuron basis is lost. Standardised activations are rotated
rather than raw ones, because a few neurons with large activations would dominate every axis of the
raw ones. An axis r has variance rᵀCᵢᵢr, so its correlations with the later layer are rᵀC/√(rᵀCᵢᵢr),
computed from the finished tile C. The variances are computed once for each layer. The later layer's
neurons are replaced in the same way: with an axis s of theirs, the earlier layer's neurons have
correlations Cs/√(sᵀCⱼⱼs). Each neuron's best |ρ| among axes is kept in both directions, so that its
best |ρ| over several layers can be compared with the best of as many axes.

**Shuffled.** How large is the best of n correlations by chance? The tokens of the later layer are
put into a random order, the same for all its neurons, and correlated with the earlier layer as
before. This is done for up to m evenly drawn neurons of the later layer, which add m columns to the
product. Each neuron keeps its distribution, because the chance level depends on it if activations
are sparse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from projector.statistics.cross_layer.activations import KeptActivations, Standards
from projector.statistics.cross_layer.partners import Ranked, best_of_columns
from projector.statistics.cross_layer.records import N_PARTNERS, Control, LayerPair, Level
from projector.statistics.precision import full_float32

_NOTHING_DEFINED = "no neuron of one of the layers has correlations"


@dataclass(frozen=True)
class Rotation:
    """Random orthonormal axes of one layer's standardised activations.

    Attributes:
        axes: (n, n) float32, one axis a row.
        scale: (n,) float32, 1/σ of each axis over the tokens.
    """

    axes: Tensor
    scale: Tensor


@dataclass(frozen=True)
class FoundPair:
    """The results for one pair of layers.

    Attributes:
        figures: the figures of the pair and its controls.
        of_later: the best partners of the later layer's neurons among the earlier layer's.
        of_earlier: the best partners of the earlier layer's neurons among the later layer's.
        rotated_of_later: (N′,) float32, for each neuron of the later layer, the best |ρ| among the
            random axes of the earlier layer; NaN if there is none.
        rotated_of_earlier: (N,) float32, the same for each neuron of the earlier layer, among the
            axes of the later layer.
    """

    figures: LayerPair
    of_later: Ranked
    of_earlier: Ranked
    rotated_of_later: Tensor
    rotated_of_earlier: Tensor


def rotation_of(
    kept: KeptActivations, layer: int, standards: Standards, device: torch.device, seed: int
) -> Rotation:
    """Draw a rotation of a layer's n neurons, uniform over the orthogonal group (Mezzadri 2007,
    "How to generate random matrices from the classical compact groups").
    """
    n = standards.n
    generator = torch.Generator().manual_seed(seed * 10_000 + 5_000 + layer)
    with full_float32():
        q, r = torch.linalg.qr(torch.randn(n, n, generator=generator).to(device))
        q *= r.diagonal().sign()
        del r
        squares = torch.zeros(n, dtype=torch.float64, device=device)
        for rows in kept.rows(layer):
            values = standards.standardised(rows, slice(None), device)
            squares += (values @ q.T).square().sum(dim=0, dtype=torch.float64)
    return Rotation(q, (squares / kept.n_tokens).rsqrt().float())


def find_pair(
    kept: KeptActivations,
    layers: tuple[int, int],
    standards: tuple[Standards, Standards],
    rotations: tuple[Rotation, Rotation],
    *,
    n_columns: int,
    device: torch.device,
    k: int = N_PARTNERS,
) -> FoundPair:
    """Find the best partners of two layers' neurons, and both controls.

    This takes 2·T·n·(n′ + m) + 2·n·n′·(n + n′) operations for n and n′ neurons. In memory are one
    tile of n × ``n_columns`` at a time, and n × n′ sums of the rotated later layer.

    Args:
        layers: the earlier and the later layer.
        standards: the standards of both layers.
        rotations: the rotations of both layers.
        n_columns: number of neurons of the later layer per tile, including shuffled ones.
        device: where products are computed.
    """
    of_earlier, of_later = (Ranked.none(each.n_neurons, k) for each in standards)
    first, second = standards
    if first.n == 0 or second.n == 0:
        figures = LayerPair(*layers, reason=_NOTHING_DEFINED)
        none = (torch.full((each.n_neurons,), torch.nan) for each in (second, first))
        return FoundPair(figures, of_later, of_earlier, *none)
    rotation, of_second = rotations
    # The earlier layer's neurons beside random axes of the later one, summed over tiles.
    across = torch.zeros(first.n, second.n, device=device)
    best: list[Tensor] = []
    rotated: list[Tensor] = []
    shuffled: list[Tensor] = []
    candidates: list[tuple[Tensor, Tensor]] = []
    with full_float32():
        for begin, correlations in _tiles(kept, layers, standards, n_columns, device):
            n_real = min(max(second.n - begin, 0), correlations.shape[1])
            if n_real < correlations.shape[1]:
                shuffled.append(correlations[:, n_real:].abs().amax(dim=0).cpu())
            if not n_real:
                continue
            real = correlations[:, :n_real]
            columns = second.alive[begin : begin + n_real]
            rho, rows = (each.cpu() for each in best_of_columns(real, k))
            of_later.rho[columns] = rho
            of_later.neuron[columns] = _numbers(first.alive, rows)
            best.append(rho[:, 0].abs())
            rho, rows = (each.cpu() for each in best_of_columns(real.T, k))
            candidates.append((rho, _numbers(columns, rows)))
            turned = rotation.axes @ real
            turned *= rotation.scale[:, None]
            rotated.append(turned.abs_().amax(dim=0).clamp_(max=1).cpu())
            del turned
            axes = of_second.axes[:, begin : begin + n_real].T
            torch.addmm(across, real, axes, out=across)
            del real, correlations
        across *= of_second.scale
        turned_later = across.abs_().amax(dim=1).clamp_(max=1).cpu()
    rho, neuron = (torch.cat(parts, dim=1) for parts in zip(*candidates, strict=True))
    size = torch.where(rho.isnan(), -1.0, rho.abs())
    order = size.argsort(dim=1, descending=True, stable=True)[:, :k]
    of_earlier.rho[first.alive] = rho.gather(1, order)
    of_earlier.neuron[first.alive] = neuron.gather(1, order)
    bests, controls, chance = (torch.cat(parts) for parts in (best, rotated, shuffled))
    return FoundPair(
        _figures(layers, bests, controls, chance, of_later.neuron[second.alive, 0]),
        of_later,
        of_earlier,
        _of_all(second, controls),
        _of_all(first, turned_later),
    )


def _tiles(
    kept: KeptActivations,
    layers: tuple[int, int],
    standards: tuple[Standards, Standards],
    n_columns: int,
    device: torch.device,
) -> Iterator[tuple[int, Tensor]]:
    """Correlations of all n neurons of the earlier layer with ``n_columns`` of the later one, and
    behind these with the shuffled ones: the first column, and (n, up to n_columns) float32."""
    first, second = standards
    shuffled = kept.shuffled(layers[1])
    n_all = second.n + shuffled.shape[1]
    # Equal tiles: a narrow last one would be slow.
    n_tiles = -(-n_all // n_columns)
    bounds = [n_all * i // n_tiles for i in range(n_tiles + 1)]
    for begin, end in pairwise(bounds):
        sums = torch.zeros(first.n, end - begin, dtype=torch.float64, device=device)
        real = slice(min(begin, second.n), min(end, second.n))
        extra = slice(max(begin - second.n, 0), max(end - second.n, 0))
        n_before = 0
        for of_first, of_second in zip(kept.rows(layers[0]), kept.rows(layers[1]), strict=True):
            left = first.standardised(of_first, slice(None), device)
            right = second.standardised(of_second, real, device)
            if extra.start < extra.stop:
                tokens = slice(n_before, n_before + len(of_first))
                right = torch.cat([right, shuffled[tokens, extra].to(device)], dim=1)
            sums += left.T @ right
            n_before += len(of_first)
        sums /= kept.n_tokens
        found = sums.float().clamp_(-1, 1)
        del sums
        yield begin, found


def _numbers(alive: Tensor, rows: Tensor) -> Tensor:
    """Neurons by their numbers in the layer, int32; −1 stays."""
    numbers = torch.where(rows < 0, -1, alive[rows.clamp(min=0)])
    return numbers.to(torch.int32)


def _of_all(standards: Standards, values: Tensor) -> Tensor:
    """A number for each of the layer's N neurons, NaN for those without correlations."""
    found = torch.full((standards.n_neurons,), torch.nan)
    found[standards.alive] = values
    return found


def _figures(
    layers: tuple[int, int], best: Tensor, rotated: Tensor, shuffled: Tensor, partner: Tensor
) -> LayerPair:
    """Of each neuron's best |ρ| and those of the controls, and of its best partner, (n,) each."""
    beside = _beside(best, rotated)
    distinct = partner[best > beside.percentile_95].unique()
    return LayerPair(
        *layers, _level(best), beside, _beside(best, shuffled), n_distinct=len(distinct)
    )


def _beside(best: Tensor, control: Tensor) -> Control:
    level = _level(control)
    above = float((best > level.percentile_95).double().mean())
    return Control(level.median, level.percentile_95, above)


def _level(values: Tensor) -> Level:
    at = torch.tensor([0.5, 0.95], dtype=torch.float64)
    median, percentile = values.double().quantile(at).tolist()
    return Level(median, percentile)
