"""Find what one MLP neuron reads from the stream and writes to it, from its weights alone.

With a frozen norm scale, a neuron's input is an inner product with the stream: its input weights
times the norm's weight are the direction that it reads. Its output weights, after any norm and
factor behind the MLP, are the direction that it writes. Both are compared with the tokens'
embeddings and unembeddings, and with the directions that neurons of later layers read (Geva et al.
2022, arXiv:2203.14680; Gurnee et al. 2024, arXiv:2401.12181).

Every comparison has a control: the same weights with shuffled coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from projector.errors import SettingError, UserError
from projector.model.architecture.records import Mlp
from projector.model.architecture.stream.reading import NormPath, push
from projector.model.architecture.weights import read_weights
from projector.model.context import input_embedding
from projector.residual.circuits.vocabulary import token_embeddings, unembeddings
from projector.residual.neuron_heads import HeadReaders, find_head_readers
from projector.residual.settings import check_numbers
from projector.residual.subject import Subject

N_TOP, N_SHUFFLES = 10, 20
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class TokenValue:
    """A token and its value for a neuron; see :class:`FavouredTokens`."""

    token: int
    text: str
    value: float


@dataclass(frozen=True)
class FavouredTokens:
    """The tokens that a neuron's weights favour most and least.

    Attributes:
        part: ``input``, ``gate``, ``up`` or ``output``.
        most: largest value first.
        least: smallest value first.
        n_tokens: number of compared tokens.
        shuffled_mean: mean over the shuffles of the largest |value| of any token.
        shuffled_most: maximum over all shuffles.
        n_beyond: number of tokens with a larger |value| than ``shuffled_most``.
    """

    part: str
    most: tuple[TokenValue, ...]
    least: tuple[TokenValue, ...]
    n_tokens: int
    shuffled_mean: float
    shuffled_most: float
    n_beyond: int


@dataclass(frozen=True)
class ReadingInput:
    """An input of a neuron of a later layer, and its cosine with the written direction, which is
    centred if the norm before that layer's MLP centres.
    """

    layer: int
    neuron: int
    part: str
    cosine: float


@dataclass(frozen=True)
class NeuronReaders:
    """The inputs of later neurons that read a neuron's output.

    Attributes:
        strongest: largest |cosine| first.
        n_inputs: number of compared inputs; a gated neuron has two.
        shuffled_mean: mean over the shuffles of the largest |cosine| of any input.
        shuffled_most: maximum over all shuffles.
        n_beyond: number of inputs with a larger |cosine| than ``shuffled_most``.
    """

    strongest: tuple[ReadingInput, ...]
    n_inputs: int
    shuffled_mean: float
    shuffled_most: float
    n_beyond: int


@dataclass(frozen=True)
class NeuronWeights:
    """What a neuron reads and writes.

    Attributes:
        reads: one for each input of the neuron. A value is the cosine of the direction that the
            input reads and the token's embedding, centred if the norm before the MLP centres.
        writes: a value is the contribution of one unit of the neuron's activation to the token's
            logit, minus the mean over all tokens, with the final norm's scale set to 1. None if the
            model has no head for the next token; see ``writes_reason``.
        readers: later neurons that read it; None in the last layer.
        heads: later heads that read it; None if they weren't requested, or no later heads can be
            separated.
        n_shuffles: number of shuffles for each control.
        notes: remarks about parts that were left out.
    """

    layer: int
    neuron: int
    n_neurons: int
    gated: bool
    reads: tuple[FavouredTokens, ...]
    writes: FavouredTokens | None
    writes_reason: str | None
    readers: NeuronReaders | None
    heads: HeadReaders | None
    n_shuffles: int
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return asdict(self)


@torch.no_grad()
def neuron_weights(
    subject: Subject,
    layer: int,
    neuron: int,
    *,
    n_top: int = N_TOP,
    n_shuffles: int = N_SHUFFLES,
    seed: int = 0,
    heads: bool = False,
) -> NeuronWeights:
    """Find what a neuron of a layer's MLP reads and writes.

    This costs products of the vocabulary and of all later input weights with 1 + ``n_shuffles``
    vectors, and no forward pass beyond the embedding.

    Args:
        n_top: number of tokens and later neurons to list.
        n_shuffles: number of shuffles for the controls.
        heads: also find heads of later layers that read it; see :func:`find_head_readers` for the
            cost.

    Raises:
        SettingError: on ``layer``, ``neuron``, ``n_top`` or ``n_shuffles``, if out of range.
        UserError: if the layer has no MLP of its own, as in a mixture of experts, or its path from
            or to the stream was not found.
    """
    check_numbers(layer=layer, neuron=neuron, n_top=n_top, n_shuffles=n_shuffles, seed=seed)
    mlp = _checked(subject, layer, neuron)
    weights = read_weights(mlp)
    generator = torch.Generator().manual_seed(seed)
    reading = subject.reads[layer].mlp
    assert reading is not None
    names = _input_names(len(weights.inputs), mlp.gate)
    favoured = []
    for name, weight in zip(names, weights.inputs, strict=True):
        rows = _with_shuffles(reading.fold(weight[neuron]), n_shuffles, generator)
        favoured.append(_read_tokens(subject, name, rows, reading, n_top))
    written = _written(subject, layer, weights.output[:, neuron].float())
    rows = _with_shuffles(written, n_shuffles, generator)
    writes, reason, notes = _write_tokens(subject, layer, rows, n_top)
    return NeuronWeights(
        layer=layer,
        neuron=neuron,
        n_neurons=mlp.n_neurons,
        gated=len(weights.inputs) == 2,
        reads=tuple(favoured),
        writes=writes,
        writes_reason=reason,
        readers=_find_readers(subject, layer, rows, n_top),
        heads=find_head_readers(subject, layer, rows, n_top) if heads else None,
        n_shuffles=n_shuffles,
        notes=notes,
    )


def neuron(model: Subject | str, layer: int, neuron: int, **options: Any) -> NeuronWeights:
    """Find what a neuron reads and writes, from the weights alone.

    Args:
        model: a model's name, or a subject.
        layer: the layer, from 0.
        neuron: the neuron's index in the layer's MLP, from 0.
        **options: ``n_top``, the number of tokens and later neurons to list; ``n_shuffles``, the
            number of shuffles for the controls; ``seed`` of the shuffles; and ``heads``, True to
            also find heads of later layers that read it.

    Raises:
        SettingError: on ``layer``, ``neuron``, ``n_top`` or ``n_shuffles``, if out of range.
        UserError: if the layer has no MLP of its own, as in a mixture of experts, or its path from
            or to the stream was not found.
    """
    numbers = {name: value for name, value in options.items() if name != "heads"}
    check_numbers(layer=layer, neuron=neuron, **numbers)
    return neuron_weights(Subject.of(model), layer, neuron, **options)


def _checked(subject: Subject, layer: int, neuron: int) -> Mlp:
    """The MLP that has the neuron; raise a UserError where there is none."""
    blocks = subject.architecture.blocks
    if not 0 <= layer < len(blocks):
        raise SettingError(
            "layer", layer, "is not a layer of this model", f"give 0 to {len(blocks) - 1}"
        )
    mlp = blocks[layer].mlp
    if mlp is None:
        reason = blocks[layer].missing.get("mlp_post", "it has no MLP")
        raise UserError(
            f"layer {layer} has no MLP neurons to look at: {reason}", setting="layer", value=layer
        )
    if not 0 <= neuron < mlp.n_neurons:
        raise SettingError(
            "neuron", neuron, f"is not in layer {layer}", f"give 0 to {mlp.n_neurons - 1:,}"
        )
    unknown = subject.reads[layer].reason
    if unknown is not None:
        raise UserError(f"inputs and outputs of layer {layer}'s neurons were not found: {unknown}")
    return mlp


def _input_names(n_inputs: int, gate: int) -> tuple[str, ...]:
    if n_inputs == 1:
        return ("input",)
    return ("gate", "up") if gate == 0 else ("up", "gate")


def _centred(vectors: Tensor, reading: NormPath) -> Tensor:
    """What a norm lets through of vectors of the stream, (…, H): all but their mean, if any."""
    if not any(form.centres for _, form in reading.norms):
        return vectors
    return vectors - vectors.mean(dim=-1, keepdim=True)


def _written(subject: Subject, layer: int, output: Tensor) -> Tensor:
    """(H,) float32: what a unit of activation adds to the stream, each norm's scale taken as 1."""
    addition = subject.layout.blocks[layer].mlp
    assert addition is not None
    added = push(output, tuple(form for _, form in addition.norms)) * addition.factor
    return push(added, subject.reads[layer].behind_mlp)


def _with_shuffles(direction: Tensor, n_shuffles: int, generator: torch.Generator) -> Tensor:
    """(1 + n_shuffles, H): a direction, and the same with its coordinates in random orders."""
    orders = [torch.randperm(len(direction), generator=generator) for _ in range(n_shuffles)]
    return torch.stack([direction, *(direction[order.to(direction.device)] for order in orders)])


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1; rows of nothing stay so."""
    return torch.nn.functional.normalize(rows, dim=-1, eps=1e-30)


def _read_tokens(
    subject: Subject, part: str, rows: Tensor, reading: NormPath, n_top: int
) -> FavouredTokens:
    """Tokens by the cosine between their embedding and what is read; ``rows`` (1 + S, H)."""
    table: Any = input_embedding(subject.model)
    n_tokens = min(table.weight.shape[0], len(subject.loaded.tokenizer))
    directions = _unit(rows)
    found = []
    for chunk in torch.arange(n_tokens).split(_ROWS_AT_ONCE):
        embedded = token_embeddings(subject, chunk.tolist()).to(directions)
        found.append((_unit(_centred(embedded, reading)) @ directions.T).cpu())
    return _favoured(subject, part, torch.cat(found), n_top)


def _write_tokens(
    subject: Subject, layer: int, rows: Tensor, n_top: int
) -> tuple[FavouredTokens | None, str | None, tuple[str, ...]]:
    """Tokens by what a unit of activation adds to their logits; why there are none; notes."""
    try:
        readout = subject.readout
    except UserError as error:
        return None, str(error), ()
    notes: tuple[str, ...] = ()
    for reads in subject.reads[layer + 1 :]:
        rows = push(rows, reads.on_the_way)
    if readout.form is None and readout.norm is not None:
        notes = ("The final norm is not linear even with its scale fixed, so it was left out.",)
    found = []
    # A table of embeddings may have rows to spare, which no token has.
    n_tokens = min(readout.n_vocabulary, len(subject.loaded.tokenizer))
    for chunk in torch.arange(n_tokens).split(_ROWS_AT_ONCE):
        unembedded = unembeddings(subject, chunk.tolist())
        found.append((unembedded @ rows.to(unembedded.device).T).cpu() * readout.scale)
    values = torch.cat(found)
    return _favoured(subject, "output", values - values.mean(dim=0), n_top), None, notes


def _favoured(subject: Subject, part: str, values: Tensor, n_top: int) -> FavouredTokens:
    """The tokens that stand out among ``values`` (V, 1 + S), of which the first column is real."""
    real, shuffled = values[:, 0], values[:, 1:].abs().amax(dim=0)
    n = min(n_top, len(real))
    most, least = real.topk(n), real.topk(n, largest=False)
    pieces = subject.pieces([*most.indices.tolist(), *least.indices.tolist()])

    def tokens(top: Any) -> tuple[TokenValue, ...]:
        found = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return tuple(TokenValue(i, pieces.text(i), value) for i, value in found)

    return FavouredTokens(
        part=part,
        most=tokens(most),
        least=tokens(least),
        n_tokens=len(real),
        shuffled_mean=float(shuffled.mean()),
        shuffled_most=float(shuffled.max()),
        n_beyond=int((real.abs() > shuffled.max()).sum()),
    )


def _later_inputs(subject: Subject, layer: int) -> Iterator[tuple[int, str, Tensor]]:
    """Layer, input and its weights (N, H) of every MLP behind a layer."""
    for k, block in enumerate(subject.architecture.blocks[layer + 1 :], layer + 1):
        if block.mlp is None or subject.reads[k].mlp is None:
            continue
        inputs = read_weights(block.mlp).inputs
        for part, weight in zip(_input_names(len(inputs), block.mlp.gate), inputs, strict=True):
            yield k, part, weight


def _find_readers(subject: Subject, layer: int, rows: Tensor, n_top: int) -> NeuronReaders | None:
    """Inputs of later neurons by their cosine with what is written, ``rows`` (1 + S, H)."""
    directions, at = rows, layer + 1
    largest = torch.zeros(len(rows) - 1)
    cosines: list[Tensor] = []
    best: list[ReadingInput] = []
    for k, part, weight in _later_inputs(subject, layer):
        for between in subject.reads[at:k]:
            directions = push(directions, between.on_the_way)
        at, reads = k, subject.reads[k]
        assert reads.mlp is not None
        units = _unit(_centred(push(directions, reads.before_mlp), reads.mlp))
        found = torch.cat(
            [
                (_unit(reads.mlp.fold(chunk)) @ units.to(chunk.device).T).cpu()
                for chunk in weight.split(_ROWS_AT_ONCE)
            ]
        )
        largest = torch.maximum(largest, found[:, 1:].abs().amax(dim=0))
        cosines.append(found[:, 0])
        top = found[:, 0].abs().topk(min(n_top, len(found))).indices.tolist()
        best += [ReadingInput(k, i, part, float(found[i, 0])) for i in top]
    if not cosines:
        return None
    every = torch.cat(cosines)
    best.sort(key=lambda reader: -abs(reader.cosine))
    return NeuronReaders(
        strongest=tuple(best[:n_top]),
        n_inputs=len(every),
        shuffled_mean=float(largest.mean()),
        shuffled_most=float(largest.max()),
        n_beyond=int((every.abs() > largest.max()).sum()),
    )
