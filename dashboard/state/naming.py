"""What neurons and poles fire on, in words: labels, snippets and search, kept on the shelf."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import streamlit as st

from dashboard.state.loading import (
    correlation_at,
    of_projection,
    poles_stamp,
    projection_at,
    stamps_of,
)
from projector.errors import UserError
from projector.naming.groups import group_label
from projector.naming.labels import Label, neuron_labels, snippets
from projector.naming.names import Names, PoleKey, read_names, write_name
from projector.naming.search import Results, search
from projector.projection.writing import NAMES_FILE
from pruning.poles.files import poles_file
from pruning.poles.poles import Poles

# Tokens around the one on which a neuron is strongest, in a hover text.
_N_BEFORE, _N_AFTER = 12, 4


def names_at(path: Path) -> Names:
    """The names that a user gave; none where the file can't be read: pages show the rest."""

    def make(_: object) -> Names:
        try:
            return read_names(path)
        except UserError:
            return Names()

    return of_projection("names", path, _stamp(path), make=make)


def computed_labels_at(path: Path, layer: int, site: str) -> tuple[Label | None, ...]:
    """The computed label of each neuron of a map; none at all where no examples were kept."""

    def make(_: object) -> tuple[Label | None, ...]:
        projection = projection_at(path)
        if not projection.has_examples:
            return ()
        return neuron_labels(projection.examples(layer, site), projection.pieces)

    return of_projection("labels", path, layer, site, make=make)


def labels_at(path: Path, layer: int, site: str) -> tuple[str, ...]:
    """What each neuron of a map is called: the user's name, or what it fires on; "" for unknown."""
    names = names_at(path)

    def make(_: object) -> tuple[str, ...]:
        n_neurons = projection_at(path).figures(layer, site).n_neurons
        computed = computed_labels_at(path, layer, site) or (None,) * n_neurons
        return tuple(
            names.of_neuron(layer, site, j) or ("" if label is None else label.text)
            for j, label in enumerate(computed)
        )

    key = (layer, site, _stamp(path))
    return of_projection("names of neurons", path, *key, make=make)


def snippets_at(path: Path, layer: int, site: str) -> tuple[str, ...]:
    """The strongest example of each neuron of a map, its token in «»; "" for unknown."""

    def make(_: object) -> tuple[str, ...]:
        projection = projection_at(path)
        if not projection.has_examples:
            return ("",) * projection.figures(layer, site).n_neurons
        examples = projection.examples(layer, site)
        return tuple(snippets(examples, projection.pieces, _N_BEFORE, _N_AFTER))

    return of_projection("snippets", path, layer, site, make=make)


def pole_names(path: Path, poles: Poles, layout: str | None = None) -> tuple[str, ...]:
    """What each pole is called: the user's name, or what its members fire on; "" for unknown.

    Args:
        layout: on whose maps the poles were found; None is the projection's first.
    """
    return tuple(
        saved_pole_name(path, poles, k, layout) or _pole_label(path, poles, k) or ""
        for k in range(len(poles.poles))
    )


def saved_pole_name(path: Path, poles: Poles, number: int, layout: str | None = None) -> str | None:
    """What a pole is called by the user, or by the file of the poles; nothing is computed."""
    names = names_at(path).poles
    name = names.get(pole_key(path, poles, number, layout)) if names else None
    return name or poles.poles[number].label


def pole_key(path: Path, poles: Poles, number: int, layout: str | None = None) -> PoleKey:
    """What a pole's name is kept under."""
    projection = projection_at(path)
    own = None if layout is None or layout == projection.layout_name() else layout
    members = (poles.labels == number).nonzero()[:, 0].tolist()
    return PoleKey.of(poles.layer, poles.site, poles_file(poles.settings, own), members)


def _pole_label(path: Path, poles: Poles, number: int) -> str | None:
    """What a pole's members fire on, computed where its file does not say."""
    projection = projection_at(path)
    if not projection.has_examples:
        return None
    members = tuple((poles.labels == number).nonzero()[:, 0].tolist())

    def make(_: object) -> str | None:
        examples = projection.examples(poles.layer, poles.site)
        signs = None
        if poles.settings.space == "abs-correlation":
            # Of neurons that fire against each other, those of one end are turned.
            rho = correlation_at(path, poles.layer, poles.site)[members[0], list(members)]
            signs = np.where(rho < 0, -1, 1).tolist()
        label = group_label(examples, projection.pieces, members, signs)
        return None if label is None else label.text

    return of_projection("label of a pole", path, poles.layer, poles.site, members, make=make)


def name_neuron(path: Path, layer: int, site: str, neuron: int, text: str) -> None:
    """Give a neuron a name, or take it away where the text is empty.

    Raises:
        UserError: see :func:`projector.naming.names.write_name`.
    """
    write_name(path, text, layer, site, neuron=neuron)


def name_pole(path: Path, poles: Poles, number: int, text: str, layout: str | None = None) -> None:
    """Give a pole a name, or take it away where the text is empty.

    Raises:
        UserError: see :func:`projector.naming.names.write_name`.
    """
    write_name(path, text, poles.layer, poles.site, pole=pole_key(path, poles, number, layout))


def found_at(path: Path, text: str) -> Results:
    """What fires on a text; see :func:`projector.naming.search.search`.

    Raises:
        UserError: if the projection holds no examples.
    """
    key = (text, _stamp(path), poles_stamp(path))
    with st.spinner("Searching …"):
        return of_projection("found", path, *key, make=lambda p: search(p, path, text))


def _stamp(path: Path) -> tuple[object, ...]:
    """Another one when the user wrote a name."""
    return stamps_of([path / NAMES_FILE])
