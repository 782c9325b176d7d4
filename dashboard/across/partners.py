"""Partners across layers for pages: those of one neuron, and the strongest pairs of two layers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

from projector.statistics.cross_layer.partners import Partners

Side = Literal["earlier", "later"]


@dataclass(frozen=True)
class Partner:
    """A neuron of another layer, and the signed correlation ρ with it."""

    layer: int
    neuron: int
    rho: float


@dataclass(frozen=True)
class NeuronPair:
    """Two neurons of two layers, by their numbers, and the signed ρ between them."""

    earlier: int
    later: int
    rho: float


def partners_of(partners: Partners, side: Side, neuron: int) -> tuple[Partner, ...]:
    """The partners of one neuron on one side, the strongest first; empty if it has no ρ.

    Args:
        partners: partners of the neuron's layer.
    """
    found = getattr(partners, side)
    rows = (found.layer[neuron].tolist(), found.neuron[neuron].tolist(), found.rho[neuron].tolist())
    return tuple(Partner(*each) for each in zip(*rows, strict=True) if each[0] >= 0)


def strongest_pairs(
    layers: tuple[int, int],
    of_earlier: Partners,
    of_later: Partners,
    most: int,
    most_each: int | None = None,
) -> tuple[NeuronPair, ...]:
    """The pairs of neurons of two layers with the highest |ρ|, among the kept partners.

    A pair is kept if either neuron is among the other's strongest partners on that side. Pairs with
    equal |ρ| are ordered by their numbers.

    Args:
        layers: both layers, the earlier one first.
        of_earlier, of_later: the partners of all neurons of each layer.
        most: maximum number of pairs.
        most_each: maximum number of pairs with the same neuron of the earlier layer; None for no
            limit. A neuron that fires on one frequent token may be the partner of many.
    """
    earlier, later = layers
    found: dict[tuple[int, int], float] = {}
    for listed, wanted, is_later in (
        (of_later.earlier, earlier, True),
        (of_earlier.later, later, False),
    ):
        rows, columns = np.nonzero(listed.layer.numpy() == wanted)
        partners = listed.neuron.numpy()[rows, columns].tolist()
        rho = listed.rho.numpy()[rows, columns].tolist()
        for own, partner, value in zip(rows.tolist(), partners, rho, strict=True):
            found.setdefault((partner, own) if is_later else (own, partner), value)
    ranked = sorted(found.items(), key=lambda item: (-abs(item[1]), item[0]))
    if most_each is not None:
        times: Counter[int] = Counter()
        some = []
        for numbers, value in ranked:
            times[numbers[0]] += 1
            if times[numbers[0]] <= most_each:
                some.append((numbers, value))
        ranked = some
    return tuple(NeuronPair(*numbers, value) for numbers, value in ranked[:most])
