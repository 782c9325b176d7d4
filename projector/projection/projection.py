"""The ``Projection`` artifact: a folder of two tensor files and one readable JSON file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from projector.errors import UserError
from projector.projection.faithfulness import Faithfulness
from projector.sites import map_name
from projector.statistics.covariance import correlation_from_covariance
from projector.storage.places import check_place, disk_errors
from projector.storage.replacing import STAGED, finish_replacing, replacing_files
from projector.storage.tensors import TensorFile, read_metadata, write_tensors

FORMAT = "transformer-projection"
FORMAT_VERSION = 1
FACTS_FILE = "projection.json"
POSITIONS_FILE = "positions.safetensors"
STATISTICS_FILE = "statistics.safetensors"
_FACTS = (
    "model",
    "corpus",
    "sites",
    "layers",
    "left_out_sites",
    "correlation",
    "layout",
    "maps",
)
_FIGURES = (
    "n_neurons",
    "dead_neurons",
    "nonfinite_neurons",
    *(field.name for field in fields(Faithfulness)),
)
_LESS = " (a fit takes far less with --no-statistics)"
ORDERS = ("linear", "leaf", "spectral", "index")


@dataclass(frozen=True)
class Projection:
    """Positions, statistics and provenance of a model's neurons over a corpus.

    Attributes:
        facts: the content of ``projection.json``.
        position_tensors: map name → (N, d) float32, NaN for undefined neurons.
        statistics: tensor name → tensor, as in ``statistics.safetensors``; read from disk when
            asked for where the projection was loaded; empty where none were kept.
    """

    facts: dict[str, Any]
    position_tensors: dict[str, Tensor]
    statistics: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def layers(self) -> list[int]:
        return list(self.facts["layers"])

    @property
    def sites(self) -> list[str]:
        return list(self.facts["sites"])

    @property
    def dim(self) -> int:
        return int(self.facts["layout"]["dim"])

    @property
    def maps(self) -> list[tuple[int, str]]:
        """Every (layer, site) that was projected, layer by layer."""
        return [
            (layer, site)
            for layer in self.layers
            for site in self.sites
            if map_name(layer, site) in self.position_tensors
        ]

    def positions(self, layer: int, site: str) -> Tensor:
        """Positions of one layer and site, (N, d) float32; a dead neuron's row is NaN."""
        return self.position_tensors[self._name(layer, site)]

    def figures(self, layer: int, site: str) -> dict[str, Any]:
        """Neurons, dead neurons and faithfulness of one map, as in ``projection.json``."""
        figures: dict[str, Any] = self.facts["maps"][self._name(layer, site)]
        return figures

    def mean(self, layer: int, site: str) -> Tensor:
        """Mean activation, (N,) float32."""
        return self._statistic(layer, site, "mean")

    def covariance(self, layer: int, site: str) -> Tensor:
        """Covariance of activations over tokens, (N, N) float32."""
        return self._statistic(layer, site, "covariance")

    def correlation(self, layer: int, site: str) -> Tensor:
        """Correlation of activations, (N, N) float32; NaN for undefined neurons."""
        name = self._name(layer, site)
        if f"{name}.correlation" in self.statistics:
            return self.statistics[f"{name}.correlation"]
        return correlation_from_covariance(self.covariance(layer, site))

    def order(self, layer: int, site: str, by: str = "linear") -> Tensor:
        """Defined neurons in an order that puts together what fires together; (n_defined,) int64.

        Args:
            by: ``linear``, the linear arrangement (of a linear map, its own order); ``leaf``, the
                leaves of the average-linkage tree, which shows groups as blocks; ``spectral``; or
                ``index``.
        """
        from projector.layouts.arrangement import arrange, leaf_order, spectral_order

        if by not in ORDERS:
            raise UserError(f"unknown order '{by}': choose from {', '.join(ORDERS)}")
        positions = self.positions(layer, site)
        defined = positions.isfinite().all(dim=1).nonzero()[:, 0]
        if by == "index":
            return defined
        if by == "linear" and self.facts["layout"]["objective"] == "linear":
            return defined[torch.argsort(positions[defined, 0], stable=True)]
        rho = self.correlation(layer, site)[defined][:, defined]
        if self.facts["layout"]["absolute"]:
            rho = rho.abs()
        if by == "linear":
            return defined[arrange(rho).order]
        return defined[leaf_order(rho) if by == "leaf" else spectral_order(rho)]

    @property
    def has_statistics(self) -> bool:
        return bool(self.statistics)

    def has_statistics_of(self, layer: int, site: str) -> bool:
        """Whether means and covariances of this map were kept; of one placed without a matrix,
        they were not."""
        return f"{self._name(layer, site)}.covariance" in self.statistics

    def _name(self, layer: int, site: str) -> str:
        name = map_name(layer, site)
        if name in self.position_tensors:
            return name
        if site not in self.sites:
            raise UserError(f"site '{site}' is not in this projection: it has {_list(self.sites)}")
        if layer not in self.layers:
            raise UserError(f"layer {layer} is not in this projection: it has {_list(self.layers)}")
        raise UserError(f"layer {layer} of this model has no site '{site}'")

    def _statistic(self, layer: int, site: str, what: str) -> Tensor:
        name = f"{self._name(layer, site)}.{what}"
        if name not in self.statistics:
            sample = self.figures(layer, site).get("sample")
            if sample is not None:
                raise UserError(
                    f"layer {layer} {site} has too many neurons for the memory its fit was given: "
                    f"it was placed by {sample['n_tokens']:,} tokens, and its correlations were "
                    "never a matrix; make it again with more --memory-budget"
                )
            raise UserError(
                "this projection was saved without statistics: make it again with "
                "`projector fit`, without --no-statistics"
            )
        return self.statistics[name]

    def save(self, folder: str | Path, *, force: bool = False) -> None:
        """Write the folder. Of what is there, all files are replaced or none.

        Args:
            force: replace a projection that is there.

        Raises:
            UserError: if the folder holds something else, or the disk is full. What was there is
                as it was.
        """
        out = Path(folder)
        check_out(out, force=force)
        text = self.facts_text()
        # The tensor files name the JSON file they belong to, so a mixture of two runs is seen.
        metadata = {"projection": hashlib.sha256(text.encode()).hexdigest()}
        tensors: dict[str, Mapping[str, Tensor]] = {
            POSITIONS_FILE: self.position_tensors,
            STATISTICS_FILE: self.statistics,
        }
        with disk_errors(out, _LESS), replacing_files(out) as staging:
            (staging / FACTS_FILE).write_text(text, encoding="utf-8")
            for name, group in tensors.items():
                if group:
                    write_tensors(staging / name, group, metadata)
                else:
                    # Stands for none.
                    (staging / name).touch()

    def facts_text(self) -> str:
        """The text of ``projection.json``."""
        return json.dumps(self.facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def load(cls, folder: str | Path) -> Projection:
        """Read a folder that :meth:`save` wrote. Statistics are read when they are asked for.

        Raises:
            UserError: if it is no projection, is damaged, or is of another format version.
        """
        where = Path(folder)
        with disk_errors(where):
            finish_replacing(where)
        facts, text = _read_facts(where)
        fingerprint = hashlib.sha256(text).hexdigest()
        positions = _read_tensors(where / POSITIONS_FILE, fingerprint)
        try:
            missing = [key for key in _FACTS if key not in facts]
            if missing:
                raise KeyError(missing[0])
            for name, figures in facts["maps"].items():
                missing = [key for key in _FIGURES if key not in figures]
                if missing:
                    raise KeyError(missing[0])
                sample = figures.get("sample")
                if sample is not None:
                    counts = (sample["n_tokens"], sample["n_corpus_tokens"])
                    if not all(isinstance(n, int) for n in counts) or not isinstance(
                        sample["measured"], (int, float, type(None))
                    ):
                        raise TypeError(f"the sample of {name}")
                expected = (figures["n_neurons"], facts["layout"]["dim"])
                if tuple(positions[name].shape) != expected:
                    raise UserError(
                        f"'{where / POSITIONS_FILE}' is damaged: {name} has shape "
                        f"{tuple(positions[name].shape)}, not {expected}"
                    )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"'{where}' is damaged: {error} is missing or wrong") from error
        statistics: Mapping[str, Tensor] = {}
        if (where / STATISTICS_FILE).exists():
            statistics = _Statistics(where / STATISTICS_FILE, fingerprint)
        return cls(facts, positions, statistics)


def check_out(out: Path, *, force: bool) -> None:
    """Raise a UserError if a projection may not be written to ``out``."""
    check_place(out)
    with disk_errors(out):
        finish_replacing(out)
    if not out.exists() or not any(p for p in out.iterdir() if p.name != STAGED):
        return
    if not (out / FACTS_FILE).exists():
        raise UserError(
            f"folder '{out}' holds other files and no projection: give another folder for --out"
        )
    if force:
        try:
            is_ours = json.loads((out / FACTS_FILE).read_bytes()).get("format") == FORMAT
        except (OSError, ValueError, AttributeError, RecursionError):
            is_ours = False
        if not is_ours:
            raise UserError(
                f"'{out / FACTS_FILE}' is not the work of this program, and is not replaced: "
                "give another folder for --out"
            )
    else:
        raise UserError(
            f"folder '{out}' holds a projection already: add --force to replace it, "
            "or give another folder"
        )


def _read_facts(where: Path) -> tuple[dict[str, Any], bytes]:
    path = where / FACTS_FILE
    if not where.exists():
        raise UserError(
            f"there is no folder '{where}': check its name; `projector fit` makes projections"
        )
    if not path.exists():
        raise UserError(f"'{where}' is no projection: {FACTS_FILE} is missing")
    try:
        text = path.read_bytes()
        facts = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"'{path}' is damaged: it is not JSON ({error})") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise UserError(f"'{path}' is not the work of this program: it is no projection")
    version = facts.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"'{where}' has format version {version}, and this program reads {FORMAT_VERSION}: "
            "upgrade the program, or make the projection again with `projector fit`"
        )
    return facts, text


def _check_file(path: Path, fingerprint: str) -> None:
    if not path.exists():
        raise UserError(f"'{path.parent}' is damaged: {path.name} is missing")
    try:
        theirs = read_metadata(path).get("projection")
    except (SafetensorError, OSError) as error:
        raise UserError(f"'{path}' is damaged: {' '.join(str(error).split())}") from error
    if theirs != fingerprint:
        raise UserError(
            f"'{path}' does not belong to the {FACTS_FILE} beside it: make the projection again"
        )


def _read_tensors(path: Path, fingerprint: str) -> dict[str, Tensor]:
    _check_file(path, fingerprint)
    return dict(TensorFile(path))


class _Statistics(TensorFile):
    """Those of a projection; what can't be read is told in one line."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        _check_file(path, fingerprint)
        super().__init__(path)
        self._fingerprint = fingerprint

    def __getitem__(self, name: str) -> Tensor:
        try:
            if read_metadata(self.path).get("projection") == self._fingerprint:
                return super().__getitem__(name)
            raise UserError(
                f"'{self.path}' is another projection's by now: open '{self.path.parent}' again"
            )
        except (OSError, SafetensorError) as error:
            # It was whole when the projection was opened.
            reason = " ".join(str(error).split())
            raise UserError(f"'{self.path}' can't be read any more: {reason}") from error


def _list(values: list[Any]) -> str:
    return ", ".join(str(value) for value in values)
