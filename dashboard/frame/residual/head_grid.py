"""All heads as a table, coloured by kind; heads without scores are scored first."""

from __future__ import annotations

import streamlit as st

from dashboard.components.cell_grid import cell_grid
from dashboard.drawing.text import lettered_swatches, tint_scale
from dashboard.frame.residual.places import can_choose_head, choose_head
from dashboard.frame.residual.stopping import Begin, unless_stopped
from dashboard.residual.head_table import (
    COLORS,
    KIND,
    HeadTable,
    found_words,
    head_grid,
    heads_text,
    layer_of,
    left_out_words,
    read_heads,
)
from dashboard.state import session
from dashboard.state.loading import kept
from dashboard.state.scene import Scene
from dashboard.state.store import heads_name, stored_heads
from projector.errors import UserError
from projector.figures.residual.kinds import COLOURS, INK, LETTERS
from projector.residual.heads.kinds import KINDS
from projector.residual.heads.scores import score_heads
from projector.storage.places import disk_errors

_COLOR = "heads color"


def show_heads(scene: Scene) -> HeadTable | None:
    """Draw the table and return it; None if scoring was stopped."""
    table = _table(scene)
    if table is None:
        return None
    color = _choose_color(table)
    if not table.kinds:
        pass
    elif color == KIND:
        items = [(LETTERS[kind.name], kind.title, COLOURS[kind.name]) for kind in KINDS]
        st.html(lettered_swatches(items, INK))
    else:
        st.html(tint_scale(COLORS[color], "0", "1"))
    chosen = session.current()
    selected = None if chosen.head is None else (scene.layer, chosen.head)

    def pick(row: int, column: int) -> None:
        layer = layer_of(table, row)
        if table.row(layer, column) is not None and can_choose_head(scene, layer):
            choose_head(scene, layer, column)

    cell_grid(head_grid(table, color, selected), key="heads grid", on_pick=pick)
    lacks = [layer for layer in table.layers if not can_choose_head(scene, layer)]
    if table.kinds:
        st.caption(
            f"Heads found: {found_words(table)}. A head belongs to a kind if its score is high in "
            f"itself and exceeds 99 % of the scores of {table.n_random:,} random heads with the "
            "same spectra, in the same model. Point at a head to see its scores."
        )
    for words in left_out_words(table):
        st.caption(session.plain(words))
    for reason in table.reasons:
        st.caption(session.plain(reason[:1].upper() + reason[1:] + "."))
    if lacks:
        layers = ", ".join(map(str, lacks))
        st.caption(f"This projection has no map of layers {layers}: their heads can't be selected.")
    return table


def _choose_color(table: HeadTable) -> str:
    if not table.kinds:
        return KIND
    shown_by = "\n".join(f"- {kind.title}: {kind.shown_by}." for kind in KINDS)
    color = st.segmented_control(
        "Colour by",
        list(COLORS),
        format_func=COLORS.__getitem__,
        key=_COLOR,
        required=True,
        on_change=session.keep(_COLOR, KIND),
        help="How each score is measured, on random tokens repeated once:\n\n" + shown_by,
    )
    return str(color)


def _table(scene: Scene) -> HeadTable | None:
    """All heads with their scores: from this or an earlier run of the app, or computed now."""
    key = ("heads", scene.model_name, scene.sha256)

    def find(begin: Begin) -> HeadTable:
        def make() -> HeadTable:
            return _kept_on_disk(scene) or _score(scene, begin)

        return kept(key, make)

    return unless_stopped("scoring", key, "Score all heads", find)


def _kept_on_disk(scene: Scene) -> HeadTable | None:
    path = stored_heads().find(heads_name(scene.sha256))
    if path is None:
        return None
    try:
        return read_heads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _score(scene: Scene, begin: Begin) -> HeadTable:
    name, folder = heads_name(scene.sha256), stored_heads()
    with begin() as work, scene.model() as guest:
        subject = guest.subject
        try:
            found = score_heads(subject, progress=work).as_dict()
        except UserError as error:
            taps = subject.patterns.blocks
            counts = [0 if isinstance(tap, str) else tap.n_heads for tap in taps]
            return HeadTable.without_scores(counts, str(error))
    with disk_errors(folder.path), folder.writing(name) as path:
        path.write_text(heads_text(found), encoding="utf-8")
    return HeadTable.of_dict(found)
