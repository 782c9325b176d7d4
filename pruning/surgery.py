"""Apply a plan to a model. Only this module changes weights.

A pruned model is built from a config with the plan's widths, and then gets the sliced weights, so
it is the same model that ``from_pretrained`` makes from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from projector.errors import UserError
from projector.memory import is_private
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture, Mlp
from projector.model.architecture.weights import (
    MlpWeights,
    native_tensors,
    read_weights,
    resident,
)
from projector.model.architecture.widths import config_with_widths, has_output_bias, trunk_prefix
from pruning.calibration.mlps import mlps_of
from pruning.methods.plan import LayerPlan, PruningPlan

# Numbers that are rounded together.
_AT_ONCE = 2**20


def apply_plan(
    model: nn.Module,
    plan: PruningPlan,
    *,
    architecture: Architecture | None = None,
    with_bias: bool = False,
    shares: bool = False,
) -> nn.Module:
    """Make a pruned copy of a model; the model itself isn't changed.

    The copy lacks removed neurons' rows of the input matrices, their biases, and their columns of
    the output projection. Columns of neurons with stand-ins are multiplied by the coefficients and
    added to the stand-ins' columns. If nothing is removed, every tensor is bitwise the same.

    Args:
        model: the dense model that the plan was made for.
        plan: the neurons of each layer to keep, and their stand-ins.
        architecture: the model's architecture; None to find it.
        with_bias: give the MLPs' outputs a bias of zeros if they have none, by the config's
            setting.
        shares: let both models share the memory of all weights except the MLPs'.

    Raises:
        UserError: if the plan belongs to another model, or the config can't hold its widths or a
            bias.
    """
    architecture = architecture or find_architecture(model)
    mlps = mlps_of(architecture)
    _check_fits(plan, [mlp.n_neurons for mlp in mlps])
    add_bias = with_bias and not has_output_bias(architecture)
    if plan.changes_nothing and not add_bias:
        return deepcopy(model)
    config = config_with_widths(model, architecture, plan.widths, with_bias=with_bias)
    layers = (
        merged(read_weights(mlp).to("cpu"), layer)
        for mlp, layer in zip(mlps, plan.layers, strict=True)
    )
    return assembled(model, architecture, config, layers, shares=shares)


def assembled(
    model: nn.Module,
    architecture: Architecture,
    config: Any,
    layers: Iterable[MlpWeights],
    *,
    shares: bool = False,
) -> nn.Module:
    """A model with another config, with these weights in its MLPs and the other weights of
    ``model``.

    Args:
        architecture: of ``model``.
        config: see :func:`projector.model.architecture.widths.config_with_widths`.
        layers: MLP weights of each layer, with the config's widths; missing biases are zeros.
        shares: let both models share the memory of all weights except the MLPs'.
    """
    state = dict(model.state_dict())
    prefix = trunk_prefix(model, architecture)
    for mlp, weights in zip(mlps_of(architecture), layers, strict=True):
        for name, tensor in native_tensors(mlp, weights).items():
            state[prefix + name] = tensor.clone() if shares else tensor
    return _filled(model, config, state, shares=shares)


def cut_layer(model: nn.Module, architecture: Architecture, layer: int, new: MlpWeights) -> None:
    """Replace one layer's weights by weights of fewer neurons, and overwrite the old ones.

    The new weights take the memory of the old ones; if weights map a file, other memory would be
    needed in addition. Memory that other tensors of the model share, or that this process doesn't
    own, stays unchanged, and the new weights get other memory.

    The model's config, and the widths in ``architecture``, don't change: :func:`moved` makes a
    model with the new widths.

    Args:
        architecture: of this very model.
        new: weights in their own memory.
    """
    mlp = mlps_of(architecture)[layer]
    matrices = {matrix.name: matrix.module for matrix in (*mlp.inputs, mlp.output)}
    for name, tensor in native_tensors(mlp, new).items():
        matrix, _, kind = name.rpartition(".")
        module = matrices[matrix]
        own, like = getattr(module, kind), module.weight
        assert isinstance(like, Tensor)
        if isinstance(own, nn.Parameter) and _is_free(model, own, tensor):
            fresh = own.detach().view(-1)[: tensor.numel()].view(tensor.shape).copy_(tensor)
        else:
            # A copy, because a view would keep the whole tensor in memory.
            fresh = tensor.to(like.device, like.dtype, copy=True)
        setattr(module, kind, nn.Parameter(fresh, requires_grad=like.requires_grad))


def can_cut_in_place(mlp: Mlp) -> bool:
    """Whether :func:`cut_layer` may overwrite the memory of an MLP's matrices."""
    weights = (resident(matrix.module) for matrix in (*mlp.inputs, mlp.output))
    return all(
        weight is not None and weight.is_contiguous() and is_private(weight) for weight in weights
    )


def _is_free(model: nn.Module, own: Tensor, new: Tensor) -> bool:
    """Whether a tensor's memory may be overwritten by the values of another, and holds them."""
    if not own.is_contiguous() or own.numel() < new.numel() or not is_private(own):
        return False
    begin, end = _span(own)
    others = (*model.parameters(), *model.buffers())
    return not any(
        begin < span[1] and span[0] < end
        for span in (_span(each) for each in others if each is not own and each.numel())
    )


def _span(tensor: Tensor) -> tuple[int, int]:
    """Where its memory begins and ends."""
    storage = tensor.untyped_storage()
    if not tensor.is_contiguous():
        return storage.data_ptr(), storage.data_ptr() + storage.nbytes()
    return tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes


def moved(model: nn.Module, config: Any) -> nn.Module:
    """A model with another config that takes over this model's weights without copying them.

    The given model is left without weights. Missing biases are zeros.

    Args:
        model: a model whose MLPs :func:`cut_layer` has cut to the widths of the config.
        config: see :func:`projector.model.architecture.widths.config_with_widths`.
    """
    built = _filled(model, config, dict(model.state_dict()), shares=True)
    let_go(model)
    return built


def let_go(model: nn.Module) -> None:
    """Free a model's weights; memory that other models share stays."""
    for parameter in model.parameters():
        parameter.data = parameter.data.new_empty(0)


def round_weights(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Round every weight to the nearest value that a checkpoint in ``dtype`` can hold.

    Weights keep their dtype, so that the measured model equals the saved one. None changes nothing.
    Changed weights take other memory, because another model may share the old memory.
    """
    if dtype is None:
        return
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dtype == dtype:
                continue
            # In parts, because a copy of an embedding would be as large as many layers.
            parts = parameter.data.reshape(-1).split(_AT_ONCE)
            if all(torch.equal(part.to(dtype).to(part.dtype), part) for part in parts):
                continue
            rounded = parameter.data.new_empty(parameter.shape)
            for part, into in zip(parts, rounded.view(-1).split(_AT_ONCE), strict=True):
                into.copy_(part.to(dtype))
            parameter.data = rounded


def count_parameters(model: nn.Module) -> int:
    """The number of parameters; tied weights count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def merged(weights: MlpWeights, layer: LayerPlan) -> MlpWeights:
    """The weights of the kept neurons, including those they take over from removed neurons."""
    if len(layer.kept) == layer.n_neurons:
        return weights
    if layer.groups:
        return _averaged(weights, torch.tensor(layer.groups), len(layer.kept))
    kept = weights.take(layer.kept_index)
    if not layer.stand_ins:
        return kept
    place = {j: i for i, j in enumerate(layer.kept)}
    device = weights.output.device
    removed = torch.tensor([each.neuron for each in layer.stand_ins], device=device)
    takers = torch.tensor([place[each.by] for each in layer.stand_ins], device=device)
    coefficients = torch.tensor(
        [each.coefficient for each in layer.stand_ins], dtype=torch.float64, device=device
    )
    # Summed in float64, because bf16 would round many small shares away one by one.
    output = kept.output.double()
    output = output.index_add(1, takers, weights.output.double()[:, removed] * coefficients)
    return MlpWeights(
        kept.inputs, kept.input_biases, output.to(kept.output.dtype), kept.output_bias
    )


def _averaged(weights: MlpWeights, groups: Tensor, n_groups: int) -> MlpWeights:
    """Means of each group's input weights, and sums of its output columns."""
    groups = groups.to(weights.output.device)
    counts = torch.bincount(groups, minlength=n_groups).double()

    def mean(rows: Tensor) -> Tensor:
        total = rows.new_zeros((n_groups, *rows.shape[1:]), dtype=torch.float64)
        total.index_add_(0, groups, rows.double())
        return (total / counts.reshape(-1, *[1] * (rows.ndim - 1))).to(rows.dtype)

    output = weights.output.new_zeros((len(weights.output), n_groups), dtype=torch.float64)
    output.index_add_(1, groups, weights.output.double())
    return MlpWeights(
        tuple(mean(matrix) for matrix in weights.inputs),
        tuple(None if bias is None else mean(bias) for bias in weights.input_biases),
        output.to(weights.output.dtype),
        weights.output_bias,
    )


def write_weights(
    model: nn.Module, architecture: Architecture, layer: int, new: MlpWeights
) -> None:
    """Replace one layer's weights by refitted weights, in place.

    Args:
        architecture: of this very model.
        new: weights with the layer's shapes.
    """
    mlp = mlps_of(architecture)[layer]
    parameters = dict(model.named_parameters(remove_duplicate=False))
    prefix = trunk_prefix(model, architecture)
    with torch.no_grad():
        for name, tensor in native_tensors(mlp, new).items():
            parameters[prefix + name].copy_(tensor)


def _filled(model: nn.Module, config: Any, state: dict[str, Tensor], *, shares: bool) -> nn.Module:
    """The model of a config with these weights; missing biases are zeros."""
    device = next(model.parameters()).device
    # Pages of its weights aren't written yet, so they take no memory until they are filled.
    built = _build(model, config)
    for name, tensor in built.state_dict().items():
        if name not in state:
            state[name] = torch.zeros_like(tensor)
    built.load_state_dict(state, strict=True, assign=shares)
    if shares:
        # Each weight was assigned separately.
        tied: Any = built
        tied.tie_weights()
    return built.to(device).train(model.training)


def _build(model: nn.Module, config: Any) -> nn.Module:
    """Build the model's class from a config, without setting its weights."""
    kind: Any = type(model)
    # Imported here, because many users of this module only write weights: see
    # projector.model.loading.
    from transformers.initialization import no_init_weights

    with no_init_weights():
        built: Any = kind._from_config(config, dtype=next(model.parameters()).dtype)
    # Skipped together with the initialization.
    built.tie_weights()
    for name in ("generation_config", "name_or_path"):
        if hasattr(model, name):
            setattr(built, name, deepcopy(getattr(model, name)))
    module: nn.Module = built
    return module


def _check_fits(plan: PruningPlan, widths: list[int]) -> None:
    theirs = [layer.n_neurons for layer in plan.layers]
    if theirs != widths:
        raise UserError(
            f"the plan is for MLPs of {_widths_text(theirs)} neurons, and this model has "
            f"{_widths_text(widths)}: use the plan of this model"
        )


def _widths_text(widths: list[int]) -> str:
    if len(set(widths)) == 1:
        return f"{len(widths)} × {widths[0]:,}"
    return ", ".join(f"{n:,}" for n in widths)
