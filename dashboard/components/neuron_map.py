"""The map: neurons as points, drawn in the browser; its camera is moved by the user alone."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.drawing import palette
from dashboard.drawing.encoding import id_of, middle_of, text_of
from dashboard.drawing.legend import Hover, Legend

_HERE = Path(__file__).parent
_SENT = "sent positions"
AXES = ("axis 1", "axis 2", "axis 3")


@dataclass(frozen=True, eq=False)
class Panel:
    """One map.

    Attributes:
        title: above it.
        name: of its neurons, such as ``L3 MLP``.
        points: (N, 3) float32, NaN for a neuron without a position.
        values: colours: (N,) uint8, an index of the palette; or, where there are tokens, (T, N)
            int8, −127 to 127, drawn in the diverging one with sizes that follow.
        sizes: (N,) uint8, or None for all alike.
        values_id: of ``values``, where it is known; see :func:`dashboard.drawing.encoding.id_of`.
        scale: what 127 stands for.
        value_label: what ``values`` are, with their unit.
        selected: the chosen neuron.
        marked: neurons with a ring.
        colors: (256, 3) uint8, a palette of its own; None for that of the view.
        legend: what its colours and sizes mean, where maps differ in that.
    """

    title: str
    name: str
    points: NDArray[np.float32]
    values: NDArray[np.uint8] | NDArray[np.int8]
    sizes: NDArray[np.uint8] | None = None
    scale: float = 1.0
    value_label: str = "activation"
    selected: int | None = None
    marked: tuple[int, ...] = ()
    hover: tuple[Hover, ...] = ()
    colors: NDArray[np.uint8] | None = None
    legend: Legend | None = None
    values_id: str | None = None


@dataclass(frozen=True)
class Token:
    """A token of the timeline.

    Attributes:
        title: what is shown when the pointer rests on it.
        is_made: the model added it.
        color: of its background, in CSS; empty for none.
    """

    text: str
    title: str
    is_made: bool = False
    color: str = ""


@dataclass(frozen=True)
class Timeline:
    """Tokens that the map steps through: of one prompt, or of two, k by k.

    Attributes:
        id: another one for other tokens.
        beside: of the second prompt; the shorter one's last token stays to the end.
    """

    id: str
    tokens: Sequence[Token] = field(default_factory=tuple)
    current: int = 0
    beside: Sequence[Token] = ()


@dataclass(frozen=True, eq=False)
class View:
    """Maps side by side, with one camera: all that is drawn.

    Attributes:
        dim: 2 for flat maps.
        extent: how far from the middle of each map's points is to be seen, along any axis.
        colors: (256, 3) uint8, the palette of ``Panel.values``.
        legend: one for all maps; None where each has its own.
        label: what a screen reader says of it.
    """

    panels: Sequence[Panel]
    dim: int
    extent: float
    colors: NDArray[np.uint8]
    legend: Legend | None = None
    timeline: Timeline | None = None
    height: int = 560
    label: str = "Map of neurons"

    def data(self, sent: set[str]) -> dict[str, Any]:
        """What the browser needs, but for what it was ``sent`` already, told by its ids."""
        timeline = self.timeline or Timeline("")
        return {
            "dim": self.dim,
            "extent": self.extent,
            "height": self.height,
            "label": self.label,
            "axes": list(AXES),
            "panels": [_panel(each, sent) for each in self.panels],
            "palette": text_of(self.colors),
            "diverging": text_of(palette.diverging()),
            "legend": None if self.legend is None else _legend(self.legend),
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
) -> None:
    """Draw a view.

    Positions, and the values of all tokens, travel once in a session; afterwards only colours and
    sizes.

    Args:
        key: of this place on the page; its camera stays while the key does.
        on_pick: called with the panel and the neuron that was clicked, before the page runs again.
        on_token: called with the token at which the user came to rest.
    """
    sent: set[str] = st.session_state.setdefault(_SENT, set())

    def picked() -> None:
        value = st.session_state[key].get("picked")
        if value and on_pick is not None:
            panel, neuron = int(value["panel"]), int(value["neuron"])
            if 0 <= panel < len(view.panels) and 0 <= neuron < len(view.panels[panel].points):
                on_pick(panel, neuron)

    def rested() -> None:
        value = st.session_state[key].get("token")
        if value is not None and on_token is not None:
            on_token(int(value))

    def missed() -> None:
        # A page that was loaded anew, or a message that was lost, has none of them.
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
    )


def standalone_html(view: View, title: str) -> str:
    """The view as one page that needs no server and no network."""
    # Of any token's text: neither the end of an element nor the beginning of a comment.
    data = json.dumps(view.data(set())).replace("<", "\\u003c")
    script = _source("js").replace("export default function", "const mount = function", 1)
    return _PAGE.format(title=html.escape(title), style=_source("css"), script=script, data=data)


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
def _source(kind: str) -> str:
    return (_HERE / f"neuron_map.{kind}").read_text(encoding="utf-8")


@cache
def _component() -> Any:
    # Registered once: a second one of the same name would take the first one's place.
    return st.components.v2.component(
        "transformer_projector_map",
        html='<div class="neuron-map"></div>',
        css=_source("css"),
        js=_source("js"),
    )


def _token(token: Token) -> dict[str, Any]:
    return {"text": token.text, "title": token.title, "made": token.is_made, "color": token.color}


def _panel(panel: Panel, sent: set[str]) -> dict[str, Any]:
    positions_id = id_of(panel.points)
    values_id = panel.values_id or id_of(
        panel.values, *([] if panel.sizes is None else [panel.sizes])
    )
    frames = len(panel.values) if panel.values.ndim == 2 else None
    has_positions = positions_id in sent
    has_values = frames is not None and values_id in sent
    sent |= {positions_id} | ({values_id} if frames is not None else set())
    return {
        "title": panel.title,
        "name": panel.name,
        "positions_id": positions_id,
        "positions": None if has_positions else text_of(panel.points.astype(np.float32)),
        "middle": middle_of(panel.points).tolist(),
        "values_id": values_id,
        "values": None if has_values else text_of(panel.values),
        "sizes": None if panel.sizes is None else text_of(panel.sizes),
        "frames": frames,
        "scale": panel.scale,
        "value_label": panel.value_label,
        "palette": None if panel.colors is None else text_of(panel.colors),
        "legend": None if panel.legend is None else _legend(panel.legend),
        "selected": panel.selected,
        "marked": list(panel.marked),
        "hover": [
            {
                "label": each.label,
                "values": text_of(each.values.astype(np.float32)),
                "names": None if each.names is None else list(each.names),
            }
            for each in panel.hover
        ],
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
