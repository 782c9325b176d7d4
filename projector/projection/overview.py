"""An overview of a projection, read from JSON files and headers only, without its tensors.

This module doesn't need PyTorch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from projector.errors import SettingError, UserError, named
from projector.projection.facts import (
    FORMAT,
    FORMAT_VERSION,
    LAYOUT_FORMAT,
    LAYOUT_FORMAT_VERSION,
    Facts,
    LayoutFacts,
    LayoutSettings,
    MapFigures,
)
from projector.projection.faithfulness import PlacementFigures
from projector.projection.upgrades import LAYOUT_UPGRADES, OWN_LAYOUT, UPGRADES
from projector.sites import map_name
from projector.statistics.example_facts import EXAMPLES_FILE, ExampleFacts
from projector.statistics.organisation import Organisation
from projector.storage.additions import finish_additions
from projector.storage.entries import Entry, Wrong
from projector.storage.headers import DamagedFile, Header, read_header
from projector.storage.versions import read_json, upgraded

FACTS_FILE = "projection.json"
STATISTICS_FILE = "statistics.safetensors"
LAYOUTS = "layouts"
# Where version 1 kept the positions of its one layout.
POSITIONS_FILE = "positions.safetensors"
_AGAIN = "make the projection again with `projector fit`"


@dataclass(frozen=True)
class Overview:
    """A projection without its tensors.

    Attributes:
        facts: its model, corpus and maps.
        layouts: name → settings and figures of the layout; the first is the default.
        statistics: names of the stored statistics tensors.
        example_facts: how many examples of each neuron are stored; None if there are none.
        example_problem: why stored examples can't be read; None if they can, or there are none.
    """

    facts: Facts
    layouts: Mapping[str, LayoutFacts]
    statistics: Collection[str] = ()
    example_facts: ExampleFacts | None = None
    example_problem: str | None = None

    @property
    def layers(self) -> list[int]:
        """The numbers of the projected layers."""
        return list(self.facts.layers)

    @property
    def sites(self) -> list[str]:
        """The names of the projected sites."""
        return list(self.facts.sites)

    @property
    def maps(self) -> list[tuple[int, str]]:
        """Every projected (layer, site), layer by layer."""
        return [
            (layer, site)
            for layer in self.layers
            for site in self.sites
            if map_name(layer, site) in self.facts.maps
        ]

    @property
    def dim(self) -> int:
        """Number of dimensions of the first layout."""
        return self.layout().settings.dim

    def layout(self, name: str | None = None) -> LayoutFacts:
        """Get a layout by its name; None for the first.

        Raises:
            SettingError: if no layout has this name.
        """
        return self.layouts[self.layout_name(name)]

    def layout_name(self, name: str | None = None) -> str:
        """Check the name of a layout; None for the first.

        Raises:
            SettingError: if no layout has this name.
        """
        if name is None:
            return next(iter(self.layouts))
        if name not in self.layouts:
            raise SettingError(
                "layout",
                name,
                "is not a layout of this projection",
                f"choose from {', '.join(self.layouts)}, or add it with `projector layout`",
            )
        return name

    def figures(self, layer: int, site: str, layout: str | None = None) -> MapFigures:
        """The facts of one map, and its figures in a layout.

        Args:
            layout: the layout's name; None for the first.

        Raises:
            UserError: if the map or the layout doesn't exist.
        """
        name = self._name(layer, site)
        return MapFigures(self.facts.maps[name], self.layout(layout).figures[name])

    def organisation(self, layer: int, site: str) -> Organisation | None:
        """How organised a map is; None if that was not saved, with the reason in
        ``organisation_reason`` of its facts.

        Raises:
            UserError: if the map doesn't exist.
        """
        return self.facts.maps[self._name(layer, site)].organisation

    @property
    def has_statistics(self) -> bool:
        """Whether means and covariances of any map were kept."""
        return bool(self.statistics)

    @property
    def has_examples(self) -> bool:
        """Whether examples of each neuron are stored and can be read."""
        return self.example_facts is not None

    def check_examples(self) -> ExampleFacts:
        """The number of stored examples.

        Raises:
            UserError: on ``keep_examples``, if there are none, or they can't be read.
        """
        if self.example_facts is not None:
            return self.example_facts
        told = self.example_problem or (
            "this projection holds no examples of what its neurons fire on: make it again with "
            f"`projector fit`, without {named('keep_examples', False)}"
        )
        raise UserError(told, setting="keep_examples", value=False)

    def has_statistics_of(self, layer: int, site: str) -> bool:
        """Whether means and covariances of this map were kept; never for a map placed without a
        matrix.
        """
        return f"{self._name(layer, site)}.covariance" in self.statistics

    def _name(self, layer: int, site: str) -> str:
        name = map_name(layer, site)
        if name in self.facts.maps:
            return name
        if site not in self.facts.sites:
            known = ", ".join(self.facts.sites)
            raise SettingError("site", site, "is not in this projection", f"it has {known}")
        if layer not in self.facts.layers:
            known = ", ".join(map(str, self.facts.layers))
            raise SettingError("layer", layer, "is not in this projection", f"it has {known}")
        known = ", ".join(s for n, s in self.maps if n == layer)
        raise SettingError(
            "site", site, f"is not in layer {layer} of this model", f"it has {known}"
        )


@dataclass(frozen=True)
class SavedLayout(LayoutFacts):
    """A layout on disk.

    Attributes:
        number: its rank in the order of layouts.
        path: the file of its positions, (N, d) float32 by map name.
        metadata: metadata of that file.
    """

    number: int
    path: Path
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Saved(Overview):
    """A projection on disk, in any supported version, with its JSON files and headers read and
    checked.

    Attributes:
        folder: its folder.
        fingerprint: SHA-256 of the text of ``projection.json``, stored in every addition.
        version: the format version on disk.
    """

    layouts: Mapping[str, SavedLayout]
    folder: Path = Path()
    fingerprint: str = ""
    version: int = FORMAT_VERSION


def read_saved(folder: str | Path) -> Saved:
    """Read the facts of a projection from its folder.

    Raises:
        UserError: if the folder holds no projection, or one that is damaged or has a newer version.
    """
    where = Path(folder)
    try:
        return _read(where)
    except UserError:
        # What another process replaced meanwhile is read again; what is damaged stays so.
        return _read(where)


def _read(where: Path) -> Saved:
    finish_additions(where)
    path = where / FACTS_FILE
    if not where.exists():
        raise UserError(
            f"there is no folder '{where}': check its name; `projector fit` makes projections"
        )
    if not path.exists():
        raise UserError(
            f"folder '{where}' holds no projection ({FACTS_FILE} is missing): give the folder "
            "that `projector fit` wrote"
        )
    content, text = read_json(path)
    version = content.get("format_version") if isinstance(content, dict) else None
    content = upgraded(
        content,
        path,
        format_name=FORMAT,
        newest=FORMAT_VERSION,
        upgrades=UPGRADES,
        remedy=_AGAIN,
    )
    own = content.pop(OWN_LAYOUT, None)
    fingerprint = hashlib.sha256(text).hexdigest()
    try:
        facts = Facts.from_entry(Entry(content))
        if not Overview(facts, {}).maps:
            raise Wrong("it names no map")
    except ValueError as error:
        raise UserError(f"'{path}' is damaged: {error}; {_AGAIN}") from error
    layouts = _read_layouts(where, facts, fingerprint)
    if own is not None:
        name, entry = own
        first = _layout(entry, 0, where / POSITIONS_FILE, path, None, facts, fingerprint)
        # One of its name that was added since takes its place.
        layouts = {name: first} | layouts
    if not layouts:
        raise UserError(f"'{where}' is damaged: folder {LAYOUTS} holds no layout; {_AGAIN}")
    statistics: Collection[str] = ()
    if (where / STATISTICS_FILE).exists():
        statistics = tuple(checked_header(where / STATISTICS_FILE, fingerprint).shapes)
    examples: ExampleFacts | None = None
    problem: str | None = None
    if (where / EXAMPLES_FILE).exists():
        try:
            examples = _read_examples(where / EXAMPLES_FILE, facts, fingerprint)
        except UserError as error:
            if not path.exists() or path.read_bytes() != text:
                # They are another projection's, which has just taken the place of this one.
                raise
            # All else can be read without them.
            problem = str(error)
    return Saved(
        facts,
        layouts,
        statistics,
        examples,
        problem,
        folder=where,
        fingerprint=fingerprint,
        version=int(version or FORMAT_VERSION),
    )


def _read_examples(path: Path, facts: Facts, fingerprint: str) -> ExampleFacts:
    """What the file of examples says of itself.

    Raises:
        UserError: if it is damaged, another projection's, or somebody's own.
    """
    header = checked_header(path, fingerprint)
    try:
        return ExampleFacts.from_header(
            header, {name: each.n_neurons for name, each in facts.maps.items()}
        )
    except Wrong as error:
        raise UserError(f"'{path}' is damaged: {error}; {_AGAIN}") from error


def checked_header(path: Path, fingerprint: str) -> Header:
    """Read the header of a tensor file, and check that it belongs to a projection.

    Raises:
        UserError: if it is missing or damaged, or belongs to another projection.
    """
    if not path.exists():
        raise UserError(f"'{path}' is missing: {_AGAIN}")
    try:
        header = read_header(path)
    except (DamagedFile, OSError) as error:
        raise UserError(f"'{path}' is damaged: {error}; {_AGAIN}") from error
    if header.metadata.get("projection") != fingerprint:
        raise UserError(f"'{path}' does not belong to the {FACTS_FILE} next to it: {_AGAIN}")
    return header


def _are_ours(tensors: Path) -> bool:
    """Whether this is a tensor file that a projection wrote."""
    try:
        return "projection" in read_header(tensors).metadata
    except (DamagedFile, OSError):
        return False


def _read_layouts(where: Path, facts: Facts, fingerprint: str) -> dict[str, SavedLayout]:
    """Those in files of their own, in order."""
    found: list[tuple[int, str, SavedLayout]] = []
    paths = (where / LAYOUTS).glob("*.json") if (where / LAYOUTS).is_dir() else ()
    for path in sorted(paths):
        again = f"delete it, and make the layout again with `projector layout {where}`"
        content, text = read_json(path)
        tensors = path.with_suffix(".safetensors")
        if isinstance(content, dict) and content.get("format") != LAYOUT_FORMAT:
            if _are_ours(tensors):
                raise UserError(f"'{path}' is damaged: it does not name its format; {again}")
            # Somebody's own file: it stays where it is.
            continue
        content = upgraded(
            content,
            path,
            format_name=LAYOUT_FORMAT,
            newest=LAYOUT_FORMAT_VERSION,
            upgrades=LAYOUT_UPGRADES,
            remedy=again,
        )
        if content.get("projection") != fingerprint:
            raise UserError(f"'{path}' belongs to another projection: {again}")
        try:
            number = Entry(content).count("number")
        except Wrong as error:
            raise UserError(f"'{path}' is damaged: {error}; {again}") from error
        own = hashlib.sha256(text).hexdigest()
        layout = _layout(content, number, tensors, path, own, facts, fingerprint)
        found.append((number, path.stem, layout))
    return {name: layout for _, name, layout in sorted(found, key=lambda each: each[:2])}


def _layout(
    content: dict[str, object],
    number: int,
    tensors: Path,
    path: Path,
    own: str | None,
    facts: Facts,
    fingerprint: str,
) -> SavedLayout:
    """A layout whose positions have the shapes that its facts say.

    Args:
        path: the JSON file that ``content`` is from; ``own`` is the SHA-256 of its text, which the
            tensors name, None if the file is the projection's.
    """
    try:
        entry = Entry(content)
        settings = LayoutSettings.from_dict(entry.entry("settings").value)
        maps = entry.entry("maps")
        figures = {name: PlacementFigures.from_entry(maps.entry(name)) for name in facts.maps}
        versions = entry.texts_by_name("versions")
    except ValueError as error:
        raise UserError(f"'{path}' is damaged: {error}; {_AGAIN}") from error
    header = checked_header(tensors, fingerprint)
    if own is not None and header.metadata.get("layout") != own:
        raise UserError(
            f"'{tensors}' does not belong to the {path.name} next to it: read the projection "
            "again if another program is adding to it, or else delete both"
        )
    for name, each in facts.maps.items():
        shape, kind = header.shapes.get(name), header.kinds.get(name)
        if shape != (each.n_neurons, settings.dim) or kind != "F32":
            raise UserError(
                f"'{tensors}' is damaged: {name} has shape {shape} and type {kind}, not "
                f"{(each.n_neurons, settings.dim)} and F32; {_AGAIN}"
            )
    return SavedLayout(settings, figures, versions, number, tensors, header.metadata)
