"""The map: the browser draws neurons as points; only the user moves its camera."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.drawing import palette
from dashboard.drawing.encoding import frame_of, id_of, text_of
from dashboard.drawing.legend import Groups, Hover, Legend
from projector.figures.renderer.script import script, style

_SENT = "sent positions"
AXES = ("axis 1", "axis 2", "axis 3")


@dataclass(frozen=True, eq=False)
class Panel:
    """One map.

    Attributes:
        title: title above it.
        name: name of its neurons, such as ``L3 MLP``.
        points: (N, 3) float32, NaN for a neuron without a position.
        values: colours: (N,) uint8, indices of the palette; or, with tokens, (T, N) int8, −127 to
            127, drawn in the diverging palette with sizes by value.
        sizes: (N,) uint8, or None for equal sizes.
        values_id: id of ``values``, if known; see :func:`dashboard.drawing.encoding.id_of`.
        scale: the value of 127.
        value_label: name of ``values``, with their unit.
        selected: the chosen neuron.
        near: neurons and their ρ with the chosen one, strongest first; lines lead to them.
        is_isolated: whether only these and the chosen neuron are shown.
        marked: neurons with a ring.
        groups: groups named on the map and listed next to it; ``group`` is the number of the chosen
            one.
        is_by_group: whether ``values`` are the colours of ``groups``.
        labels: what each neuron fires on, empty if unknown; or empty for all.
        snippets: a text that drives each neuron, in the same way.
        colors: (256, 3) uint8, the map's own palette; None for the view's palette. ``colors_dark``
            is the palette on dark pages, if it differs.
        legend: meaning of its colours and sizes, if maps differ in that.
    """

    title: str
    name: str
    points: NDArray[np.float32]
    values: NDArray[np.uint8] | NDArray[np.int8]
    sizes: NDArray[np.uint8] | None = None
    scale: float = 1.0
    value_label: str = "activation"
    selected: int | None = None
    near: tuple[tuple[int, float], ...] = ()
    is_isolated: bool = False
    marked: tuple[int, ...] = ()
    groups: Groups | None = None
    group: int | None = None
    is_by_group: bool = False
    labels: tuple[str, ...] = ()
    snippets: tuple[str, ...] = ()
    hover: tuple[Hover, ...] = ()
    colors: NDArray[np.uint8] | None = None
    colors_dark: NDArray[np.uint8] | None = None
    legend: Legend | None = None
    values_id: str | None = None


@dataclass(frozen=True)
class Token:
    """A token of the timeline.

    Attributes:
        title: text under the pointer.
        is_made: whether the model added it.
        color: CSS colour of its background; empty for none.
    """

    text: str
    title: str
    is_made: bool = False
    color: str = ""


@dataclass(frozen=True)
class Timeline:
    """Tokens that the map steps through: those of one prompt, or of two prompts in step.

    Attributes:
        id: identifies the tokens.
        beside: tokens of the second prompt; the shorter prompt's last token stays to the end.
    """

    id: str
    tokens: Sequence[Token] = field(default_factory=tuple)
    current: int = 0
    beside: Sequence[Token] = ()


@dataclass(frozen=True, eq=False)
class View:
    """Maps side by side, with one camera. Each map is centred and fills its space.

    Attributes:
        dim: 2 for flat maps.
        colors: (256, 3) uint8, the palette of ``Panel.values``; None for the palette of groups.
        legend: one legend for all maps; None if each map has its own.
        label: text for screen readers.
        axes: names of the axes; None if only distances between neurons have a meaning.
        beside: the map whose chosen neuron and groups are listed next to it, if any.
        has_lasso: whether users can select neurons of flat maps by drawing around them.
    """

    panels: Sequence[Panel]
    dim: int
    colors: NDArray[np.uint8] | None = None
    legend: Legend | None = None
    timeline: Timeline | None = None
    height: int = 560
    label: str = "Map of neurons"
    axes: tuple[str, ...] | None = AXES
    beside: int | None = None
    has_lasso: bool = False

    def data(self, sent: set[str]) -> dict[str, Any]:
        """The data for the browser, without those that were ``sent`` before, by their ids."""
        timeline = self.timeline or Timeline("")
        light, dark = palette.groups(), palette.groups(dark=True)
        return {
            "dim": self.dim,
            "height": self.height,
            "label": self.label,
            "axes": None if self.axes is None else list(self.axes),
            "panels": [_panel(each, sent) for each in self.panels],
            "palette": text_of(light if self.colors is None else self.colors),
            "palette_dark": text_of(dark if self.colors is None else self.colors),
            "diverging": text_of(palette.diverging()),
            "legend": None if self.legend is None else _legend(self.legend),
            "beside": self.beside,
            "has_lasso": self.has_lasso,
            "tokens_id": timeline.id,
            "tokens": [_token(each) for each in timeline.tokens],
            "tokens_beside": [_token(each) for each in timeline.beside],
            "token": timeline.current,
        }


def neuron_map(
    view: View,
    *,
    key: str,
    on_pick: Callable[[int, int], None] | None = None,
    on_token: Callable[[int], None] | None = None,
    on_choose: Callable[[int, int | None], None] | None = None,
    on_isolate: Callable[[int, int | None], None] | None = None,
    on_mark: Callable[[int, tuple[int, ...]], None] | None = None,
) -> None:
    """Draw a view.

    Positions, and the values of all tokens, are sent once per session; after that only colours and
    sizes.

    Args:
        key: key of this place on the page; the camera stays as long as the key is the same.
        on_pick: called with the panel and the clicked neuron, before the page runs again.
        on_token: called with the token at which the user stopped.
        on_choose: called with the panel and the number of the chosen group, or None.
        on_isolate: called with the panel and the neuron to show with its neighbours only, or None.
        on_mark: called with the panel and the neurons in a lasso, ascending.
    """
    sent: set[str] = st.session_state.setdefault(_SENT, set())

    def told(name: str, key_of: str) -> tuple[int, Any] | None:
        """The browser's message, with its panel; None if there is no such panel."""
        value = st.session_state[key].get(name)
        panel = int(value["panel"]) if value else -1
        return (panel, value[key_of]) if 0 <= panel < len(view.panels) else None

    def is_there(panel: int, neuron: int) -> bool:
        return 0 <= neuron < len(view.panels[panel].points)

    def picked() -> None:
        found = told("picked", "neuron")
        if found and on_pick is not None and is_there(found[0], int(found[1])):
            on_pick(found[0], int(found[1]))

    def chose() -> None:
        found = told("chosen", "pole")
        if found and on_choose is not None:
            on_choose(found[0], None if found[1] is None else int(found[1]))

    def isolated() -> None:
        found = told("isolated", "neuron")
        if found and on_isolate is not None:
            on_isolate(found[0], None if found[1] is None else int(found[1]))

    def marked() -> None:
        found = told("marked", "neurons")
        if found and on_mark is not None:
            neurons = sorted({int(each) for each in found[1]})
            on_mark(found[0], tuple(each for each in neurons if is_there(found[0], each)))

    def rested() -> None:
        value = st.session_state[key].get("token")
        if value is not None and on_token is not None:
            on_token(int(value))

    def missed() -> None:
        # After a reload or a lost message, the browser has none of them.
        for each in st.session_state[key].get("missing") or ():
            sent.discard(str(each))

    _component()(
        key=key,
        # The camera is left where it was under this key, also while another page is looked at. As
        # bytes: of anything else Streamlit asks whether it is a table, for which it loads Pandas.
        data=json.dumps(view.data(sent) | {"key": key}, allow_nan=False).encode(),
        on_picked_change=picked,
        on_token_change=rested,
        on_missing_change=missed,
        on_chosen_change=chose,
        on_isolated_change=isolated,
        on_marked_change=marked,
    )


def standalone_html(view: View, title: str) -> str:
    """The view as one offline page."""
    # No token's text can end an element or begin a comment.
    data = json.dumps(view.data(set())).replace("<", "\\u003c")
    code = script("map.js").replace("export default function", "const mount = function", 1)
    return _PAGE.format(title=html.escape(title), style=style("map.css"), script=code, data=data)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; --st-font: system-ui; --st-primary-color: #d0434b;
  --st-text-color: light-dark(#31333f, #fafafa); --st-code-font: ui-monospace;
  --st-background-color: light-dark(#ffffff, #121417);
  --st-secondary-background-color: light-dark(#f0f2f6, #23262c); }}
body {{ margin: 16px; font-family: system-ui, sans-serif; color: var(--st-text-color);
  background: var(--st-background-color); }}
</style></head><body><h1 style="font-size:1.3rem">{title}</h1><div id="map"></div>
<script type="module">
{script}
const root = document.getElementById("map").attachShadow({{ mode: "open" }});
root.innerHTML = '<style id="style"></style><div class="neuron-map"></div>';
root.getElementById("style").textContent = document.getElementById("css").textContent;
const nothing = () => undefined;
mount({{ parentElement: root, data: document.getElementById("data").textContent,
  setTriggerValue: nothing, setStateValue: nothing }});
</script>
<script type="text/plain" id="css">{style}</script>
<script type="application/json" id="data">{data}</script>
</body></html>
"""


@cache
def _component() -> Any:
    # Registered once, because a second component with the same name would replace the first.
    return st.components.v2.component(
        "transformer_projector_map",
        html='<div class="neuron-map"></div>',
        css=style("map.css"),
        js=script("map.js"),
    )


def _token(token: Token) -> dict[str, Any]:
    return {"text": token.text, "title": token.title, "made": token.is_made, "color": token.color}


def _panel(panel: Panel, sent: set[str]) -> dict[str, Any]:
    def once(id: str, make: Callable[[], Any]) -> Any:
        """The result of ``make``, if the browser doesn't have it yet."""
        if id in sent:
            return None
        sent.add(id)
        return make()

    positions_id = id_of(panel.points)
    values_id = panel.values_id or id_of(
        panel.values, *([] if panel.sizes is None else [panel.sizes])
    )
    frames = len(panel.values) if panel.values.ndim == 2 else None
    middle, reach = frame_of(panel.points)
    return {
        "title": panel.title,
        "name": panel.name,
        "positions_id": positions_id,
        "positions": once(positions_id, lambda: text_of(panel.points.astype(np.float32))),
        "middle": middle.tolist(),
        "reach": reach.tolist(),
        "values_id": values_id,
        "values": text_of(panel.values)
        if frames is None
        else once(values_id, lambda: text_of(panel.values)),
        "sizes": None if panel.sizes is None else text_of(panel.sizes),
        "frames": frames,
        "scale": panel.scale,
        "value_label": panel.value_label,
        "colors": None if panel.colors is None else text_of(panel.colors),
        "colors_dark": None if panel.colors_dark is None else text_of(panel.colors_dark),
        "legend": None if panel.legend is None else _legend(panel.legend),
        "selected": panel.selected,
        "near": [list(each) for each in panel.near],
        "isolated": panel.is_isolated,
        "marked": list(panel.marked),
        "by_group": panel.is_by_group,
        **_groups(panel, once),
        **_texts(panel, once),
        "hover": [
            {
                "label": each.label,
                "values": text_of(each.values.astype(np.float32)),
                "names": None if each.names is None else list(each.names),
            }
            for each in panel.hover
        ],
    }


def _groups(panel: Panel, once: Callable[[str, Callable[[], Any]], Any]) -> dict[str, Any]:
    groups = panel.groups
    if groups is None:
        return {"membership_id": None, "groups": [], "group": None}
    numbers = [each.number for each in groups.items]
    membership_id = id_of(groups.membership)
    return {
        "membership_id": membership_id,
        "membership": once(membership_id, lambda: text_of(groups.membership)),
        "groups": [asdict(each) for each in groups.items],
        "groups_title": groups.title,
        "groups_note": groups.note,
        "groups_more": groups.more,
        # The browser counts them in the order of the list.
        "group": numbers.index(panel.group) if panel.group in numbers else None,
    }


def _texts(panel: Panel, once: Callable[[str, Callable[[], Any]], Any]) -> dict[str, Any]:
    if not any(panel.labels) and not any(panel.snippets):
        return {"texts_id": None}
    # From the texts themselves, because a user may have changed a name.
    both = "\0".join((*panel.labels, "\0", *panel.snippets)).encode("utf-8", "replace")
    texts_id = hashlib.sha256(both).hexdigest()[:16]
    return {
        "texts_id": texts_id,
        "texts": once(
            texts_id,
            lambda: {"labels": list(panel.labels), "snippets": list(panel.snippets) or None},
        ),
    }


def _legend(legend: Legend) -> dict[str, Any]:
    return {
        "label": legend.label,
        "items": None if legend.items is None else [list(item) for item in legend.items],
        "low": legend.low,
        "high": legend.high,
        "signed": legend.signed,
        "size": legend.size,
    }
