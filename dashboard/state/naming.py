"""Labels, snippets and search for neurons and poles, kept on the shelf."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from dashboard.state.loading import (
    correlation_at,
    of_projection,
    poles_stamp,
    projection_at,
    saved_examples_at,
    stamp_of_projection,
    stamps_of,
)
from dashboard.state.shelf import Key, shelf
from projector.errors import UserError
from projector.naming.groups import group_label, members_on_label
from projector.naming.labels import Label, neuron_labels, snippet, snippets, strongest
from projector.naming.names import Names, PoleKey, read_names, write_name
from projector.naming.search import Results, search
from projector.projection.writing import NAMES_FILE
from pruning.poles.files import poles_file
from pruning.poles.poles import Poles

# Tokens around a neuron's strongest token in a hover text.
_N_BEFORE, _N_AFTER = 12, 4
# Searches at once, in threads; seconds between checks of a waiting page, and seconds to wait if
# there is an older answer.
_N_SEARCHES, _LOOK_EVERY_S, _AT_ONCE_S = 2, 0.15, 0.3
_searching: dict[Key, Future[Any]] = {}
_LOCK = threading.Lock()


def names_at(path: Path) -> Names:
    """The names that a user gave; empty if the file can't be read, and pages show the rest."""

    def make(_: object) -> Names:
        try:
            return read_names(path)
        except UserError:
            return Names()

    return of_projection("names", path, _stamp(path), make=make)


def computed_labels_at(path: Path, layer: int, site: str) -> tuple[Label | None, ...]:
    """The computed label of each neuron of a map; empty if no examples were kept."""

    def make(_: object) -> tuple[Label | None, ...]:
        projection = projection_at(path)
        if not projection.has_examples:
            return ()
        return neuron_labels(projection.examples(layer, site), projection.pieces)

    return of_projection("labels", path, layer, site, make=make)


def labels_at(path: Path, layer: int, site: str) -> tuple[str, ...]:
    """The name of each neuron of a map: the user's name, or what it fires on; "" for unknown."""
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


def described_at(
    path: Path, layer: int, site: str, neurons: tuple[int, ...]
) -> tuple[tuple[str, str], ...]:
    """Names of some neurons of a map, and their strongest examples; "" for unknown.

    For a few neurons it takes far less time than :func:`labels_at` and :func:`snippets_at`.
    """
    names, projection = names_at(path), projection_at(path)

    def make(_: object) -> tuple[tuple[str, str], ...]:
        examples = saved_examples_at(path, layer, site)
        if examples is None:
            return tuple((names.of_neuron(layer, site, j) or "", "") for j in neurons)
        which, pieces = np.array(neurons, dtype=np.int64), projection.pieces
        labels = neuron_labels(examples, pieces, neurons=which)
        places = strongest(examples, neurons=which).at[:, 0].tolist()
        return tuple(
            (
                names.of_neuron(layer, site, j) or ("" if label is None else label.text),
                "" if at < 0 else snippet(examples, pieces, at, _N_BEFORE, _N_AFTER),
            )
            for j, label, at in zip(neurons, labels, places, strict=True)
        )

    key = (layer, site, neurons, _stamp(path))
    return of_projection("described neurons", path, *key, make=make)


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
    """The name of each pole: the user's name, or what its members fire on; "" for unknown.

    Args:
        layout: the layout on whose maps the poles were found; None is the projection's first.
    """
    return tuple(
        saved_pole_name(path, poles, k, layout) or _label_text(path, poles, k)
        for k in range(len(poles.poles))
    )


def saved_pole_name(path: Path, poles: Poles, number: int, layout: str | None = None) -> str | None:
    """The name of a pole from the user or from the file of the poles; computes nothing."""
    names = names_at(path).poles
    name = names.get(pole_key(path, poles, number, layout)) if names else None
    return name or poles.poles[number].label


def pole_key(path: Path, poles: Poles, number: int, layout: str | None = None) -> PoleKey:
    """The key of a pole's name."""
    projection = projection_at(path)
    own = None if layout is None or layout == projection.layout_name() else layout
    members = (poles.labels == number).nonzero()[:, 0].tolist()
    return PoleKey.of(poles.layer, poles.site, poles_file(poles.settings, own), members)


def _label_text(path: Path, poles: Poles, number: int) -> str:
    label = pole_label(path, poles, number)
    return "" if label is None else label.text


def snippets_on_label(path: Path, poles: Poles, number: int) -> dict[int, str]:
    """The strongest example on the label's text, for a pole's neurons that fire on it."""
    label = pole_label(path, poles, number)
    projection = projection_at(path)
    members = tuple((poles.labels == number).nonzero()[:, 0].tolist())
    if label is None or label.is_mixed:
        return {}

    def make(_: object) -> dict[int, str]:
        examples, pieces = projection.examples(poles.layer, poles.site), projection.pieces
        return {
            neuron: snippet(examples, pieces, at, _N_BEFORE, _N_AFTER)
            for neuron, at in members_on_label(examples, pieces, members, label).items()
        }

    key = (poles.layer, poles.site, poles.settings.space, members)
    return of_projection("snippets on a label", path, *key, make=make)


def pole_label(path: Path, poles: Poles, number: int) -> Label | None:
    """The computed label of a pole; None if no examples were kept."""
    projection = projection_at(path)
    if not projection.has_examples:
        return None
    members = tuple((poles.labels == number).nonzero()[:, 0].tolist())

    def make(_: object) -> Label | None:
        examples = projection.examples(poles.layer, poles.site)
        signs = None
        if poles.settings.space == "abs-correlation":
            # Neurons at one of two opposite ends have their sign flipped.
            rho = correlation_at(path, poles.layer, poles.site)[members[0], list(members)]
            signs = np.where(rho < 0, -1, 1).tolist()
        return group_label(examples, projection.pieces, members, signs)

    key = (poles.layer, poles.site, poles.settings.space, members)
    return of_projection("label of a pole", path, *key, make=make)


def name_neuron(path: Path, layer: int, site: str, neuron: int, text: str) -> None:
    """Give a neuron a name; an empty text removes it.

    Raises:
        UserError: see :func:`projector.naming.names.write_name`.
    """
    write_name(path, text, layer, site, neuron=neuron)


def name_pole(path: Path, poles: Poles, number: int, text: str, layout: str | None = None) -> None:
    """Give a pole a name; an empty text removes it.

    Raises:
        UserError: see :func:`projector.naming.names.write_name`.
    """
    write_name(path, text, poles.layer, poles.site, pole=pole_key(path, poles, number, layout))


@dataclass(frozen=True)
class _Found:
    """The result of a search, and the poles that existed then."""

    results: Results
    poles: tuple[object, ...]


def found_at(path: Path, text: str) -> Results:
    """Neurons and poles that fire on a text; see :func:`projector.naming.search.search`.

    A search of a large model takes seconds: it runs in a thread, and a click ends the wait. If
    poles were found since an earlier search, its result is returned, and a new search runs for the
    next call.

    Raises:
        UserError: if the projection holds no examples.
    """
    key = ("found", path, stamp_of_projection(path), text, _stamp(path))
    known: _Found | None = shelf().peek(key)
    if known is not None and known.poles == poles_stamp(path):
        return known.results
    searching = _search_apart(key, path, text)
    if known is not None:
        # A small model is searched at once.
        wait([searching], _AT_ONCE_S)
        return searching.result().results if searching.done() else known.results
    place = st.empty()
    with st.spinner("Searching …"):
        while not wait([searching], _LOOK_EVERY_S).done:
            # An update of the page, at which a click ends the wait.
            place.empty()
    return searching.result().results


def _search_apart(key: Key, path: Path, text: str) -> Future[_Found]:
    """Search in a thread; equal requests meanwhile share the result."""
    kept_on, projection = shelf(), projection_at(path)

    def work() -> _Found:
        try:
            # Read before: poles that appear meanwhile are found by the next search.
            poles = poles_stamp(path)
            found = _Found(search(projection, path, text), poles)
            return kept_on.keep(key, lambda: found, most_age_s=-1.0)
        finally:
            with _LOCK:
                _searching.pop(key, None)

    with _LOCK:
        if key not in _searching:
            _searching[key] = _threads().submit(work)
        return _searching[key]


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_N_SEARCHES, "search")


def _stamp(path: Path) -> tuple[object, ...]:
    """An id that changes when the user writes a name."""
    return stamps_of([path / NAMES_FILE])
