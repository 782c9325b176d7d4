"""Ablation of neurons or heads on a page: fields, and the model's results without them."""

from __future__ import annotations

import json

import streamlit as st

from dashboard import ablation
from dashboard.drawing.text import number, page_text
from dashboard.frame.work import Within, Work, working
from dashboard.guest import Guest
from dashboard.prompts import Prompt, as_it_can, encode, recall
from dashboard.state import session
from dashboard.state.loading import (
    evaluation_of,
    known_ablation,
    make_ablation,
    moments_at,
)
from dashboard.state.scene import Scene
from dashboard.state.store import stored_prompts
from projector.corpus.sources import sources_hint
from projector.errors import UserError
from projector.model.context import find_context
from pruning.preparing import usual_texts
from pruning.scoring.windows import EvaluationText, prepare

# Windows of the text to score on.
_N_WINDOWS = 16


def show_ablation(scene: Scene, members: list[int]) -> None:
    """Show the model's perplexity and continuation without some neurons of the chosen map.

    Args:
        members: the neurons, ascending.
    """
    st.markdown("**Ablate this group**")
    kind = st.segmented_control(
        "How",
        list(ablation.KINDS),
        format_func=ablation.KINDS.__getitem__,
        key="ablation kind",
        on_change=session.keep("ablation kind", "mean"),
        required=True,
    )
    source, is_asked = _ask(scene)
    # The key names the neurons and this projection's means, but not the number of the pole.
    key = (
        *(scene.path, scene.sha256, scene.layer, scene.site, tuple(members), kind, source),
        session.current().prompt,
    )
    if is_asked:
        with session.problems():
            make_ablation(key, lambda: _outcomes(scene, members, kind or "mean", source))
    outcomes = known_ablation(key)
    if outcomes is not None:
        _show_outcomes(
            outcomes,
            "Compare the group with the random draws, which take as many neurons of the same "
            "layer and site.",
        )


def show_ablation_of_heads(scene: Scene, heads: list[tuple[int, int]]) -> None:
    """Draw the fields, and the model's perplexity and continuation without some heads.

    Args:
        heads: layer and number of each head, ascending.
    """
    source, is_asked = _ask(scene)
    key = ("heads", scene.model_name, scene.sha256, *heads, source, session.current().prompt)
    if is_asked:
        with session.problems():
            make_ablation(key, lambda: _outcomes_of_heads(scene, heads, source))
    outcomes = known_ablation(key)
    if outcomes is not None:
        _show_outcomes(
            outcomes,
            "An ablated head's output is set to zero. Compare with the random draws, which take "
            "as many heads of the same layers.",
        )


def _ask(scene: Scene) -> tuple[str, bool]:
    """The text to score on, and whether the button was pressed."""
    columns = st.columns([3, 1], vertical_alignment="bottom")
    texts = usual_texts(scene.model_name)
    source = columns[0].text_input(
        "Text to score on",
        placeholder=sources_hint(),
        key="ablation text",
        on_change=session.keep("ablation text", "" if texts is None else texts.evaluation),
    )
    is_asked = columns[1].button("Ablate", type="primary", key="ablate", width="stretch")
    return source, is_asked


def _outcomes(scene: Scene, members: list[int], kind: str, source: str) -> list[ablation.Outcome]:
    gone = {*scene.dead, *scene.nonfinite}
    means = None
    if kind == "mean":
        means = moments_at(scene.path, scene.layer, scene.site)[0]
    with working("Ablating") as work, scene.model() as guest:
        text, prompt = _compared_on(scene, guest, source, work)
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
            progress=Within(work),
        )


def _outcomes_of_heads(
    scene: Scene, heads: list[tuple[int, int]], source: str
) -> list[ablation.Outcome]:
    with working("Ablating") as work, scene.model() as guest:
        text, prompt = _compared_on(scene, guest, source, work)
        return ablation.ablate_heads(
            guest, text, prompt, heads, advance=work.advance, progress=Within(work)
        )


def _compared_on(
    scene: Scene, guest: Guest, source: str, work: Work
) -> tuple[EvaluationText | None, Prompt | None]:
    """The text and the prompt that models are compared on.

    Raises:
        UserError: if there is neither, or the model is an encoder.
    """
    if not guest.architecture.is_causal:
        raise UserError(
            "an encoder has no perplexity and generates no text, so this page can't measure an "
            "ablation"
        )
    chosen = session.current()
    prompt = None if chosen.prompt is None else recall(chosen.prompt, stored_prompts())
    if prompt is not None:
        try:
            encode(guest, as_it_can(guest, prompt))
        except UserError as error:
            # The prompt was chosen on another page; the text can be scored without it.
            st.warning(session.plain(f"Without the prompt of the Prompt page: {page_text(error)}"))
            prompt = None
    text: EvaluationText | None = None
    if source.strip():
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
    return text, prompt


def _show_outcomes(found: list[ablation.Outcome], control: str) -> None:
    whole = found[0].perplexity

    def change(value: float | None) -> str:
        if value is None or whole is None:
            return "–"
        return number(value / whole - 1, "+.2%")

    columns: dict[str, list[str | float | None]] = {"model": [each.name for each in found]}
    if whole is not None:
        columns["perplexity"] = [each.perplexity for each in found]
        columns["change"] = [change(each.perplexity) for each in found]
    asked = any(each.continuation for each in found)
    if asked:
        columns["continuation of the prompt"] = [
            json.dumps(each.continuation or "", ensure_ascii=False) for each in found
        ]
    st.dataframe(
        columns,
        column_config={"perplexity": st.column_config.NumberColumn(format="%.4f")},
        hide_index=True,
    )
    st.caption(
        (
            ""
            if whole is None
            else f"Perplexity over {_N_WINDOWS} windows, the same ones for every model. "
        )
        + control
        + (
            ""
            if asked
            else " Run a prompt that adds tokens on the Prompt page to see how each model "
            "continues it."
        )
    )
