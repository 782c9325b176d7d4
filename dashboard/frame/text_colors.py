"""Colour a prompt's tokens by a neuron or a pole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.drawing.text import fills, neuron_name, number
from dashboard.prompts import Run
from dashboard.state import session
from dashboard.state.loading import moments_at, poles_at
from dashboard.state.naming import pole_names
from dashboard.state.scene import Scene
from pruning.poles.poles import Poles

_KINDS = ("Neuron", "Pole", "Nothing")
_KIND, _POLE = "color text by", "text pole"


@dataclass(frozen=True, eq=False)
class TextColors:
    """Values of the tokens of one or two prompts.

    Attributes:
        label: name of the values.
        values: values of each run, (T,) float64.
        scale: the magnitude with the full colour.
    """

    label: str
    values: tuple[NDArray[np.float64], ...]
    scale: float

    def fills(self, run: int) -> list[str]:
        """A background for each token; see :func:`dashboard.drawing.text.fills`."""
        return fills(self.values[run], self.scale)

    def titles(self, run: int) -> list[str]:
        """The hover text of each token."""
        return [f"{self.label}: {number(value, '+.3g')}" for value in self.values[run].tolist()]


def choose_text_colors(scene: Scene, runs: Sequence[Run]) -> TextColors | None:
    """Draw the choice, and compute the chosen values; None for no colour."""
    with st.container(horizontal=True, vertical_alignment="bottom", width="content"):
        kind = st.segmented_control(
            "Colour the text by",
            _KINDS,
            key=_KIND,
            required=True,
            on_change=session.keep(_KIND, _KINDS[0]),
            help="Neuron: the chosen one, or else the strongest at the prompt's last token. "
            "Pole: the mean of its neurons.",
        )
        if kind == "Pole":
            return _by_pole(scene, runs)
    return _by_neuron(scene, runs) if kind == "Neuron" else None


def _by_neuron(scene: Scene, runs: Sequence[Run]) -> TextColors | None:
    neuron = session.current().neuron
    of_map = [run.activations[scene.layer, scene.site] for run in runs]
    is_chosen = neuron is not None and neuron < of_map[0].shape[1]
    if neuron is None or not is_chosen:
        neuron = int(np.abs(of_map[0][runs[0].n_prompt - 1].astype(np.float32)).argmax())
    name = f"{neuron_name(scene.layer, scene.site)} N{neuron}"
    label = name if is_chosen else f"{name} (strongest at the prompt's last token)"
    return _colors(label, scene, runs, lambda values: values[:, neuron].astype(np.float64))


def _by_pole(scene: Scene, runs: Sequence[Run]) -> TextColors | None:
    settings = session.pole_settings(scene.projection, scene.layer, scene.site)
    poles = poles_at(scene.path, scene.layer, scene.site, scene.layout, settings)
    if not poles.poles:
        st.caption("This map has no pole with the settings in use.")
        return None
    numbers = list(range(len(poles.poles)))
    names = pole_names(scene.path, poles, scene.layout)
    chosen = session.current().pole
    session.bind(_POLE, chosen if chosen in numbers else numbers[0])
    pole = st.selectbox(
        "Pole",
        numbers,
        key=_POLE,
        format_func=lambda k: _pole_words(poles, k, names[k]),
        on_change=lambda: session.change(pole=st.session_state[_POLE], marked=()),
        width=320,
    )
    members = (poles.labels == pole).nonzero()[:, 0].numpy()
    label = f"Pole {pole}, mean of {len(members)} neurons"
    if not scene.projection.has_statistics_of(scene.layer, scene.site):
        return _colors(label, scene, runs, lambda values: _mean(values[:, members]))
    mean, spread = (each[members] for each in moments_at(scene.path, scene.layer, scene.site))
    spread = np.where(spread > 0, spread, np.inf)

    def standardised(values: NDArray[np.float16]) -> NDArray[np.float64]:
        return _mean((values[:, members] - mean) / spread)

    label += ", in standard deviations from the corpus mean"
    return _colors(label, scene, runs, standardised)


def _pole_words(poles: Poles, pole: int, name: str) -> str:
    return f"{pole} ({poles.poles[pole].size} neurons)" + (f": {name}" if name else "")


def _mean(values: NDArray[np.floating]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.mean(axis=1, dtype=np.float64)
    return found


def _colors(
    label: str,
    scene: Scene,
    runs: Sequence[Run],
    value_of: Callable[[NDArray[np.float16]], NDArray[np.float64]],
) -> TextColors:
    values = tuple(value_of(run.activations[scene.layer, scene.site]) for run in runs)
    # Many models have far larger activations on the first token than on all others.
    shown = np.concatenate([each[1:] if len(each) > 1 else each for each in values])
    return TextColors(label, values, float(np.abs(shown).max(initial=0.0)) or 1.0)
