"""Data from saved artifacts, kept on the shelf and read again when a file was replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.ablation import Outcome
from dashboard.background.pole_finding import MOST_AT_ONCE, find_apart
from dashboard.drawing.cells import Cells, cells_of, usual_limit
from dashboard.drawing.encoding import Frames, in_three
from dashboard.prompts import Prompt, Run, Tokens
from dashboard.roots import find_folders
from dashboard.state.shelf import Key, shelf
from dashboard.state.store import examples_name, stored_examples
from projector.errors import UserError
from projector.projection.overview import FACTS_FILE, LAYOUTS
from projector.projection.projection import Projection
from projector.sites import MapKey
from projector.statistics.cross_layer.records import PARTNERS_FILE
from projector.statistics.examples import Examples
from pruning.methods.plan import PLAN_FILE, PruningPlan
from pruning.poles.files import OLD_FILE, POLES_FOLDER, load_every_pole
from pruning.poles.finding import condensed_tree, find_poles
from pruning.poles.poles import Poles, PoleSettings
from pruning.poles.tree import CondensedTree
from pruning.reporting.files import JSON_FILE, is_foreign, kind_at
from pruning.reporting.kinds import REUSE
from pruning.reuse.records import ReuseReport
from pruning.reuse.report import load_reuse
from pruning.saving import load_plan
from pruning.scoring.windows import EvaluationText
from pruning.sweep.report import PruningReport

Stamp = tuple[int, int]
T = TypeVar("T")
# Most seconds that a list of folders is kept: new folders appear after that.
_MOST_AGE_S = 3.0


def stamp_of(path: Path) -> Stamp:
    """An id that changes when a file is replaced."""
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"'{path}' can't be read: {error.strerror}") from error
    return found.st_mtime_ns, found.st_size


def stamps_of(files: Iterable[Path]) -> tuple[tuple[str, Stamp], ...]:
    """Stamps of the existing files; a file may be deleted at this moment."""
    found = []
    for file in files:
        with suppress(UserError):
            found.append((file.name, stamp_of(file)))
    return tuple(found)


def poles_stamp(path: Path) -> tuple[object, ...]:
    """An id that changes when poles are saved with a projection."""
    return stamps_of((*sorted((path / POLES_FOLDER).glob("*.json")), path / OLD_FILE))


def kept(key: Key, make: Callable[[], T], most_age_s: float | None = None) -> T:
    """A value from the shelf; the page shows if another session is making it, and can be left."""
    place: list[st.delta_generator.DeltaGenerator] = []

    def waiting() -> None:
        if not place:
            place.append(st.empty())
        # An update of the page, at which a click ends the wait.
        place[0].caption(
            "Another session is computing this. It appears here as soon as it is ready."
        )

    try:
        return shelf().keep(key, make, most_age_s=most_age_s, waiting=waiting)
    finally:
        if place:
            place[0].empty()


def folders_with(roots: tuple[Path, ...], file: str) -> dict[str, Path]:
    """See :func:`dashboard.roots.find_folders`; many calls in a run search once.

    After you make a folder, call :func:`forget_folders`.
    """
    key = ("folders", roots, file)
    return shelf().keep(key, lambda: find_folders(roots, file), most_age_s=_MOST_AGE_S)


def forget_folders() -> None:
    """Search for folders again, because one was made."""
    shelf().forget("folders")


def projection_at(path: Path) -> Projection:
    """A saved projection, read again when it was replaced or a layout was added."""
    return kept(("projection", path, stamp_of_projection(path)), lambda: Projection.load(path))


def stamp_of_projection(path: Path) -> tuple[object, ...]:
    layouts = stamps_of(sorted((path / LAYOUTS).glob("*.json")))
    return (stamp_of(path / FACTS_FILE), *layouts, *stamps_of([path / PARTNERS_FILE]))


def of_projection(kind: str, path: Path, *key: Any, make: Callable[[Projection], T]) -> T:
    """A value computed from a saved projection."""
    stamp = stamp_of_projection(path)
    return kept((kind, path, stamp, *key), lambda: make(projection_at(path)))


def report_at(path: Path) -> PruningReport:
    """A sweep's report."""

    def load() -> PruningReport:
        report = PruningReport.load(path)
        try:
            facts, model = report.settings, report.model
            known = [facts["n_sequences"], facts["n_seeds"], model["parameters"]]
            texts = [facts["calibration"]["source"], model["id"]]
            is_whole = all(isinstance(n, int) for n in known) and all(
                isinstance(text, str) for text in texts
            )
        except (KeyError, TypeError):
            is_whole = False
        if not is_whole:
            raise UserError(f"'{path}' is damaged: {JSON_FILE} lacks what the page reads")
        return report

    return kept(("report", path, stamp_of(path / JSON_FILE)), load)


def reuse_report_at(path: Path) -> ReuseReport | None:
    """A report of an experiment on reuse; None if the folder holds another report."""

    def load() -> ReuseReport | None:
        return load_reuse(path) if kind_at(path) is REUSE else None

    return kept(("reuse report", path, stamp_of(path / JSON_FILE)), load)


def is_foreign_report(path: Path) -> bool:
    """See :func:`pruning.reporting.files.is_foreign`."""
    return kept(("foreign report", path, stamp_of(path / JSON_FILE)), lambda: is_foreign(path))


def plan_at(path: Path) -> PruningPlan:
    """The plan of a pruned model."""
    return kept(("plan", path, stamp_of(path / PLAN_FILE)), lambda: load_plan(path))


def points_at(path: Path, layer: int, site: str, layout: str) -> NDArray[np.float32]:
    """Points to draw for a layout of one map, (N, 3) float32; NaN without a position."""

    def make(projection: Projection) -> NDArray[np.float32]:
        return in_three(projection.positions(layer, site, layout))

    return of_projection("points", path, layer, site, layout, make=make)


def moments_at(path: Path, layer: int, site: str) -> tuple[NDArray[np.float32], ...]:
    """Mean and standard deviation of each neuron, (N,) float32 each."""

    def make(projection: Projection) -> tuple[NDArray[np.float32], ...]:
        spread = projection.covariance(layer, site).diagonal().clamp_min(0).sqrt()
        return projection.mean(layer, site).numpy(), spread.numpy()

    return of_projection("moments", path, layer, site, make=make)


def correlation_at(path: Path, layer: int, site: str) -> NDArray[np.float32]:
    """ρ between all neurons of one map, (N, N) float32."""

    def make(projection: Projection) -> NDArray[np.float32]:
        return projection.correlation(layer, site).numpy()

    return of_projection("correlation", path, layer, site, make=make)


def half_rho_at(
    path: Path, layer: int, site: str, pair: tuple[int, int]
) -> tuple[float, float] | None:
    """ρ of two neurons in each half of the corpus; None if halves were not kept."""

    def make(projection: Projection) -> tuple[float, float] | None:
        halves = projection.half_correlations(layer, site)
        return None if halves is None else (float(halves[0][pair]), float(halves[1][pair]))

    return of_projection("ρ of halves", path, layer, site, pair, make=make)


def order_at(path: Path, layer: int, site: str, by: str, layout: str) -> NDArray[np.int64]:
    """Neurons in order; see :meth:`projector.projection.projection.Projection.order`."""

    def make(projection: Projection) -> NDArray[np.int64]:
        return projection.order(layer, site, by, layout).numpy()

    # Around the call, not in it, so that the order is kept even if the user leaves the page.
    with st.spinner("Ordering neurons …"):
        return of_projection("order", path, layer, site, by, layout, make=make)


def cells_at(
    path: Path, layer: int, site: str, name: str, order: NDArray[np.int64]
) -> tuple[Cells, float]:
    """Correlations of one map in a named order, and the usual limit of their colours."""

    def limit(_: Projection) -> float:
        return usual_limit(correlation_at(path, layer, site))

    def cells(_: Projection) -> Cells:
        return cells_of(correlation_at(path, layer, site), order)

    return (
        of_projection("cells", path, layer, site, name, make=cells),
        of_projection("limit", path, layer, site, make=limit),
    )


def examples_at(sha256: str, layer: int, site: str) -> Examples | None:
    """The examples of each neuron; None if they were not gathered yet."""
    path = stored_examples().find(examples_name(sha256, layer, site))
    if path is None:
        return None
    return kept(("examples", path, stamp_of(path)), lambda: Examples.load(path))


def saved_examples_at(path: Path, layer: int, site: str) -> Examples | None:
    """The examples of each neuron from the fit; None if there are none that can be read."""
    projection = projection_at(path)
    if not projection.has_examples:
        return None
    key = ("saved examples", path, stamp_of(path / FACTS_FILE), layer, site)
    return fact_of(key, lambda: projection.examples(layer, site))


def examples_stamp(sha256: str, layer: int, site: str) -> Stamp | None:
    """An id that changes when other text is read; None if none was read."""
    path = stored_examples().find(examples_name(sha256, layer, site))
    return None if path is None else stamp_of(path)


def evaluation_of(source: str, sha256: str, make: Callable[[], EvaluationText]) -> EvaluationText:
    """A text's windows for a model, made once."""
    path = Path(source)
    if path.is_dir():
        # Read again, because its files may have changed.
        return make()
    # A file's text changes with the file.
    stamp = stamp_of(path) if path.is_file() else None
    return kept(("text", source, sha256, stamp), make)


def fact_of(key: Key, make: Callable[[], T]) -> T:
    """A fact on a neuron from the model, computed once for all sessions."""
    return kept(("fact", *key), make)


def known_fact(key: Key) -> Any:
    """The result of :func:`fact_of`, if a session has asked for it."""
    return shelf().peek(("fact", *key))


def make_ablation(key: Key, make: Callable[[], list[Outcome]]) -> list[Outcome]:
    """Results of an ablation: computed at every call, and kept for all sessions.

    Args:
        key: identifies the model, the neurons, and the text and prompt.
    """
    # Computed again, because the text's file may have changed.
    return kept(("ablation", *key), make, most_age_s=-1.0)


def known_ablation(key: Key) -> list[Outcome] | None:
    """The result of :func:`make_ablation`, if a session has asked for it."""
    found: list[Outcome] | None = shelf().peek(("ablation", *key))
    return found


def saved_poles_at(path: Path, layout: str, settings: PoleSettings) -> dict[MapKey, Poles]:
    """The poles that are saved with a projection, for all maps that have any.

    Raises:
        UserError: if their file is damaged.
    """

    def make(projection: Projection) -> dict[MapKey, Poles]:
        return load_every_pole(path, settings, layout)

    own = own_layout(layout, settings)
    return of_projection("saved poles", path, own, settings.key, poles_stamp(path), make=make)


def known_poles(
    path: Path, layer: int, site: str, layout: str, settings: PoleSettings
) -> Poles | None:
    """Poles of one map, if they are saved with the projection or a session has found them."""
    found: Poles | None = None
    # A page that reads the poles themselves reports a damaged file.
    with suppress(UserError):
        found = saved_poles_at(path, layout, settings).get((layer, site))
    return found or shelf().peek(_poles_key(path, layer, site, layout, settings))


def poles_at(path: Path, layer: int, site: str, layout: str, settings: PoleSettings) -> Poles:
    """Poles of one map; found, with a message, if they are not known yet.

    Args:
        layout: the layout whose map is used, if the settings find groups on the map.

    Raises:
        UserError: see :func:`pruning.poles.finding.find_poles`.
    """

    def find() -> Poles:
        return _find_poles(path, projection_at(path), layer, site, layout, settings)

    saved = saved_poles_at(path, layout, settings).get((layer, site))
    if saved is not None:
        return saved
    # Around the call, not in it, so that poles are kept even if the user leaves the page.
    with st.spinner("Finding poles …"):
        return kept(_poles_key(path, layer, site, layout, settings), find)


def own_layout(layout: str, settings: PoleSettings) -> str:
    """The layout, if poles depend on positions; otherwise empty."""
    return layout if settings.space == "positions" else ""


def _poles_key(path: Path, layer: int, site: str, layout: str, settings: PoleSettings) -> Key:
    own = own_layout(layout, settings)
    return ("poles", path, stamp_of_projection(path), layer, site, own, settings.key)


def _find_poles(
    path: Path, projection: Projection, layer: int, site: str, layout: str, settings: PoleSettings
) -> Poles:
    if projection.figures(layer, site).n_neurons <= MOST_AT_ONCE:
        return find_poles(projection, layer, site, settings, layout)
    place = st.empty()

    def waiting() -> None:
        # An update of the page, at which a click ends the wait.
        place.caption("On a wide layer this takes a while. Other pages stay usable.")

    try:
        return find_apart(path, layer, site, layout, settings, waiting)
    finally:
        place.empty()


def tree_at(
    path: Path, layer: int, site: str, layout: str, settings: PoleSettings
) -> CondensedTree:
    """The condensed tree of one map."""
    own = own_layout(layout, settings)

    def make(projection: Projection) -> CondensedTree:
        return condensed_tree(projection, layer, site, settings, layout)

    return of_projection("tree", path, layer, site, own, settings.key, make=make)


def run_of(
    prompt: Prompt,
    model: str,
    sha256: str,
    maps: tuple[tuple[int, str], ...],
    make: Callable[[], Run],
) -> Run:
    """A prompt's run, made unless a session has made it. A failed run is not kept."""
    return kept(("run", prompt.id, model, sha256, maps), make)


def tokens_of(prompt: Prompt, model: str, sha256: str, make: Callable[[], Tokens]) -> Tokens:
    """A prompt's tokens with those that the model adds, made unless a session has made them."""
    return kept(("tokens", prompt.id, model, sha256), make)


def frames_of_run(sha256: str, key: Key, make: Callable[[], Frames]) -> Frames:
    """Frames to draw for runs of one model, made once.

    Args:
        key: identifies the prompts, the map, and the drawn values.
    """
    return kept(("frames", sha256, *key), make)
