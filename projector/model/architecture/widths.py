"""Find the config setting for a model's MLP width, and whether its MLPs can have biases.

No setting is looked up by name. Each candidate is changed in a copy of the config, the model is
built from it without memory (on PyTorch's ``meta`` device), and the shapes of its weights show
whether it is the right one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from projector.errors import UserError, named
from projector.model.architecture.records import Architecture, Matrix

Shapes = dict[str, tuple[int, ...]]


def config_with_widths(
    model: nn.Module, architecture: Architecture, widths: Sequence[int], *, with_bias: bool = False
) -> Any:
    """Copy the model's config so that the MLP of layer i has ``widths[i]`` neurons.

    Args:
        widths: one width per layer.
        with_bias: whether the MLPs' output projections must have biases.

    Raises:
        UserError: if the config has no setting for such widths or biases.
    """
    expected = _expected_shapes(model, architecture, widths)
    found = next(
        (
            candidate
            for candidate in _with_widths(model.config, architecture, widths)
            if _shapes_of(model, candidate) == expected
        ),
        None,
    )
    if found is None and len(set(widths)) > 1:
        raise UserError(
            f"{type(model).__name__} has one MLP width for all layers in its config, not one "
            f"for each layer: choose {named('allocation', 'uniform')}",
            setting="allocation",
        )
    if found is None:
        raise UserError(
            f"{type(model).__name__} can't be pruned: no setting of its config holds MLPs of "
            f"{widths[0]:,} neurons, so the pruned model could not be loaded again"
        )
    if not with_bias or has_output_bias(architecture):
        return found
    for candidate in _with_switches(found):
        shapes = _shapes_of(model, candidate)
        if shapes is not None and _adds_biases(expected, shapes, architecture):
            return candidate
    raise UserError(
        f"{type(model).__name__} can't store the bias: its config has no setting for a bias of "
        "MLP outputs"
    )


def can_have_bias(model: nn.Module, architecture: Architecture) -> bool:
    """Whether the MLPs' outputs have a bias, or can have one through a config setting."""
    widths = [block.mlp.n_neurons for block in architecture.blocks if block.mlp is not None]
    if len(widths) < len(architecture.blocks):
        return False
    try:
        config_with_widths(model, architecture, widths, with_bias=True)
    except UserError:
        return False
    return True


def has_output_bias(architecture: Architecture) -> bool:
    """Whether every MLP's output projection has a bias."""
    return all(
        block.mlp is not None and getattr(block.mlp.output.module, "bias", None) is not None
        for block in architecture.blocks
    )


def _with_widths(config: Any, architecture: Architecture, widths: Sequence[int]) -> Iterator[Any]:
    """Copies of the config, in each of which another setting is the width."""
    old = [block.mlp.n_neurons for block in architecture.blocks if block.mlp is not None]
    if list(widths) == old:
        yield deepcopy(config)
        return
    is_uniform = len(set(widths)) == 1
    settings = config.to_dict()
    holders = [name for name, value in settings.items() if value == old[0] and _is_int(value)]
    # None stands for a width that follows from another, as GPT-2's n_inner does.
    unset = [name for name, value in settings.items() if value is None]
    lists = [name for name, value in settings.items() if isinstance(value, list) and value == old]
    values: list[Any] = [int(widths[0])] if is_uniform else []
    values.append([int(width) for width in widths])
    for name in (*lists, *holders, *unset):
        for value in values:
            changed = _changed(config, name, value)
            if changed is not None:
                yield changed


def _with_switches(config: Any) -> Iterator[Any]:
    """Copies of the config, in each of which another switch is on."""
    for name, value in config.to_dict().items():
        if value is False:
            changed = _changed(config, name, True)
            if changed is not None:
                yield changed


def _changed(config: Any, name: str, value: Any) -> Any | None:
    """A copy with one setting changed; None if the config does not take it."""
    changed = deepcopy(config)
    try:
        setattr(changed, name, value)
    except Exception:
        # Configs check their values, each by errors of its own.
        return None
    return changed


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shapes_of(model: nn.Module, config: Any) -> Shapes | None:
    """The shapes of the model's weights were it built from ``config``; None if it can't be."""
    try:
        with torch.device("meta"):
            built = type(model)(config)
    except Exception:
        # Of any kind: a setting that is not a width may be checked, or break the model, anyhow.
        return None
    return {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}


def _expected_shapes(model: nn.Module, architecture: Architecture, widths: Sequence[int]) -> Shapes:
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    prefix = trunk_prefix(model, architecture)
    for block, width in zip(architecture.blocks, widths, strict=True):
        if block.mlp is None:
            continue
        for matrix in block.mlp.inputs:
            n_rows = 2 * width if block.mlp.fused else width
            shapes[f"{prefix}{matrix.name}.weight"] = _shape(matrix, matrix.n_inputs, n_rows)
            if getattr(matrix.module, "bias", None) is not None:
                shapes[f"{prefix}{matrix.name}.bias"] = (n_rows,)
        output = block.mlp.output
        shapes[f"{prefix}{output.name}.weight"] = _shape(output, width, output.n_outputs)
    return shapes


def trunk_prefix(model: nn.Module, architecture: Architecture) -> str:
    """The prefix of the model's parameter names that names in the trunk alone lack."""
    first = architecture.blocks[0].module
    name = next(name for name, module in model.named_modules() if module is first)
    return name.removesuffix(architecture.blocks[0].name)


def _shape(matrix: Matrix, n_inputs: int, n_outputs: int) -> tuple[int, int]:
    return (n_outputs, n_inputs) if matrix.input_axis == 1 else (n_inputs, n_outputs)


def _adds_biases(expected: Shapes, shapes: Shapes, architecture: Architecture) -> bool:
    """Whether ``shapes`` are the expected ones, and biases that hold the MLPs' outputs' own."""
    added = {name: shape for name, shape in shapes.items() if name not in expected}
    if any(shapes.get(name) != shape for name, shape in expected.items()):
        return False
    outputs = [block.mlp.output.name for block in architecture.blocks if block.mlp is not None]
    return all(name.endswith(".bias") and len(shape) == 1 for name, shape in added.items()) and all(
        any(name.endswith(f"{output}.bias") for name in added) for output in outputs
    )
