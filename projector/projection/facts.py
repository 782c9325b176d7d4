"""The facts of a projection: records that are parsed and checked when they are read.

This module doesn't need PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from projector.layouts.settings import layout_name
from projector.projection.faithfulness import FIGURES, NOT_MEASURED, PlacementFigures
from projector.statistics.organisation import Organisation
from projector.storage.entries import Entry, Wrong

FORMAT = "transformer-projection"
FORMAT_VERSION = 2
LAYOUT_FORMAT = "transformer-projection-layout"
LAYOUT_FORMAT_VERSION = 1


@dataclass(frozen=True)
class ModelFacts:
    """The model of a projection.

    Attributes:
        id: folder name or hub id.
        sha256: hash of its weights.
        dtype: dtype of its computations.
        is_causal: whether a token attends only to earlier tokens.
        n_layers: number of layers of the model, including those that weren't projected.
    """

    id: str
    sha256: str
    dtype: str
    is_causal: bool
    n_layers: int

    @classmethod
    def from_entry(cls, entry: Entry) -> ModelFacts:
        return cls(
            id=entry.text("id"),
            sha256=entry.text("sha256"),
            dtype=entry.text("dtype"),
            is_causal=entry.truth("is_causal", default=True),
            n_layers=entry.count("n_layers"),
        )


@dataclass(frozen=True)
class CorpusFacts:
    """The text that the model read.

    Attributes:
        source: name of the source.
        sha256: hash of its documents.
        n_tokens: number of tokens used, out of ``n_tokens_available``.
        skip_first: number of positions skipped at the start of each sequence.
        notes: remarks for the user.
    """

    source: str
    sha256: str | None
    n_tokens: int
    n_tokens_available: int
    n_sequences: int
    sequence_length: int
    packed: bool
    skip_first: int
    notes: tuple[str, ...] = ()

    @classmethod
    def from_entry(cls, entry: Entry) -> CorpusFacts:
        return cls(
            source=entry.text("source"),
            sha256=entry.maybe_text("sha256"),
            n_tokens=entry.count("n_tokens"),
            n_tokens_available=entry.count("n_tokens_available"),
            n_sequences=entry.count("n_sequences"),
            sequence_length=entry.count("sequence_length"),
            packed=entry.truth("packed"),
            skip_first=entry.count("skip_first"),
            notes=entry.texts("notes") if "notes" in entry else (),
        )


@dataclass(frozen=True)
class SampleFacts:
    """The sample that a map without a correlation matrix was placed by.

    Attributes:
        n_tokens: number of tokens in the sample, out of ``n_corpus_tokens``.
        n_pairs: number of pairs of neurons on which the error was measured.
        measured: standard error of ρ, root mean square; None if it could not be measured.
        if_independent: the standard error for independently drawn tokens.
    """

    n_tokens: int
    n_corpus_tokens: int
    n_pairs: int | None = None
    measured: float | None = None
    if_independent: float | None = None

    @classmethod
    def from_entry(cls, entry: Entry) -> SampleFacts:
        return cls(
            n_tokens=entry.count("n_tokens"),
            n_corpus_tokens=entry.count("n_corpus_tokens"),
            n_pairs=entry.maybe_count("n_pairs"),
            measured=entry.maybe_number("measured"),
            if_independent=entry.maybe_number("if_independent"),
        )

    def words(self) -> str:
        """Describe the sample, and the error it causes."""
        text = f"placed by a sample of {self.n_tokens:,} of {self.n_corpus_tokens:,} tokens"
        if self.measured is None:
            return text
        return f"{text}, whose ρ is off by {self.measured:.2g} (root mean square)"


@dataclass(frozen=True)
class MapFacts:
    """Facts of one layer and site that all layouts share.

    Attributes:
        n_neurons: number of neurons, N.
        n_tokens: number of tokens in its statistics; None if unknown.
        dead_neurons: neurons without variance over the corpus, ascending; they have no position.
        nonfinite_neurons: neuron → how often it was NaN or infinite; they have no position either.
        n_tokens_left_out: number of tokens left out because of non-finite values; None if unknown.
        sample: the sample it was placed by if it has too many neurons for a matrix; otherwise None.
        organisation: how organised its neurons are; None if unknown.
        organisation_reason: why ``organisation`` is None.
    """

    n_neurons: int
    n_tokens: int | None
    dead_neurons: tuple[int, ...]
    nonfinite_neurons: Mapping[int, int] = field(default_factory=dict)
    n_tokens_left_out: int | None = None
    sample: SampleFacts | None = None
    organisation: Organisation | None = None
    organisation_reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values, with string keys."""
        found: dict[str, Any] = {
            "n_neurons": self.n_neurons,
            "n_tokens": self.n_tokens,
            "dead_neurons": list(self.dead_neurons),
            "nonfinite_neurons": {str(i): n for i, n in self.nonfinite_neurons.items()},
            "n_tokens_left_out": self.n_tokens_left_out,
            "organisation": None if self.organisation is None else asdict(self.organisation),
        }
        if self.organisation is None:
            found["organisation_reason"] = self.organisation_reason
        return found if self.sample is None else {**found, "sample": asdict(self.sample)}

    @classmethod
    def from_entry(cls, entry: Entry) -> MapFacts:
        sample = entry.maybe_entry("sample")
        broken = entry.entry("nonfinite_neurons")
        organisation = entry.maybe_entry("organisation")
        return cls(
            n_neurons=entry.count("n_neurons"),
            n_tokens=entry.maybe_count("n_tokens"),
            dead_neurons=entry.counts("dead_neurons"),
            nonfinite_neurons={int(i): broken.count(i) for i in broken},
            n_tokens_left_out=entry.maybe_count("n_tokens_left_out"),
            sample=None if sample is None else SampleFacts.from_entry(sample),
            organisation=None if organisation is None else Organisation.from_entry(organisation),
            organisation_reason=None
            if organisation is not None
            else entry.maybe_text("organisation_reason") or NOT_MEASURED,
        )


@dataclass(frozen=True)
class Facts:
    """The facts of a projection: its model, corpus and maps; the content of ``projection.json``.

    Attributes:
        corpus: the corpus; None for imported positions.
        sites: the projected sites, in order.
        left_out_sites: requested site → reason why no layer has it.
        correlation: ``pooled`` or ``per-sequence``; None if unknown.
        maps: map name → its facts.
        versions: versions of the packages that affect the numbers.
        run: the settings of the fit and the hashes of its inputs, as JSON values by name; None if
            unknown.
    """

    model: ModelFacts
    corpus: CorpusFacts | None
    sites: tuple[str, ...]
    layers: tuple[int, ...]
    left_out_sites: Mapping[str, str]
    correlation: str | None
    maps: Mapping[str, MapFacts]
    versions: Mapping[str, str]
    run: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Convert to the content of ``projection.json``."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "model": asdict(self.model),
            "corpus": None
            if self.corpus is None
            else {**asdict(self.corpus), "notes": list(self.corpus.notes)},
            "sites": list(self.sites),
            "layers": list(self.layers),
            "left_out_sites": dict(self.left_out_sites),
            "correlation": self.correlation,
            "maps": {name: each.as_dict() for name, each in self.maps.items()},
            "versions": dict(self.versions),
            **({} if self.run is None else {"run": dict(self.run)}),
        }

    @classmethod
    def from_entry(cls, entry: Entry) -> Facts:
        """Read from JSON; raises ``Wrong`` if an entry is missing or invalid."""
        corpus, maps = entry.maybe_entry("corpus"), entry.entry("maps")
        run = entry.maybe_entry("run")
        layouts = None if run is None else run.maybe_entry("layout")
        if layouts is not None:
            # Settings of each by name.
            for name in layouts:
                layouts.entry(name)
        return cls(
            model=ModelFacts.from_entry(entry.entry("model")),
            corpus=None if corpus is None else CorpusFacts.from_entry(corpus),
            sites=entry.texts("sites"),
            layers=entry.counts("layers"),
            left_out_sites=entry.texts_by_name("left_out_sites"),
            correlation=entry.maybe_text("correlation"),
            maps={name: MapFacts.from_entry(maps.entry(name)) for name in maps},
            versions=entry.texts_by_name("versions"),
            run=None if run is None else run.value,
        )


@dataclass(frozen=True)
class LayoutSettings:
    """The saved settings of a layout.

    Imported positions have settings that no solver accepts, and layouts of later versions may have
    more settings. This is therefore a separate record from
    :class:`projector.layouts.settings.Layout`.

    Attributes:
        objective, solver, dim, absolute: see :class:`projector.layouts.objective.Settings`.
        method: the algorithm: smacof, adamw, moves, tsne, umap, imported.
        others: every other setting by name, as JSON values: ``seed``, ``start``, ``p`` …
    """

    objective: str
    solver: str
    method: str
    dim: int
    absolute: bool
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int | None:
        """Seed of all random choices; None if unknown."""
        return self.others.get("seed")

    @property
    def name(self) -> str:
        """The name of a layout with these settings."""
        return layout_name(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            "objective": self.objective,
            "solver": self.solver,
            "method": self.method,
            "dim": self.dim,
            "absolute": self.absolute,
            **self.others,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LayoutSettings:
        """Read from JSON; raises ``Wrong`` if an entry is missing or invalid."""
        entry = Entry(values, "settings")
        known = ("objective", "solver", "method", "dim", "absolute")
        seed = values.get("seed")
        if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
            raise Wrong("settings.seed is not a whole number")
        for name, value in values.items():
            if not isinstance(value, str | int | float | None):
                raise Wrong(f"settings.{name} isn't text, a number, true or false")
        return cls(
            objective=entry.text("objective"),
            solver=entry.text("solver"),
            method=entry.text("method"),
            dim=entry.count("dim"),
            absolute=entry.truth("absolute", default=False),
            others={name: value for name, value in values.items() if name not in known},
        )


@dataclass(frozen=True)
class LayoutFacts:
    """One layout of a projection: its settings, and how faithful its maps are.

    Attributes:
        settings: its settings.
        figures: map name → figures of the map.
        versions: versions of the packages that affect the numbers.
    """

    settings: LayoutSettings
    figures: Mapping[str, PlacementFigures]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class MapFigures(Mapping[str, Any]):
    """The facts of one map in one layout, and its measures of faithfulness.

    Every entry is an attribute: ``n_neurons``, ``dead_neurons``, ``sample``, ``stress``,
    ``reasons`` …; and, for scripts, an item with the name used in the JSON files.

    Attributes:
        map: neurons, tokens, dead neurons.
        placement: the figures.
    """

    map: MapFacts
    placement: PlacementFigures

    @property
    def n_neurons(self) -> int:
        return self.map.n_neurons

    @property
    def n_tokens(self) -> int | None:
        return self.map.n_tokens

    @property
    def dead_neurons(self) -> tuple[int, ...]:
        return self.map.dead_neurons

    @property
    def nonfinite_neurons(self) -> Mapping[int, int]:
        return self.map.nonfinite_neurons

    @property
    def n_tokens_left_out(self) -> int | None:
        return self.map.n_tokens_left_out

    @property
    def sample(self) -> SampleFacts | None:
        return self.map.sample

    @property
    def reasons(self) -> Mapping[str, str]:
        """Figure → reason why it is None."""
        return self.placement.trust.reasons

    def __getattr__(self, name: str) -> Any:
        # Of the figures of trust alone: a new one needs no line here.
        if name in FIGURES:
            return getattr(self.placement.trust, name)
        raise AttributeError(f"a map has no figure '{name}'")

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {**self.map.as_dict(), **self.placement.as_dict()}

    def __getitem__(self, name: str) -> Any:
        return self.as_dict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.as_dict())

    def __len__(self) -> int:
        return len(self.as_dict())
