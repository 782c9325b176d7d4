"""Each head's W_OV and W_QK on the stream, with the norms folded in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from projector.errors import UserError
from projector.model.architecture.stream.attention import HeadWeights
from projector.model.architecture.stream.reading import NormPath, find_norm_paths
from projector.model.architecture.stream.records import Addition
from projector.residual.circuits.factors import Factors
from projector.residual.subject import Subject


@dataclass(frozen=True, eq=False)
class LayerCircuits:
    """The circuits of one layer's heads, from stream to stream.

    The block's norm before attention, and any norm and factor after it, are folded in, except for
    their scales, which vary by token, and biases.

    Attributes:
        layer: index of the block.
        ov: W_OV of A heads, (A, H, d) and (A, d, H) float32.
        qk: W_QK in the same form, with queries on the left; scores are not divided by √d.
        group: for each head, the index of the keys and values it uses.
        left_out: names of terms of the attention that W_QK leaves out.
        weights: the heads' own weights.
        reading: the path from the stream to the heads.
        addition: the path from the heads to the stream.
    """

    layer: int
    ov: Factors
    qk: Factors
    group: tuple[int, ...]
    left_out: tuple[str, ...]
    weights: HeadWeights
    reading: NormPath
    addition: Addition

    @property
    def n_heads(self) -> int:
        return len(self.group)


@dataclass(frozen=True, eq=False)
class Circuits:
    """The circuits of a model's heads.

    Attributes:
        layers: the circuits of each layer with separable heads, in order.
        reasons: layer → reason why its heads can't be separated.
    """

    layers: tuple[LayerCircuits, ...]
    reasons: dict[int, str]

    def layer(self, layer: int) -> LayerCircuits:
        """The circuits of one layer.

        Raises:
            UserError: if its heads can't be separated, with the reason.
        """
        for each in self.layers:
            if each.layer == layer:
                return each
        reason = self.reasons.get(layer, "the model has no such layer")
        raise UserError(f"the heads of layer {layer} can't be found: {reason}")


def find_circuits(subject: Subject, layers: Sequence[int] | None = None) -> Circuits:
    """Find W_OV and W_QK of every head, or of the heads of some layers.

    This stores float32 copies of the attention weights, and costs a few forward passes over a few
    tokens.
    """
    blocks = subject.layout.blocks
    chosen = subject.attentions.keys() if layers is None else layers
    found = {layer: subject.attentions[layer] for layer in chosen}
    reasons = {layer: each for layer, each in found.items() if isinstance(each, str)}
    heads = {layer: each for layer, each in found.items() if not isinstance(each, str)}
    readings = find_norm_paths(
        subject.model, subject.architecture, {layer: each.input for layer, each in heads.items()}
    )
    circuits = []
    for layer, weights in heads.items():
        reading, addition = readings[layer], blocks[layer].attention
        if isinstance(reading, str):
            reasons[layer] = reading
        elif addition is None:
            reasons[layer] = blocks[layer].reason or "its addition to the stream was not found"
        else:
            circuits.append(_circuits_of(weights, reading, addition))
    return Circuits(tuple(circuits), reasons)


@torch.no_grad()
def _circuits_of(weights: HeadWeights, reading: NormPath, addition: Addition) -> LayerCircuits:
    output = weights.o.float().transpose(-1, -2)
    for _, form in addition.norms:
        output = form.apply(output, torch.ones_like(output[..., :1]).to(form.weight))
    output = (output * addition.factor).transpose(-1, -2)
    # All on one device: where norms and matrices are kept apart, on that of the output.
    q, k, v = (reading.fold(each).to(output) for each in (weights.q, weights.k, weights.v))
    at = torch.tensor(weights.group, device=output.device)
    return LayerCircuits(
        layer=weights.layer,
        ov=Factors(output, v[at]),
        qk=Factors(q.transpose(-1, -2), k[at]),
        group=weights.group,
        left_out=weights.left_out,
        weights=weights,
        reading=reading,
        addition=addition,
    )
