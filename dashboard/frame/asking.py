"""The fields of a prompt. They keep typed text while other pages are open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import streamlit as st

from dashboard.drawing.text import page_text
from dashboard.frame.work import working
from dashboard.prompts import (
    Prompt,
    Run,
    Tokens,
    as_it_can,
    can_generate,
    read_prompt,
    recall,
    run_prompt,
    store,
)
from dashboard.state import session
from dashboard.state.loading import run_of, tokens_of
from dashboard.state.scene import Scene
from dashboard.state.store import stored_prompts
from projector.errors import UserError
from projector.model.prompting import clean, is_empty

_EXAMPLE = "def mean(values):\n    return sum(values) / len("
_USUAL_TOKENS = 24
_ASKED, _PROBLEM = "asked prompts", "prompt problem"
_STOPPED, _ALONE = "stopped prompt", "one prompt alone"

T = TypeVar("T", Run, Tokens)
Runner = Callable[[Scene, Prompt, Callable[[], None]], T]


@dataclass(frozen=True)
class Asked:
    """A prompt to run, and to select after it has run."""

    prompt: Prompt
    other: Prompt | None = None


def show_fields(*, alone: bool = False, n_new: int = _USUAL_TOKENS) -> None:
    """Draw the fields, and errors in them.

    Args:
        alone: whether the page shows only one prompt, never a second. Such a page shows the typed
            text, without added tokens until the user asks for them.
        n_new: number of tokens added to two prompts unless the user asks for another number.
    """
    state = st.session_state
    state[_ALONE] = alone
    _fill_in()
    compare = not alone and st.toggle(
        "Compare with a second prompt",
        key="compare",
        on_change=session.keep("compare", False, _compared),
    )
    columns = st.columns(2 if compare else 1)
    # No form: it would send typed text only with a click on its button, and lose it otherwise.
    columns[0].text_area(
        "Prompt A" if compare else "Prompt",
        key="prompt text",
        placeholder=_EXAMPLE,
        height=90,
        on_change=session.keep("prompt text", ""),
    )
    if compare:
        columns[1].text_area(
            "Prompt B",
            key="other text",
            placeholder=_EXAMPLE,
            height=90,
            on_change=session.keep("other text", ""),
        )
    left, middle, right = st.columns([2, 2, 1], vertical_alignment="bottom")
    left.number_input(
        "Tokens to add",
        0,
        500,
        key="prompt tokens",
        help="How many tokens the model generates, greedily; 0 for none.",
        on_change=session.keep("prompt tokens", 0 if alone else n_new),
    )
    middle.checkbox(
        "As a chat",
        key="prompt chat",
        help="Send the prompt through the model's chat template, if it has one.",
        on_change=session.keep("prompt chat", False),
    )
    right.button("Run", type="primary", width="stretch", key="run prompt", on_click=_send)
    problem = state.pop(_PROBLEM, None)
    if problem:
        session.tell(problem)


def asked() -> Asked | None:
    """The prompt that Run was pressed for and that has not run yet."""
    found = st.session_state.get(_ASKED)
    return found if isinstance(found, Asked) else None


def drop() -> None:
    """Drop the prompt to run, because it can't run or the user stopped it. The selection stays."""
    st.session_state.pop(_ASKED, None)


def select(prompt_id: str, other_id: str | None) -> None:
    """Select the prompt that has run."""
    drop()
    session.change(prompt=prompt_id, other=other_id, token=None)
    _remember_filled(prompt_id, other_id)


def run_asked(scene: Scene, asked: Asked, runner: Runner[T]) -> None:
    """Run the typed prompt, and select it. If it can't run, nothing changes.

    Args:
        runner: :func:`run` or :func:`read`.
    """
    given = [asked.prompt] if asked.other is None else [asked.prompt, asked.other]
    try:
        for k, prompt in enumerate(given):
            try:
                runner(scene, prompt, drop)
            except UserError as error:
                if len(given) == 1:
                    raise
                raise UserError(f"prompt {'AB'[k]}: {page_text(error)}") from error
        ids = [store(prompt, stored_prompts()) for prompt in given]
    except UserError:
        drop()
        raise
    st.session_state.pop(_STOPPED, None)
    select(ids[0], ids[1] if len(ids) > 1 else None)
    # Links in the sidebar were drawn with the earlier selection.
    session.run_again()


def run_selected(scene: Scene, prompt_id: str, runner: Runner[T]) -> T:
    """Run the selected prompt, unless it has run already.

    Args:
        runner: :func:`run` or :func:`read`.

    Raises:
        UserError: if it can't run, or the user stopped it.
    """
    prompt = recall(prompt_id, stored_prompts())
    if st.session_state.get(_STOPPED) == prompt_id:
        raise UserError("the run was stopped: press Run to start it again")

    def stop() -> None:
        # Without this, the selected prompt would run again at once.
        st.session_state[_STOPPED] = prompt_id

    found = runner(scene, prompt, stop)
    if prompt.as_chat and not found.prompt.as_chat:
        st.warning("This model has no chat template: the prompt is sent as plain text.")
    return found


def read(scene: Scene, prompt: Prompt, on_stop: Callable[[], None]) -> Tokens:
    """A prompt's tokens with those that the model adds, without activations.

    Args:
        on_stop: called when the user stops it.

    Raises:
        UserError: see :func:`dashboard.prompts.read_prompt`.
    """

    def make() -> Tokens:
        with working("Reading the prompt", on_stop) as work, scene.model() as guest:
            if prompt.n_new and can_generate(guest):
                work.begin("Generating", prompt.n_new, "tokens")
            return read_prompt(guest, as_it_can(guest, prompt), advance=work.advance)

    return tokens_of(prompt, scene.model_name, scene.sha256, make)


def run(scene: Scene, prompt: Prompt, on_stop: Callable[[], None]) -> Run:
    """The run of a prompt in the model: run now, unless a page has run it.

    Args:
        on_stop: called when the user stops it.

    Raises:
        UserError: see :func:`dashboard.prompts.run_prompt`.
    """
    maps = tuple(scene.projection.maps)

    def make() -> Run:
        # Added tokens are the same for every page.
        tokens = read(scene, prompt, on_stop)
        with working("Running the prompt", on_stop) as work, scene.model() as guest:
            return run_prompt(
                guest, as_it_can(guest, prompt), maps, tokens=tokens, advance=work.advance
            )

    return run_of(prompt, scene.model_name, scene.sha256, maps, make)


def _send() -> None:
    """Ask for the typed prompt, before the page runs. An empty field asks for nothing."""
    state = st.session_state
    drop()
    if is_empty(state["prompt text"]):
        if session.current().prompt is None:
            # Don't clear anything: the page stays as it is.
            name = "prompt A" if state.get("compare") and not state[_ALONE] else "the prompt"
            state[_PROBLEM] = f"{name} is empty: type a text and press Run again"
        session.change(prompt=None, other=None, token=None)
        _remember_filled(None, None)
        return

    def typed(key: str) -> Prompt | None:
        if is_empty(state.get(key) or ""):
            return None
        n_new, as_chat = int(state["prompt tokens"]), bool(state["prompt chat"])
        return Prompt(clean(state[key]), n_new, as_chat)

    try:
        first = typed("prompt text")
        second = typed("other text") if state.get("compare") and not state[_ALONE] else None
    except UserError as error:
        state[_PROBLEM] = page_text(error)
        return
    if first is not None:
        # It is chosen now, and the fields of other pages show the same.
        session.fill("prompt tokens", first.n_new)
        state[_ASKED] = Asked(first, second)


def _compared() -> None:
    session.change(other=None)


def _fill_in() -> None:
    """Fill the fields with the selection, also if it came from a link or a step back."""
    chosen, state = session.current(), st.session_state
    for name, key, prompt_id in (
        ("prompt", "prompt text", chosen.prompt),
        ("other", "other text", chosen.other),
    ):
        if prompt_id == state.get(f"filled {name}"):
            continue
        state[f"filled {name}"] = prompt_id
        if name == "other":
            session.fill("compare", prompt_id is not None)
        if prompt_id is None:
            continue
        try:
            prompt = recall(prompt_id, stored_prompts())
        except UserError:
            # The page reports it in the place of the prompt's results.
            continue
        session.fill(key, prompt.text)
        session.fill("prompt tokens", prompt.n_new)
        session.fill("prompt chat", prompt.as_chat)


def _remember_filled(prompt_id: str | None, other_id: str | None) -> None:
    st.session_state["filled prompt"], st.session_state["filled other"] = prompt_id, other_id
