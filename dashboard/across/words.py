"""What pages say of partners across layers: figures of two layers beside the controls' level."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from dashboard.across.measures import Measure, by_distance
from dashboard.drawing.text import number
from projector.statistics.cross_layer.records import CrossLayerFacts, LayerPair

# Controls in a sentence, by their panels' titles.
_CONTROLS = {
    "Control: rotated axes": "with rotated axes",
    "Control: shuffled tokens": "with shuffled tokens",
    "Control: by chance": "by chance",
}


def levels(pair: LayerPair) -> str:
    """Two layers in one sentence or two: the neurons, and what both controls give."""
    if pair.best is None or pair.rotated is None or pair.shuffled is None:
        return f"Layers {pair.earlier} and {pair.later}: {pair.reason or 'no figures'}."
    return (
        f"For the median neuron of layer {pair.later}, the best |ρ| in layer {pair.earlier} is "
        f"{_rho(pair.best.median)} (95% of neurons stay below {_rho(pair.best.percentile_95)}). "
        f"After a random rotation of layer {pair.earlier}'s space it is "
        f"{_rho(pair.rotated.median)} ({_rho(pair.rotated.percentile_95)}); with tokens shuffled "
        f"{_rho(pair.shuffled.median)} ({_rho(pair.shuffled.percentile_95)}). "
        f"{pair.rotated.share_above:.0%} of neurons exceed {_rho(pair.rotated.percentile_95)}, "
        "where 5% would by chance."
    )


def chance_level(pairs: Sequence[LayerPair]) -> str | None:
    """The level of both controls over several pairs of layers: the highest; None for no figures."""
    rotated = [pair.rotated for pair in pairs if pair.rotated is not None]
    shuffled = [pair.shuffled for pair in pairs if pair.shuffled is not None]
    if not rotated or not shuffled:
        return None
    found = [
        (max(each.median for each in of), max(each.percentile_95 for each in of))
        for of in (rotated, shuffled)
    ]
    return (
        "Level by chance, for the pair of layers where it is highest: after a random rotation of "
        f"the earlier layer's space, the best |ρ| is {_rho(found[0][0])} for the median neuron, "
        f"and 95% of neurons stay below {_rho(found[0][1])}; with tokens shuffled "
        f"{_rho(found[1][0])} and {_rho(found[1][1])}."
    )


def summary(facts: CrossLayerFacts, measure: Measure) -> str:
    """What the matrix shows, in numbers: usual, strongest, near and far, and the controls."""
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
