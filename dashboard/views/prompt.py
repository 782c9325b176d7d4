"""A prompt's tokens one by one: which neurons they light up; and another prompt beside it."""

from __future__ import annotations

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
from dashboard.drawing.text import neuron_name, number, page_text
from dashboard.frame.chosen import marked_of, show_chosen, show_marked, sites_beside
from dashboard.frame.work import working
from dashboard.prompts import (
    Prompt,
    Run,
    as_it_can,
    can_generate,
    clean,
    recall,
    run_prompt,
    store,
)
from dashboard.state import session
from dashboard.state.loading import extent_at, frames_of_run, points_at, run_of
from dashboard.state.scene import Scene
from dashboard.state.store import stored_prompts
from projector.errors import UserError
from projector.sites import site_words

TITLE, ICON, PATH = "Prompt", ":material/keyboard:", "prompt"
_EXAMPLE = "def mean(values):\n    return sum(values) / len("
_N_MOVERS = 12
_STOPPED = "stopped prompt"


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("What a prompt lights up")
    _ask(scene)
    chosen = session.current()
    if chosen.prompt is None:
        st.info("Type a prompt and press Run.", icon=":material/keyboard:")
        return
    with session.problems():
        run = _run(scene, chosen.prompt)
        other = None if chosen.other is None else _run(scene, chosen.other)
        _show_run(scene, run, other)


def _ask(scene: Scene) -> None:
    """The form; what is typed there is stored, and its id selected."""
    chosen = session.current()
    # The fields hold what is selected, also when that came from a link or by a step back.
    for name, key, prompt_id in (
        ("prompt", "prompt text", chosen.prompt),
        ("other", "other text", chosen.other),
    ):
        if prompt_id != st.session_state.get(f"filled {name}"):
            st.session_state[f"filled {name}"] = prompt_id
            if prompt_id is not None:
                _fill(prompt_id, key)
            if name == "other":
                st.session_state["compare"] = prompt_id is not None
    compare = st.toggle(
        "Compare with a second prompt",
        key="compare",
        on_change=lambda: session.change(other=None),
    )
    st.session_state.setdefault("prompt tokens", 24)
    with st.form("prompt form", border=False):
        columns = st.columns(2 if compare else 1)
        columns[0].text_area(
            "Prompt A" if compare else "Prompt", key="prompt text", placeholder=_EXAMPLE, height=90
        )
        if compare:
            columns[1].text_area("Prompt B", key="other text", placeholder=_EXAMPLE, height=90)
        left, middle, right = st.columns([2, 2, 1], vertical_alignment="bottom")
        left.number_input("Tokens to add", 0, 500, key="prompt tokens", help="Greedy; 0 for none.")
        middle.checkbox(
            "As a chat", key="prompt chat", help="Through the model's chat template, if it has one."
        )
        right.form_submit_button("Run", type="primary", width="stretch", on_click=_send)
    problem = st.session_state.pop("prompt problem", None)
    if problem:
        session.tell(problem)


def _send() -> None:
    """Store what was typed, and select it: before the page runs, which then shows it at once."""
    state = st.session_state
    state.pop(_STOPPED, None)

    def send(key: str) -> str:
        typed = Prompt(clean(state[key]), int(state["prompt tokens"]), bool(state["prompt chat"]))
        return store(typed, stored_prompts())

    try:
        first = send("prompt text")
        second = send("other text") if state.get("compare") else None
    except UserError as error:
        state["prompt problem"] = page_text(error)
        return
    session.change(prompt=first, other=second, token=None)
    state["filled prompt"], state["filled other"] = first, second


def _fill(prompt_id: str, key: str) -> None:
    """Put a stored prompt's text into its field: a link was opened."""
    try:
        prompt = recall(prompt_id, stored_prompts())
    except UserError:
        # The page says so, where it would show what the prompt does.
        return
    st.session_state[key] = prompt.text
    st.session_state["prompt tokens"] = prompt.n_new
    st.session_state["prompt chat"] = prompt.as_chat


def _run(scene: Scene, prompt_id: str) -> Run:
    prompt = recall(prompt_id, stored_prompts())
    maps = tuple(scene.projection.maps)
    if st.session_state.get(_STOPPED) == prompt_id:
        raise UserError("this was stopped: press Run to run it again")

    def stop() -> None:
        # What is selected is run: without this it would begin again at once.
        st.session_state[_STOPPED] = prompt_id

    def make() -> Run:
        with working("Running the prompt", stop) as work, scene.model() as guest:
            if prompt.n_new and can_generate(guest):
                work.begin("Adding tokens", prompt.n_new, "tokens")
            return run_prompt(guest, as_it_can(guest, prompt), maps, advance=work.advance)

    run = run_of(prompt, scene.model_name, scene.sha256, maps, make)
    if prompt.as_chat and not run.prompt.as_chat:
        st.warning("This model has no chat template: the prompt is sent as plain text.")
    return run


def _show_run(scene: Scene, run: Run, other: Run | None) -> None:
    token = _token_of(run, other)
    if other is None:
        sites = sites_beside(scene, run.activations)
        panels = [_panel(scene, site, "", _frames(scene, run, site)) for site in sites]
    else:
        sites = [scene.site] * 3
        panels = [
            _panel(scene, scene.site, "A · ", _frames_of_pair(scene, run, other, "A")),
            _panel(scene, scene.site, "B · ", _frames_of_pair(scene, run, other, "B")),
            _panel(
                scene,
                scene.site,
                "A − B · ",
                _frames_of_pair(scene, run, other, "A − B"),
                "difference",
            ),
        ]

    def pick(panel: int, neuron: int) -> None:
        session.change(site=sites[panel])
        session.change(neuron=neuron)

    def rest(at: int) -> None:
        session.change(token=at)

    shown_id = run.prompt.id if other is None else f"{run.prompt.id}-{other.prompt.id}"
    view = View(
        panels,
        dim=scene.dim,
        extent=extent_at(scene.path, scene.layout),
        colors=palette.diverging(),
        height=440,
        timeline=Timeline(
            f"{shown_id}/{scene.sha256[:8]}",
            _tokens(run),
            token,
            () if other is None else _tokens(other),
        ),
        label="Maps of the prompt's neurons. Space plays, left and right step through the tokens.",
    )
    neuron_map(view, key="prompt map", on_pick=pick, on_token=rest)
    show_chosen(scene, run.activations[scene.layer, scene.site][min(token, len(run.pieces) - 1)])
    show_marked(scene)
    st.download_button(
        "HTML",
        lambda: standalone_html(view, f"{scene.name}: layer {scene.layer}"),
        f"prompt-{run.prompt.id}-layer-{scene.layer}.html",
        "text/html",
        icon=":material/download:",
        on_click="ignore",
        help="This view, tokens and all, as one page that needs no server. The button on the map "
        "saves a PNG.",
    )
    st.caption(
        "Space plays and pauses, ← and → step, Home and End go to the ends; Shift and arrows "
        f"{'move' if scene.dim < 3 else 'turn'} the map. Tokens underlined were added by the model."
        + (
            ""
            if other is None
            else " Tokens are compared by their place: the first of A with the first of B, and so "
            "on; of the shorter prompt the last one stays."
        )
    )
    if other is None:
        _show_strongest(scene, run, token)
    else:
        _show_movers(scene, run, other, token)


def _token_of(run: Run, other: Run | None) -> int:
    """The token that is chosen; at first the first one, of two prompts the first that differs."""
    chosen = session.current().token
    if other is None:
        return min(chosen or 0, len(run.pieces) - 1)
    last = max(len(run.pieces), len(other.pieces)) - 1
    if chosen is not None:
        return min(chosen, last)
    pairs = zip(run.pieces, other.pieces, strict=False)
    differ = (k for k, (a, b) in enumerate(pairs) if a.id != b.id)
    return next(differ, min(len(run.pieces), len(other.pieces), last))


def _tokens(run: Run) -> list[Token]:
    return [
        Token(
            piece.text,
            f"token {k + 1}" + (", added by the model" if piece.is_made else ""),
            piece.is_made,
        )
        for k, piece in enumerate(run.pieces)
    ]


def _frames(scene: Scene, run: Run, site: str) -> Frames:
    def make() -> Frames:
        return frames_of(run.activations[scene.layer, site])

    return frames_of_run(scene.sha256, (run.prompt.id, scene.layer, site), make)


def _frames_of_pair(scene: Scene, run: Run, other: Run, which: str) -> Frames:
    """One of two prompts, on a scale that both share; or their difference."""

    def make() -> Frames:
        if which == "A − B":
            return frames_of(_difference(scene, run, other))
        both = [each.activations[scene.layer, scene.site] for each in (run, other)]
        return frames_of(both["AB".index(which)], scale_of(np.concatenate(both)))

    key = (run.prompt.id, other.prompt.id, scene.layer, scene.site, which)
    return frames_of_run(scene.sha256, key, make)


def _panel(
    scene: Scene, site: str, prefix: str, frames: Frames, label: str = "activation"
) -> Panel:
    chosen, scale = session.current(), frames.scale
    return Panel(
        title=f"{prefix}Layer {scene.layer}: {site_words(site)}",
        name=neuron_name(scene.layer, site),
        points=points_at(scene.path, scene.layer, site, scene.layout),
        values=frames.values,
        values_id=frames.id,
        scale=scale,
        value_label=label,
        legend=Legend(
            label.capitalize(),
            None,
            f"≤ −{scale:.2g}",
            f"≥ {scale:.2g}",
            signed=True,
            size="larger: further from 0",
        ),
        selected=chosen.neuron if site == scene.site else None,
        marked=marked_of(scene) if site == scene.site else (),
    )


def _difference(scene: Scene, run: Run, other: Run) -> NDArray[np.float32]:
    """A − B token by token; of the shorter one the last token goes on."""
    n = max(len(run.pieces), len(other.pieces))
    return np.stack([_difference_at(scene, run, other, token) for token in range(n)])


def _difference_at(scene: Scene, run: Run, other: Run, token: int) -> NDArray[np.float32]:
    a, b = (
        each.activations[scene.layer, scene.site][min(token, len(each.pieces) - 1)]
        for each in (run, other)
    )
    return a.astype(np.float32) - b.astype(np.float32)


def _show_strongest(scene: Scene, run: Run, token: int) -> None:
    values = run.activations[scene.layer, scene.site][token].astype(np.float32)
    st.subheader(f"Strongest at token {token + 1}")
    _table(values, "activation")


def _show_movers(scene: Scene, run: Run, other: Run, token: int) -> None:
    difference = _difference_at(scene, run, other, token)
    st.subheader(f"Top movers at token {token + 1}", help="Largest difference, A − B.")
    if not difference.any():
        st.write("None: up to this token the prompts are the same.")
        return
    _table(difference, "A − B")


def _table(values: NDArray[np.floating], label: str) -> None:
    order = np.argsort(-np.abs(values), kind="stable")[:_N_MOVERS]
    columns = st.columns(4)
    for k, neuron in enumerate(order):
        columns[k % 4].button(
            f"N{neuron}  {number(values[neuron], '+.3g')}",
            key=f"{label} {k}",
            type="tertiary",
            on_click=lambda neuron=int(neuron): session.change(neuron=neuron),
        )
