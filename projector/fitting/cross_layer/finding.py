"""Find partners across layers: the model runs over the tokens, then each pair of layers is
correlated. Finished parts are on disk, and a stopped run resumes from them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from projector.errors import UserError, named
from projector.interrupt import DeferredInterrupt
from projector.memory import give_back
from projector.model.capture import Tap, capture, evaluating, kept_rows
from projector.model.loading import input_device
from projector.processor import in_threads
from projector.progress import Progress
from projector.projection.provenance import versions
from projector.sites import map_name
from projector.statistics.cross_layer.activations import KeptActivations, Standards
from projector.statistics.cross_layer.pairs import FoundPair, Rotation, find_pair, rotation_of
from projector.statistics.cross_layer.partners import Partners, Ranked, best_control, strongest
from projector.statistics.cross_layer.plan import CrossLayerPlan
from projector.statistics.cross_layer.records import (
    FORMAT_VERSION,
    N_PARTNERS,
    N_SHUFFLED,
    SEED,
    SITE,
    CrossLayerFacts,
    LayerPair,
)
from projector.storage.entries import Entry
from projector.storage.replacing import remove_folder, replacing_file
from projector.storage.tensors import TensorFile, read_metadata, write_tensors
from projector.storage.versions import json_text

_RUN_FILE = "run.json"
# What such a folder consists of, files that are being written among it.
_OURS = re.compile(
    r"\.?(run\.json|(activations-\d+-\d+|tokens-\d+|(shuffled|rotation)-\d+|pair-\d+-\d+)\.safetensors)"
    r"(\.partial)?"
)


def has_begun(folder: Path) -> bool:
    """Whether a stopped run can be resumed from its folder."""
    return (folder / _RUN_FILE).exists()


def check_folder(folder: Path) -> None:
    """Raise a UserError if the folder for activations holds something else."""
    if folder.exists() and not (
        folder.is_dir() and all(_OURS.fullmatch(each.name) for each in folder.iterdir())
    ):
        raise UserError(
            f"'{folder}' is the folder for temporary activations, but it holds something else: "
            f"give another folder for {named('out')}",
            setting="out",
            value=str(folder),
        )


@dataclass(frozen=True)
class Found:
    """The partners of all layers.

    Attributes:
        facts: how they were found, and how strong they are.
        tensors: tensor name → tensor, as in ``partners.safetensors``.
    """

    facts: CrossLayerFacts
    tensors: Mapping[str, Tensor]


class Finding:
    """A run that finds partners across layers.

    Args:
        model: the model to run; its output is not used.
        taps: layer → tap of its neurons.
        folder: the folder for finished parts.
        batch_size: sequences per batch.
        run: the facts that identify the run; parts of another run are not resumed.
    """

    def __init__(
        self,
        model: nn.Module,
        taps: Mapping[int, Tap],
        plan: CrossLayerPlan,
        folder: Path,
        *,
        batch_size: int,
        run: Mapping[str, Any],
        progress: Progress,
    ) -> None:
        self.model, self.taps, self.plan, self.folder = model, taps, plan, folder
        self.batch_size, self.progress = batch_size, progress
        self.kept = KeptActivations(folder)
        device = input_device(model)
        # MPS has no float64, in which the sums are kept.
        self.device = torch.device("cpu") if device.type == "mps" else device
        self._run: dict[str, Any] = json.loads(
            json.dumps({**run, **plan.facts, "format_version": FORMAT_VERSION})
        )

    def find(self) -> Found:
        """Do the remaining work, and combine the results.

        Raises:
            OSError: if the disk is full or forbidden.
            KeyboardInterrupt: on Ctrl-C, after the current part is finished or discarded.
        """
        choices = self._begin()
        with DeferredInterrupt() as interrupt, in_threads(choices["threads"]):
            self._gather(interrupt)
            give_back()
            if not self.kept.n_tokens:
                raise UserError(
                    "every token is NaN or infinite in all neurons of some layer, so partners "
                    f"across layers can't be found: leave {named('cross_layer', True)} out",
                    setting="cross_layer",
                    value=True,
                )
            standards = self._standardise(interrupt)
            self._rotate(standards, interrupt)
            self._correlate(standards, min(choices["n_columns"], self.plan.n_columns), interrupt)
            return self._together(standards)

    def _begin(self) -> dict[str, int]:
        """What this run chose when it began: threads, and columns of a tile, which decide how sums
        are rounded."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads((self.folder / _RUN_FILE).read_text(encoding="utf-8"))
            if content["run"] == self._run:
                return {name: int(content[name]) for name in ("threads", "n_columns")}
        remove_folder(self.folder)
        choices = {"threads": torch.get_num_threads(), "n_columns": self.plan.n_columns}
        with replacing_file(self.folder / _RUN_FILE) as partial:
            partial.write_text(json_text({"run": self._run, **choices}), encoding="utf-8")
        return choices

    def _gather(self, interrupt: DeferredInterrupt) -> None:
        """Run the model over the tokens, and keep what its neurons do."""
        self.progress.begin("Keeping activations", self.plan.corpus.n_tokens, "tokens")
        for number, batch in enumerate(self.plan.corpus.batches(self.batch_size)):
            if not self.kept.has(number):
                lost = torch.zeros(batch.n_tokens, dtype=torch.bool)

                def keep(layer: int, activation: Tensor) -> None:
                    rows = kept_rows(activation, batch.keep)  # noqa: B023
                    lost.logical_or_(self.kept.keep(number, layer, rows))  # noqa: B023

                device = input_device(self.model)
                reading = capture(self.taps, keep, then_stop=True)
                with torch.no_grad(), evaluating(self.model), reading:
                    self.model(
                        input_ids=batch.input_ids.to(device),
                        attention_mask=batch.attention_mask.to(device),
                    )
                self.kept.finish(number, lost)
            self.progress.advance(batch.n_tokens)
            _stop_if_asked(interrupt)
        self.progress.end()

    def _standardise(self, interrupt: DeferredInterrupt) -> dict[int, Standards]:
        found = {}
        self.progress.begin("Standardising activations", len(self.plan.layers), "layers")
        for layer in self.plan.layers:
            found[layer] = self.kept.standards(layer)
            self.kept.keep_shuffled(layer, found[layer], N_SHUFFLED, SEED)
            self.progress.advance(1)
            _stop_if_asked(interrupt)
        self.progress.end()
        return found

    def _rotate(self, standards: Mapping[int, Standards], interrupt: DeferredInterrupt) -> None:
        """Draw the random axes of every layer, and keep them."""
        self.progress.begin("Rotating layers", len(self.plan.layers), "layers")
        for layer in self.plan.layers:
            path = self._rotation(layer)
            if not path.exists():
                with interrupt.at_once():
                    made = rotation_of(self.kept, layer, standards[layer], self.device, SEED)
                with replacing_file(path) as partial:
                    write_tensors(partial, {"axes": made.axes, "scale": made.scale})
                del made
            self.progress.advance(1)
            _stop_if_asked(interrupt)
        self.progress.end()

    def _read_rotation(self, layer: int) -> Rotation:
        own = TensorFile(self._rotation(layer))
        return Rotation(own["axes"].to(self.device), own["scale"].to(self.device))

    def _correlate(
        self, standards: Mapping[int, Standards], n_columns: int, interrupt: DeferredInterrupt
    ) -> None:
        """Find the partners of every two layers that are not yet done."""
        self.progress.begin("Correlating layers", len(self.plan.pairs), "pairs")
        rotation: tuple[int, Rotation] | None = None
        for earlier, later in self.plan.pairs:
            path = self._pair(earlier, later)
            if not path.exists():
                # Minutes where layers are wide: what is left half-way is done again.
                with interrupt.at_once():
                    if rotation is None or rotation[0] != earlier:
                        # The old one goes before the new one is read.
                        rotation = None
                        rotation = earlier, self._read_rotation(earlier)
                    found = find_pair(
                        self.kept,
                        (earlier, later),
                        (standards[earlier], standards[later]),
                        (rotation[1], self._read_rotation(later)),
                        n_columns=n_columns,
                        device=self.device,
                    )
                _write_pair(path, found)
            self.progress.advance(1)
            _stop_if_asked(interrupt)
        self.progress.end()

    def _together(self, standards: Mapping[int, Standards]) -> Found:
        """The best partners over all layers, and the figures of all pairs."""
        tensors: dict[str, Tensor] = {}
        for layer in self.plan.layers:
            sides = {}
            for side, others in (
                ("earlier", [i for i in self.plan.layers if i < layer]),
                ("later", [j for j in self.plan.layers if j > layer]),
            ):
                parts, controls = [], []
                for other in others:
                    pair = self._pair(min(layer, other), max(layer, other))
                    # Of a layer's earlier partners, it is the later one of the pair.
                    own = TensorFile(pair)
                    of = "later" if side == "earlier" else "earlier"
                    parts.append((other, Ranked(own[f"{of}_rho"], own[f"{of}_neuron"])))
                    controls.append(own[f"{of}_rotated"])
                n_neurons = standards[layer].n_neurons
                sides[side] = replace(
                    strongest(parts, n_neurons, N_PARTNERS),
                    rotated=best_control(controls, n_neurons),
                )
            tensors |= Partners(**sides).tensors(map_name(layer, SITE))
        facts = CrossLayerFacts(
            n_tokens=self.kept.n_tokens,
            n_left_out=self.kept.n_left_out,
            n_sequences=self.plan.corpus.n_sequences,
            tokens_sha256=self.plan.corpus.ids_sha256,
            n_undefined={layer: each.n_neurons - each.n for layer, each in standards.items()},
            pairs=tuple(_read_figures(self._pair(*layers)) for layers in self.plan.pairs),
            versions=versions(),
        )
        return Found(facts, tensors)

    def _rotation(self, layer: int) -> Path:
        return self.folder / f"rotation-{layer:03}.safetensors"

    def _pair(self, earlier: int, later: int) -> Path:
        return self.folder / f"pair-{earlier:03}-{later:03}.safetensors"


def _stop_if_asked(interrupt: DeferredInterrupt) -> None:
    if interrupt.is_asked:
        raise KeyboardInterrupt


def _write_pair(path: Path, found: FoundPair) -> None:
    tensors: dict[str, Tensor] = {}
    for side, ranked, rotated in (
        ("later", found.of_later, found.rotated_of_later),
        ("earlier", found.of_earlier, found.rotated_of_earlier),
    ):
        tensors |= {f"{side}_rho": ranked.rho, f"{side}_neuron": ranked.neuron}
        tensors[f"{side}_rotated"] = rotated
    figures = json.dumps(asdict(found.figures))
    with replacing_file(path) as partial:
        write_tensors(partial, tensors, {"figures": figures})


def _read_figures(path: Path) -> LayerPair:
    return LayerPair.from_entry(Entry(json.loads(read_metadata(path)["figures"]), path.name))
