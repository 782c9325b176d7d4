"""What is kept between reruns and shared between sessions: the only ``st.cache_*``.

What is cached is shared and must not be changed by who gets it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.drawing.cells import Cells, cells_of, usual_limit
from dashboard.drawing.encoding import in_three
from dashboard.pole_finding import MOST_AT_ONCE, find_apart
from dashboard.prompts import Prompt, Run
from dashboard.state.model_room import ModelRoom
from dashboard.state.settings import find_folders
from projector.errors import UserError
from projector.projection.projection import FACTS_FILE, Projection
from projector.statistics.examples import Examples
from pruning.methods.plan import PruningPlan
from pruning.poles.files import load_poles
from pruning.poles.finding import condensed_tree, find_poles
from pruning.poles.poles import Poles, PoleSettings
from pruning.poles.tree import CondensedTree
from pruning.saving import PLAN_FILE, load_plan
from pruning.scoring.windows import EvaluationText
from pruning.sweep.report import JSON_FILE, PruningReport

Stamp = tuple[int, int]
_MOST_POLES = 256
_MOST_TEXTS = 8
_MOST_FACTS = 512


def cache_folder() -> Path:
    """Where what is costly is kept between runs of the app."""
    given = os.environ.get("TRANSFORMER_PROJECTOR_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "transformer-projector"


def prompt_folder() -> Path:
    """Where prompts are stored, that links name by their ids."""
    return cache_folder() / "prompts"


def examples_path(sha256: str, layer: int, site: str) -> Path:
    """Where it is kept what drives the neurons of a layer and site."""
    return cache_folder() / "examples" / f"{sha256[:16]}-{layer}-{site}.safetensors"


def stamp_of(path: Path) -> Stamp:
    """Another one when a file was replaced."""
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"'{path}' can't be read: {error.strerror}") from error
    return found.st_mtime_ns, found.st_size


@st.cache_resource(show_spinner=False)
def model_room(device: str, dtype: str) -> ModelRoom:
    return ModelRoom(device, dtype)


@st.cache_data(show_spinner=False, ttl=3)
def folders_with(roots: tuple[Path, ...], file: str) -> dict[str, Path]:
    """See :func:`dashboard.state.settings.find_folders`: asked often in a run, looked for once.

    A folder that is made meanwhile is there seconds later; who makes one calls ``clear``.
    """
    return find_folders(roots, file)


def projection_at(path: Path) -> Projection:
    """A saved projection; read again when it was replaced."""
    return _projection(str(path), stamp_of(path / FACTS_FILE))


@st.cache_resource(show_spinner=False, max_entries=4)
def _projection(path: str, stamp: Stamp) -> Projection:
    return Projection.load(path)


def report_at(path: Path) -> PruningReport:
    """A sweep's report."""
    return _report(str(path), stamp_of(path / JSON_FILE))


@st.cache_resource(show_spinner=False, max_entries=8)
def _report(path: str, stamp: Stamp) -> PruningReport:
    report = PruningReport.load(path)
    try:
        facts, model = report.settings, report.model
        known = [facts["n_sequences"], facts["n_seeds"], model["parameters"]]
        texts = [facts["calibration"]["source"], model["id"]]
        is_whole = all(isinstance(n, int) for n in known) and all(map(_is_text, texts))
    except (KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise UserError(f"'{path}' is damaged: {JSON_FILE} lacks what the page reads")
    return report


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def plan_at(path: Path) -> PruningPlan:
    """The plan beside a pruned model."""
    return _plan(str(path), stamp_of(path / PLAN_FILE))


@st.cache_resource(show_spinner=False, max_entries=8)
def _plan(path: str, stamp: Stamp) -> PruningPlan:
    return load_plan(path)


def points_at(path: Path, layer: int, site: str) -> NDArray[np.float32]:
    """Positions of one map, (N, 3) float32, NaN for none."""
    return _points(str(path), stamp_of(path / FACTS_FILE), layer, site)


@st.cache_resource(show_spinner=False, max_entries=256)
def _points(path: str, stamp: Stamp, layer: int, site: str) -> NDArray[np.float32]:
    return in_three(_projection(path, stamp).positions(layer, site).numpy())


def extent_at(path: Path) -> float:
    """The greatest coordinate of all maps of a projection: one scale for all of them."""
    return _extent(str(path), stamp_of(path / FACTS_FILE))


@st.cache_resource(show_spinner=False, max_entries=8)
def _extent(path: str, stamp: Stamp) -> float:
    projection = _projection(path, stamp)
    greatest = 0.0
    for each in projection.maps:
        finite = projection.positions(*each).nan_to_num(0.0)
        greatest = max(greatest, float(finite.abs().max()) if finite.numel() else 0.0)
    return greatest or 1.0


def moments_at(path: Path, layer: int, site: str) -> tuple[NDArray[np.float32], ...]:
    """Mean and standard deviation of each neuron, (N,) float32 each."""
    return _moments(str(path), stamp_of(path / FACTS_FILE), layer, site)


@st.cache_resource(show_spinner=False, max_entries=256)
def _moments(path: str, stamp: Stamp, layer: int, site: str) -> tuple[NDArray[np.float32], ...]:
    projection = _projection(path, stamp)
    spread = projection.covariance(layer, site).diagonal().clamp_min(0).sqrt()
    return projection.mean(layer, site).numpy(), spread.numpy()


def correlation_at(path: Path, layer: int, site: str) -> NDArray[np.float32]:
    """ρ between all neurons of one map, (N, N) float32."""
    return _correlation(str(path), stamp_of(path / FACTS_FILE), layer, site)


@st.cache_resource(show_spinner=False, max_entries=4)
def _correlation(path: str, stamp: Stamp, layer: int, site: str) -> NDArray[np.float32]:
    return _projection(path, stamp).correlation(layer, site).numpy()


def order_at(path: Path, layer: int, site: str, by: str) -> NDArray[np.int64]:
    """Neurons in order; see :meth:`projector.projection.projection.Projection.order`."""
    return _order(str(path), stamp_of(path / FACTS_FILE), layer, site, by)


@st.cache_resource(show_spinner="Ordering neurons …", max_entries=64)
def _order(path: str, stamp: Stamp, layer: int, site: str, by: str) -> NDArray[np.int64]:
    return _projection(path, stamp).order(layer, site, by).numpy()


def cells_at(
    path: Path, layer: int, site: str, name: str, order: NDArray[np.int64]
) -> tuple[Cells, float]:
    """Correlations of one map in an order of that name, and the usual limit of their colours."""
    stamp = stamp_of(path / FACTS_FILE)
    limit = _limit(str(path), stamp, layer, site)
    return _cells(str(path), stamp, layer, site, name, order), limit


@st.cache_resource(show_spinner=False, max_entries=16)
def _cells(
    path: str, stamp: Stamp, layer: int, site: str, name: str, _order: NDArray[np.int64]
) -> Cells:
    return cells_of(_correlation(path, stamp, layer, site), _order)


@st.cache_resource(show_spinner=False, max_entries=256)
def _limit(path: str, stamp: Stamp, layer: int, site: str) -> float:
    return usual_limit(_correlation(path, stamp, layer, site))


def examples_at(path: Path) -> Examples | None:
    """What drives each neuron; None where that was not gathered yet."""
    return _examples(str(path), stamp_of(path)) if path.exists() else None


@st.cache_resource(show_spinner=False, max_entries=4)
def _examples(path: str, stamp: Stamp) -> Examples:
    return Examples.load(Path(path))


def evaluation_of(source: str, sha256: str, make: Callable[[], EvaluationText]) -> EvaluationText:
    """A text's windows for a model, made once."""
    texts = _texts()
    # A file's text is another one when the file is; a folder's is read anew.
    path = Path(source)
    key = (source, sha256, stamp_of(path) if path.is_file() else None)
    if path.is_dir() or key not in texts:
        texts[key] = make()
        while len(texts) > _MOST_TEXTS:
            texts.pop(next(iter(texts)), None)
    return texts[key]


@st.cache_resource(show_spinner=False)
def _texts() -> dict[tuple[str, str, Stamp | None], EvaluationText]:
    return {}


def fact_of(key: tuple[object, ...], make: Callable[[], Any]) -> Any:
    """What a model says of a neuron, asked once: the same for all sessions."""
    facts = _facts()
    if key not in facts:
        facts[key] = make()
        while len(facts) > _MOST_FACTS:
            facts.pop(next(iter(facts)), None)
    return facts[key]


@st.cache_resource(show_spinner=False)
def _facts() -> dict[tuple[object, ...], Any]:
    return {}


def known_poles(path: Path, layer: int, site: str, settings: PoleSettings) -> Poles | None:
    """Poles of one map, if some session has found them."""
    return _poles().get((str(path), stamp_of(path / FACTS_FILE), layer, site, settings.key))


def poles_at(path: Path, layer: int, site: str, settings: PoleSettings) -> Poles:
    """Poles of one map; found, with a message, where they are not known yet.

    Raises:
        UserError: see :func:`pruning.poles.poles.find_poles`.
    """
    stamp = stamp_of(path / FACTS_FILE)
    known, key = _poles(), (str(path), stamp, layer, site, settings.key)
    if key not in known:
        with st.spinner("Finding poles …"):
            found = load_poles(path, layer, site, settings) or _find_poles(
                path, layer, site, settings
            )
        known[key] = found
        while len(known) > _MOST_POLES:
            known.pop(next(iter(known)), None)
        return found
    return known[key]


def _find_poles(path: Path, layer: int, site: str, settings: PoleSettings) -> Poles:
    projection = projection_at(path)
    if projection.figures(layer, site).n_neurons <= MOST_AT_ONCE:
        return find_poles(projection, layer, site, settings)
    place = st.empty()

    def waiting() -> None:
        # A sign of life, at which a click ends the wait.
        place.caption("On a wide layer this takes a while; nothing else has to wait for it.")

    try:
        return find_apart(path, layer, site, settings, waiting)
    finally:
        place.empty()


@st.cache_resource(show_spinner=False)
def _poles() -> dict[tuple[str, Stamp, int, str, str], Poles]:
    return {}


def tree_at(path: Path, layer: int, site: str, settings: PoleSettings) -> CondensedTree:
    """The condensed tree of one map."""
    return _tree(str(path), stamp_of(path / FACTS_FILE), layer, site, settings.key, settings)


@st.cache_resource(show_spinner=False, max_entries=64)
def _tree(
    path: str, stamp: Stamp, layer: int, site: str, key: str, _settings: PoleSettings
) -> CondensedTree:
    return condensed_tree(_projection(path, stamp), layer, site, _settings)


@st.cache_resource(show_spinner=False)
def _runs() -> dict[tuple[str, str, str, str], Run]:
    return {}


_MOST_RUNS = 8


def run_of(
    prompt: Prompt,
    model: str,
    sha256: str,
    maps: tuple[tuple[int, str], ...],
    make: Callable[[], Run],
) -> Run:
    """A prompt's run, made where no session has made it. A run that fails is not kept."""
    runs = _runs()
    key = (prompt.id, model, sha256, repr(maps))
    found = runs.get(key)
    if found is None:
        found = runs[key] = make()
        while len(runs) > _MOST_RUNS:
            runs.pop(next(iter(runs)), None)
    return found
