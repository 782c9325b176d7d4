"""A group of neurons taken away on a page: fields, and what the model says without it."""

from __future__ import annotations

import json

import streamlit as st

from dashboard import ablation
from dashboard.drawing.text import number, page_text
from dashboard.frame.work import Within, working
from dashboard.prompts import as_it_can, encode, recall
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

# Of the text to score on.
_N_WINDOWS = 16


def show_ablation(scene: Scene, members: list[int]) -> None:
    """What the model says, and how well, without some neurons of the chosen map.

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
    columns = st.columns([3, 1], vertical_alignment="bottom")
    texts = usual_texts(scene.model_name)
    source = columns[0].text_input(
        "Text to score on",
        placeholder=sources_hint(),
        key="ablation text",
        on_change=session.keep("ablation text", "" if texts is None else texts.evaluation),
    )
    # The model without these neurons, and means of this projection, whoever calls them what pole.
    key = (
        *(scene.path, scene.sha256, scene.layer, scene.site, tuple(members), kind, source),
        session.current().prompt,
    )
    if columns[1].button("Ablate", type="primary", key="ablate", width="stretch"):
        with session.problems():
            make_ablation(key, lambda: _outcomes(scene, members, kind, source))
    outcomes = known_ablation(key)
    if outcomes is not None:
        _show_outcomes(outcomes)


def _outcomes(scene: Scene, members: list[int], kind: str, source: str) -> list[ablation.Outcome]:
    chosen = session.current()
    prompt = None if chosen.prompt is None else recall(chosen.prompt, stored_prompts())
    gone = {*scene.dead, *scene.nonfinite}
    means = None
    if kind == "mean":
        means = moments_at(scene.path, scene.layer, scene.site)[0]
    with working("Ablating") as work, scene.model() as guest:
        if not guest.architecture.is_causal:
            raise UserError(
                "an encoder has no perplexity and generates no text, so this page can't show what "
                "an ablation does to it"
            )
        if prompt is not None:
            try:
                encode(guest, as_it_can(guest, prompt))
            except UserError as error:
                # The prompt was chosen on another page; the text can be scored without it.
                st.warning(
                    session.plain(f"Without the prompt of the Prompt page: {page_text(error)}")
                )
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


def _show_outcomes(found: list[ablation.Outcome]) -> None:
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
        ("" if whole is None else f"Perplexity over {_N_WINDOWS} windows, the same for all. ")
        + "The random draws take as many neurons of the same layer and site: compare the group "
        "with them."
        + (
            ""
            if asked
            else " Run a prompt that adds tokens on the Prompt page to see how each model "
            "continues it."
        )
    )
