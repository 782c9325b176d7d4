"""Find the poles of all maps of a projection with controls and labels, and save them on the way.

Saved poles are not found again: a stopped run continues, and poles that were found without controls
get them.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

import psutil

from projector.errors import SettingError
from projector.naming.labels import RULES
from projector.processor import in_threads
from projector.progress import Progress, Silent
from projector.projection.overview import Saved, read_saved
from projector.projection.projection import Projection
from projector.sites import MapKey
from pruning.poles.describing import label_poles
from pruning.poles.files import check_poles_file, load_every_pole, path_of_poles, save_poles
from pruning.poles.finding import choose_maps, find_poles
from pruning.poles.judging import JUDGING_BYTES, judge_poles
from pruning.poles.poles import (
    MAP_POLES,
    NOT_JUDGED,
    ON_THE_MAP,
    Poles,
    PoleSettings,
    usual_settings,
)

# A file holds all maps for its settings, and is written whole.
_SAVE_EVERY_S = 2.0


@dataclass(frozen=True)
class PoleRequest:
    """Settings for finding the poles of a projection; None is the default of each map.

    Attributes:
        layers, sites: the maps; None is all.
        space, min_cluster_size, min_samples, selection, epsilon: see :class:`PoleSettings`.
        layout: the layout whose maps are used, in space ``positions``; None is the first. A given
            layout sets that space.
        with_controls: whether poles are compared with controls.
        force: find poles again that were found before.

    Raises:
        UserError: on creation, if a setting is invalid, or a layout is given with a space of ρ.
    """

    layers: tuple[int, ...] | None = None
    sites: tuple[str, ...] | None = None
    space: str | None = None
    min_cluster_size: int | None = None
    min_samples: int | None = None
    selection: str | None = None
    epsilon: float | None = None
    layout: str | None = None
    with_controls: bool = True
    force: bool = False

    def __post_init__(self) -> None:
        self._of(PoleSettings())
        if self.layout is not None and self.space not in (None, "positions"):
            raise SettingError(
                "layout",
                self.layout,
                f"doesn't change the poles in space {self.space}",
                "leave it out, or choose space positions",
            )

    def settings(self, saved: Saved, layer: int, site: str) -> PoleSettings:
        """The pole settings of one map."""
        return self._of(usual_settings(saved, layer, site))

    def _of(self, usual: PoleSettings) -> PoleSettings:
        space = self.space or ("positions" if self.layout is not None else usual.space)
        base = MAP_POLES if space == "positions" else PoleSettings(space)
        names = ("min_cluster_size", "min_samples", "selection", "epsilon")
        given = {name: getattr(self, name) for name in names}
        return replace(base, **{name: each for name, each in given.items() if each is not None})


@dataclass(frozen=True)
class PolesFound:
    """The poles of all maps, found by this or an earlier call of :func:`find_all`.

    Attributes:
        poles: poles of each map, layer by layer.
        path: the file with the first map's settings.
    """

    poles: tuple[Poles, ...]
    path: Path


def find_all(
    folder: str | Path, request: PoleRequest | None = None, progress: Progress | None = None
) -> PolesFound:
    """Find the poles of maps, compare them with controls, label them, and save them.

    Processes several maps at once, one per core. Finished maps are saved every few seconds, also
    after an error or Ctrl-C.

    Raises:
        UserError: if there is no such projection, map or layout, memory is too small, or the file
            of the poles is damaged or can't be written.
    """
    folder, request, progress = Path(folder), request or PoleRequest(), progress or Silent()
    saved = read_saved(folder)
    projection = Projection.load(folder)
    sites = saved.sites if request.sites is None else request.sites
    maps = choose_maps(projection, request.layers, sites)
    settings = {key: request.settings(saved, *key) for key in maps}
    found = _known(folder, settings, request)
    progress.begin("Finding poles", len(maps), "maps")
    pending = [key for key in maps if not _is_complete(found.get(key), projection, request)]
    progress.advance(len(maps) - len(pending))
    fresh: list[Poles] = []
    saved_at = time.monotonic()
    try:
        for one in _each(
            projection, [(key, settings[key], found.get(key)) for key in pending], request
        ):
            found[one.layer, one.site] = one
            fresh.append(one)
            progress.advance(1)
            if time.monotonic() - saved_at > _SAVE_EVERY_S:
                save_poles(folder, fresh, saved, request.layout)
                fresh, saved_at = [], time.monotonic()
    finally:
        if fresh:
            save_poles(folder, fresh, saved, request.layout)
    first = settings[maps[0]]
    return PolesFound(
        tuple(found[key] for key in maps), path_of_poles(folder, first, saved, request.layout)
    )


def _known(
    folder: Path, settings: dict[MapKey, PoleSettings], request: PoleRequest
) -> dict[MapKey, Poles]:
    """Saved poles, by files that are checked in any case."""
    keys: dict[PoleSettings, list[MapKey]] = defaultdict(list)
    for key, each in settings.items():
        keys[each].append(key)
    found: dict[MapKey, Poles] = {}
    for each, of_file in keys.items():
        check_poles_file(folder, each, request.layout)
        if not request.force:
            there = load_every_pole(folder, each, request.layout)
            found |= {key: there[key] for key in of_file if key in there}
    return found


def _is_complete(known: Poles | None, projection: Projection, request: PoleRequest) -> bool:
    return known is not None and not (
        _lacks_controls(known, request) or _lacks_labels(known, projection)
    )


def _lacks_controls(known: Poles, request: PoleRequest) -> bool:
    """Whether poles of ρ lack controls, or an older version didn't count axes in draws."""
    if not request.with_controls or known.settings.space == "positions":
        return False
    lacks_axes = known.settings.space == "correlation"
    return known.controls is None or (lacks_axes and known.controls.same_spectrum.n_axes is None)


def _lacks_labels(known: Poles, projection: Projection) -> bool:
    """Whether there are examples, and no labels by the current rules."""
    return projection.has_examples and bool(known.poles) and known.label_rules != RULES


def _each(
    projection: Projection,
    work: Sequence[tuple[MapKey, PoleSettings, Poles | None]],
    request: PoleRequest,
) -> Iterator[Poles]:
    """Yield the poles of each map, as they are ready."""
    if not work:
        return
    is_stopped = Event()

    def between_draws() -> None:
        if is_stopped.is_set():
            raise InterruptedError

    def one(key: MapKey, settings: PoleSettings, known: Poles | None) -> Poles:
        # With one thread each, sums are rounded alike for any number of maps at once.
        with in_threads(1):
            between_draws()
            found = known
            if found is None:
                found = find_poles(projection, *key, settings, request.layout)
            if _lacks_controls(found, request):
                found = judge_poles(projection, found, between_draws)
            if found.controls is None:
                why = ON_THE_MAP if settings.space == "positions" else NOT_JUDGED
                found = replace(found, reasons={"controls": why} | found.reasons)
            return label_poles(projection, found)

    with ThreadPoolExecutor(_n_at_once(projection, [key for key, *_ in work])) as pool:
        waiting: set[Future[Poles]] = {pool.submit(one, *each) for each in work}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                failed = [each for each in done if each.exception() is not None]
                # Finished maps are kept, also if others failed.
                yield from (each.result() for each in done if each not in failed)
                for each in failed:
                    each.result()
        except BaseException:
            is_stopped.set()
            pool.shutdown(cancel_futures=True)
            raise


def _n_at_once(projection: Projection, maps: Iterable[MapKey]) -> int:
    """As many maps as there are cores and memory for."""
    widest = max(projection.figures(*key).n_neurons for key in maps)
    n_fitting = int(psutil.virtual_memory().available / max(1, JUDGING_BYTES * widest**2))
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(n_cores or 1, n_fitting))
