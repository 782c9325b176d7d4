"""The part of a plane that a ReLU keeps, and the model's activation function on a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import streamlit as st

from dashboard.components.cell_grid import cell_grid
from dashboard.components.plane import plane
from dashboard.drawing.grids import Cell, CellGrid
from dashboard.drawing.text import number, tint_scale, tints
from dashboard.frame.basis.choosing import offer_page, view_of
from dashboard.frame.basis.matrix import show_toy
from dashboard.frame.residual.prompting import choose_prompt, in_one_line, position_of
from dashboard.prompts import Tokens
from dashboard.state import session
from dashboard.state.loading import fact_of
from dashboard.state.scene import Scene
from projector.figures.basis.page import curve_figure, plane_data
from projector.figures.basis.words import mean, percent, upper
from projector.residual.basis.activations import describe_functions, view_activations
from projector.residual.basis.records import ActivationView, LayerActivations


def show_activations(scene: Scene) -> None:
    """The part of the page on activation functions."""
    st.caption(
        "A ReLU sets every negative coordinate to 0. It keeps the points of the positive orthant, "
        "in a plane the quarter where both coordinates are positive, and moves all others onto its "
        "edge. A matrix before it decides which points are kept."
    )
    place = st.container()
    show_toy(has_relu=True)
    with place, session.problems():
        st.markdown(f"{session.plain(_function_words(scene))} The picture below shows a ReLU.")
    st.subheader("In the model")
    tokens = choose_prompt(scene)
    if tokens is None:
        return
    view = _view(scene, tokens)
    if view is None:
        return
    # The name of the function is above the picture of a ReLU.
    with session.problems():
        st.markdown(session.plain(view.sentence.removeprefix(_function_words(scene)).strip()))
    _show_grid(view, tokens)
    if view.curve:
        _show_curve(view)
    if view.plane is not None:
        st.markdown(f"**{session.plain(upper(view.plane.title))}**")
        labels = in_one_line(tokens.pieces)[-len(view.plane.points_before) :]
        plane(plane_data(view) | {"labels": labels}, key="plane of neurons")
    offer_page(view, "activations")


def _function_words(scene: Scene) -> str:
    """What the model's own function is, asked once."""

    def make() -> str:
        with scene.model() as guest:
            return describe_functions(guest.subject)

    return fact_of(("activation functions", scene.model_name, scene.sha256), make)


def _view(scene: Scene, tokens: Tokens) -> ActivationView | None:
    return view_of(
        scene,
        "activations",
        (tokens.prompt.id,),
        "Run the prompt",
        lambda subject: view_activations(subject, tokens.ids, layer=scene.layer),
    )


def _show_grid(view: ActivationView, tokens: Tokens) -> None:
    """A grid with a row per layer, the last on top, and a column per token."""
    known = [row for row in reversed(view.layers) if row.reason is None]
    if not known:
        return
    position = position_of(tokens)
    st.html(tint_scale("Share of neurons whose input is above 0", "0", "100 %"))
    grid = CellGrid(
        rows=[f"layer {row.layer}" for row in known],
        columns=in_one_line(tokens.pieces),
        cells=[_cells(row) for row in known],
        selected=(None, position),
        label="Share of neurons whose input is above 0, by layer and token",
        column_width=64,
        most_height=420,
    )
    cell_grid(grid, key="active grid", on_pick=lambda _, column: session.change(token=column))
    st.caption(
        f"{_average(row.positive for row in known)} of neurons on average have an input above 0, "
        f"and {_average(row.positive_shuffled for row in known)} when the coordinates of the "
        f"MLP's input are shuffled. {_average(row.active for row in known)} count as active, and "
        f"{_average(row.shuffled for row in known)} when the coordinates are shuffled. "
        "Point at a cell to see its numbers."
    )
    missing = [str(row.layer) for row in view.layers if row.reason is not None]
    if missing:
        reason = next(row.reason for row in view.layers if row.reason is not None)
        st.caption(session.plain(f"Layers {', '.join(missing)} are left out: {reason}."))


def _cells(row: LayerActivations) -> list[Cell]:
    def tip(k: int) -> str:
        return (
            f"input above 0\t{percent(row.positive[k])}\n"
            f"coordinates shuffled\t{percent(row.positive_shuffled[k])}\n"
            f"active\t{percent(row.active[k])}\n"
            f"coordinates shuffled\t{percent(row.shuffled[k])}"
        )

    return [
        Cell(percent(share), fill, tip(k))
        for k, (share, fill) in enumerate(zip(row.positive, tints(row.positive), strict=True))
    ]


def _show_curve(view: ActivationView) -> None:
    left, right = st.columns([3, 2], vertical_alignment="center", gap="large")
    figure = curve_figure(view)
    figure.update_layout(height=280, margin={"t": 10, "b": 40})
    left.plotly_chart(figure, key="activation curve")
    distance = number(view.relu_distance or 0.0, ".3f")
    right.caption(
        "The function's output for inputs from −6 to 6. Its largest distance from a ReLU is "
        f"{distance}."
    )


def _average(rows: Iterable[Sequence[float]]) -> str:
    return percent(mean([share for row in rows for share in row]))
