"""An MLP's weights in one common form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from projector.model.architecture.records import Matrix, Mlp


def resident(module: nn.Module, name: str = "weight") -> Tensor | None:
    """A parameter or buffer of the module itself, detached; None if it has none of this name.

    If Accelerate has offloaded it, the module holds an empty tensor between calls. In that case
    this reads the offloaded tensor, on the device where it is stored.
    """
    tensor = getattr(module, name, None)
    if not isinstance(tensor, Tensor):
        return None
    if tensor.is_meta:
        hook: Any = getattr(module, "_hf_hook", None)
        for each in getattr(hook, "hooks", [hook]):
            kept = getattr(each, "weights_map", None)
            if kept is not None:
                found: Tensor = kept[name].detach()
                return found.to(tensor.dtype)
    return tensor.detach()


def resident_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and :func:`resident` tensor of each parameter and buffer in a module."""
    for prefix, each in module.named_modules():
        for name in (*each._parameters, *each._buffers):
            tensor = resident(each, name)
            if tensor is not None:
                yield f"{prefix}.{name}" if prefix else name, tensor


def is_offloaded(module: nn.Module) -> bool:
    """Whether Accelerate offloads a module, or one inside it, between calls."""
    return any(parameter.is_meta for parameter in module.parameters())


@contextmanager
def replaceable(module: nn.Module) -> Iterator[None]:
    """Let ``functional_call`` replace the tensors of an offloaded module in this context, by
    keeping Accelerate from restoring its own.
    """
    with ExitStack() as stack:
        for each in module.modules() if is_offloaded(module) else ():
            own: Any = getattr(each, "_old_forward", None)
            if own is not None:
                stack.callback(setattr, each, "forward", each.forward)
                each.forward = own
        yield


@dataclass(frozen=True)
class MlpWeights:
    """The weights around N neurons of an MLP between H-wide streams.

    Attributes:
        inputs: one (N, H) matrix for each input; gate and up are separate even if the model fuses
            them.
        input_biases: (N,) each, or None.
        output: (H, N).
        output_bias: (H,), or None.
    """

    inputs: tuple[Tensor, ...]
    input_biases: tuple[Tensor | None, ...]
    output: Tensor
    output_bias: Tensor | None

    @property
    def n_neurons(self) -> int:
        return self.output.shape[1]

    def take(self, kept: Tensor) -> MlpWeights:
        """The weights of some neurons, (K,) int64."""
        kept = kept.to(self.output.device)
        return MlpWeights(
            tuple(weight[kept] for weight in self.inputs),
            tuple(None if bias is None else bias[kept] for bias in self.input_biases),
            self.output[:, kept],
            self.output_bias,
        )

    def to(self, *args: Any) -> MlpWeights:
        """Convert every tensor to a device or dtype."""
        return MlpWeights(
            tuple(weight.to(*args) for weight in self.inputs),
            tuple(None if bias is None else bias.to(*args) for bias in self.input_biases),
            self.output.to(*args),
            None if self.output_bias is None else self.output_bias.to(*args),
        )

    def neurons(self, mlp: Mlp, x: Tensor) -> Tensor:
        """The neurons' activations, (…, N), for an MLP input ``x`` (…, H)."""
        return mlp.neurons(
            [
                torch.nn.functional.linear(x, weight, bias)
                for weight, bias in zip(self.inputs, self.input_biases, strict=True)
            ]
        )

    def apply(self, mlp: Mlp, x: Tensor) -> Tensor:
        """The output of the MLP's output projection, (…, H)."""
        return torch.nn.functional.linear(self.neurons(mlp, x), self.output, self.output_bias)


def read_weights(mlp: Mlp) -> MlpWeights:
    """Read the MLP's weights, as views of the model's own where possible."""
    inputs = [_by_output(matrix) for matrix in mlp.inputs]
    biases = [_bias(matrix) for matrix in mlp.inputs]
    if mlp.fused:
        inputs = list(inputs[0].chunk(2))
        biases = [None, None] if biases[0] is None else list(biases[0].chunk(2))
    return MlpWeights(tuple(inputs), tuple(biases), _by_output(mlp.output), _bias(mlp.output))


def native_tensors(mlp: Mlp, weights: MlpWeights) -> dict[str, Tensor]:
    """Map parameter names of the MLP's matrices to tensors in the model's own layout."""
    inputs, biases = list(weights.inputs), list(weights.input_biases)
    if mlp.fused:
        inputs = [torch.cat(inputs)]
        both = [bias for bias in biases if bias is not None]
        biases = [torch.cat(both) if both else None]
    tensors: dict[str, Tensor] = {}
    for matrix, weight, bias in zip(
        (*mlp.inputs, mlp.output),
        (*inputs, weights.output),
        (*biases, weights.output_bias),
        strict=True,
    ):
        laid_out = weight if matrix.input_axis == 1 else weight.T
        tensors[f"{matrix.name}.weight"] = laid_out.contiguous()
        if bias is not None:
            tensors[f"{matrix.name}.bias"] = bias.contiguous()
    return tensors


def _by_output(matrix: Matrix) -> Tensor:
    """The weight as (outputs, inputs)."""
    weight = resident(matrix.module)
    assert weight is not None  # what makes it a matrix
    return weight if matrix.input_axis == 1 else weight.T


def _bias(matrix: Matrix) -> Tensor | None:
    return resident(matrix.module, "bias")
