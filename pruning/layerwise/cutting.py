"""Carry out one recipe on a model, and cut its weights in place."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from projector.corpus.batches import Corpus
from projector.model.architecture.records import Architecture
from projector.model.architecture.weights import read_weights
from projector.progress import Progress, Silent
from pruning.calibration.mlps import mlps_of
from pruning.calibration.walk import DEFAULT_BATCH
from pruning.layerwise.files import LayerFiles
from pruning.layerwise.making import LayerMaker
from pruning.layerwise.recipes import Recipe
from pruning.methods.method import Proposals
from pruning.methods.plan import LayerPlan, PruningPlan
from pruning.refit.refits import train
from pruning.refit.streams import DenseStreams
from pruning.surgery import cut_layer, let_go, moved


def cut_model(
    model: nn.Module,
    architecture: Architecture,
    corpus: Corpus,
    recipe: Recipe,
    files: LayerFiles,
    *,
    n_steps: int = 200,
    seed: int = 0,
    proposals: Sequence[Proposals] | None = None,
    spilled: bool = False,
    batch_size: int = DEFAULT_BATCH,
    progress: Progress | None = None,
) -> tuple[PruningPlan, nn.Module]:
    """Plan, refit and cut layer by layer; the given model is left without weights.

    If the refit trains, the dense MLPs stay in memory until training ends.

    Args:
        corpus: the calibration text.
        recipe: a checked recipe (:meth:`Recipe.check`).
        files: keeps layers that are made; its folder exists.
        n_steps, seed: of a refit that trains; the seed also of everything random in the plan.
        spilled: keep the streams on disk.

    Raises:
        UserError: see :class:`LayerMaker`.
    """
    progress = progress or Silent()
    maker = LayerMaker(
        model,
        architecture,
        corpus,
        [recipe],
        files,
        seed=seed,
        proposals=proposals,
        spill=files.folder if spilled else None,
        batch_size=batch_size,
        progress=progress,
    )
    shapes = maker.shapes()
    shape = shapes[recipe]
    config = maker.config(shape)
    trains = recipe.of_refit.trains and shape.removes
    plans: list[LayerPlan] = []
    for layer, made in maker.layers(shapes):
        plans.append(made[recipe].plan)
        if not trains:
            dense = read_weights(mlps_of(architecture)[layer])
            new = made[recipe].weights(dense, with_bias=shape.with_bias)
            cut_layer(model, architecture, layer, new)
    plan = PruningPlan(
        recipe.method, recipe.sparsity, seed, recipe.allocation, recipe.round_to, tuple(plans)
    )
    if not trains:
        return plan, moved(model, config)
    progress.begin("Refitting", len(plans) * n_steps, "steps")
    streams = DenseStreams(model, architecture, corpus, batch_size=batch_size, is_shared=False)
    pruned = train(
        model,
        architecture,
        plan,
        recipe.refit,
        streams,
        n_steps=n_steps,
        seed=seed,
        shares=True,
        progress=progress,
    )
    let_go(model)
    return plan, pruned
