"""Text that drives a neuron: examples that the fit kept, or examples from text read here."""

from __future__ import annotations

import streamlit as st

from dashboard.drawing.text import Line, colored_lines, numbers
from dashboard.frame.work import working
from dashboard.neuron_facts import Excerpt, Place, places, read_excerpts, saved_excerpts
from dashboard.state import session
from dashboard.state.loading import (
    examples_at,
    examples_stamp,
    fact_of,
    projection_at,
    saved_examples_at,
)
from dashboard.state.scene import Scene
from dashboard.state.store import examples_name, stored_examples
from projector.corpus.sources import find_source, sources_hint
from projector.corpus.tokens import DEFAULT_SEQUENCE_LENGTH, read_corpus
from projector.errors import UserError
from projector.model.context import find_context
from projector.statistics.examples import Examples, gather_examples
from projector.storage.places import disk_errors

_TOKENS = 50_000
_FIT, _OWN = "the fit's text", "text read here"
_TEXT, _WAS_READ = "examples text", "examples were read"
_KIND, _KIND_OF = "examples kind", "examples kind is of"
_KINDS = ("highest", "lowest", "quantiles", "at random")


def show_text(scene: Scene, neuron: int, sign: int) -> Examples | None:
    """Draw the excerpts, and a way to read other text; return the shown examples or None.

    Args:
        sign: −1 if the lowest activations come first, because its label describes them.

    Raises:
        UserError: if the examples are damaged, or the model can't run.
    """
    st.subheader("Top activating text")
    saved = saved_examples_at(scene.path, scene.layer, scene.site)
    own: Examples | None = None
    with session.problems():
        own = examples_at(scene.sha256, scene.layer, scene.site)
    if saved is None and own is None:
        _tell_of_none(scene)
        _show_finding(scene)
        return None
    examples = _choose(scene, saved, own)
    is_saved = examples is saved
    state, shown = st.session_state, (scene.sha256, scene.layer, scene.site, neuron)
    if state.get(_KIND) is None or state.get(_KIND_OF) != shown:
        state[_KIND], state[_KIND_OF] = _KINDS[0 if sign > 0 else 1], shown
    with st.container(horizontal=True, vertical_alignment="center"):
        kind = st.segmented_control(
            "Tokens",
            _KINDS,
            key=_KIND,
            format_func=str.capitalize,
            label_visibility="collapsed",
            required=True,
            help="Quantiles and random tokens come from the sample that the histogram shows.",
        )
        on_all = is_saved and st.toggle(
            "Activation on every token",
            key="color every token",
            help="The projection keeps only the activation on the underlined token. This runs the "
            "model on the excerpt to get the others. The model does not see the text before the "
            "excerpt, so values can differ a little.",
        )
    wanted = [
        each
        for each in places(examples, neuron)
        if each.group == kind or (kind == "quantiles" and each.group.endswith("quantile"))
    ]
    if is_saved and not on_all:
        found = saved_excerpts(examples, projection_at(scene.path).pieces, wanted)
    else:
        found = _read(scene, neuron, examples, wanted, (kind, is_saved))
    if found:
        scale = max((abs(v) for each in found for v in each.values if v == v), default=1.0)
        # At random most values are far below the largest.
        heads = numbers([each.place.value for each in found], 3 if kind in _KINDS[:2] else 4)
        lines = [_line(each, head) for each, head in zip(found, heads, strict=True)]
        st.html(colored_lines(lines, scale))
    else:
        st.caption("No token of this kind was kept.")
    for cut in examples.cut if is_saved else ():
        st.caption(f"To save space the fit kept only {cut}.")
    return examples


def _line(each: Excerpt, head: str) -> Line:
    if each.place.group.endswith("quantile"):
        head += f" ({each.place.group.removesuffix(' quantile')})"
    return Line(head, each.texts, each.values, each.focus)


def _choose(scene: Scene, saved: Examples | None, own: Examples | None) -> Examples:
    """Choose the text of the excerpts, and a way to read another text."""
    asks = f"other text {scene.sha256} {scene.layer} {scene.site}"
    choices = {_FIT: saved, _OWN: own}
    known = [name for name, each in choices.items() if each is not None]
    state, chosen = st.session_state, known[0]
    if state.pop(_WAS_READ, False):
        state[_TEXT] = known[-1]
    elif state.get(_TEXT) not in known:
        state[_TEXT] = chosen
    if len(known) > 1:
        st.segmented_control(
            "Text",
            known,
            key=_TEXT,
            format_func=str.capitalize,
            label_visibility="collapsed",
            required=True,
        )
        chosen = state[_TEXT]
    examples = choices[chosen]
    assert examples is not None
    source = "a text" if examples.source is None else f"**{session.plain(examples.source)}**"
    corpus = scene.projection.facts.corpus
    n_tokens = corpus.n_tokens if chosen == _FIT and corpus else len(examples.ids)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"From {n_tokens:,} tokens of {source}.", width="stretch")
        if not st.session_state.get(asks) and st.button(
            "Find examples in other text", key="read other"
        ):
            st.session_state[asks] = True
            st.rerun()
    if state.get(asks):
        _show_finding(scene)
    return examples


def _tell_of_none(scene: Scene) -> None:
    st.info(
        "This projection holds no examples: it was fitted without them, or with an older version. "
        "Find some here, or fit it again to get them for every layer.",
        icon=":material/manage_search:",
    )


def _show_finding(scene: Scene) -> None:
    """The field for the user's own text, and the button that reads it."""
    asks = f"other text {scene.sha256} {scene.layer} {scene.site}"
    corpus = scene.projection.facts.corpus
    source = "stdlib" if corpus is None else corpus.source
    is_file = find_source(source).local_path is not None
    usual = source if not is_file or _is_here(scene, source) else ""
    columns = st.columns([2, 1], vertical_alignment="bottom")
    chosen = columns[0].text_input(
        "Text to read",
        value=usual,
        placeholder=sources_hint(),
        key="examples source",
        help="Any source that `projector fit --corpus` accepts. Files must lie below the folders "
        "that the app was started with; `--root FOLDER` adds one.",
    )
    clicked = columns[1].button(
        "Find examples", type="primary", key="read examples", width="stretch"
    )
    st.caption(
        f"The model reads {_TOKENS:,} tokens once for all neurons of this layer and site. The "
        "result is saved."
    )
    if is_file and not usual:
        st.caption(
            f"The projection was fitted on {session.plain(source)}, which isn't below the app's "
            "folders: start the app with `--root` and the folder it lies in, or name another text."
        )
    if clicked:
        _keep(scene, _gather(scene, chosen))
        st.session_state[asks] = False
        st.session_state[_WAS_READ] = True
        st.rerun()


def _is_here(scene: Scene, source: str) -> bool:
    try:
        scene.settings.text_source(source)
    except UserError:
        return False
    return True


def _read(
    scene: Scene, neuron: int, examples: Examples, wanted: list[Place], what: tuple[object, ...]
) -> list[Excerpt]:
    """Run the model to get the neuron's activation on every token of the excerpts."""

    def make() -> list[Excerpt]:
        with working("Running the model") as work, scene.model() as guest:
            work.begin("Running the model", len(wanted), "excerpts")
            return read_excerpts(
                guest, examples, scene.layer, scene.site, neuron, wanted, advance=work.advance
            )

    stamp = examples_stamp(scene.sha256, scene.layer, scene.site)
    key = ("excerpts", scene.path, scene.sha256, scene.layer, scene.site, neuron, what, stamp)
    return fact_of(key, make)


def _keep(scene: Scene, examples: Examples) -> None:
    folder = stored_examples()
    with (
        disk_errors(folder.path),
        folder.writing(examples_name(scene.sha256, scene.layer, scene.site)) as path,
    ):
        examples.save(path)


def _gather(scene: Scene, source: str) -> Examples:
    if not source.strip():
        raise UserError(f"the text is missing: write {sources_hint()}")
    source = scene.settings.text_source(source.strip())
    with working("Reading text") as work, scene.model() as guest:
        work.begin("Reading text", None, "documents")
        most = find_context(guest.loaded.model, guest.loaded.tokenizer)
        corpus = read_corpus(
            source,
            guest.loaded.tokenizer,
            sequence_length=min(DEFAULT_SEQUENCE_LENGTH, most or DEFAULT_SEQUENCE_LENGTH),
            max_tokens=_TOKENS,
            skip_first=int(guest.architecture.is_causal),
            packed=guest.architecture.is_causal,
            advance=work.advance,
        )
        work.begin("Running the model", corpus.n_sequences, "sequences")
        return gather_examples(
            guest.loaded.model,
            guest.architecture,
            corpus,
            scene.layer,
            scene.site,
            advance=work.advance,
        )
