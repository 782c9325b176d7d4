"""A pruned copy of a model, the weights that stay refitted.

Where a layer can have a bias, moments are taken about the mean and the bias absorbs it; elsewhere
they are taken about zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from projector.errors import named
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture
from projector.model.architecture.weights import MlpWeights, read_weights
from projector.model.architecture.widths import can_have_bias
from projector.model.capture import Tap, kept_rows
from projector.progress import Progress, Silent
from pruning.calibration.gathering import Calibration, check_enough, run_batch
from pruning.calibration.mlps import mlps_of
from pruning.calibration.moments import LayerMoments
from pruning.calibration.text import is_held_out
from pruning.methods.plan import LayerPlan, NotApplicable, PruningPlan
from pruning.methods.planning import Planner
from pruning.refit.products import Products
from pruning.refit.reconstruction import check_reconstructable
from pruning.refit.record import Fit, Refit
from pruning.refit.registry import refit_named
from pruning.refit.streams import DenseStreams
from pruning.surgery import apply_plan, write_weights


def refit(
    model: nn.Module,
    architecture: Architecture,
    plan: PruningPlan,
    kind: str,
    calibration: Calibration,
    *,
    n_steps: int = 200,
    seed: int = 0,
    streams: DenseStreams | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """A pruned copy of ``model``, refitted.

    Args:
        architecture: of the dense model.
        kind: one of :data:`pruning.refit.registry.REFITS`.
        n_steps: of a refit that trains, in each layer.
        seed: of the batches that it draws.
        streams: of this model and calibration, where several pruned models share them.

    Raises:
        NotApplicable: if the architecture has no place for such a refit.
        UserError: if the calibration text is too short for it.
    """
    progress = progress or Silent()
    record = refit_named(kind)
    mlps = mlps_of(architecture)
    with_bias = record.changes_weights and can_have_bias(model, architecture)
    check_has_bias(record, model, architecture)
    averaged = any(layer.groups for layer in plan.layers)
    if record.trains or (averaged and record.changes_weights):
        check_reconstructable(architecture)
    if not record.changes_weights or plan.changes_nothing:
        return apply_plan(model, plan, architecture=architecture)
    if record.needs_regular_moments:
        check_enough(calibration, plan.widths)
    pruned = apply_plan(model, plan, architecture=architecture, with_bias=with_bias)
    inner = find_architecture(pruned)
    if record.train is not None:
        record.train(
            streams or DenseStreams(model, architecture, calibration),
            pruned,
            inner,
            n_steps=n_steps,
            seed=seed,
            progress=progress,
        )
        return pruned
    products = _run_products(model, architecture, inner, calibration) if averaged else None
    for layer, mlp in enumerate(mlps_of(inner)):
        if len(plan.layers[layer].kept) == plan.layers[layer].n_neurons:
            continue
        dense, weights = read_weights(mlps[layer]), read_weights(mlp)
        fit, held_out = (
            products[layer]
            if products is not None
            else _kept_products(calibration.layers[layer], plan.layers[layer], dense)
        )
        write_weights(
            pruned, inner, layer, _fitted(record, dense, weights, fit, held_out, with_bias)
        )
    return pruned


def check_has_bias(record: Refit, model: nn.Module, architecture: Architecture) -> None:
    """Raise NotApplicable if a refit moves a bias that the model has no place for."""
    if record.needs_bias and not can_have_bias(model, architecture):
        raise NotApplicable(
            f"{type(model).__name__} has no place for a bias in its MLPs' outputs: choose "
            f"{named('refit', 'least-squares')}",
            setting="refit",
            value=record.name,
        )


def make_plan(
    planner: Planner, method: str, kind: str, sparsity: float, allocation: str, round_to: int
) -> PruningPlan:
    """The plan for a refit: about the mean where a bias will absorb it, else about zero."""
    return planner.plan(
        method,
        sparsity,
        allocation=allocation,
        round_to=round_to,
        centred=is_centred(planner, kind),
    )


def is_centred(planner: Planner, kind: str) -> bool:
    """Whether a refit's bias will absorb what removed neurons give on average."""
    changes = refit_named(kind).changes_weights
    return changes and can_have_bias(planner.model, planner.architecture)


def _fitted(
    record: Refit,
    dense: MlpWeights,
    weights: MlpWeights,
    fit: Products,
    held_out: Products,
    with_bias: bool,
) -> MlpWeights:
    """In closed form: targets are W h, to which the dense bias is added."""
    assert record.output is not None
    start = weights.output.cpu().double()
    output, shift = record.output(Fit(fit, held_out, start, with_bias))
    bias = torch.zeros(len(output), dtype=output.dtype) if shift is None else shift
    kind_of = weights.output
    if dense.output_bias is not None:
        bias = bias + dense.output_bias.cpu().double()
    return replace(
        weights,
        output=output.to(kind_of),
        output_bias=None if weights.output_bias is None else bias.to(kind_of),
    )


def _kept_products(
    moments: LayerMoments, layer: LayerPlan, dense: MlpWeights
) -> tuple[Products, Products]:
    output = dense.output.cpu().double()
    kept = layer.kept_index
    return (
        Products.of_moments(moments.fit, kept, output),
        Products.of_moments(moments.held_out, kept, output),
    )


def _run_products(
    model: nn.Module, architecture: Architecture, pruned: Architecture, calibration: Calibration
) -> list[tuple[Products, Products]]:
    """The products of neurons that the dense model does not have: one more pass over the text."""
    mlps, new = mlps_of(architecture), [read_weights(mlp) for mlp in mlps_of(pruned)]
    totals: dict[tuple[int, bool], Products] = {}
    taps: dict[tuple[int, str], Tap] = {}
    for layer, mlp in enumerate(mlps):
        taps[layer, "x"] = Tap(mlp.inputs[0].module, "input")
        taps[layer, "h"] = Tap(mlp.output.module, "input")
    trunk = getattr(model, "base_model", model)
    for batch in calibration.batches():
        held_out = is_held_out(batch)
        keeps = {part: batch.keep & (held_out == part)[:, None] for part in (False, True)}
        read: dict[int, Tensor] = {}

        def count(
            key: tuple[int, str],
            tensor: Tensor,
            keeps: Mapping[bool, Tensor] = keeps,
            read: dict[int, Tensor] = read,
        ) -> None:
            layer, what = key
            if what == "x":
                # Copied: the model may go on to change it in place.
                read[layer] = tensor.clone()
                return
            neurons = new[layer].neurons(mlps[layer], read.pop(layer))
            targets = tensor.float() @ read_weights(mlps[layer]).output.float().T
            for part, keep in keeps.items():
                found = Products.of_rows(kept_rows(neurons, keep), kept_rows(targets, keep))
                before = totals.get((layer, part))
                totals[layer, part] = found if before is None else before.joined(found)

        run_batch(trunk, batch, count, taps)
    return [
        (totals[layer, False].on_cpu(), totals[layer, True].on_cpu()) for layer in range(len(mlps))
    ]
