"""Figures of the effects of adding the difference of means to the stream or projecting it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from projector.corpus.pieces import readable
from projector.figures.contrast.series import (
    Facts,
    Found,
    entries_of,
    facts_of,
    number_of,
    plain_names,
    set_names,
    shown,
)
from projector.figures.contrast.style import NULL, PERMUTED, SETS, clear, lay_out
from projector.residual.flow.words import number

# Each: its name in the report, what it is called, mark and colour.
_CONTROLS = (
    ("random", "random directions of the same norm", "x-thin", NULL),
    ("permuted", "directions of permuted labels", "circle-open", PERMUTED),
)
_LEAST_ROOM = 110


def effects_of(found: Found | Facts, model: str) -> list[Facts]:
    """The effects on a model in the report."""
    entries = entries_of(facts_of(found), "directions", model)
    return [each for each in entries if number_of(each, "effect") is not None]


def why_no_effects(found: Found | Facts, model: str) -> str:
    """The reason why the report has no effects on a model, as a sentence."""
    entries = entries_of(facts_of(found), "directions", model)
    reasons = list(dict.fromkeys(str(each["reason"]) for each in entries if each.get("reason")))
    if not reasons:
        return "The direction was not tested on this model."
    return f"The direction was not tested on this model: {'; '.join(reasons)}."


def change_words(effect: Facts, names: tuple[str, str]) -> str:
    """Describe the change to the stream in a few words: adding the difference of means leads
    towards the first set, subtracting it towards the second.
    """
    scale = number_of(effect, "scale")
    if scale is None:
        return "projected out"
    times = "" if abs(scale) == 1 else f"{number(abs(scale), '.3g')} × "
    return f"{times}towards {names[0] if scale > 0 else names[1]}"


def controls_of(effect: Facts, name: str) -> list[float]:
    """The effects of a control's directions, ``random`` or ``permuted``."""
    found = effect.get(name)
    values = found if isinstance(found, list | tuple) else ()
    return [float(value) for value in values if isinstance(value, int | float)]


def is_beyond(effect: Facts) -> bool:
    """Whether an effect is larger in size than that of every direction of every control; False if
    there are none.
    """
    value = number_of(effect, "effect")
    others = [abs(each) for name, *_ in _CONTROLS for each in controls_of(effect, name)]
    return value is not None and bool(others) and abs(value) > max(others)


def effects_figure(
    found: Found | Facts, model: str, *, layer: int | None = None
) -> go.Figure | None:
    """One panel for each set (and continuation): the effect of every change with its interval,
    compared with random directions of the same norm and with permuted labels; None if nothing was
    tested.

    Args:
        model: name of the model in the report.
        layer: the layer to mark.

    Raises:
        UserError: if this isn't a report of two sets.
    """
    facts = facts_of(found)
    effects = effects_of(facts, model)
    panels = list(dict.fromkeys(map(_panel_of, effects)))
    if not panels:
        return None
    # A row for the perplexity, or for each continuation.
    n_columns = len({which for _, _, which in panels})
    n_rows = -(-len(panels) // n_columns)
    positive, negative = (shown(each, 14) for each in plain_names(facts))
    names = (positive, negative)
    changes = list(dict.fromkeys(change_words(each, names) for each in effects))
    layers = sorted({int(each.get("layer", 0)) for each in effects})
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        subplot_titles=[_title(panel, set_names(facts)) for panel in panels],
        horizontal_spacing=0.07,
        vertical_spacing=0.35 / n_rows,
    )
    named: set[str] = set()
    for number_, panel in enumerate(panels):
        where: dict[str, Any] = {"row": 1 + number_ // n_columns, "col": 1 + number_ % n_columns}
        own = [each for each in effects if _panel_of(each) == panel]
        _add_effects(figure, own, layers, changes, names, named, **where)
        figure.update_yaxes(range=_reach(own), **where)
        figure.update_xaxes(
            tickvals=list(range(len(layers) * (len(changes) + 1))),
            ticktext=[text for _ in layers for text in (*changes, "")],
            tickangle=-45,
            **where,
        )
        for k, each in enumerate(layers):
            start = k * (len(changes) + 1)
            _name_layer(figure, start, len(changes), each, is_marked=each == layer, **where)
    figure.update_yaxes(zeroline=True, zerolinecolor=NULL)
    figure.update_yaxes(title={"text": "effect, nats"}, col=1)
    lay_out(figure, _LEAST_ROOM + 400 * n_rows, top=90)
    return figure.update_layout(margin={"b": _LEAST_ROOM})


def _panel_of(effect: Facts) -> tuple[str, str, str]:
    return (
        str(effect.get("measure")),
        str(effect.get("continuation") or ""),
        str(effect.get("set")),
    )


def _title(panel: tuple[str, str, str], names: tuple[str, str]) -> str:
    measure, continuation, which = panel
    sets = {
        "positive": names[0],
        "negative": names[1],
        "difference": f"{names[1]} less {names[0]}",
    }
    after = f" of ‘{shown(readable(continuation), 24)}’" if continuation else ""
    return f"{shown(measure)}{after}: {sets.get(which, shown(which))}"


def _add_effects(
    figure: go.Figure,
    effects: Sequence[Facts],
    layers: Sequence[int],
    changes: Sequence[str],
    names: tuple[str, str],
    named: set[str],
    **where: Any,
) -> None:
    def place(effect: Facts) -> int:
        layer = layers.index(int(effect.get("layer", 0)))
        return layer * (len(changes) + 1) + changes.index(change_words(effect, names))

    for control, words, symbol, color in _CONTROLS:
        drawn = [(place(each), v) for each in effects for v in controls_of(each, control)]
        if not drawn:
            continue
        figure.add_scatter(
            x=[at for at, _ in drawn],
            y=[value for _, value in drawn],
            mode="markers",
            marker={
                "symbol": symbol,
                "size": 9 if symbol == "x-thin" else 7,
                "color": color,
                "line": {"width": 1.5, "color": color},
            },
            name=words,
            legendgroup=words,
            showlegend=words not in named,
            hovertemplate=f"%{{y:.3f}}<extra>{words}</extra>",
            **where,
        )
        named.add(words)
    values = [number_of(each, "effect") or 0.0 for each in effects]
    lows, highs = (
        [number_of(each, f"effect_{end}") for each in effects] for end in ("low", "high")
    )
    figure.add_scatter(
        x=[place(each) for each in effects],
        y=values,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [0 if h is None else h - v for h, v in zip(highs, values, strict=True)],
            "arrayminus": [0 if a is None else v - a for a, v in zip(lows, values, strict=True)],
            "color": SETS,
            "thickness": 1.5,
            "width": 4,
        },
        text=[f"layer {each.get('layer')}, {change_words(each, names)}" for each in effects],
        mode="markers",
        marker={"size": 9, "color": SETS},
        name="difference of means, with its bootstrap spread",
        legendgroup="difference of means",
        showlegend="difference of means" not in named,
        hovertemplate="%{text}: %{y:.3f} nats<extra>difference of means</extra>",
        **where,
    )
    named.add("difference of means")


def _reach(effects: Sequence[Facts]) -> list[float]:
    """Of a panel's axis: all that is drawn, with room for the layers' names above it."""
    ends = ("effect", "effect_low", "effect_high")
    values = [v for each in effects for end in ends if (v := number_of(each, end)) is not None]
    values += [v for each in effects for name, *_ in _CONTROLS for v in controls_of(each, name)]
    low, high = min(0.0, *values), max(0.0, *values)
    size = high - low or 1.0
    return [low - 0.06 * size, high + 0.18 * size]


def _name_layer(
    figure: go.Figure, start: int, n: int, layer: int, *, is_marked: bool, **where: Any
) -> None:
    """A background behind the changes of a layer, with the layer's number."""
    figure.add_vrect(
        x0=start - 0.5,
        x1=start + n - 0.5,
        fillcolor=clear(NULL, 0.25 if is_marked else 0.08),
        line_width=0,
        layer="below",
        annotation={"text": f"layer {layer}", "font": {"size": 12}},
        annotation_position="top left",
        **where,
    )


def how_effects(effects: Sequence[Facts]) -> str:
    """Explain how to read the figure of effects."""
    text = (
        "The difference of the sets’ means is added to the stream (towards the first set), "
        "subtracted from it (towards the second), and projected out of it, at every position. "
        "Dots show the effect on prompts that were not used to compute the direction. "
    )
    if all(each.get("continuation") is None for each in effects):
        text += (
            "A rise of the log-perplexity means that the model predicts the text less well. If "
            "it rises more for the second set than for the first, the change favours the first "
            "set."
        )
    else:
        text += (
            "The effect is the change of the continuation’s total log-probability; a rise means "
            "that the model finds the continuation more likely."
        )
    text += (
        " Intervals are over groups of prompts. Crosses are controls: random directions of the "
        "same norm. The stream varies along few directions, and a random direction lies almost "
        "entirely outside them, so projecting it out changes little."
    )
    if any(controls_of(each, "permuted") for each in effects):
        text += (
            " Rings are controls of the same norm along which prompts of one set vary: the "
            "difference of means under permuted labels, with each set’s mean removed."
        )
    return (
        f"{text} An effect is beyond every control if its size exceeds the size of each control’s "
        "effect."
    )


def effects_words(effects: Sequence[Facts], names: tuple[str, str]) -> str:
    """Describe whether the direction steers between the sets, and at how many layers each measure
    rises or falls, compared with controls; an empty line separates measures.

    Args:
        effects: effects on one model.
        names: names of the two sets.
    """
    beside = [each for each in effects if any(controls_of(each, name) for name, *_ in _CONTROLS)]
    if not beside:
        return "No effect was compared with random directions."
    parts = []
    for kind in dict.fromkeys(_panel_of(each)[:2] for each in beside):
        own = [each for each in beside if _panel_of(each)[:2] == kind]
        is_perplexity = kind[0] == "log-perplexity"
        steering = _steering_words(own, names) if is_perplexity else ""
        said = (steering, *_moves_words(own, names), _harm_words(own))
        parts.append(" ".join(each for each in said if each))
    return "\n\n".join(parts)


def _steering_words(effects: Sequence[Facts], names: tuple[str, str]) -> str:
    """Whether what is added favours the set that it leads to by more than every control does."""
    said: list[str] = []
    n_right, n_tried, by_chance = 0, 0, 0.0
    for sign, name, other in ((1, names[0], names[1]), (-1, names[1], names[0])):
        own = [
            each
            for each in effects
            if each.get("set") == "difference" and sign * (number_of(each, "scale") or 0) > 0
        ]
        if not own:
            continue
        right = sum(_favours(each, sign) for each in own)
        over = f"{name} over {other} by more than every control" if not said else name
        said.append(f"added towards {name}, it favours {over} at {right} of {_layers(len(own))}")
        n_right, n_tried = n_right + right, n_tried + len(own)
        # Of k + 1 directions that are alike, each is as likely to have the largest effect.
        by_chance += sum(
            1 / (1 + len(controls_of(each, "permuted") or controls_of(each, "random")))
            for each in own
        )
    if not said:
        return ""
    steers = "steers between the sets in part"
    if n_right == n_tried:
        steers = "steers between the sets"
    elif n_right <= by_chance:
        steers = "does not steer between the sets"
    return (
        f"The direction {steers}: {'; '.join(said)}. "
        f"Chance gives at most {number(by_chance, '.2g')} of {n_tried}."
    )


def _favours(effect: Facts, sign: int) -> bool:
    """Whether the difference goes the way of the sign, further than with every control."""
    value = number_of(effect, "effect") or 0.0
    others = [sign * each for name, *_ in _CONTROLS for each in controls_of(effect, name)]
    return sign * value > max(0.0, *others)


def _moves_words(effects: Sequence[Facts], names: tuple[str, str]) -> list[str]:
    """For each change, a sentence: which way the measure of each set goes, at how many layers."""
    found = []
    of_sets = [each for each in effects if each.get("set") != "difference"]
    for change in dict.fromkeys(change_words(each, names) for each in of_sets):
        said: list[str] = []
        for side, name in zip(("positive", "negative"), names, strict=True):
            own = [
                each
                for each in of_sets
                if each.get("set") == side and change_words(each, names) == change
            ]
            if own:
                said.append(f"{_measure_of(own[0], name, is_first=not said)} {_move(own)}")
        start = change if change == "projected out" else f"added {change}"
        found.append(f"{start[:1].upper()}{start[1:]}, {'; '.join(said)}.")
    return found


def _measure_of(effect: Facts, name: str, *, is_first: bool) -> str:
    """What is measured of a set, named in full the first time."""
    continuation = effect.get("continuation")
    of = f"of ‘{readable(str(continuation))}’ after {name}" if continuation else f"of {name}"
    return f"the {effect.get('measure')} {of}" if is_first else f"that {of}"


def _move(effects: Sequence[Facts]) -> str:
    """Which way effects of several layers go, and how many are beyond every control."""
    values = [number_of(each, "effect") or 0.0 for each in effects]
    ways = [
        (words, sum(is_so(value) for value in values))
        for words, is_so in (("rises", lambda v: v > 0), ("falls", lambda v: v < 0))
    ]
    told = " and ".join(f"{words} at {n}" for words, n in ways if n) or "stays the same at all"
    n_beyond = sum(map(is_beyond, effects))
    return f"{told} of {_layers(len(effects))}, beyond every control at {n_beyond or 'none'}"


def _harm_words(effects: Sequence[Facts]) -> str:
    """Whether the change harms the model whichever way it is made."""
    added = [
        each
        for each in effects
        if each.get("measure") == "log-perplexity"
        and each.get("set") in ("positive", "negative")
        and number_of(each, "scale")
    ]
    signs = {(number_of(each, "scale") or 0) > 0 for each in added}
    if len(signs) < 2 or not all((number_of(each, "effect") or 0) > 0 for each in added):
        return ""
    others = [v for each in added for name, *_ in _CONTROLS for v in controls_of(each, name)]
    text = "Added either way, the direction makes both sets harder to predict"
    do_too = "as every control does" if min(others) > 0 else "as the controls do on average"
    return f"{text}, {do_too}." if sum(others) > 0 else f"{text}."


def _layers(n: int) -> str:
    return f"{n} layer" if n == 1 else f"{n} layers"
