"""A neuron's reads from the stream and writes to it, by its weights, on the Neuron page."""

from __future__ import annotations

import streamlit as st

from dashboard.drawing.text import number, written_list
from dashboard.frame.residual.places import can_choose_neuron
from dashboard.frame.work import working
from dashboard.state import session
from dashboard.state.loading import fact_of, known_fact
from dashboard.state.scene import Scene
from projector.errors import UserError
from projector.naming.words import compact
from projector.residual.neuron import FavouredTokens, NeuronReaders, NeuronWeights, neuron_weights

_N_MOST, _N_LEAST = 7, 3
_NAMES = {"input": "Reads", "gate": "Gate reads", "up": "Input reads", "output": "Writes"}
_READS_HELP = (
    "The tokens whose embeddings have the highest and the lowest cosine with the weights, the "
    "norm before the MLP included. In later layers the stream holds more than tokens."
)
_WRITES_HELP = (
    "How much one unit of activation adds to the logits of tokens, minus the mean over all "
    "tokens, as in *Effect on the vocabulary*, but with the weights of the norms after it."
)
_READERS_HELP = (
    "Neurons of later layers whose input weights point along what it writes, or against it: the "
    "cosine of the two directions, the strongest first."
)


def show_reads_and_writes(scene: Scene, neuron: int) -> None:
    """Draw reads and writes if the model is in memory; else a button that loads it."""
    if scene.site != "mlp_post":
        return
    st.subheader(
        "Reads and writes",
        help="Computed from the neuron's weights alone, and compared with the same weights in "
        "shuffled order.",
    )
    found = _find(scene, neuron)
    if isinstance(found, str):
        st.caption(session.plain(found[:1].upper() + found[1:] + "."))
    elif found is not None:
        _show(scene, found)


def _find(scene: Scene, neuron: int) -> NeuronWeights | str | None:
    """Its reads and writes, or why they are not known; None if the user has to ask for them."""
    key = ("reads and writes", scene.model_name, scene.sha256, scene.layer, neuron)
    known: NeuronWeights | str | None = known_fact(key)
    if known is not None:
        return known
    is_ready = scene.room.is_ready(scene.model_name, scene.sha256)
    if not is_ready and not st.button("Compute", key="compute reads", help="Loads the model."):
        return None

    def make() -> NeuronWeights | str:
        with working("Comparing weights") as work, scene.model() as guest:
            work.advance(0)
            try:
                return neuron_weights(guest.subject, scene.layer, neuron)
            except UserError as error:
                return str(error)

    return fact_of(key, make)


def _show(scene: Scene, found: NeuronWeights) -> None:
    favoured = [*found.reads, *([] if found.writes is None else [found.writes])]
    columns = st.columns(3, gap="large")
    for column, each in zip(columns, favoured, strict=False):
        with column:
            help_ = _WRITES_HELP if each.part == "output" else _READS_HELP
            st.markdown(f"**{_NAMES.get(each.part, each.part)}**", help=help_)
            _show_tokens(each)
    if found.writes_reason is not None:
        st.caption(session.plain(f"What it writes: {found.writes_reason}."))
    if found.readers is None:
        st.caption("No layer comes after this one.")
    else:
        _show_readers(scene, found.readers)
    for note in found.notes:
        st.caption(session.plain(note[:1].upper() + note[1:] + "."))


def _show_tokens(each: FavouredTokens) -> None:
    shown = [*each.most[:_N_MOST], *each.least[:_N_LEAST][::-1]]
    st.html(written_list([(compact(token.text), token.value) for token in shown]))
    st.caption(_beside_shuffled(each.shuffled_most, each.n_beyond, each.n_tokens, "tokens"))


def _show_readers(scene: Scene, readers: NeuronReaders) -> None:
    st.markdown("**Later neurons that read it**", help=_READERS_HELP)
    with st.container(horizontal=True, gap="small", key="later readers"):
        for each in readers.strongest:
            part = {"gate": " gate", "up": " input"}.get(each.part, "")
            words = f"L{each.layer} N{each.neuron}{part} :gray[{number(each.cosine, '+.2f')}]"
            if can_choose_neuron(scene, each.layer):
                session.show_link("neuron", words, layer=each.layer, neuron=each.neuron)
            else:
                st.markdown(words, width="content")
    st.caption(
        _beside_shuffled(readers.shuffled_most, readers.n_beyond, readers.n_inputs, "inputs")
    )


def _beside_shuffled(most: float, n_beyond: int, n: int, what: str) -> str:
    """The level of shuffled weights, and how many of the shown values exceed it."""
    reach = f"Shuffled weights reach {number(most, '.3f')}"
    if not n_beyond:
        return f"**No more than chance.** {reach}, and none of the {n:,} {what} exceeds that."
    exceed = "exceeds" if n_beyond == 1 else "exceed"
    return f"{reach}; {n_beyond:,} of {n:,} {what} {exceed} that."
