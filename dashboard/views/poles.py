"""Groups of neurons that fire together: found live, looked at, and taken away."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from dashboard import ablation, palette, session
from dashboard.frame import Scene, neuron_name
from dashboard.loading import (
    evaluation_of,
    examples_at,
    examples_path,
    moments_at,
    poles_at,
    prompt_folder,
    tree_at,
)
from dashboard.prompts import recall
from dashboard.selection import grouping_text
from dashboard.work import working
from projector.errors import UserError
from pruning.perplexity import find_context
from pruning.poles import SELECTIONS, SPACES, Poles, PoleSettings
from pruning.tree import CondensedTree
from pruning.windows import EvaluationText, prepare

TITLE, ICON, PATH = "Poles", ":material/bubble_chart:", "poles"
_SPACE_NAMES = {
    "positions": "Map",
    "correlation": "ρ",
    "abs-correlation": "|ρ|: opposite ones too",
}
_N_WINDOWS = 16


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("Poles")
    with session.problems():
        settings = _settings()
        found = poles_at(scene.path, scene.layer, scene.site, settings)
        _show_figures(found)
        if not found.poles:
            st.info(
                "No pole with these settings: make the fewest neurons smaller, or choose leaf.",
                icon=":material/bubble_chart:",
            )
            return
        left, right = st.columns([3, 2], gap="large")
        with left:
            chosen = _show_table(scene, found)
        with right, session.problems():
            st.plotly_chart(_tree(scene, settings), key="condensed tree")
        if chosen is not None:
            _show_pole(scene, found, chosen)


def _settings() -> PoleSettings:
    """The settings' widgets; they stand in the link, for other pages and people."""
    known = session.pole_settings()
    for key, value in (
        ("pole space", known.space),
        ("pole size", known.min_cluster_size),
        ("pole selection", known.selection),
        ("pole epsilon", known.epsilon),
    ):
        session.bind(key, value)
    columns = st.columns([2, 2, 2, 2])
    space = columns[0].selectbox(
        "Space", list(SPACES), format_func=_SPACE_NAMES.__getitem__, key="pole space"
    )
    size = columns[1].slider("Fewest neurons of a pole", 2, 50, key="pole size")
    selection = columns[2].segmented_control(
        "Selection",
        list(SELECTIONS),
        key="pole selection",
        help="eom: poles that last longest as density rises; leaf: the smallest.",
    )
    epsilon = columns[3].slider(
        "Poles closer than this are one", 0.0, 1.0, step=0.01, key="pole epsilon"
    )
    chosen = PoleSettings(space, size, None, selection or "eom", epsilon)
    if chosen != known:
        session.change(grouping=grouping_text(chosen))
    return chosen


def _show_figures(found: Poles) -> None:
    columns = st.columns(3)
    noise = "–" if found.noise_share is None else f"{found.noise_share:.0%}"
    columns[0].metric("Poles", f"{len(found.poles):,}")
    columns[1].metric("In no pole", noise, help="Noise, as HDBSCAN calls it.")
    validity = "–" if found.validity is None else f"{found.validity:+.2f}".replace("-", "−")
    columns[2].metric(
        "Validity",
        validity,
        help="DBCV, from −1 to 1: how dense poles are inside, and how far apart.",
    )


def _show_table(scene: Scene, found: Poles) -> int | None:
    def number(value: float | None) -> float | None:
        return None if value is None else round(value, 3)

    rows = {
        "pole": list(range(len(found.poles))),
        "neurons": [pole.size for pole in found.poles],
        "ρ within": [number(pole.within_rho) for pole in found.poles],
        "ρ to the nearest": [number(pole.between_rho) for pole in found.poles],
        "opposite": [pole.opposite for pole in found.poles],
        "ρ to it": [number(pole.opposite_rho) for pole in found.poles],
        "exemplars": [", ".join(f"N{j}" for j in pole.exemplars[:4]) for pole in found.poles],
        "exemplar responds to": _responds(scene, found),
    }
    event = st.dataframe(
        rows,
        hide_index=True,
        height=360,
        on_select="rerun",
        selection_mode="single-row",
        key=f"poles table {scene.layer} {scene.site} {found.settings.key}",
    )
    chosen = event.selection.rows
    if chosen:
        if chosen[0] != session.current().pole:
            members = (found.labels == chosen[0]).nonzero()[:, 0].tolist()
            session.change(pole=int(chosen[0]), marked=tuple(members))
        return int(chosen[0])
    pole = session.current().pole
    return pole if pole is not None and pole < len(found.poles) else None


def _responds(scene: Scene, found: Poles) -> list[str]:
    examples = examples_at(examples_path(scene.sha256, scene.layer, scene.site))
    if examples is None:
        return ["read text on a neuron's card"] * len(found.poles)
    texts = st.session_state.setdefault("exemplar texts", {})
    key = (scene.sha256, scene.layer, scene.site, found.settings.key)
    if key not in texts:
        with scene.model() as guest:
            decode = guest.loaded.tokenizer.decode
            texts[key] = [
                " · ".join(
                    repr(decode(examples.ids[int(at)].tolist()))[1:-1]
                    for at in examples.highest_at[pole.exemplars[0]][:4]
                    if at >= 0
                )
                for pole in found.poles
            ]
    return list(texts[key])


def _tree(scene: Scene, settings: PoleSettings) -> go.Figure:
    """The condensed tree, drawn as bars of what lives at each density."""
    tree = tree_at(scene.path, scene.layer, scene.site, settings)
    table = palette.groups()
    figure = go.Figure()
    for branch in tree.branches:
        color = (
            palette.hex_of(table, int(palette.group_index(np.array([branch.pole]))[0]))
            if branch.pole is not None
            else "#b4b8bd"
        )
        figure.add_trace(
            go.Scatter(
                x=branch.outline_x,
                y=branch.outline_y,
                fill="toself",
                mode="lines",
                line={"width": 0.5, "color": color},
                fillcolor=color,
                name="" if branch.pole is None else f"pole {branch.pole}",
                hoverinfo="name",
                showlegend=False,
            )
        )
    figure.update_layout(
        title={"text": "Condensed tree", "x": 0.02, "font": {"size": 15}},
        height=360,
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
        xaxis={"visible": False},
        yaxis={"title": "density λ (1 / distance)", "range": _density_range(tree)},
    )
    return figure


def _density_range(tree: CondensedTree) -> list[float] | None:
    """From a little before the first split on, downwards."""
    if len(tree.branches) < 2:
        return None
    first = min(min(branch.outline_y) for branch in tree.branches[1:])
    last = max(max(branch.outline_y) for branch in tree.branches)
    return [last, first - 0.3 * (last - first)]


def _show_pole(scene: Scene, found: Poles, pole: int) -> None:
    members = (found.labels == pole).nonzero()[:, 0].tolist()
    st.subheader(f"Pole {pole}: {len(members):,} neurons of {neuron_name(scene.layer, scene.site)}")
    st.caption(
        "Marked on the map, and first in the heatmap's order by pole: "
        + ", ".join(f"N{j}" for j in members[:20])
        + (" …" if len(members) > 20 else "")
    )
    _ablate(scene, found, pole, members)


def _ablate(scene: Scene, found: Poles, pole: int, members: list[int]) -> None:
    st.markdown("**Take it away**")
    columns = st.columns([2, 3, 1], vertical_alignment="bottom")
    kind = columns[0].segmented_control(
        "How",
        list(ablation.KINDS),
        format_func=ablation.KINDS.__getitem__,
        default="mean",
        key="ablation kind",
    )
    source = columns[1].text_input(
        "Text to score on",
        value="stdlib:heldout" if scene.model_name == "bundled" else "",
        placeholder="stdlib, a file, a folder, or hf:NAME",
        key="ablation text",
    )
    key = (scene.sha256, scene.layer, scene.site, found.settings.key, pole, kind, source)
    kept = st.session_state.setdefault("ablations", {})
    if columns[2].button("Ablate", type="primary", key="ablate"):
        with session.problems():
            kept[key] = _outcomes(scene, members, kind or "mean", source)
    if key in kept:
        _show_outcomes(kept[key])


def _outcomes(scene: Scene, members: list[int], kind: str, source: str) -> list[ablation.Outcome]:
    chosen = session.current()
    prompt = None if chosen.prompt is None else recall(chosen.prompt, prompt_folder())
    figures = scene.projection.figures(scene.layer, scene.site)
    gone = {*figures["dead_neurons"], *figures["nonfinite_neurons"]}
    means = None
    if kind == "mean":
        means = moments_at(scene.path, scene.layer, scene.site)[0]
    with working("Ablating") as work, scene.model() as guest:
        text: EvaluationText | None = None
        if source.strip() and guest.architecture.is_causal:
            where = scene.settings.text_source(source.strip())

            def make() -> EvaluationText:
                tokenizer = guest.loaded.tokenizer
                context = find_context(guest.loaded.model, tokenizer)
                return prepare(where, tokenizer, context, max_windows=_N_WINDOWS, progress=work)

            text = evaluation_of(where, scene.sha256, make)
        if text is None and prompt is None:
            raise UserError(
                "there is nothing to compare: name a text to score on, or run a prompt first"
            )
        work.begin("Ablating", 5, "models")
        return ablation.ablate(
            guest,
            text,
            prompt,
            scene.layer,
            scene.site,
            members,
            kind=kind,
            means=means,
            among=[j for j in range(scene.n_neurons) if j not in gone],
            advance=work.advance,
        )


def _show_outcomes(found: list[ablation.Outcome]) -> None:
    whole = found[0].perplexity

    def change(value: float | None) -> str:
        if value is None or whole is None:
            return "–"
        return f"{value / whole - 1:+.2%}".replace("-", "−")

    st.dataframe(
        {
            "model": [each.name for each in found],
            "perplexity": [None if e.perplexity is None else round(e.perplexity, 4) for e in found],
            "change": [change(each.perplexity) for each in found],
            "goes on with": [each.continuation or "" for each in found],
        },
        hide_index=True,
    )
    st.caption(
        f"Perplexity over {_N_WINDOWS} windows, the same for all. The random ones are as many, of "
        "the same layer and site: what the pole does beyond them is what makes it one."
    )
