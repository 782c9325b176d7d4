"""Make a pruned copy of a model with refitted weights.

If a layer can have a bias, moments are taken about the mean and the bias absorbs it; otherwise they
are taken about zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from projector.corpus.batches import Batch
from projector.errors import named
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture, Mlp
from projector.model.architecture.weights import MlpWeights, read_weights
from projector.model.architecture.widths import can_have_bias
from projector.model.capture import kept_rows
from projector.progress import Progress, Silent
from pruning.calibration.moments import LayerMoments
from pruning.calibration.text import is_held_out
from pruning.methods.plan import LayerPlan, NotApplicable, PruningPlan
from pruning.refit.products import Products
from pruning.refit.reconstruction import check_reconstructable
from pruning.refit.record import Fit, Refit
from pruning.refit.registry import refit_named
from pruning.refit.streams import DenseStreams
from pruning.surgery import apply_plan


def train(
    model: nn.Module,
    architecture: Architecture,
    plan: PruningPlan,
    kind: str,
    streams: DenseStreams,
    *,
    n_steps: int = 200,
    seed: int = 0,
    shares: bool = False,
    progress: Progress | None = None,
) -> nn.Module:
    """Make a pruned copy of ``model`` and train all its layers.

    Args:
        architecture: architecture of the dense model.
        plan: a plan that removes at least one neuron.
        kind: a refit that trains, from :data:`pruning.refit.registry.REFITS`.
        streams: streams of this model on the calibration text; pruned models can share them.
        n_steps: training steps in each layer.
        seed: seed of the batches that it draws.
        shares: let both models share the memory of all weights but the MLPs'.

    Raises:
        NotApplicable: if an MLP can't be trained by itself.
    """
    record = refit_named(kind)
    assert record.train is not None
    check_reconstructable(architecture)
    with_bias = can_have_bias(model, architecture)
    pruned = apply_plan(model, plan, architecture=architecture, with_bias=with_bias, shares=shares)
    record.train(
        streams,
        pruned,
        find_architecture(pruned),
        n_steps=n_steps,
        seed=seed,
        progress=progress or Silent(),
    )
    return pruned


def check_has_bias(record: Refit, model: nn.Module, architecture: Architecture) -> None:
    """Raise NotApplicable if a refit needs a bias that the model can't have."""
    if record.needs_bias and not can_have_bias(model, architecture):
        raise NotApplicable(
            f"{type(model).__name__} has no place for a bias in its MLPs' outputs: choose "
            f"{named('refit', 'least-squares')}",
            setting="refit",
            value=record.name,
        )


def refit_output(
    record: Refit,
    dense: MlpWeights,
    start: Tensor,
    products: tuple[Products, Products],
    with_bias: bool,
) -> tuple[Tensor, Tensor | None]:
    """Refit the output projection and its bias in closed form, to targets W h plus the dense bias.

    Args:
        dense: the layer's weights before pruning, (H, N).
        start: the cut output projection, (H, K).
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
    """Products of the kept neurons, unchanged, from the layer's moments."""
    output = dense.output.cpu().double()
    kept = layer.kept_index
    # One after the other, because each is made from a whole matrix.
    fit = Products.of_moments(moments.fit, kept, output)
    return fit, Products.of_moments(moments.held_out, kept, output)


class RunProducts:
    """Products of neurons that the dense model doesn't have, from the tensors in its blocks.

    Args:
        mlp: the dense model's MLP.
        weights: weights of the neurons.
    """

    def __init__(self, mlp: Mlp, weights: MlpWeights) -> None:
        self._mlp, self._weights = mlp, weights
        self._totals: dict[bool, Products] = {}

    def add(self, batch: Batch, x: Tensor, h: Tensor) -> None:
        """Add a batch: the MLP's inputs, and its neurons."""
        held_out = is_held_out(batch)
        neurons = self._weights.neurons(self._mlp, x)
        targets = h.float() @ read_weights(self._mlp).output.float().T
        for part in (False, True):
            keep = batch.keep & (held_out == part)[:, None]
            found = Products.of_rows(kept_rows(neurons, keep), kept_rows(targets, keep))
            before = self._totals.get(part)
            self._totals[part] = found if before is None else before.joined(found)

    def both(self) -> tuple[Products, Products]:
        """Products over the tokens of the fit and over the held-out tokens; on the CPU."""
        return self._totals[False].on_cpu(), self._totals[True].on_cpu()
