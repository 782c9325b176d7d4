"""A prompt's tokens one by one with the neurons they activate, and a second prompt next to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.components.neuron_map import (
    Panel,
    Timeline,
    Token,
    View,
    neuron_map,
    standalone_html,
)
from dashboard.drawing import palette
from dashboard.drawing.encoding import Frames, frames_of, scale_of
from dashboard.drawing.legend import Legend
from dashboard.drawing.text import (
    color_scale,
    cut_label,
    neuron_name,
    number,
    numbers,
    shares_list,
)
from dashboard.frame import asking
from dashboard.frame.chosen import (
    axes_of,
    choose_layout,
    marked_of,
    show_chosen,
    show_marked,
    sites_beside,
)
from dashboard.frame.text_colors import TextColors, choose_text_colors
from dashboard.prompts import Run, align
from dashboard.state import session
from dashboard.state.loading import fact_of, frames_of_run, points_at
from dashboard.state.naming import labels_at
from dashboard.state.scene import Scene
from projector.sites import site_words

TITLE, ICON, PATH = "Prompt", ":material/keyboard:", "prompt"
_N_STRONGEST, _MOST_NAME = 12, 18
# Replaces a token that one of two prompts lacks.
_GAP = "∅"


@dataclass(frozen=True, eq=False)
class Pair:
    """Two aligned runs: (R,) places in each, −1 if it has no token in that row."""

    runs: tuple[Run, Run]
    places: tuple[NDArray[np.int64], NDArray[np.int64]]

    @property
    def id(self) -> str:
        return "-".join(run.prompt.id for run in self.runs)

    def values(self, scene: Scene, which: int) -> NDArray[np.float32]:
        """(R, N) activations of one run; 0 if it has no token in a row."""
        places = self.places[which]
        values = self.runs[which].activations[scene.layer, scene.site]
        found = values[np.maximum(places, 0)].astype(np.float32)
        found[places < 0] = 0
        return found

    def difference(self, scene: Scene) -> NDArray[np.float32]:
        """(R, N) activations of A minus those of B; 0 if one has no token in a row."""
        found = self.values(scene, 0) - self.values(scene, 1)
        found[(self.places[0] < 0) | (self.places[1] < 0)] = 0
        return found


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("What a prompt activates")
    asking.show_fields()
    asked = asking.asked()
    if asked is not None:
        with session.problems():
            asking.run_asked(scene, asked, asking.run)
    chosen = session.current()
    if chosen.prompt is None:
        st.info("Type a prompt and press Run.", icon=":material/keyboard:")
        return
    with session.problems():
        run = asking.run_selected(scene, chosen.prompt, asking.run)
        if chosen.other is None:
            _show_one(scene, run)
        else:
            other = asking.run_selected(scene, chosen.other, asking.run)
            _show_pair(scene, _paired(run, other))


def _paired(run: Run, other: Run) -> Pair:
    ids = [tuple(piece.id for piece in each.pieces) for each in (run, other)]
    return Pair((run, other), fact_of(("aligned", *ids), lambda: align(*ids)))


def _show_one(scene: Scene, run: Run) -> None:
    # The last token of the prompt has read all of it; later tokens are the model's.
    token = _token(run.n_prompt - 1, len(run.pieces))
    colors = _choose(scene, [run])
    sites = sites_beside(scene, run.activations)
    panels = [_panel(scene, site, "", _frames(scene, run, site)) for site in sites]
    tokens = _tokens(run, colors)
    timeline = Timeline(f"{run.prompt.id}/{scene.sha256[:8]}", tokens, token)
    _draw(scene, panels, sites, timeline, colors)
    values = run.activations[scene.layer, scene.site][token].astype(np.float32)
    show_chosen(scene, values)
    show_marked(scene)
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader(f"Strongest at token {token + 1}")
        _table(scene, values, "activation")
    with right:
        _show_next(run, token)


def _show_pair(scene: Scene, pair: Pair) -> None:
    a = pair.places[0]
    token = _token(_first_difference(pair), len(a))
    colors = _choose(scene, pair.runs)
    sites = [scene.site] * 3
    panels = [
        _panel(scene, scene.site, f"{name} · ", _frames_of_pair(scene, pair, name))
        for name in ("A", "B")
    ]
    difference = _frames_of_pair(scene, pair, "A − B")
    panels.append(_panel(scene, scene.site, "A − B · ", difference, "difference"))
    rows = [
        _rows(_tokens(run, colors, k), places, "BA"[k])
        for k, (run, places) in enumerate(zip(pair.runs, pair.places, strict=True))
    ]
    timeline = Timeline(f"{pair.id}/{scene.sha256[:8]}", rows[0], token, rows[1])
    _draw(scene, panels, sites, timeline, colors)
    if a[token] >= 0:
        show_chosen(scene, pair.runs[0].activations[scene.layer, scene.site][a[token]])
    else:
        show_chosen(scene)
    show_marked(scene)
    left, right = st.columns([3, 2], gap="large")
    with left:
        _show_movers(scene, pair, token)
    with right:
        for name, run, places in zip("AB", pair.runs, pair.places, strict=True):
            if places[token] >= 0:
                _show_next(run, int(places[token]), f" in {name}")


def _choose(scene: Scene, runs: Sequence[Run]) -> TextColors | None:
    """Choose the layout, and what colours the text."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        choose_layout(scene)
        return choose_text_colors(scene, runs)


def _draw(
    scene: Scene,
    panels: list[Panel],
    sites: list[str],
    timeline: Timeline,
    colors: TextColors | None,
) -> None:
    """Draw the maps with their tokens and captions."""

    def pick(panel: int, neuron: int) -> None:
        session.change(site=sites[panel])
        session.change(neuron=neuron)

    def rest(at: int) -> None:
        session.change(token=at)

    if colors is not None:
        st.html(color_scale(colors.label, colors.scale))
    view = View(
        panels,
        dim=scene.dim,
        colors=palette.diverging(),
        height=440,
        timeline=timeline,
        axes=axes_of(scene),
        label="Maps of the prompt's neurons. Space plays, left and right step through the tokens.",
    )
    neuron_map(view, key="prompt map", on_pick=pick, on_token=rest)
    name = timeline.id.partition("/")[0]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(
            "Space plays and pauses; ← and → step through the tokens; Home and End go to the "
            f"ends; Shift and the arrow keys {'move' if scene.dim < 3 else 'turn'} the map. "
            "Underlined tokens were generated by the model."
            + (
                f" The two prompts are aligned by the tokens they share; {_GAP} marks a token that "
                "the other prompt lacks."
                if timeline.beside
                else ""
            ),
            width="stretch",
        )
        st.download_button(
            "HTML",
            lambda: standalone_html(view, f"{scene.name}: layer {scene.layer}"),
            f"prompt-{name}-layer-{scene.layer}.html",
            "text/html",
            icon=":material/download:",
            on_click="ignore",
            help="Saves this view with its tokens as one page that needs no server. The button on "
            "the map saves a PNG.",
        )


def _token(usual: int, n_tokens: int) -> int:
    """The chosen token, from 0; reports a link's token that doesn't exist."""
    chosen = session.current().token
    if chosen is not None and chosen >= n_tokens:
        session.note(f"The prompt has no token {chosen + 1:,}: token {usual + 1:,} is shown.")
        session.change(token=None)
        return usual
    return usual if chosen is None else chosen


def _first_difference(pair: Pair) -> int:
    """The first row in which the prompts differ; the last row if they are equal."""
    ids = [[piece.id for piece in run.pieces] for run in pair.runs]
    for row, (i, j) in enumerate(zip(*pair.places, strict=True)):
        if i < 0 or j < 0 or ids[0][i] != ids[1][j]:
            return row
    return len(pair.places[0]) - 1


def _tokens(run: Run, colors: TextColors | None, which: int = 0) -> list[Token]:
    n = len(run.pieces)
    fills = [""] * n if colors is None else colors.fills(which)
    told = [""] * n if colors is None else colors.titles(which)
    return [
        Token(
            piece.text,
            "\n".join(
                part
                for part in (
                    f"token {k + 1}" + (", generated" if piece.is_made else ""),
                    told[k],
                    _next_words(run, k),
                )
                if part
            ),
            piece.is_made,
            fills[k],
        )
        for k, piece in enumerate(run.pieces)
    ]


def _rows(tokens: list[Token], places: NDArray[np.int64], other: str) -> list[Token]:
    """Tokens in the rows of both prompts."""
    gap = Token(_GAP, f"only in {other}")
    return [tokens[place] if place >= 0 else gap for place in places.tolist()]


def _next_words(run: Run, token: int) -> str:
    nexts = run.nexts[token] if run.nexts else ()
    return "next: " * bool(nexts) + ", ".join(f"{e.text} {e.probability:.0%}" for e in nexts)


def _show_next(run: Run, token: int, where: str = "") -> None:
    """Show the next tokens that the model expects after a token."""
    if not run.nexts:
        return
    st.subheader(
        f"Next token{where}",
        help=f"The tokens that the model gives the highest probability after token {token + 1}.",
    )
    st.html(shares_list([(each.text, each.probability) for each in run.nexts[token]]))


def _frames(scene: Scene, run: Run, site: str) -> Frames:
    def make() -> Frames:
        return frames_of(run.activations[scene.layer, site])

    return frames_of_run(scene.sha256, (run.prompt.id, scene.layer, site), make)


def _frames_of_pair(scene: Scene, pair: Pair, which: str) -> Frames:
    """Frames of one of two prompts on a shared scale, or of their difference."""

    def make() -> Frames:
        if which == "A − B":
            return frames_of(pair.difference(scene))
        both = [run.activations[scene.layer, scene.site] for run in pair.runs]
        return frames_of(pair.values(scene, "AB".index(which)), scale_of(np.concatenate(both)))

    key = (pair.id, scene.layer, scene.site, which)
    return frames_of_run(scene.sha256, key, make)


def _panel(
    scene: Scene, site: str, prefix: str, frames: Frames, label: str = "activation"
) -> Panel:
    chosen, scale, name = session.current(), frames.scale, neuron_name(scene.layer, site)
    return Panel(
        title=prefix + name if prefix else f"Layer {scene.layer}: {site_words(site)}",
        name=name,
        points=points_at(scene.path, scene.layer, site, scene.layout),
        values=frames.values,
        values_id=frames.id,
        scale=scale,
        value_label=label,
        legend=Legend(
            label.capitalize(),
            None,
            f"≤ {number(-scale)}",
            f"≥ {number(scale)}",
            signed=True,
            size="larger: further from 0",
        ),
        selected=chosen.neuron if site == scene.site else None,
        marked=marked_of(scene) if site == scene.site else (),
    )


def _show_movers(scene: Scene, pair: Pair, token: int) -> None:
    st.subheader(
        f"Largest differences at token {token + 1}", help="Neurons by |A − B|, the largest first."
    )
    a, b = (int(places[token]) for places in pair.places)
    if a < 0 or b < 0:
        st.write(f"Only prompt {'A' if b < 0 else 'B'} has a token here.")
        return
    values = [
        run.activations[scene.layer, scene.site][place].astype(np.float32)
        for run, place in zip(pair.runs, (a, b), strict=True)
    ]
    difference = values[0] - values[1]
    if not difference.any():
        st.write("None: up to this token the prompts are the same.")
        return
    _table(scene, difference, "A − B")


def _table(scene: Scene, values: NDArray[np.floating], label: str) -> None:
    order = np.argsort(-np.abs(values), kind="stable")[:_N_STRONGEST]
    names = labels_at(scene.path, scene.layer, scene.site)
    columns = [column.container(gap=None) for column in st.columns(2)]
    shown = numbers(values[order].tolist())
    for k, neuron in enumerate(order.tolist()):
        words = f"N{neuron}  {shown[k]}"
        if names[neuron]:
            words += f"  :gray[{session.plain(cut_label(names[neuron], _MOST_NAME))}]"
        # First half left, second half right, to be read downwards.
        columns[2 * k // len(order)].button(
            words,
            key=f"{label} {k}",
            type="tertiary",
            on_click=lambda neuron=neuron: session.change(neuron=neuron),
        )
