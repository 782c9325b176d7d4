"""Show a picture of hidden states over the layers: the viewer, its trust, and downloads."""

from __future__ import annotations

import re
from typing import Any

import streamlit as st

from dashboard.components.layer_time import layer_time
from dashboard.drawing.tables import typeset
from dashboard.drawing.text import number
from dashboard.frame.residual.places import choose_layer
from dashboard.layer_time.pictures import Picture
from dashboard.state import session
from dashboard.state.loading import kept
from dashboard.state.scene import Scene
from dashboard.state.shelf import Key
from projector.figures.layer_time.data import viewer_data
from projector.figures.layer_time.page import layer_time_page

_KEY = "layer-time"
_NOT_NAMED = re.compile(r"[^\w-]+")
_FORM = ".2f"
# Characters of a prompt above a picture.
_MOST_SHOWN = 600
# Figures of a frame, each next to its control: the report's name and the column's name.
_FIGURES = (
    ("variance_explained", "Variance"),
    ("variance_shuffled", "Variance, shuffled"),
    ("neighbours_kept", "Neighbours"),
    ("neighbours_random", "Neighbours, random"),
    ("neighbours_chance", "Neighbours, chance"),
    ("displacement_correlation", "Moves"),
    ("displacement_random", "Moves, random"),
)


def show_picture(scene: Scene, key: Key, picture: Picture, *, is_selected: bool) -> None:
    """Draw the viewer and a picture's figures.

    Args:
        key: the shelf's key of the picture.
        is_selected: whether its prompts are the selected ones, so that a click on a token selects
            it on every page.
    """
    data = kept(("layer-time data", *key), lambda: viewer_data(picture.report, picture.tensors))
    is_own = picture.report.get("sha256") == scene.sha256
    if not is_selected:
        _show_origin(picture)
    st.caption(session.plain(str(data["lead"])))
    layer_time(
        data,
        key=_KEY,
        selected=_selected(scene, picture, is_selected=is_selected, is_own=is_own),
        on_token=_pick if is_selected else None,
        on_layer=(lambda layer: _rest(scene, layer)) if is_own else None,
    )
    if is_selected:
        st.caption(
            "Click a token to choose it on every page; where you stop, the layer is chosen too."
        )
    reasons = picture.report.get("reasons") or {}
    if "predictions" in reasons:
        st.caption(session.plain(f"There are no predictions: {reasons['predictions']}."))
    _show_exports(picture)
    _show_fidelity(picture)


def _show_origin(picture: Picture) -> None:
    """Show the model and the prompts of a picture that isn't of the selected prompts."""
    report = picture.report
    prompts = report["prompts"]
    rows = [f"Model: {report.get('model') or 'not named'}"]
    for k, prompt in enumerate(prompts):
        text = str(prompt.get("text") or "".join(str(each["text"]) for each in prompt["tokens"]))
        shown = text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"
        name = f"Prompt {'AB'[k]}" if len(prompts) > 1 else "Prompt"
        rows.append(f"{name}: {shown}")
    st.code("\n".join(rows), language=None, wrap_lines=True)


def _selected(
    scene: Scene, picture: Picture, *, is_selected: bool, is_own: bool
) -> dict[str, int | bool]:
    """The part of the selection that the viewer shows."""
    found: dict[str, int | bool] = {}
    chosen = session.current()
    if is_own:
        # Opens at a chosen layer; the first layer may be chosen only by default.
        first = min(layer for layer, _ in scene.projection.maps)
        found |= {"layer": scene.layer, "rests": scene.layer != first or chosen.token is not None}
    if not is_selected:
        return found
    n_tokens = picture.n_tokens
    if chosen.other_token is not None:
        if len(n_tokens) > 1 and chosen.other_token < n_tokens[1]:
            return found | {"prompt": 1, "token": chosen.other_token}
        session.note(f"Prompt B has no token {chosen.other_token:,}: a token of A is shown.")
        session.change(other_token=None)
    if chosen.token is not None:
        if chosen.token < n_tokens[0]:
            return found | {"prompt": 0, "token": chosen.token}
        session.note(f"The prompt has no token {chosen.token:,}: no token is shown.")
        session.change(token=None)
    return found


def _pick(prompt: int, token: int) -> None:
    session.change(**({"other_token": token} if prompt else {"token": token, "other_token": None}))


def _rest(scene: Scene, layer: int | None) -> None:
    if layer is not None:
        choose_layer(scene, layer)


def _show_fidelity(picture: Picture) -> None:
    """A table with a row per frame, and each figure next to its value by chance."""
    rows: list[dict[str, Any]] = list(picture.report.get("fidelity") or ())
    known = [each for each in _FIGURES if any(row.get(each[0]) is not None for row in rows)]
    if not known:
        return
    with st.expander("How far each layer can be trusted"):
        columns = {"Frame": [str(row["frame"]) for row in rows]} | {
            name: [row.get(field) for row in rows] for field, name in known
        }
        st.dataframe(
            typeset(columns, {name: _FORM for _, name in known}),
            hide_index=True,
            width="stretch",
            height=min(420, 38 + 35 * len(rows)),
        )
        said = (
            "Next to each figure is its value where there is nothing to find. Moves are the rank "
            "correlation between how far particles move from the previous frame in the picture "
            "and in full space"
        )
        pooled = picture.report.get("displacement_correlation")
        said += "." if pooled is None else f"; over all frames it is {number(pooled, _FORM)}."
        st.caption(session.plain(said))


def _show_exports(picture: Picture) -> None:
    st.download_button(
        "Download as HTML",
        lambda: layer_time_page(picture.report, picture.tensors),
        f"{_stem(picture)}.html",
        "text/html",
        key="layer-time html",
        icon=":material/download:",
        on_click="ignore",
        help="Saves this picture as one page that plays without a server or a network. The "
        "button on the picture saves a PNG.",
    )


def _stem(picture: Picture) -> str:
    """The name of a file: the model's name, and the beginning of the prompts."""
    report = picture.report
    parts = ["layer-time", report.get("model"), *(each.get("text") for each in report["prompts"])]
    words = [_NOT_NAMED.sub("-", str(part)).strip("-")[:30].strip("-") for part in parts if part]
    return "-".join(word for word in words if word)
