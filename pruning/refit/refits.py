"""A pruned copy of a model, the weights that stay refitted.

Where a layer can have a bias, moments are taken about the mean and the bias absorbs it; elsewhere
they are taken about zero.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from projector.corpus.batches import Batch
from projector.errors import named
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture, Mlp
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
    shares: bool = False,
    progress: Progress | None = None,
) -> nn.Module:
    """A pruned copy of ``model``, refitted.

    Args:
        architecture: of the dense model.
        kind: one of :data:`pruning.refit.registry.REFITS`.
        n_steps: of a refit that trains, in each layer.
        seed: of the batches that it draws.
        streams: of this model and calibration, where several pruned models share them.
        shares: let both models share the memory of all weights but the MLPs'.

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
        return apply_plan(model, plan, architecture=architecture, shares=shares)
    if record.needs_regular_moments:
        check_enough(calibration, plan.widths)
    pruned = apply_plan(model, plan, architecture=architecture, with_bias=with_bias, shares=shares)
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
        found = (
            products[layer]
            if products is not None
            else kept_products(calibration.layers[layer], plan.layers[layer], dense)
        )
        output, bias = refit_output(record, dense, weights.output, found, with_bias)
        new = replace(weights, output=output, output_bias=bias)
        write_weights(pruned, inner, layer, new)
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


def refit_output(
    record: Refit,
    dense: MlpWeights,
    start: Tensor,
    products: tuple[Products, Products],
    with_bias: bool,
) -> tuple[Tensor, Tensor | None]:
    """The output projection and its bias, in closed form; targets are W h, the dense bias added.

    Args:
        dense: the layer's weights before anything went, (H, N).
        start: the output projection as it was cut, (H, K).
        products: over the tokens of the fit, and over the held-out ones.
        with_bias: whether the output has a bias.

    Returns:
        (H, K) and (H,) of the type and on the device of ``start``.
    """
    assert record.output is not None
    output, shift = record.output(Fit(*products, start.cpu().double(), with_bias))
    bias = torch.zeros(len(output), dtype=output.dtype) if shift is None else shift
    if dense.output_bias is not None:
        bias = bias + dense.output_bias.cpu().double()
    has_bias = with_bias or dense.output_bias is not None
    return output.to(start), bias.to(start) if has_bias else None


def kept_products(
    moments: LayerMoments, layer: LayerPlan, dense: MlpWeights
) -> tuple[Products, Products]:
    """Of the neurons that stay, as they are: from the layer's moments."""
    output = dense.output.cpu().double()
    kept = layer.kept_index
    # One after the other: each is made from a whole matrix.
    fit = Products.of_moments(moments.fit, kept, output)
    return fit, Products.of_moments(moments.held_out, kept, output)


class RunProducts:
    """Of neurons that the dense model does not have: from what passes in its blocks.

    Args:
        mlp: of the dense model.
        weights: the neurons' own.
    """

    def __init__(self, mlp: Mlp, weights: MlpWeights) -> None:
        self._mlp, self._weights = mlp, weights
        self._totals: dict[bool, Products] = {}

    def add(self, batch: Batch, x: Tensor, h: Tensor) -> None:
        """Add a batch: what the MLP reads, and its own neurons."""
        held_out = is_held_out(batch)
        neurons = self._weights.neurons(self._mlp, x)
        targets = h.float() @ read_weights(self._mlp).output.float().T
        for part in (False, True):
            keep = batch.keep & (held_out == part)[:, None]
            found = Products.of_rows(kept_rows(neurons, keep), kept_rows(targets, keep))
            before = self._totals.get(part)
            self._totals[part] = found if before is None else before.joined(found)

    def both(self) -> tuple[Products, Products]:
        """Over the tokens of the fit, and over the held-out ones; on the CPU."""
        return self._totals[False].on_cpu(), self._totals[True].on_cpu()


def _run_products(
    model: nn.Module, architecture: Architecture, pruned: Architecture, calibration: Calibration
) -> list[tuple[Products, Products]]:
    """The products of neurons that the dense model does not have: one more pass over the text."""
    mlps = mlps_of(architecture)
    new = [
        RunProducts(*pair) for pair in zip(mlps, map(read_weights, mlps_of(pruned)), strict=True)
    ]
    taps: dict[tuple[int, str], Tap] = {}
    for layer, mlp in enumerate(mlps):
        taps[layer, "x"] = Tap(mlp.inputs[0].module, "input")
        taps[layer, "h"] = Tap(mlp.output.module, "input")
    trunk = getattr(model, "base_model", model)
    for batch in calibration.batches():
        read: dict[int, Tensor] = {}

        def count(
            key: tuple[int, str],
            tensor: Tensor,
            batch: Batch = batch,
            read: dict[int, Tensor] = read,
        ) -> None:
            layer, what = key
            if what == "x":
                # Copied: the model may go on to change it in place.
                read[layer] = tensor.clone()
                return
            new[layer].add(batch, read.pop(layer), tensor)

        run_batch(trunk, batch, count, taps)
    return [each.both() for each in new]
