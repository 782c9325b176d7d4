"""Make choices, moments and fits for all rows of one seed and share together."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from projector.corpus.batches import Corpus
from projector.memory import give_back
from projector.model.architecture.records import Architecture
from projector.model.architecture.weights import read_weights
from projector.progress import Progress
from pruning.calibration.mlps import mlps_of
from pruning.methods.plan import NotApplicable
from pruning.reuse.partners import LayerPartners, Scales
from pruning.reuse.records import EARLY_WRITE, MIXED, MIXED_RANDOM, RANDOM_PARTNERS, REMOVAL
from pruning.reuse.replacing.choosing import Choice, choose_neurons, draw_partners
from pruning.reuse.replacing.files import FittedFiles
from pruning.reuse.replacing.fitting import FittedLayer, fit_layer
from pruning.reuse.replacing.moments import Pairs, gather_moments
from pruning.reuse.replacing.operations import LayerOperations

# A row without its seed: method, share, partners of a neuron.
Name = tuple[str, float, int]


@dataclass
class SeedModels:
    """Fitted rows of one seed and share, with their layers on disk.

    Attributes:
        files: fitted layers of each row, or the reason why it is impossible.
        seconds: for each row, the time for shared work and its own fits.
        folder: the files' folder, which exists as long as this object.
    """

    seed: int
    files: dict[Name, FittedFiles | NotApplicable]
    seconds: dict[Name, float]
    folder: tempfile.TemporaryDirectory[str]

    def layers(self, name: Name) -> list[FittedLayer | None]:
        """The layers of a row; None for layers that stay dense.

        Raises:
            NotApplicable: if the row is impossible.
        """
        files = self.files[name]
        if isinstance(files, NotApplicable):
            raise files
        return files.read()


@dataclass(frozen=True)
class SeedMaker:
    """Makes the models of a seed.

    Attributes:
        partners: neurons that others can take their values from.
        dense: operations of the layers.
        with_bias: whether outputs can have a bias; ``has_new_constant``: whether dense outputs lack
            one.
        n_bytes: bytes that moments of several layers may take at once.
    """

    model: nn.Module
    architecture: Architecture
    partners: LayerPartners
    dense: Sequence[LayerOperations]
    with_bias: bool
    has_new_constant: bool
    n_bytes: int
    progress: Progress

    def make(
        self, corpus: Corpus, scales: Sequence[Scales], seed: int, names: Sequence[Name]
    ) -> SeedModels:
        """Choose neurons, gather moments, and fit rows of a seed.

        Args:
            corpus: the sequences that the seed draws; ``scales``: of all neurons over them.
            names: the rows to make.

        Raises:
            UserError: if activations are not finite.
        """
        began = time.perf_counter()
        mlps = mlps_of(self.architecture)
        powers = [
            each.power(centred=self.with_bias)
            * read_weights(mlp).output.double().square().sum(dim=0).cpu()
            for each, mlp in zip(scales, mlps, strict=True)
        ]
        partners = self.partners if self.with_bias else self.partners.about_zero(scales)
        found = SeedModels(seed, {}, {}, tempfile.TemporaryDirectory(prefix="pruning-"))
        choices: dict[Name, tuple[Choice, ...]] = {}
        files: dict[Name, FittedFiles] = {}
        for i, name in enumerate(names):
            try:
                choices[name] = self._choose(powers, partners, name, seed)
                files[name] = FittedFiles(Path(found.folder.name) / str(i), len(mlps))
            except NotApplicable as error:
                found.files[name], found.seconds[name] = error, 0.0
        found.files.update(files)
        changed = {
            layer: [name for name in choices if len(choices[name][layer].replaced)]
            for layer in range(len(mlps))
        }
        wanted = {
            layer: _pairs([choices[name][layer] for name in of])
            for layer, of in changed.items()
            if of
        }
        own = dict.fromkeys(choices, 0.0)
        for layer, moments in gather_moments(
            self.model,
            self.architecture,
            corpus,
            wanted,
            n_bytes=self.n_bytes,
            progress=self.progress,
        ):
            dense = read_weights(mlps[layer])
            for name in changed[layer]:
                at = time.perf_counter()
                fitted = fit_layer(
                    choices[name][layer], moments, wanted[layer], dense, with_bias=self.with_bias
                )
                files[name].write(layer, fitted)
                own[name] += time.perf_counter() - at
                del fitted
            del moments
            give_back()
        shared = time.perf_counter() - began - sum(own.values())
        found.seconds.update({name: shared + seconds for name, seconds in own.items()})
        return found

    def _choose(
        self, powers: Sequence[Tensor], partners: LayerPartners, name: Name, seed: int
    ) -> tuple[Choice, ...]:
        method, share, n_partners = name
        choices = choose_neurons(
            powers,
            None if method == REMOVAL else partners,
            self.dense,
            share,
            n_partners=max(1, n_partners),
            may_remove=method in (MIXED, MIXED_RANDOM),
            writes_early=method == EARLY_WRITE,
            has_new_constant=self.has_new_constant,
        )
        if method == EARLY_WRITE and share > 0:
            self._check_adds()
        is_random = method in (RANDOM_PARTNERS, MIXED_RANDOM)
        return draw_partners(choices, seed) if is_random else choices

    def _check_adds(self) -> None:
        """Raise NotApplicable unless every MLP adds its output directly to the residual stream."""
        for layer, mlp in enumerate(mlps_of(self.architecture)):
            if not mlp.adds_to_stream:
                raise NotApplicable(
                    f"layer {layer} doesn't add its MLP's output directly to the residual stream, "
                    "so no partner can write for a neuron of another layer"
                )


def _pairs(choices: Sequence[Choice]) -> Pairs:
    """The partners of one layer in all rows."""
    layers = [choice.partner_layer.flatten() for choice in choices]
    return Pairs.of(torch.cat(layers), torch.cat([c.partner_neuron.flatten() for c in choices]))
