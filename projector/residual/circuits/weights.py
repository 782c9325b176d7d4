"""Each head's W_OV and W_QK on the stream, with the norms on the way folded into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from projector.errors import UserError
from projector.model.architecture.stream.attention import HeadWeights
from projector.model.architecture.stream.reading import Reading, find_readings
from projector.model.architecture.stream.records import Addition
from projector.residual.circuits.factors import Factors
from projector.residual.circuits.pairs import TopPairs, ov_pairs, qk_pairs
from projector.residual.circuits.vocabulary import (
    token_embeddings,
    token_ids,
    unembeddings,
)
from projector.residual.subject import Subject


@dataclass(frozen=True, eq=False)
class LayerCircuits:
    """The circuits of one layer's heads, from stream to stream.

    The block's norm before attention, and any norm and factor behind it, are folded in: all but
    their scales, which vary by token, and biases.

    Attributes:
        layer: number of the block.
        ov: W_OV of A heads, (A, H, d) and (A, d, H) float32.
        qk: W_QK likewise, queries on the left; scores are not divided by √d.
        group: for each head, which keys and values it uses.
        left_out: what else shapes its attention, which W_QK leaves out.
        weights: the heads' own weights.
        reading: the way from the stream to them.
        addition: the way from them to the stream.
    """

    layer: int
    ov: Factors
    qk: Factors
    group: tuple[int, ...]
    left_out: tuple[str, ...]
    weights: HeadWeights
    reading: Reading
    addition: Addition

    @property
    def n_heads(self) -> int:
        return len(self.group)


@dataclass(frozen=True, eq=False)
class Circuits:
    """The circuits of a model's heads.

    Attributes:
        layers: of each layer whose heads could be taken apart, in order.
        reasons: layer → why its heads could not.
    """

    layers: tuple[LayerCircuits, ...]
    reasons: dict[int, str]

    def layer(self, layer: int) -> LayerCircuits:
        """The circuits of one layer.

        Raises:
            UserError: if its heads could not be taken apart, with the reason.
        """
        for each in self.layers:
            if each.layer == layer:
                return each
        reason = self.reasons.get(layer, "the model has no such layer")
        raise UserError(f"the heads of layer {layer} can't be taken apart: {reason}")


def find_circuits(subject: Subject, layers: Sequence[int] | None = None) -> Circuits:
    """W_OV and W_QK of every head, or of the heads of some layers.

    Holds float32 copies of the attention's weights. Costs a few forward passes over some tokens.
    """
    blocks = subject.layout.blocks
    chosen = subject.attentions.keys() if layers is None else layers
    found = {layer: subject.attentions[layer] for layer in chosen}
    reasons = {layer: each for layer, each in found.items() if isinstance(each, str)}
    heads = {layer: each for layer, each in found.items() if not isinstance(each, str)}
    readings = find_readings(
        subject.model, subject.architecture, {layer: each.input for layer, each in heads.items()}
    )
    circuits = []
    for layer, weights in heads.items():
        reading, addition = readings[layer], blocks[layer].attention
        if isinstance(reading, str):
            reasons[layer] = reading
        elif addition is None:
            reasons[layer] = blocks[layer].reason or "nothing that it adds to the stream was found"
        else:
            circuits.append(_circuits_of(weights, reading, addition))
    return Circuits(tuple(circuits), reasons)


@torch.no_grad()
def _circuits_of(weights: HeadWeights, reading: Reading, addition: Addition) -> LayerCircuits:
    group = torch.tensor(weights.group)
    q, k, v = (reading.fold(each) for each in (weights.q, weights.k, weights.v))
    output = weights.o.float().transpose(-1, -2)
    for _, form in addition.norms:
        output = form.apply(output, torch.ones_like(output[..., :1]))
    output = (output * addition.factor).transpose(-1, -2)
    at = group.to(k.device)
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


@dataclass(frozen=True, eq=False)
class HeadPairs:
    """What a head joins by its weights, in token ids.

    Attributes:
        layer, head: which.
        ov: source token → tokens whose logits rise.
        qk: query token → tokens that are attended to.
        n_tokens: how many tokens were tried, on either side; the first ones.
        n_vocabulary: how many there are, control tokens left out.
        left_out: what else shapes attention.
    """

    layer: int
    head: int
    ov: TopPairs
    qk: TopPairs
    n_tokens: int
    n_vocabulary: int
    left_out: tuple[str, ...]


def find_pairs(
    subject: Subject,
    circuits: LayerCircuits,
    heads: Sequence[int] | None = None,
    *,
    most_tokens: int | None = None,
    n_pairs: int = 10,
    n_to: int = 5,
) -> list[HeadPairs]:
    """The pairs of tokens that heads of a layer join most strongly, by their weights alone.

    The head reads each token's embedding alone, through its norm with that token's own scale: what
    it would read if nothing stood between them. For heads of the first layer of a model without
    position embeddings that is what they read; for later ones it is a path among many.

    Args:
        heads: which; all of the layer by default.
        most_tokens: how many tokens of the vocabulary to try, the first ones; None for all. Each
            head costs 8·n²·d products for n tokens.

    Raises:
        UserError: if the model has no causal head.
    """
    known = token_ids(subject)
    ids = known[:most_tokens]
    read = circuits.reading.scaled(token_embeddings(subject, ids))
    rows = unembeddings(subject, ids)
    found = []
    for head in range(circuits.n_heads) if heads is None else heads:
        ov = ov_pairs(circuits.ov[head], read, rows, n_pairs=n_pairs, n_to=n_to)
        qk = qk_pairs(circuits.qk[head], read, n_pairs=n_pairs, n_to=n_to)
        found.append(
            HeadPairs(
                layer=circuits.layer,
                head=head,
                ov=ov.with_ids(ids),
                qk=qk.with_ids(ids),
                n_tokens=len(ids),
                n_vocabulary=len(known),
                left_out=circuits.left_out,
            )
        )
    return found
