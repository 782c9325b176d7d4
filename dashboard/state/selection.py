"""The one selection behind every page, and its form in the URL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from projector.errors import UserError
from pruning.poles.poles import PoleSettings

# Parts to drop when another part changes: neuron 345 of another layer is another neuron.
_DEPENDS = {
    "projection": (
        *("model", "layout", "layer", "site", "neuron", "head", "pole", "marked", "isolate"),
        *("target", "against", "reading", "between"),
    ),
    "model": ("target", "against", "reading"),
    "layout": ("pole",),
    "grouping": ("pole",),
    "layer": ("neuron", "head", "pole", "marked", "isolate"),
    "site": ("neuron", "pole", "marked", "isolate"),
    "prompt": ("token", "other_token", "target", "against", "reading"),
    "other": ("other_token",),
}
_MOST_CHARACTERS = 200
# Most runs of marked neurons in a link, such as 3-7,12.
_MOST_RUNS_CHARACTERS = 1500
# More neurons than any layer has, to limit the work that a link can cause.
_MOST_MARKED = 100_000
# Limits of the settings' widgets.
MOST_CLUSTER_SIZE, MOST_EPSILON = 50, 1.0
_LAYER, _NEURON = r"l(?:ayer)?\s*(?P<layer>\d{1,9})", r"(?:n(?:euron)?|#)?\s*(?P<neuron>\d{1,9})"
_BETWEEN = r"[\s/.,:;]*"
_NEURON_NAMES = tuple(
    re.compile(pattern, re.ASCII | re.IGNORECASE)
    for pattern in (
        _NEURON,
        # A dot between digits belongs to a number, such as 0.345.
        _LAYER + _BETWEEN + r"(?:n(?:euron)?|#|(?<=[\s/,:;]))\s*(?P<neuron>\d{1,9})",
        r"(?P<layer>\d{1,9})\s*[\s/,:;]\s*" + _NEURON,
        r"n(?:euron)?\s*(?P<neuron>\d{1,9})" + _BETWEEN + _LAYER,
    )
)


@dataclass(frozen=True)
class Selection:
    """The selection of a session; None for parts that are not chosen.

    Attributes:
        projection: its name below the roots the app was started with.
        model: the model to load for it, if it isn't the one that the projection names.
        layout: name of the shown layout, if it isn't the default.
        layer, site, neuron: the map, and the number of the neuron in it.
        head: number of an attention head of that layer, for any site.
        pole: its number among the poles with the current settings.
        grouping: these settings, see :func:`grouping_text`; None for the usual ones.
        prompt, other: ids of stored prompts A and B.
        token: position in prompt A, from 0.
        report: name of a sweep's folder below the roots.
        marked: neurons with a ring, ascending, for example from a box on the heatmap.
        color: colouring of the map's points; None for the default.
        order: order of the heatmap's rows and columns; None for the default.
        isolate: the neuron that the map shows with its neighbours only.
        target, against: ids of the tokens whose logits are attributed: of the first, or of the
            first less the second; None for the model's own next token, and for no second one.
        reading: the row of the lens that was clicked, from 0, counted from the embedding on.
        part: of the page Change of basis, by a short name; None for the first one.
        map: the model's matrix that is drawn there, such as ``W_O``; None for one to drag.
        plane: ``same`` where that map's plane before is drawn on both sides.
        source: where two sets of prompts are from that are compared, ``own`` or ``saved``; None for
            a pair of the project.
        pair: that pair's name; None for the usual one.
        sets: the id of two sets of one's own.
        at: where their prompts are read, ``mean``; None for the last token.
        outliers: 1 where tokens with outlier norms are kept.
        saved: name of the folder below the roots that holds a report of two sets.
        other_token: position in prompt B, from 0, where a token of that one is looked at.
        played: name of the folder below the roots whose layer-time is shown; None for that of the
            prompts.
        statistic: what the matrix of layers shows, by a short name; None for the usual one.
        between: two layers of that matrix, such as ``2-5``; None for the strongest pair.
    """

    projection: str | None = None
    model: str | None = None
    layer: int | None = None
    site: str | None = None
    neuron: int | None = None
    pole: int | None = None
    prompt: str | None = None
    other: str | None = None
    token: int | None = None
    report: str | None = None
    marked: tuple[int, ...] = ()
    grouping: str | None = None
    layout: str | None = None
    color: str | None = None
    order: str | None = None
    isolate: int | None = None
    head: int | None = None
    target: int | None = None
    against: int | None = None
    reading: int | None = None
    part: str | None = None
    map: str | None = None
    plane: str | None = None
    source: str | None = None
    pair: str | None = None
    sets: str | None = None
    at: str | None = None
    outliers: int | None = None
    saved: str | None = None
    other_token: int | None = None
    played: str | None = None
    statistic: str | None = None
    between: str | None = None

    def but(self, **changes: Any) -> Selection:
        """A changed selection; parts that depend on a changed part are dropped, unless given."""
        forgotten = {
            name: () if name == "marked" else None
            for key, value in changes.items()
            if value != getattr(self, key)
            for name in _DEPENDS.get(key, ())
        }
        return replace(self, **(forgotten | changes))

    def params(self) -> dict[str, str]:
        """The chosen parts as query parameters, by name."""
        values = asdict(self) | {"marked": runs_text(self.marked) or None}
        return {name: str(value) for name, value in values.items() if value is not None}

    @classmethod
    def unreadable(cls, params: Mapping[str, str]) -> dict[str, str]:
        """Query parameters that :meth:`of_params` leaves out, by their names in a link."""
        found = cls.of_params(params)
        names = {field.name for field in fields(cls)}
        return {
            name: text
            for name, text in params.items()
            if name in names and text and getattr(found, name) in (None, ())
        }

    @classmethod
    def of_params(cls, params: Mapping[str, str]) -> Selection:
        """Read query parameters.

        Unreadable parts are left out, because a bad URL must not cause an error.
        """
        found: dict[str, Any] = {}
        for field in fields(cls):
            text = params.get(field.name)
            if field.name == "marked":
                found["marked"] = parse_runs(text or "")
                continue
            if text is None or not text or len(text) > _MOST_CHARACTERS:
                continue
            if "int" in str(field.type):
                if not (text.isascii() and text.isdecimal() and len(text) < 10):
                    continue
                found[field.name] = int(text)
            else:
                found[field.name] = text
        return cls(**found)


def grouping_text(settings: PoleSettings) -> str | None:
    """Settings of poles in a link, such as ``correlation,5,leaf,0.1``; None for the usual ones."""
    if settings == PoleSettings():
        return None
    return f"{settings.space},{settings.min_cluster_size},{settings.selection},{settings.epsilon:g}"


def parse_grouping(text: str | None) -> PoleSettings:
    """Read the result of :func:`grouping_text`; the usual settings if it can't be read."""
    return read_grouping(text) or PoleSettings()


def read_grouping(text: str | None) -> PoleSettings | None:
    """Read the result of :func:`grouping_text`; None if it can't be read."""
    try:
        space, size, selection, epsilon = (text or "").split(",")
        settings = PoleSettings(space, int(size), None, selection, float(epsilon))
    except (ValueError, UserError):
        return None
    can_be_shown = (
        settings.min_cluster_size <= MOST_CLUSTER_SIZE and settings.epsilon <= MOST_EPSILON
    )
    return settings if can_be_shown else None


def runs_text(numbers: tuple[int, ...]) -> str:
    """Ascending numbers as runs, such as ``3-7,12``; as many as fit in a link."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
    if len(text) <= _MOST_RUNS_CHARACTERS:
        return text
    return text[:_MOST_RUNS_CHARACTERS].rpartition(",")[0]


def parse_runs(text: str) -> tuple[int, ...]:
    """Read the result of :func:`runs_text`; empty if it can't be read."""
    found: set[int] = set()
    n_named = 0
    for part in text[:_MOST_RUNS_CHARACTERS].split(",") if text else ():
        first, _, last = part.partition("-")
        ends = [first, last or first]
        if not all(end.isascii() and end.isdecimal() and len(end) < 8 for end in ends):
            return ()
        low, high = int(ends[0]), int(ends[1])
        n_named += max(0, high - low + 1)
        if n_named > _MOST_MARKED:
            return ()
        found |= set(range(low, high + 1))
    return tuple(sorted(found))


def parse_neuron(text: str) -> tuple[int | None, int]:
    """Layer, if named, and neuron of a search such as ``L3 N345``, ``3/345`` or ``345``.

    Raises:
        UserError: if it can't be read.
    """
    for pattern in _NEURON_NAMES:
        found = pattern.fullmatch(text.strip())
        if found is not None:
            layer = found.groupdict().get("layer")
            return None if layer is None else int(layer), int(found["neuron"])
    raise UserError(f"'{text[:80]}' isn't a neuron: write for example L3 N345")
