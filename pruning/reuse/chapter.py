"""Prune with the best pruning method, to compare reuse with.

All layers give the same share of their neurons.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from projector.errors import UserError
from projector.model.architecture.records import Architecture
from projector.model.architecture.weights import read_weights
from projector.model.loading import LoadedModel
from projector.progress import Progress
from pruning.calibration.mlps import mlps_of
from pruning.calibration.text import CalibrationText
from pruning.layerwise.files import LayerFiles
from pruning.layerwise.making import LayerMaker
from pruning.layerwise.recipes import Recipe
from pruning.methods.plan import NotApplicable, kept_width
from pruning.refit.closed_form import LEAST_SQUARES
from pruning.reuse.replacing.operations import LayerOperations, dense_operations, total_of
from pruning.reuse.settings import ReuseSettings
from pruning.surgery import assembled, round_weights


@dataclass(frozen=True)
class PrunedModel:
    """A pruned model.

    Attributes:
        operations: multiply-adds of its layers; ``n_removed``: number of removed neurons.
        seconds: time it took.
    """

    model: nn.Module
    operations: tuple[LayerOperations, ...]
    n_removed: int
    seconds: float


class Chapter:
    """Prunes a model to save shares of its MLPs' operations; all shares of a seed in one pass.

    Args:
        has_new_constant: whether outputs of changed MLPs get a constant that the dense MLPs lack.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        architecture: Architecture,
        calibration: CalibrationText,
        settings: ReuseSettings,
        *,
        has_new_constant: bool,
        progress: Progress,
    ) -> None:
        self._loaded, self._architecture = loaded, architecture
        self._calibration, self._settings = calibration, settings
        self._new_constant, self._progress = has_new_constant, progress
        self._dense: Sequence[LayerOperations] = dense_operations(architecture)
        self._current: tuple[int, tempfile.TemporaryDirectory[str], LayerMaker] | None = None

    def pruned(self, share: float, seed: int) -> PrunedModel:
        """Prune a model to save at least this share.

        Raises:
            NotApplicable: if no config of the model holds such widths, or the method is impossible.
        """
        recipe = self._recipe(share)
        maker = self._maker(seed)
        shapes = maker.shapes()
        shape = shapes[recipe]
        made = [each[recipe] for _, each in maker.layers(shapes)]
        began = time.perf_counter()
        mlps = mlps_of(self._architecture)
        layers = (
            each.weights(read_weights(mlp), with_bias=shape.with_bias)
            for each, mlp in zip(made, mlps, strict=True)
        )
        config = maker.config(shape)
        model = assembled(self._loaded.model, self._architecture, config, layers, shares=True)
        round_weights(model, self._loaded.stored_dtype)
        seconds = sum(each.seconds for each in made) + time.perf_counter() - began
        kept = [kept_width(mlp.n_neurons, recipe.sparsity) for mlp in mlps]
        operations = tuple(
            LayerOperations(
                dense.n_hidden,
                dense.n_made_by,
                n,
                has_new_constant=self._new_constant and shape.removes,
            )
            for dense, n in zip(self._dense, kept, strict=True)
        )
        n_removed = sum(mlp.n_neurons for mlp in mlps) - sum(kept)
        return PrunedModel(model, operations, n_removed, seconds)

    def _recipe(self, share: float) -> Recipe:
        """The recipe with whole neurons that saves at least this share."""
        total, n = total_of(self._dense), self._dense[0].n_computed
        need = share * total
        if share > 0 and self._new_constant:
            need += sum(layer.n_hidden for layer in self._dense)
        # A rounding error above a whole number doesn't count as a neuron.
        n_removed = math.ceil(n * need / total - 1e-9)
        return Recipe(self._settings.pruning_method, LEAST_SQUARES.name, n_removed / n)

    def _maker(self, seed: int) -> LayerMaker:
        if self._current is None or self._current[0] != seed:
            corpus = self._calibration.draw(self._settings.n_sequences, seed)
            recipes = [self._recipe(share) for share in self._settings.shares]
            folder = tempfile.TemporaryDirectory(prefix="pruning-")
            files = LayerFiles(Path(folder.name) / "layers", {"seed": seed}, recipes)
            files.begin()
            maker = LayerMaker(
                self._loaded.model,
                self._architecture,
                corpus,
                recipes,
                files,
                seed=seed,
                progress=self._progress,
            )
            try:
                for recipe in recipes:
                    recipe.check(
                        self._loaded.model, self._architecture, corpus, has_proposals=False
                    )
                # Check that a config can hold the widths, before any layer is made.
                maker.shapes()
            except UserError as error:
                raise NotApplicable(str(error)) from error
            self._current = seed, folder, maker
        return self._current[2]
