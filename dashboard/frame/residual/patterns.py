"""A head's pattern on the prompt, as a matrix and as coloured text."""

from __future__ import annotations

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from torch import Tensor

from dashboard.components.plot_clicks import hear_clicks
from dashboard.components.token_text import token_text
from dashboard.drawing.figures import pattern_figure
from dashboard.drawing.grids import Cell
from dashboard.drawing.text import number, tint_scale, tints
from dashboard.frame.exports import offer_figure
from dashboard.frame.residual.places import head_name
from dashboard.frame.residual.prompting import in_one_line
from dashboard.frame.residual.stopping import Begin, unless_stopped
from dashboard.prompts import Tokens
from dashboard.state import session
from dashboard.state.loading import kept
from dashboard.state.scene import Scene
from projector.model.architecture.stream.patterns import watch_patterns

# Most tokens of a matrix: with more, cells are too small for the pointer.
_MOST = 160
_WAY = "attention way"
_WAYS = {"from": "From the chosen token", "to": "To it"}


def show_pattern(scene: Scene, tokens: Tokens, position: int, head: int) -> None:
    """Draw the pattern of a head of the chosen layer."""
    n_tokens = len(tokens.pieces)
    first = max(0, min(position // _MOST * _MOST, n_tokens - _MOST))
    end = min(n_tokens, first + _MOST)
    found = _patterns(scene, tokens, first, end)
    if found is None:
        return
    pattern = found[head].astype(np.float32)
    at = position - first
    left, right = st.columns([3, 2], gap="large")
    with left:
        _show_matrix(scene, tokens, pattern, first, at, head)
    with right:
        _show_text(tokens, pattern, first, at)
    if end - first < n_tokens:
        st.caption(
            f"Tokens {first + 1:,} to {end:,} of {n_tokens:,}. Attention to earlier tokens is left "
            "out of the picture."
        )


def _show_matrix(
    scene: Scene,
    tokens: Tokens,
    pattern: NDArray[np.float32],
    first: int,
    at: int,
    head: int,
) -> None:
    pieces = tokens.pieces[first : first + len(pattern)]
    dark = st.context.theme.type == "dark"
    figure = pattern_figure(pattern, in_one_line(pieces), at, dark=dark)
    name = head_name(scene.layer, head)
    with st.container(key="pattern"):
        st.plotly_chart(figure, key=f"pattern {name}")

    def pick(row: int, column: int) -> None:
        if 0 <= row < len(pattern):
            session.change(token=first + row)

    hear_clicks("pattern", pick)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("Each row shows what one token attends to. Click a row to choose its token.")
        offer_figure(figure, f"pattern-{name.replace(' ', '-')}")


def _show_text(tokens: Tokens, pattern: NDArray[np.float32], first: int, at: int) -> None:
    way = st.segmented_control(
        "Colour the text by attention",
        list(_WAYS),
        format_func=_WAYS.__getitem__,
        key=_WAY,
        required=True,
        on_change=session.keep(_WAY, "from"),
    )
    shares = pattern[at] if way == "from" else pattern[:, at]
    # The matrix's scale: a text scaled to its largest value would look like another pattern.
    st.html(tint_scale("Attention, as in the matrix", "0", "100 %"))
    pieces = tokens.pieces[first : first + len(pattern)]
    verb = "attends to this" if way == "from" else "attends to the chosen one"

    def tip(k: int) -> str:
        who = f"token {at + 1 + first}" if way == "from" else f"token {k + 1 + first}"
        return f"{who} {verb}: {_percent(float(shares[k]))}"

    cells = [
        Cell(piece.text, fill, tip(k))
        for k, (piece, fill) in enumerate(zip(pieces, tints(shares), strict=True))
    ]
    token_text(cells, at, key="pattern text", on_pick=lambda k: session.change(token=first + k))
    strongest = np.argsort(-shares, kind="stable")[:5].tolist()
    texts = in_one_line(pieces)
    lines = [
        f"{_percent(float(shares[k]))} · token {first + k + 1} ‘{texts[k]}’"
        for k in strongest
        if shares[k] > 0
    ]
    st.caption("  \n".join(session.plain(line) for line in lines))


def _percent(share: float) -> str:
    return number(100 * share, ".2g" if share < 0.0995 else ".0f") + " %"


def _patterns(scene: Scene, tokens: Tokens, first: int, end: int) -> NDArray[np.float16] | None:
    """(A, n, n) patterns of the chosen layer, among tokens from ``first`` to ``end``."""
    key = (
        *("patterns", tokens.prompt.id, scene.model_name, scene.sha256, scene.layer),
        *(first, end),
    )

    def find(begin: Begin) -> NDArray[np.float16]:
        def make() -> NDArray[np.float16]:
            found: list[NDArray[np.float16]] = []

            with begin() as work, scene.model() as guest:
                subject = guest.subject
                blocks = subject.patterns.blocks[: scene.layer]
                before = [k for k, tap in enumerate(blocks) if not isinstance(tap, str)]

                def keep(layer: int, pattern: Tensor) -> None:
                    if layer == scene.layer:
                        own = pattern[0, :, first:end, first:end]
                        found.append(own.float().cpu().numpy().astype(np.float16))
                    work.advance(1)

                work.begin("Running the prompt", len(before) + 1, "layers")
                watch_patterns(
                    subject.model,
                    subject.architecture,
                    subject.inputs(tokens.ids),
                    keep,
                    taps=subject.patterns,
                    # Earlier layers only show the progress.
                    layers=[*before, scene.layer],
                )
            return found[0]

        return kept(key, make)

    return unless_stopped("patterns", key, "Run the prompt", find)
