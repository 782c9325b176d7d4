"""The settings of a picture, drawn from the settings' own descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.drawing.text import LABELS, page_words
from dashboard.state import session
from dashboard.state.loading import folders_with
from dashboard.state.scene import Scene
from projector.residual.particles.reduction.registry import REDUCTIONS
from projector.residual.particles.settings import ParticleSettings, default_reduction, fields_read
from projector.settings import CHOICES, help_of
from projector.terminal.options import parse_layers

_FIELDS = {each.name: each for each in fields(ParticleSettings)}
_WORDS: dict[str, dict[Any, str]] = {
    "particles": {
        "tokens": "Tokens",
        "contributions": "Contributions",
        "autoencoder": "Autoencoder",
    },
    "reduction": {
        name: f"{each.words[:1].upper()}{each.words[1:]}" for name, each in REDUCTIONS.items()
    },
    "fit": {"prompt": "Prompts", "corpus": "Corpus"},
    "dim": {3: "3", 2: "2"},
}
# The file that marks a saved autoencoder.
_AUTOENCODER_FILE = "autoencoder.json"
_N_COLUMNS = 4
_NUMBERS = ("neighbours", "n_lines", "seed", "n_particles", "width", "steps", "n_groups", "n_pairs")


def choose_settings(scene: Scene, *, has_pair: bool) -> ParticleSettings:
    """Draw the fields that have an effect, and return their settings.

    Args:
        has_pair: whether there are two prompts.

    Raises:
        SettingError: for a field with an invalid value.
    """
    found: dict[str, Any] = {}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        found["particles"] = _choice("particles", then=_as_usual)
        found["reduction"] = _choice(
            "reduction", usual=default_reduction(str(found["particles"])), then=_can_fit
        )
        found["dim"] = _choice("dim", options=(3, 2))
    # No popover: the browser draws its fields when it is opened, without the values from the app.
    with st.expander("More settings"):
        found |= _more(scene, str(found["particles"]), str(found["reduction"]), has_pair)
    return ParticleSettings(**found)


def _more(scene: Scene, particles: str, reduction: str, has_pair: bool) -> dict[str, Any]:
    """The fields that are rarely changed."""
    found: dict[str, Any] = {}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        found["per_layer"] = _switch("per_layer")
        if "keep_outliers" in fields_read(particles, reduction):
            found["keep_outliers"] = _switch("keep_outliers")
    fit = "prompt"
    # Methods that place only the rows they are fitted on can't be fitted on other rows.
    fits = reduction != "stress" and (particles, reduction) != ("contributions", "umap")
    if fits and particles != "autoencoder" and not found["per_layer"]:
        fit = found["fit"] = str(_choice("fit"))
    if particles == "autoencoder":
        found["autoencoder"] = _saved_autoencoder(scene)
    if particles == "contributions":
        found["projection"] = _poles(scene)
    read = fields_read(
        particles,
        reduction,
        fit,
        has_autoencoder=found.get("autoencoder") is not None,
        has_projection=found.get("projection") is not None,
    )
    read -= set() if has_pair else {"n_pairs"}
    columns = st.columns(_N_COLUMNS, vertical_alignment="bottom")
    numbers = [name for name in (*_NUMBERS, "max_tokens") if name in read]
    for k, name in enumerate(numbers):
        with columns[k % _N_COLUMNS]:
            found[name] = _number(name)
    with columns[len(numbers) % _N_COLUMNS]:
        found["layers"] = parse_layers(_text("layers", "all"))
    if "corpus" in read:
        with columns[(len(numbers) + 1) % _N_COLUMNS]:
            source = _text("corpus", "stdlib")
            found["corpus"] = None if source is None else scene.settings.text_source(source)
    return found


def _key(name: str) -> str:
    return f"layer-time {name}"


def _label(name: str) -> str:
    words = LABELS.get(name, page_words(name, ()))
    return f"{words[:1].upper()}{words[1:]}"


def _help(name: str) -> str:
    return help_of(_FIELDS[name])


def _choice(name: str, *, options: Sequence[Any] = (), usual: Any = None, then: Any = None) -> Any:
    words = _WORDS[name]
    given = [*(options or _FIELDS[name].metadata[CHOICES])]
    usual = _FIELDS[name].default if usual is None else usual
    return st.segmented_control(
        _label(name),
        given,
        format_func=lambda each: words[each],
        key=_key(name),
        required=True,
        help=_help(name),
        on_change=session.keep(_key(name), usual, then),
    )


def _as_usual() -> None:
    """Reset the placement to the default of newly chosen particles."""
    particles = st.session_state[_key("particles")]
    session.fill(_key("reduction"), default_reduction(particles))


def _can_fit() -> None:
    if st.session_state[_key("reduction")] == "stress":
        session.fill(_key("fit"), "prompt")


def _switch(name: str) -> bool:
    return st.checkbox(
        _label(name), key=_key(name), help=_help(name), on_change=session.keep(_key(name), False)
    )


def _number(name: str) -> int | None:
    usual = _FIELDS[name].default
    value = st.number_input(
        _label(name),
        0,
        step=1,
        key=_key(name),
        help=_help(name),
        placeholder="by default",
        on_change=session.keep(_key(name), usual),
    )
    return usual if value is None else int(value)


def _text(name: str, usual: str) -> str | None:
    """The typed text; None for nothing."""
    text = st.text_input(
        _label(name),
        key=_key(name),
        placeholder=usual,
        help=_help(name),
        on_change=session.keep(_key(name), ""),
    )
    return (text or "").strip() or None


def _saved_autoencoder(scene: Scene) -> Path | None:
    folders = folders_with(scene.settings.roots, _AUTOENCODER_FILE)
    if not folders:
        return None
    key = _key("autoencoder")
    changed = session.keep(key, "")
    if st.session_state[key] not in folders:
        st.session_state[key] = ""
    name = st.selectbox(
        _label("autoencoder"),
        ["", *folders],
        format_func=lambda each: each or "Train one",
        key=key,
        help=_help("autoencoder"),
        on_change=changed,
    )
    return folders.get(str(name))


def _poles(scene: Scene) -> Path | None:
    key = _key("poles")
    is_given = st.checkbox(
        "Poles of this projection as groups of neurons",
        key=key,
        help="By default neurons are grouped by what they write to the stream.",
        on_change=session.keep(key, False),
    )
    return scene.path if is_given else None
