"""Plans and refits in closed form, made of each layer while its moments are in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from projector.corpus.batches import Corpus
from projector.memory import give_back
from projector.model.architecture.records import Architecture
from projector.model.architecture.weights import read_weights
from projector.progress import Progress, Silent
from pruning.calibration.mlps import mlps_of
from pruning.calibration.walk import DEFAULT_BATCH, Walk, WalkedLayer
from pruning.layerwise.files import LayerFiles
from pruning.layerwise.recipes import MadeLayer, Recipe, Shape
from pruning.methods.method import Layer, Method, Proposals
from pruning.methods.plan import LayerPlan
from pruning.methods.planning import costs_of, global_widths, plan_layer
from pruning.refit.products import Products
from pruning.refit.refits import RunProducts, kept_products, refit_output

Made = dict[Recipe, MadeLayer]


class LayerMaker:
    """Makes what recipes ask of each layer, of one seed's calibration text.

    What recipes share is made once: an elimination, a plan, the products that refits are made from.

    Args:
        recipes: each of which has been checked (:meth:`Recipe.check`).
        seed: of everything random in a plan.
        proposals: of each layer, who may stand in for whom; for methods that read a projection.
        files: where layers that are made are kept, and found again.
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

    def shapes(self) -> dict[Recipe, Shape]:
        """How each recipe cuts the model.

        Recipes of allocation ``global`` take a walk of their own, for the costs of all layers.

        Raises:
            UserError: if no config of this model holds such widths.
        """
        own = [mlp.n_neurons for mlp in mlps_of(self.architecture)]
        shapes = {
            recipe: Shape.of(self.model, self.architecture, recipe, recipe.uniform_widths(own))
            for recipe in self.recipes
        }
        wanted = [r for r in self.recipes if r.allocation == "global" and r.sparsity > 0]
        if wanted:
            costs = self._costs({(r.method, shapes[r].centred): r.of_method for r in wanted})
            for recipe in wanted:
                of_layers = costs[recipe.method, shapes[recipe].centred]
                widths = global_widths(of_layers, recipe.sparsity, recipe.round_to)
                shapes[recipe] = Shape.of(self.model, self.architecture, recipe, widths)
        for shape in shapes.values():
            shape.config(self.model, self.architecture)
        return shapes

    def layers(self, shapes: Mapping[Recipe, Shape]) -> Iterator[tuple[int, Made]]:
        """Every layer as it has been made, in order; those that were found among the files too.

        Once a layer is given its weights may be changed, for the text has passed it.

        Raises:
            UserError: if a layer's moments are not finite, or the disk is full or forbidden.
        """
        n_layers = len(self.architecture.blocks)
        missing = [layer for layer in range(n_layers) if not self.files.has(layer)]
        refits = any(recipe.of_refit.output and shape.removes for recipe, shape in shapes.items())
        stage = "Planning and refitting" if refits else "Planning"
        given = 0
        for walked in self._walk(missing, stage):
            index = walked.index
            # Those before it that are made already: the text has passed them too.
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

    def _costs(
        self, methods: Mapping[tuple[str, bool], Method]
    ) -> dict[tuple[str, bool], list[Tensor]]:
        """What removals cost, by method and whether centred, of every layer."""
        n_layers = len(self.architecture.blocks)
        missing = [layer for layer in range(n_layers) if not self.files.has_costs(layer)]
        for walked in self._walk(missing, "Comparing layers"):
            # Those that eliminate share their eliminations.
            layers = {centred: self._layer(walked, centred) for _, centred in methods}
            found = {key: costs_of(method, layers[key[1]]) for key, method in methods.items()}
            self.files.write_costs(walked.index, found)
            del walked, layers
            give_back()
        every = [self.files.read_costs(layer) for layer in range(n_layers)]
        return {key: [costs[key] for costs in every] for key in methods}

    def _make(self, walked: WalkedLayer, shapes: Mapping[Recipe, Shape]) -> Made:
        layers = {centred: self._layer(walked, centred) for centred in (False, True)}
        plans: dict[tuple[str, int, bool], LayerPlan] = {}
        products: dict[tuple[str, int, bool], tuple[Products, Products]] = {}
        made: Made = {}
        dense = layers[False].weights
        # Most sparse first, for removals are nested and found once.
        for recipe in sorted(self.recipes, key=lambda each: -each.sparsity):
            shape = shapes[recipe]
            key = (recipe.method, shape.widths[walked.index], shape.centred)
            if key not in plans:
                plans[key] = plan_layer(recipe.of_method, layers[shape.centred], key[1])
            made[recipe] = MadeLayer(plans[key])
        # Nothing that planning has kept is in memory while refits are made.
        layers.clear()
        give_back()
        for recipe, plain in made.items():
            shape, plan = shapes[recipe], plain.plan
            if recipe.of_refit.output is None or len(plan.kept) == plan.n_neurons:
                continue
            start = plain.weights(dense, with_bias=shape.with_bias)
            key = (recipe.method, len(plan.kept), shape.centred)
            if key not in products:
                # Of one plan at a time, whose refits stand together.
                products.clear()
                products[key] = (
                    self._run(walked, plain)
                    if plan.groups
                    else kept_products(walked.moments, plan, dense)
                )
            output, bias = refit_output(
                recipe.of_refit, dense, start.output, products[key], shape.with_bias
            )
            made[recipe] = MadeLayer(plan, output, bias)
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
