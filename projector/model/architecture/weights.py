"""An MLP's weights in one form, however the model lays them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from projector.model.architecture.records import Matrix, Mlp


@dataclass(frozen=True)
class MlpWeights:
    """The weights around N neurons of an MLP between H-wide streams.

    Attributes:
        inputs: one (N, H) matrix for each input; gate and up apart also where the model has them
            fused.
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
        """Every tensor, on a device or of a type."""
        return MlpWeights(
            tuple(weight.to(*args) for weight in self.inputs),
            tuple(None if bias is None else bias.to(*args) for bias in self.input_biases),
            self.output.to(*args),
            None if self.output_bias is None else self.output_bias.to(*args),
        )

    def neurons(self, mlp: Mlp, x: Tensor) -> Tensor:
        """The neurons' activations, (…, N), where the MLP reads ``x`` (…, H)."""
        return mlp.neurons(
            [
                torch.nn.functional.linear(x, weight, bias)
                for weight, bias in zip(self.inputs, self.input_biases, strict=True)
            ]
        )

    def apply(self, mlp: Mlp, x: Tensor) -> Tensor:
        """What the MLP's output projection gives, (…, H)."""
        return torch.nn.functional.linear(self.neurons(mlp, x), self.output, self.output_bias)


def read_weights(mlp: Mlp) -> MlpWeights:
    """The MLP's weights; views of the model's own wherever that is possible."""
    inputs = [_by_output(matrix) for matrix in mlp.inputs]
    biases = [_bias(matrix) for matrix in mlp.inputs]
    if mlp.fused:
        inputs = list(inputs[0].chunk(2))
        biases = [None, None] if biases[0] is None else list(biases[0].chunk(2))
    return MlpWeights(tuple(inputs), tuple(biases), _by_output(mlp.output), _bias(mlp.output))


def native_tensors(mlp: Mlp, weights: MlpWeights) -> dict[str, Tensor]:
    """Parameter name → tensor as the model lays it out, for the names of the MLP's matrices."""
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
    weight: Any = matrix.module.weight
    detached: Tensor = weight.detach()
    return detached if matrix.input_axis == 1 else detached.T


def _bias(matrix: Matrix) -> Tensor | None:
    bias: Any = getattr(matrix.module, "bias", None)
    return None if bias is None else bias.detach()
