"""Particles that move from layer to layer, with their tokens: the viewer of the offline page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import streamlit as st

from projector.figures.layer_time.page import layer_time_script, layer_time_style

_SENT = "sent layer-time"
_HEIGHT = 520


def layer_time(
    data: Mapping[str, Any],
    *,
    key: str,
    selected: Mapping[str, int | bool],
    on_token: Callable[[int, int], None] | None = None,
    on_layer: Callable[[int | None], None] | None = None,
) -> None:
    """Draw the viewer.

    The data are sent once; after that only the selection.

    Args:
        data: see :func:`projector.figures.layer_time.data.viewer_data`.
        key: key of this place on the page; the camera stays as long as the key is the same.
        selected: ``prompt`` and ``token`` (from 0), ``layer``, and ``rests`` if the viewer opens at
            that layer without playing.
        on_token: called with the prompt and the clicked token, before the page runs again.
        on_layer: called with the layer at which the user stopped; None for the embedding.
    """
    sent: dict[str, str] = st.session_state.setdefault(_SENT, {})

    def picked() -> None:
        value = st.session_state[key].get("token")
        numbers = _numbers(value, "prompt", "token")
        if numbers is not None and on_token is not None:
            on_token(*numbers)

    def rested() -> None:
        value = st.session_state[key].get("layer")
        if not isinstance(value, Mapping) or on_layer is None:
            return
        if value.get("layer") is None:
            on_layer(None)
        elif (numbers := _numbers(value, "layer")) is not None:
            on_layer(numbers[0])

    def missed() -> None:
        # A page that was left and opened again has lost the data.
        sent.pop(key, None)

    is_known = sent.get(key) == data["id"]
    sent[key] = data["id"]
    content = {"id": data["id"]} if is_known else dict(data)
    content |= {"key": key, "height": _HEIGHT, "selected": dict(selected)}
    _component()(
        key=key,
        # As bytes: Streamlit checks whether anything else is a table, for which it loads Pandas.
        data=json.dumps(content, allow_nan=False).encode(),
        on_token_change=picked,
        on_layer_change=rested,
        on_missing_change=missed,
    )


@cache
def _component() -> Any:
    # Registered once, because a second component with the same name would replace the first.
    return st.components.v2.component(
        "transformer_projector_layer_time",
        html='<div class="layer-time"></div>',
        css=layer_time_style(),
        js=layer_time_script(),
    )


def _numbers(value: Any, *names: str) -> list[int] | None:
    """The numbers from the browser; None if any is missing."""
    found = [value.get(name) if isinstance(value, Mapping) else None for name in names]
    if not all(isinstance(each, int | float) and each == int(each) >= 0 for each in found):
        return None
    return [int(each) for each in found if each is not None]
