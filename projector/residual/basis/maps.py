"""The linear maps of a model that can be shown: the matrices of its attention and its MLP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from projector.errors import SettingError, UserError
from projector.model.architecture.records import Mlp
from projector.model.architecture.stream.attention import HeadWeights
from projector.model.architecture.weights import read_weights, resident
from projector.model.capture import Tap
from projector.residual.circuits.factors import Factors
from projector.residual.circuits.weights import find_circuits
from projector.residual.subject import Subject

NAMES = ("W_O", "W_V", "W_OV", "MLP in", "MLP gate", "MLP out")
_NO_BIAS = "The bias that the model adds to the result is left out."
STREAM, VALUES, NEURONS = "residual stream", "values of the heads", "neurons of the MLP"


@dataclass(frozen=True)
class MapFact:
    """A map of a layer, without its weights.

    Attributes:
        name: one of :data:`NAMES`.
        n_heads: number of heads that it can be split into; 0 if it can't be split.
        needs_head: whether it exists only for a single head.
        reason: why the layer doesn't have it; None if it has.
    """

    layer: int
    name: str
    n_heads: int
    needs_head: bool
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class LinearMap:
    """y = W x, without biases.

    Attributes:
        head: its head; None for all heads.
        factors: W = ``left @ right``, (M, d) and (d, N) float32; ``right`` is None if W is stored
            as ``left`` (M, N).
        space_in, space_out: names of the spaces of x and y.
        is_one_space: whether x and y are vectors of the same space, with the same coordinates.
        reads: the tap of x.
        columns: (N,) int64, the coordinates at the tap that form x; None for all.
        notes: remarks about parts that the map leaves out.
    """

    layer: int
    name: str
    head: int | None
    left: Tensor
    right: Tensor | None
    space_in: str
    space_out: str
    is_one_space: bool
    reads: Tap
    columns: Tensor | None = None
    notes: tuple[str, ...] = ()

    @property
    def n_inputs(self) -> int:
        return (self.left if self.right is None else self.right).shape[1]

    @property
    def n_outputs(self) -> int:
        return self.left.shape[0]

    @property
    def rank(self) -> int:
        """Upper bound of the rank."""
        return min(self.left.shape) if self.right is None else self.left.shape[1]

    @property
    def title(self) -> str:
        """A title such as "layer 3 · W_O of head 2"."""
        of_head = "" if self.head is None else f" of head {self.head}"
        return f"layer {self.layer} · {self.name}{of_head}"

    def apply(self, x: Tensor) -> Tensor:
        """``W x`` for every row of (n, N) float32: (n, M)."""
        x = x.to(self.left)
        return (x if self.right is None else x @ self.right.T) @ self.left.T

    def squared_norm(self) -> float:
        """‖W‖², the sum of its squared singular values."""
        if self.right is None:
            return float(self.left.double().square().sum())
        return float(Factors(self.left.double(), self.right.double()).norms() ** 2)


def list_maps(subject: Subject, layer: int) -> tuple[MapFact, ...]:
    """List every map of a layer, or the reason why the layer doesn't have it.

    Raises:
        SettingError: on ``layer``.
    """
    check_layer(subject, layer)
    block = subject.architecture.blocks[layer]
    n_heads = subject.layout.blocks[layer].n_heads or 0
    heads = subject.attentions[layer]
    no_heads = heads if isinstance(heads, str) else None
    n_own = 0 if isinstance(heads, str) else heads.n_heads
    no_output = None if block.attention_output else block.missing.get("attn_out", "no attention")
    facts = [
        MapFact(layer, "W_O", n_heads, False, no_output),
        MapFact(layer, "W_V", n_own, False, no_heads),
        MapFact(layer, "W_OV", n_own, True, no_heads or _no_circuit(subject, layer)),
    ]
    no_mlp = None if block.mlp else block.missing.get("mlp_post", "no MLP was found in its blocks")
    both_alike = None if block.mlp is None else _inputs_alike(block.mlp)
    is_gated = block.mlp is not None and len(_inputs_of(block.mlp)) == 2
    no_gate = None if is_gated else "its MLP has a single input matrix, and no gate"
    facts += [
        MapFact(layer, "MLP in", 0, False, no_mlp or both_alike),
        MapFact(layer, "MLP gate", 0, False, no_mlp or no_gate or both_alike),
        MapFact(layer, "MLP out", 0, False, no_mlp),
    ]
    return tuple(facts)


@torch.no_grad()
def read_map(subject: Subject, layer: int, name: str, head: int | None = None) -> LinearMap:
    """Read the weights of a map in float32.

    W_OV maps the stream to the head's addition. The norms before and after are folded into it,
    except for their scales, which vary by token. All other maps are the model's own matrices.

    Args:
        name: one of :data:`NAMES`.
        head: the head of W_O, W_V or W_OV; None for all heads concatenated. W_OV needs a head.

    Raises:
        SettingError: on ``layer``, ``map`` or ``head``.
        UserError: if the layer doesn't have the map, with the reason.
    """
    facts = {fact.name: fact for fact in list_maps(subject, layer)}
    if name not in facts:
        raise SettingError("map", name, "is not a map", f"choose from {', '.join(NAMES)}")
    fact = facts[name]
    if fact.reason is not None:
        raise UserError(
            f"layer {layer} has no map {name}: {fact.reason}", setting="map", value=name
        )
    _check_head(fact, head)
    if name == "W_O":
        return _read_output(subject, layer, head)
    if name in ("W_V", "W_OV"):
        heads = subject.attentions[layer]
        assert not isinstance(heads, str)  # the fact has no reason
        if name == "W_V":
            return _read_values(heads, head)
        assert head is not None  # checked
        return _read_circuit(subject, layer, head)
    mlp = subject.architecture.blocks[layer].mlp
    assert mlp is not None  # the fact has no reason
    return _read_mlp(mlp, layer, name)


def check_layer(subject: Subject, layer: int) -> None:
    """Raise a SettingError on ``layer`` if the model doesn't have it."""
    n_layers = len(subject.architecture.blocks)
    if not 0 <= layer < n_layers:
        raise SettingError(
            "layer", layer, "is not a layer of this model", f"give 0 to {n_layers - 1}"
        )


def check_head(layer: int, head: int, n_heads: int) -> None:
    """Raise a SettingError on ``head`` if the layer doesn't have it."""
    if not 0 <= head < n_heads:
        raise SettingError(
            "head", head, f"is not a head of layer {layer}", f"give 0 to {n_heads - 1}"
        )


def _check_head(fact: MapFact, head: int | None) -> None:
    if head is None:
        if fact.needs_head:
            raise SettingError(
                "head", None, f"is missing, and {fact.name} belongs to one head", "give its number"
            )
        return
    if fact.n_heads == 0:
        raise SettingError("head", head, f"has no effect on {fact.name}", "leave it out")
    check_head(fact.layer, head, fact.n_heads)


def _no_circuit(subject: Subject, layer: int) -> str | None:
    return find_circuits(subject, [layer]).reasons.get(layer)


def _read_output(subject: Subject, layer: int, head: int | None) -> LinearMap:
    matrix = subject.architecture.blocks[layer].attention_output
    assert matrix is not None  # the fact has no reason
    weight = resident(matrix.module)
    assert weight is not None  # what makes it a matrix
    whole = (weight if matrix.input_axis == 1 else weight.T).float()
    columns = None
    if head is not None:
        width = matrix.n_inputs // (subject.layout.blocks[layer].n_heads or 1)
        columns = torch.arange(head * width, (head + 1) * width)
        whole = whole[:, columns.to(whole.device)]
    return LinearMap(
        layer,
        "W_O",
        head,
        whole,
        None,
        VALUES if head is None else "values of the head",
        "output of attention",
        False,
        Tap(matrix.module, "input"),
        columns,
        notes=_without_bias(matrix.module),
    )


def _read_values(heads: HeadWeights, head: int | None) -> LinearMap:
    weight = heads.v.flatten(0, 1) if head is None else heads.v[heads.group[head]]
    space = VALUES if head is None else "values of the head"
    return LinearMap(
        heads.layer,
        "W_V",
        head,
        weight.float(),
        None,
        "input of attention",
        space,
        False,
        heads.input,
        notes=_without_bias(heads.v_rows.matrix.module),
    )


def _read_circuit(subject: Subject, layer: int, head: int) -> LinearMap:
    circuit = find_circuits(subject, [layer]).layer(layer)
    ov = circuit.ov[head]
    return LinearMap(
        layer,
        "W_OV",
        head,
        ov.left,
        ov.right,
        STREAM,
        STREAM,
        True,
        circuit.reading.stream,
        notes=(
            "The norms on the way are folded into W_OV. Their scale, one number per token, and all "
            "biases are left out.",
        )
        if circuit.reading.norms or circuit.addition.norms
        else (),
    )


def _read_mlp(mlp: Mlp, layer: int, name: str) -> LinearMap:
    weights = read_weights(mlp)
    if name == "MLP out":
        tap = Tap(mlp.output.module, "input")
        output = weights.output.float()
        notes = _without_bias(mlp.output.module)
        space = "output of the MLP"
        return LinearMap(layer, name, None, output, None, NEURONS, space, False, tap, notes=notes)
    inputs = _inputs_of(mlp)
    at = mlp.gate if name == "MLP gate" or len(inputs) == 1 else 1 - mlp.gate
    tap = Tap(mlp.inputs[0].module, "input")
    return LinearMap(
        layer,
        name,
        None,
        weights.inputs[at].float(),
        None,
        "input of the MLP",
        NEURONS,
        False,
        tap,
        notes=() if weights.input_biases[at] is None else (_NO_BIAS,),
    )


def _without_bias(module: nn.Module) -> tuple[str, ...]:
    """The note of a map whose matrix has a bias."""
    return () if resident(module, "bias") is None else (_NO_BIAS,)


def _inputs_of(mlp: Mlp) -> Sequence[object]:
    """One entry for each input: gate and up apart also where the model has them fused."""
    return (mlp.inputs[0],) * 2 if mlp.fused else mlp.inputs


def _inputs_alike(mlp: Mlp) -> str | None:
    """Why it is not known which of several inputs is which."""
    n_inputs = len(_inputs_of(mlp))
    if n_inputs == 1 or (n_inputs == 2 and mlp.activation is not None):
        return None
    return f"which of the MLP's {n_inputs} inputs the activation acts on was not found"
