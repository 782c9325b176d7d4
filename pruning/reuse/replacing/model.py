"""Build the model that computes less: narrower MLPs, and values passed from layer to layer.

It is a copy that shares the memory of all weights except its MLPs'. Input matrices have rows only
for computed neurons. An output projection that uses partners takes their values from the inputs of
earlier layers' output projections in the same forward pass. No config describes such a model, so it
is measured and not saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from projector.model.architecture.records import Architecture
from projector.model.architecture.weights import MlpWeights, read_weights
from projector.model.architecture.widths import trunk_prefix
from pruning.calibration.mlps import mlps_of
from pruning.reuse.replacing.fitting import FittedLayer, early_written


class PartnerValues:
    """The neurons of each layer that other layers read, in the current forward pass."""

    def __init__(self) -> None:
        self.of: dict[int, Tensor] = {}


class Publishing(nn.Module):
    """An output projection that publishes some of its input neurons.

    Args:
        inner: the wrapped projection.
        published: (n,) int64, which of its input neurons.
    """

    def __init__(
        self, inner: nn.Module, values: PartnerValues, layer: int, published: Tensor
    ) -> None:
        super().__init__()
        self.inner, self._values, self._layer = inner, values, layer
        self.published: Tensor
        self.register_buffer("published", published, persistent=False)

    def forward(self, neurons: Tensor) -> Tensor:
        """(…, K) → (…, H)."""
        self._values.of[self._layer] = neurons.index_select(-1, self.published)
        given: Tensor = self.inner(neurons)
        return given


class Reusing(nn.Module):
    """An output projection that also reads neurons of earlier layers: W h + U v, v = Σ_i a_i p_i.

    Args:
        computed: W with the bias, for the layer's own neurons.
        columns: U, (H, C).
        coefficients: a, (C, k), if k > 1; None if values are those of single partners.
        sources: layers whose published values are read, concatenated in this order.
        order: (C · k,) int64, indices of the partners among these.
    """

    def __init__(
        self,
        computed: nn.Linear,
        columns: Tensor,
        coefficients: Tensor | None,
        values: PartnerValues,
        sources: Sequence[int],
        order: Tensor,
    ) -> None:
        super().__init__()
        self._values, self._sources = values, tuple(sources)
        self.computed = computed
        self.reused = linear(columns, None)
        self.order: Tensor
        self.coefficients: Tensor | None
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("coefficients", coefficients, persistent=False)

    def forward(self, neurons: Tensor) -> Tensor:
        """(…, K) → (…, H)."""
        given: Tensor = self.computed(neurons)
        parts = [self._values.of[layer] for layer in self._sources]
        partners = torch.cat(parts, dim=-1).index_select(-1, self.order)
        if self.coefficients is not None:
            split = partners.reshape(*partners.shape[:-1], *self.coefficients.shape)
            partners = torch.einsum("...ck,ck->...c", split, self.coefficients)
        return given + self.reused(partners)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A module that multiplies by ``weight`` (out, in)."""
    with torch.device("meta"):
        module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    module.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        module.bias = nn.Parameter(bias.contiguous(), requires_grad=False)
    return module


def replaced_model(
    model: nn.Module,
    architecture: Architecture,
    layers: Sequence[FittedLayer | None],
    *,
    writes_early: bool = False,
    stored_dtype: torch.dtype | None = None,
) -> nn.Module:
    """A copy of the model with fitted layers.

    Args:
        architecture: architecture of ``model``.
        layers: None for a layer that stays dense; if all do, the copy is identical.
        writes_early: partners write for neurons of later layers in their own layers, by the fitted
            columns, which the later layers then lack.
        stored_dtype: new weights are rounded to what a checkpoint of this type can hold.
    """
    copy = _sharing(model)
    values = PartnerValues()
    read = {} if writes_early else _read_neurons(layers)
    prefix = trunk_prefix(model, architecture)
    for layer, mlp in enumerate(mlps_of(architecture)):
        fitted, published = layers[layer], read.get(layer)
        extra = early_written(layers, layer, mlp.n_neurons) if writes_early else None
        if fitted is None and extra is None and published is None:
            continue
        name = f"{prefix}{mlp.output.name}"
        output = copy.get_submodule(name)
        if fitted is not None or extra is not None:
            dense = read_weights(mlp)
            weights = _weights(dense, fitted, extra)
            rounded = _rounded(weights, stored_dtype).to(dense.output.device)
            inputs = rounded.inputs, rounded.input_biases
            if mlp.fused:
                biases = [bias for bias in inputs[1] if bias is not None]
                inputs = (torch.cat(inputs[0]),), (torch.cat(biases) if biases else None,)
            for matrix, weight, bias in zip(mlp.inputs, *inputs, strict=True):
                copy.set_submodule(f"{prefix}{matrix.name}", linear(weight, bias))
            output = linear(rounded.output, rounded.output_bias)
            if fitted is not None and fitted.choice.n_columns and not writes_early:
                output = _reusing(output, fitted, values, read, stored_dtype)
        if published is not None:
            kept = torch.arange(mlp.n_neurons) if fitted is None else fitted.choice.kept
            place = torch.searchsorted(kept, published)
            device = next(output.parameters()).device
            output = Publishing(output, values, layer, place.to(device))
        copy.set_submodule(name, output)
    return copy.train(model.training)


def _sharing(model: nn.Module) -> nn.Module:
    """A copy that shares all parameters and buffers."""
    own = (*model.parameters(), *model.buffers())
    return deepcopy(model, {id(tensor): tensor for tensor in own})


def _read_neurons(layers: Sequence[FittedLayer | None]) -> dict[int, Tensor]:
    """The neurons of each layer that later layers read, (n,) int64, ascending."""
    found: dict[int, list[Tensor]] = {}
    for layer in layers:
        if layer is not None:
            choice = layer.choice
            for i in choice.partner_layer.unique().tolist():
                own = choice.partner_neuron[choice.partner_layer == i]
                found.setdefault(i, []).append(own)
    return {i: torch.cat(parts).unique() for i, parts in found.items()}


def _weights(dense: MlpWeights, fitted: FittedLayer | None, extra: Tensor | None) -> MlpWeights:
    """Weights of the computed neurons, on the CPU."""
    dense = dense.to("cpu")
    weights, output, bias = dense, dense.output, dense.output_bias
    kept = torch.arange(dense.n_neurons)
    if fitted is not None:
        kept = fitted.choice.kept
        weights, output, bias = dense.take(kept), fitted.output, fitted.bias
    if extra is not None:
        output = (output.double() + extra[:, kept]).to(output.dtype)
    return MlpWeights(weights.inputs, weights.input_biases, output, bias)


def _reusing(
    computed: nn.Linear,
    fitted: FittedLayer,
    values: PartnerValues,
    read: Mapping[int, Tensor],
    stored_dtype: torch.dtype | None,
) -> Reusing:
    choice, device = fitted.choice, computed.weight.device
    sources = choice.partner_layer.unique().tolist()
    order = torch.zeros_like(choice.partner_neuron)
    begin = 0
    for i in sources:
        here = choice.partner_layer == i
        order[here] = begin + torch.searchsorted(read[i], choice.partner_neuron[here])
        begin += len(read[i])
    columns, coefficients = fitted.columns, fitted.values.coefficients.to(fitted.columns.dtype)
    if choice.n_partners == 1:
        # The factor of a single partner is multiplied into its column.
        columns = (columns.double() * fitted.values.coefficients[:, 0]).to(columns.dtype)
    return Reusing(
        computed,
        _as_stored(columns, stored_dtype).to(device),
        coefficients.to(device) if choice.n_partners > 1 else None,
        values,
        sources,
        order.flatten().to(device),
    )


def _rounded(weights: MlpWeights, stored_dtype: torch.dtype | None) -> MlpWeights:
    bias = weights.output_bias
    return MlpWeights(
        weights.inputs,
        weights.input_biases,
        _as_stored(weights.output, stored_dtype),
        None if bias is None else _as_stored(bias, stored_dtype),
    )


def _as_stored(tensor: Tensor, stored_dtype: torch.dtype | None) -> Tensor:
    return tensor if stored_dtype is None else tensor.to(stored_dtype).to(tensor.dtype)
