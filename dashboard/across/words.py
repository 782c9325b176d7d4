"""Sentences on partners across layers: figures of two layers compared with the controls."""

from __future__ import annotations

from statistics import median

from dashboard.across.measures import Measure, by_distance
from dashboard.across.partners import Side
from dashboard.drawing.text import number
from projector.statistics.cross_layer.partners import PartnerList, level_of
from projector.statistics.cross_layer.records import CrossLayerFacts, LayerPair

# Controls in a sentence, by their panels' titles.
_CONTROLS = {
    "Control: rotated axes": "with rotated axes",
    "Control: shuffled tokens": "with shuffled tokens",
    "Control: by chance": "by chance",
}


def levels(pair: LayerPair) -> str:
    """Describe two layers in one or two sentences: the neurons, and both controls."""
    if pair.best is None or pair.rotated is None or pair.shuffled is None:
        return f"Layers {pair.earlier} and {pair.later}: {pair.reason or 'no figures'}."
    return (
        f"For the median neuron of layer {pair.later}, the best |ρ| in layer {pair.earlier} is "
        f"{_rho(pair.best.median)} (95% of neurons stay below {_rho(pair.best.percentile_95)}). "
        f"After a random rotation of layer {pair.earlier}'s space it is "
        f"{_rho(pair.rotated.median)} ({_rho(pair.rotated.percentile_95)}); with tokens shuffled "
        f"{_rho(pair.shuffled.median)} ({_rho(pair.shuffled.percentile_95)}). "
        f"{pair.rotated.share_above:.0%} of neurons exceed {_rho(pair.rotated.percentile_95)}, "
        f"where 5% would by chance.{_distinct(pair)}"
    )


def _distinct(pair: LayerPair) -> str:
    """The number of different partners of the neurons above the control; many may share one."""
    n = pair.n_distinct
    if not n:
        return ""
    are = "neuron is their best partner" if n == 1 else "different neurons are their best partners"
    return f" In layer {pair.earlier}, {n:,} {are}."


def standing(found: PartnerList, side: Side, neuron: int) -> str | None:
    """Compare one neuron's best |ρ| on a side with its control and its layer's neurons; None if the
    control is not known.

    Args:
        found: the partners of the neuron's layer on that side.
    """
    level = level_of(found)
    if level is None or found.rotated is None:
        return None
    best, control = abs(float(found.rho[neuron, 0])), float(found.rotated[neuron])
    above = "exceeds" if best > level.percentile_95 else "does not exceed"
    return (
        f"Best |ρ| {_rho(best)}; the best of as many random axes: {_rho(control)}. It {above} "
        f"{_rho(level.percentile_95)}, the level that 95% of such controls of this layer stay "
        f"below. {level.n_above:,} of the layer's {level.n_neurons:,} neurons "
        f"({level.n_above / level.n_neurons:.0%}) exceed it in {side} layers; by chance 5% would."
    )


def summary(facts: CrossLayerFacts, measure: Measure) -> str:
    """Summarize the matrix in numbers: median, strongest, near and far pairs, and the controls."""
    titles = list(measure.panels)
    values = {
        title: [v for v in map(value, facts.pairs) if v is not None]
        for title, value in measure.panels.items()
    }
    if not values[titles[0]]:
        return "No two layers have a correlation."
    usual = [measure.text(median(found)) for found in values.values()]
    controls = " and ".join(f"{usual[k]} {_CONTROLS[title]}" for k, title in enumerate(titles) if k)
    own = measure.panels[titles[0]]
    pair = max(
        (pair for pair in facts.pairs if own(pair) is not None), key=lambda pair: own(pair) or 0.0
    )
    said = (
        f"In the median pair of layers, {measure.noun} is {usual[0]}, against {controls}. It is "
        f"highest for layers {pair.earlier} and {pair.later}: {measure.text(own(pair) or 0.0)}."
    )
    over = by_distance(facts, own)
    if len(over) > 1:
        near, far = over[0], over[-1]
        said += (
            f" On average it is {measure.text(near.mean)} for {_apart(near.distance)}, and "
            f"{measure.text(far.mean)} for {_apart(far.distance)}."
        )
    return said


def _apart(distance: int) -> str:
    return f"layers {distance} apart" if distance > 1 else "neighbouring layers"


def _rho(value: float) -> str:
    return number(value, ".2f")
