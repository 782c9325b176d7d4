"""Make each layer's plans and closed-form refits while its moments are in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import nn

from projector.corpus.batches import Corpus
from projector.memory import give_back
from projector.model.architecture.records import Architecture
from projector.model.architecture.weights import read_weights
from projector.model.architecture.widths import can_have_bias
from projector.progress import Progress, Silent
from pruning.calibration.mlps import mlps_of
from pruning.calibration.walk import DEFAULT_BATCH, Walk, WalkedLayer
from pruning.layerwise.files import LayerFiles
from pruning.layerwise.recipes import MadeLayer, Recipe, Shape
from pruning.methods.method import Layer, Proposals
from pruning.methods.plan import LayerPlan
from pruning.methods.planning import costs_of, global_widths, plan_layer
from pruning.refit.products import Products
from pruning.refit.refits import RunProducts, kept_products, refit_output

Made = dict[Recipe, MadeLayer]
# A plan's key: its method, the number of neurons that stay, and whether moments are centred.
_Key = tuple[str, int, bool]


class LayerMaker:
    """Makes each layer's plans and refits for all recipes, from one seed's calibration text.

    Recipes share eliminations, plans, and the products that refits are made from; each is made
    once.

    Args:
        recipes: checked recipes (:meth:`Recipe.check`).
        seed: seed of everything random in a plan.
        proposals: candidates for stand-ins in each layer; for methods that read a projection.
        files: keeps layers that are made.
        spill: a folder for the streams; None to keep them in memory.
    """

    def __init__(
        self,
        model: nn.Module,
        architecture: Architecture,
        corpus: Corpus,
        recipes: Sequence[Recipe],
        files: LayerFiles,
        *,
        seed: int = 0,
        proposals: Sequence[Proposals] | None = None,
        spill: Path | None = None,
        batch_size: int = DEFAULT_BATCH,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.architecture, self.corpus = model, architecture, corpus
        self.recipes, self.files = tuple(recipes), files
        self._seed, self._proposals = seed, proposals
        self._spill, self._batch_size = spill, batch_size
        self._progress = progress or Silent()
        self._shapes: dict[Recipe, Shape] | None = None
        # Each is found once, by building the model without memory for its weights.
        self._has_bias: bool | None = None
        self._configs: dict[tuple[tuple[int, ...], bool], Any] = {}

    def show(self, progress: Progress | None) -> None:
        """Report progress to this object from now on."""
        self._progress = progress or Silent()

    @property
    def missing(self) -> list[int]:
        """Layers that are not made yet."""
        return [i for i in range(len(self.architecture.blocks)) if not self.files.has(i)]

    @property
    def missing_costs(self) -> list[int]:
        """Layers whose costs of removals are not known yet, if a recipe needs them."""
        if not any(_compares_layers(recipe) for recipe in self.recipes):
            return []
        return [i for i in range(len(self.architecture.blocks)) if not self.files.has_costs(i)]

    def shapes(self) -> dict[Recipe, Shape]:
        """How each recipe cuts the model.

        Recipes with allocation ``global`` need another run over the text, which finds all layers'
        costs.

        Raises:
            UserError: if no config of this model holds such widths.
        """
        if self._shapes is not None:
            return self._shapes
        shapes = self._uniform()
        wanted = [recipe for recipe in self.recipes if _compares_layers(recipe)]
        if wanted:
            self.gather_costs(self.missing_costs)
            every = [self.files.read_costs(i) for i in range(len(self.architecture.blocks))]
            for recipe in wanted:
                costs = [of_layer[recipe.method, shapes[recipe].centred] for of_layer in every]
                widths = global_widths(costs, recipe.sparsity, recipe.round_to)
                shapes[recipe] = self._shape(recipe, widths)
        for shape in shapes.values():
            self.config(shape)
        self._shapes = shapes
        return shapes

    def config(self, shape: Shape) -> Any:
        """A config of the model after this cut.

        Raises:
            UserError: if no config holds these widths.
        """
        key = (shape.widths, shape.with_bias)
        if key not in self._configs:
            self._configs[key] = shape.config(self.model, self.architecture)
        return deepcopy(self._configs[key])

    def _shape(self, recipe: Recipe, widths: Sequence[int]) -> Shape:
        if self._has_bias is None:
            self._has_bias = can_have_bias(self.model, self.architecture)
        return Shape.of(self.architecture, recipe, widths, has_bias=self._has_bias)

    def _uniform(self) -> dict[Recipe, Shape]:
        own = [mlp.n_neurons for mlp in mlps_of(self.architecture)]
        return {recipe: self._shape(recipe, recipe.uniform_widths(own)) for recipe in self.recipes}

    def gather_costs(self, layers: Sequence[int]) -> None:
        """Find and keep the costs of removals from these layers."""
        methods = {
            (recipe.method, shape.centred): recipe.of_method
            for recipe, shape in self._uniform().items()
            if _compares_layers(recipe)
        }
        for walked in self._walk(layers, "Comparing layers"):
            # Methods that eliminate share their eliminations.
            read = {centred: self._layer(walked, centred) for _, centred in methods}
            found = {key: costs_of(method, read[key[1]]) for key, method in methods.items()}
            self.files.write_costs(walked.index, found)
            del walked, read
            give_back()

    def make(self, layers: Sequence[int]) -> None:
        """Make these layers, and keep them."""
        shapes = self.shapes()
        for walked in self._walk(layers, self._stage(shapes)):
            self.files.write(walked.index, self._make(walked, shapes))
            del walked
            give_back()

    def _stage(self, shapes: Mapping[Recipe, Shape]) -> str:
        refits = any(recipe.of_refit.output and shape.removes for recipe, shape in shapes.items())
        return "Planning and refitting" if refits else "Planning"

    def layers(self, shapes: Mapping[Recipe, Shape]) -> Iterator[tuple[int, Made]]:
        """Yield every made layer in order, also layers from files.

        Once a layer is yielded, its weights may be changed, because the text has passed it.

        Raises:
            UserError: if a layer's moments are not finite, or the disk is full or can't be written.
        """
        n_layers, missing = len(self.architecture.blocks), self.missing
        given = 0
        for walked in self._walk(missing, self._stage(shapes)) if missing else ():
            index = walked.index
            # Earlier layers that are made already: the text has passed them too.
            for layer in range(given, index):
                yield layer, self.files.read(layer)
            made = self._make(walked, shapes)
            del walked
            self.files.write(index, made)
            give_back()
            yield index, made
            given = index + 1
        for layer in range(given, n_layers):
            yield layer, self.files.read(layer)

    def _walk(self, wanted: Sequence[int], stage: str) -> Iterator[WalkedLayer]:
        walk = Walk(
            self.model,
            self.architecture,
            self.corpus,
            batch_size=self._batch_size,
            spill=self._spill,
            progress=self._progress,
        )
        return walk.layers(wanted, stage=stage)

    def _layer(self, walked: WalkedLayer, centred: bool) -> Layer:
        return Layer(
            index=walked.index,
            mlp=mlps_of(self.architecture)[walked.index],
            calibrated=walked.moments,
            centred=centred,
            seed=self._seed,
            proposals=None if self._proposals is None else self._proposals[walked.index],
        )

    def _make(self, walked: WalkedLayer, shapes: Mapping[Recipe, Shape]) -> Made:
        layers = {centred: self._layer(walked, centred) for centred in (False, True)}
        plans: dict[_Key, tuple[LayerPlan, float]] = {}
        keys: dict[Recipe, _Key] = {}
        # Highest sparsity first, because removals are nested and found once.
        for recipe in sorted(self.recipes, key=lambda each: -each.sparsity):
            shape = shapes[recipe]
            key = (recipe.method, shape.widths[walked.index], shape.centred)
            keys[recipe] = key
            if key not in plans:
                began = time.perf_counter()
                plan = plan_layer(recipe.of_method, layers[shape.centred], key[1])
                plans[key] = (plan, time.perf_counter() - began)
        dense = layers[False].weights
        # Free what planning kept before refits are made.
        layers.clear()
        give_back()
        made: Made = {}
        products: tuple[_Key, tuple[Products, Products], float] | None = None
        for recipe in sorted(self.recipes, key=lambda each: keys[each]):
            key, with_bias = keys[recipe], shapes[recipe].with_bias
            plan, seconds = plans[key]
            plain = MadeLayer(plan, seconds=seconds)
            made[recipe] = plain
            if recipe.of_refit.output is None or len(plan.kept) == plan.n_neurons:
                continue
            began = time.perf_counter()
            if products is None or products[0] != key:
                products = None
                found = (
                    self._run(walked, plain)
                    if plan.groups
                    else kept_products(walked.moments, plan, dense)
                )
                products = (key, found, time.perf_counter() - began)
                began = time.perf_counter()
            start = plain.weights(dense, with_bias=with_bias).output
            output, bias = refit_output(recipe.of_refit, dense, start, products[1], with_bias)
            seconds += products[2] + time.perf_counter() - began
            made[recipe] = MadeLayer(plan, output, bias, seconds)
        return {recipe: made[recipe] for recipe in self.recipes}

    def _run(self, walked: WalkedLayer, plain: MadeLayer) -> tuple[Products, Products]:
        """The products of neurons that the dense model does not have."""
        mlp = mlps_of(self.architecture)[walked.index]
        dense = read_weights(mlp)
        weights = plain.weights(dense, with_bias=False).to(dense.output.device)
        found = RunProducts(mlp, weights)
        for batch, seen in walked.runs():
            found.add(batch, seen["x"], seen["h"])
        return found.both()


def _compares_layers(recipe: Recipe) -> bool:
    """Whether the number of neurons removed from a layer depends on all other layers."""
    return recipe.allocation == "global" and recipe.sparsity > 0
