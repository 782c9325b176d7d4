"""The ``Projection`` artifact: positions and statistics with their facts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from projector.corpus.pieces import Pieces
from projector.errors import UserError, check_choice, named
from projector.layouts.registry import OBJECTIVES
from projector.projection.facts import LayoutFacts
from projector.projection.overview import (
    FACTS_FILE,
    STATISTICS_FILE,
    Overview,
    Saved,
    read_saved,
)
from projector.projection.partners.files import (
    none_found,
    read_partners,
    tensors_metadata,
    write_partners,
)
from projector.projection.writing import check_out, layout_text, own_files, write_layout
from projector.statistics.covariance import correlation_from_covariance
from projector.statistics.cross_layer.partners import Partners
from projector.statistics.cross_layer.records import PARTNERS_TENSORS, SITE, CrossLayerFacts
from projector.statistics.example_facts import EXAMPLES_FILE
from projector.statistics.examples import Examples
from projector.statistics.halves import HALVES, unpacked_halves
from projector.statistics.organisation import (
    Organisation,
    independent_tokens,
    measure_organisation,
)
from projector.storage.additions import alone_at
from projector.storage.places import disk_errors
from projector.storage.replacing import finish_replacing, replacing_files
from projector.storage.tensors import TensorFile, read_metadata, write_tensors
from projector.storage.versions import json_text

ORDERS = ("linear", "leaf", "spectral", "index")


@dataclass(frozen=True)
class PlacedLayout(LayoutFacts):
    """A layout with its positions.

    Attributes:
        positions: map name → (N, d) float32, NaN for dead and non-finite neurons; read from disk on
            access if the projection was loaded.
    """

    positions: Mapping[str, Tensor]


@dataclass(frozen=True)
class Projection(Overview):
    """Positions, statistics and provenance of a model's neurons over a corpus.

    Attributes:
        facts: its model, corpus and maps.
        layouts: name → layout with its positions; the first is the default.
        statistics: tensor name → tensor, as in ``statistics.safetensors``; read from disk on access
            if the projection was loaded; empty if none were kept.
        example_tensors: the same for ``examples.safetensors``.
        cross_layer: how partners across layers were found, and how strong they are for each pair of
            layers; None if there are none.
        cross_layer_problem: why stored partners can't be read; None if they can, or there are none.
        partner_tensors: the same for ``partners.safetensors``.
    """

    layouts: Mapping[str, PlacedLayout]
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    example_tensors: Mapping[str, Tensor] = field(default_factory=dict)
    cross_layer: CrossLayerFacts | None = None
    cross_layer_problem: str | None = None
    partner_tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def positions(self, layer: int, site: str, layout: str | None = None) -> Tensor:
        """Positions of one layer and site, (N, d) float32; a dead neuron's row is NaN.

        Args:
            layout: the layout's name; None is the first.

        Raises:
            UserError: if the map or the layout doesn't exist.
        """
        return self.layouts[self.layout_name(layout)].positions[self._name(layer, site)]

    def mean(self, layer: int, site: str) -> Tensor:
        """Mean activation, (N,) float32.

        Raises:
            UserError: if the map doesn't exist, or its statistics weren't kept.
        """
        return self._statistic(layer, site, "mean")

    def covariance(self, layer: int, site: str) -> Tensor:
        """Covariance of activations over tokens, (N, N) float32.

        Raises:
            UserError: if the map doesn't exist, or its statistics weren't kept.
        """
        return self._statistic(layer, site, "covariance")

    def correlation(self, layer: int, site: str) -> Tensor:
        """Correlation of activations, (N, N) float32; NaN for undefined neurons.

        Raises:
            UserError: if the map doesn't exist, or its statistics weren't kept.
        """
        name = self._name(layer, site)
        if f"{name}.correlation" in self.statistics:
            return self.statistics[f"{name}.correlation"]
        return correlation_from_covariance(self.covariance(layer, site))

    def examples(self, layer: int, site: str) -> Examples:
        """The examples of one map: the text that activates each neuron.

        Raises:
            UserError: if the map doesn't exist, or no examples were kept.
        """
        name, facts = self._name(layer, site), self.check_examples()
        return Examples.of_file(self.example_tensors, name, facts)

    def partners(self, layer: int) -> Partners:
        """The neurons of earlier and later layers that each ``mlp_post`` neuron of a layer is most
        correlated with.

        Raises:
            UserError: if the map doesn't exist, or partners were not found or can't be read.
        """
        name = self._name(layer, SITE)
        if self.cross_layer is None:
            raise none_found(self.cross_layer_problem)
        return Partners.of_file(self.partner_tensors, name)

    @cached_property
    def pieces(self) -> Pieces:
        """The text of the tokens in the examples.

        Raises:
            UserError: if no examples were kept, or the text is damaged.
        """
        self.check_examples()
        try:
            return Pieces.of_state(self.example_tensors)
        except ValueError as error:
            raise UserError(
                f"the examples of this projection are damaged: {error}; make it again with "
                "`projector fit`",
                setting="keep_examples",
                value=False,
            ) from error

    def half_correlations(self, layer: int, site: str) -> tuple[Tensor, Tensor] | None:
        """Correlations over the first and over the second half of the corpus, (N, N) float32 each,
        with an error of at most 2.5e-4; NaN for neurons that are undefined in that half.

        The result is None if they weren't kept: without statistics, and in older versions.

        Raises:
            UserError: if the map doesn't exist.
        """
        name = f"{self._name(layer, site)}.{HALVES}"
        return unpacked_halves(self.statistics[name]) if name in self.statistics else None

    def organisation(self, layer: int, site: str) -> Organisation | None:
        """How organised a map is: the saved figures, or else measured from its correlations; None
        if these weren't kept either.

        Raises:
            UserError: if the map doesn't exist.
        """
        facts = self.facts.maps[self._name(layer, site)]
        if facts.organisation is not None or not self.has_statistics_of(layer, site):
            return facts.organisation
        corpus, n_sequences = self.facts.corpus, None
        n_tokens = facts.n_tokens or (corpus.n_tokens if corpus is not None else 0)
        if self.facts.correlation == "per-sequence" and corpus is not None:
            n_sequences = corpus.n_sequences
        rho = self.correlation(layer, site)
        return measure_organisation(rho, independent_tokens(n_tokens, n_sequences))

    def order(self, layer: int, site: str, by: str = "linear", layout: str | None = None) -> Tensor:
        """The defined neurons in an order that puts neurons that fire together next to each other;
        (n_defined,) int64.

        Args:
            by: ``linear``, the linear arrangement (for a linear layout, its own order); ``leaf``,
                the leaves of the average-linkage tree, which shows groups as blocks; ``spectral``;
                or ``index``.
            layout: the layout's name; None is the first.

        Raises:
            UserError: if the map, order or layout doesn't exist, or the order needs correlations
                that weren't kept.
        """
        from projector.layouts.solvers.arrangement import arrange, leaf_order, spectral_order

        check_choice("order", by, ORDERS)
        settings = self.layout(layout).settings
        positions = self.positions(layer, site, layout)
        defined = positions.isfinite().all(dim=1).nonzero()[:, 0]
        if by == "index":
            return defined
        record = OBJECTIVES.get(settings.objective)
        if by == "linear" and record is not None and record.is_order:
            return defined[torch.argsort(positions[defined, 0], stable=True)]
        rho = self.correlation(layer, site)[defined][:, defined]
        if settings.absolute:
            rho = rho.abs()
        if by == "linear":
            return defined[arrange(rho).order]
        return defined[leaf_order(rho) if by == "leaf" else spectral_order(rho)]

    def _statistic(self, layer: int, site: str, what: str) -> Tensor:
        name = f"{self._name(layer, site)}.{what}"
        if name not in self.statistics:
            sample = self.facts.maps[self._name(layer, site)].sample
            if sample is not None:
                raise UserError(
                    f"layer {layer} {site} didn't fit in the memory of its fit: it was placed by "
                    f"{sample.n_tokens:,} tokens, without a matrix of correlations; make it "
                    f"again with a larger {named('memory_budget')}",
                    setting="memory_budget",
                )
            raise UserError(
                "this projection holds no statistics: make it again with `projector fit`, without "
                f"{named('keep_statistics', False)}",
                setting="keep_statistics",
                value=False,
            )
        return self.statistics[name]

    def facts_text(self) -> str:
        """The text of ``projection.json``."""
        return json_text(self.facts.as_dict())

    def is_saved_at(self, folder: str | Path) -> bool:
        """Whether the folder holds this projection, judged by its JSON files without additions."""
        where, text = Path(folder), self.facts_text()
        own = hashlib.sha256(text.encode()).hexdigest()
        tensors = [f"layouts/{name}.safetensors" for name in self.layouts]
        tensors += [STATISTICS_FILE] if self.statistics else []
        tensors += [EXAMPLES_FILE] if self.has_examples else []
        texts = {FACTS_FILE: text} | {
            f"layouts/{name}.json": layout_text(layout, number, own)
            for number, (name, layout) in enumerate(self.layouts.items())
        }
        return all(
            (where / name).is_file() and (where / name).read_bytes() == text.encode()
            for name, text in texts.items()
        ) and all((where / name).is_file() for name in tensors)

    def save(self, folder: str | Path, *, force: bool = False, setting: str = "folder") -> None:
        """Write the folder. Either all existing files are replaced, or none.

        Args:
            force: replace an existing projection with everything that was added to it: layouts,
                poles and pictures. Files that this program didn't make are kept.
            setting: the caller's name for the folder, for errors.

        Raises:
            UserError: if the folder holds something else, or the disk is full. Existing files are
                then unchanged.
        """
        out = Path(folder)
        check_out(out, force=force, setting=setting)
        less = f" (a fit takes far less with {named('keep_statistics', False)})"
        with ExitStack() as until_done:
            until_done.enter_context(disk_errors(out, less))
            if out.exists():
                until_done.enter_context(alone_at(out))
                # The lock is taken: whoever was killed since leaves nothing that waits for it.
                finish_replacing(out)
                check_out(out, force=force, setting=setting)
            staging = until_done.enter_context(replacing_files(out))
            self._write(staging)
            # An empty file stands for none.
            for name in own_files(out) if out.exists() else ():
                if not (staging / name).exists():
                    (staging / name).parent.mkdir(exist_ok=True)
                    (staging / name).touch()

    def _write(self, staging: Path) -> None:
        text = self.facts_text()
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        (staging / "layouts").mkdir()
        (staging / FACTS_FILE).write_text(text, encoding="utf-8")
        for number, (name, layout) in enumerate(self.layouts.items()):
            write_layout(
                lambda path: staging / path, name, layout, layout.positions, number, fingerprint
            )
        if self.statistics:
            write_tensors(staging / STATISTICS_FILE, self.statistics, {"projection": fingerprint})
        if self.example_facts is not None:
            metadata = {"projection": fingerprint, **self.example_facts.as_metadata()}
            write_tensors(staging / EXAMPLES_FILE, self.example_tensors, metadata)
        if self.cross_layer is not None:
            write_partners(
                lambda path: staging / path, self.cross_layer, self.partner_tensors, fingerprint
            )

    @classmethod
    def load(cls, folder: str | Path) -> Projection:
        """Load a folder written by :meth:`save` in this or an older version.

        Statistics, and the positions of all layouts except the first, are read on access.

        Raises:
            UserError: if the folder holds no projection, or one that is damaged or has a newer
                version.
        """
        saved = read_saved(folder)
        layouts: dict[str, PlacedLayout] = {}
        for name, each in saved.layouts.items():
            positions: Mapping[str, Tensor] = _Guarded(each.path, each.metadata)
            layouts[name] = PlacedLayout(
                each.settings,
                each.figures,
                each.versions,
                positions if layouts else dict(positions),
            )
        statistics: Mapping[str, Tensor] = {}
        if saved.statistics:
            own = {"projection": saved.fingerprint}
            statistics = _Guarded(saved.folder / STATISTICS_FILE, own)
        examples: Mapping[str, Tensor] = {}
        if saved.example_facts is not None:
            own = {"projection": saved.fingerprint}
            examples = _Guarded(saved.folder / EXAMPLES_FILE, own)
        cross_layer, problem, partners = _partners_of(saved)
        return cls(
            saved.facts,
            layouts,
            statistics,
            saved.example_facts,
            saved.example_problem,
            example_tensors=examples,
            cross_layer=cross_layer,
            cross_layer_problem=problem,
            partner_tensors=partners,
        )


def _partners_of(saved: Saved) -> tuple[CrossLayerFacts | None, str | None, Mapping[str, Tensor]]:
    """What there is of partners across layers; all else can be read where they are damaged."""
    try:
        found = read_partners(saved)
        if found is not None:
            return found, None, _Guarded(saved.folder / PARTNERS_TENSORS, tensors_metadata(saved))
    except UserError as error:
        return None, str(error.args[0]), {}
    return None, None, {}


class _Guarded(TensorFile):
    """Tensors of a file whose metadata were seen; what can't be read is told in one line."""

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        try:
            super().__init__(path)
        except (OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"'{path}' can't be read: {reason}") from error
        self._metadata = dict(metadata)

    def __getitem__(self, name: str) -> Tensor:
        try:
            if self._metadata.items() <= read_metadata(self.path).items():
                return super().__getitem__(name)
            raise UserError(
                f"'{self.path}' was replaced since it was opened: open the projection again"
            )
        except (OSError, SafetensorError) as error:
            # It was whole when the projection was opened.
            reason = " ".join(str(error).split())
            raise UserError(f"'{self.path}' can't be read any more: {reason}") from error
