"""Which activations the activation functions of a model keep, compared with a ReLU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from projector.errors import SettingError
from projector.model.architecture.records import Mlp
from projector.model.architecture.weights import MlpWeights, read_weights
from projector.model.capture import Tap, collect
from projector.residual.basis.maps import check_layer
from projector.residual.basis.planes import first_kept, place_points, token_texts
from projector.residual.basis.records import (
    IDENTITY,
    ActivationView,
    LayerActivations,
    Pair,
    PlaneView,
)
from projector.residual.subject import Subject

_REACH, _N_STEPS = 6.0, 121
_SAME = 1e-5
_KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": lambda x: x.clamp_min(0),
    "identity": lambda x: x,
    "SiLU": lambda x: x * x.sigmoid(),
    "GELU": torch.nn.functional.gelu,
    "GELU (tanh)": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "GELU (sigmoid)": lambda x: x * (1.702 * x).sigmoid(),
    "squared ReLU": lambda x: x.clamp_min(0).square(),
    "tanh": torch.tanh,
    "Mish": torch.nn.functional.mish,
}
# Of another function than a ReLU, a neuron is active where the size of its output is above this
# share of the root mean square.
THRESHOLD = 0.1


@dataclass(frozen=True)
class FunctionForm:
    """The form of an activation function, identified by its values from −6 to 6.

    Attributes:
        name: "ReLU", "identity", another known function such as "SiLU", or "unnamed".
        curve: rows [x, f(x)].
        relu_distance: largest |f(x) − max(x, 0)|.
    """

    name: str
    curve: tuple[Pair, ...]
    relu_distance: float


@torch.no_grad()
def probe_function(function: Callable[[Tensor], Tensor]) -> FunctionForm:
    """Run a function on a grid and identify it by its values."""
    x = torch.linspace(-_REACH, _REACH, _N_STEPS)
    # A copy: some activations work in place.
    y = function(x.clone()).float()
    distance = float((y - x.clamp_min(0)).abs().max())
    alike = {name: float((y - known(x)).abs().max()) for name, known in _KNOWN.items()}
    name = next((name for name, off in alike.items() if off <= _SAME), "unnamed")
    curve = tuple(zip(x.tolist(), y.tolist(), strict=True))
    return FunctionForm(name, curve, distance)


@torch.no_grad()
def view_activations(
    subject: Subject,
    ids: Sequence[int],
    *,
    layer: int | None = None,
    neurons: tuple[int, int] | None = None,
    seed: int = 0,
) -> ActivationView:
    """Show which activations every layer keeps on a prompt, and two neurons of one layer in a
    plane.

    This takes one forward pass, and one product with each layer's input weights for the control:
    the same vectors with shuffled coordinates.

    Args:
        layer: the layer of the neurons in the plane; the middle layer by default.
        neurons: the two neurons; by default those with inputs that vary most over the prompt.

    Raises:
        SettingError: on ``layer`` or ``neurons``.
    """
    blocks = subject.architecture.blocks
    chosen = len(blocks) // 2 if layer is None else layer
    check_layer(subject, chosen)
    taps = {
        number: Tap(block.mlp.inputs[0].module, "input")
        for number, block in enumerate(blocks)
        if block.mlp is not None
    }
    inputs = collect(subject.model, taps, subject.inputs(list(ids)))
    generator = torch.Generator().manual_seed(seed)
    rows, forms, plane = [], {}, None
    start = first_kept(subject, ids)
    for number, block in enumerate(blocks):
        if block.mlp is None or block.mlp.activation is None:
            rows.append(_without(number, block.mlp, block.missing))
            continue
        x = inputs[number]
        x = x.reshape(-1, x.shape[-1])
        weights = read_weights(block.mlp)
        forms[number] = probe_function(block.mlp.activation)
        before = _before(block.mlp, weights, x)
        rows.append(_row(number, block.mlp, weights, forms[number], x, before, start, generator))
        if number == chosen:
            texts = token_texts(subject, ids)[start:]
            plane = view_neurons(
                before[start:].float().cpu(),
                block.mlp.activation(before[start:].clone()).float().cpu(),
                texts,
                chosen,
                forms[number],
                is_gated=len(weights.inputs) > 1,
                neurons=neurons,
            )
    first = next(iter(forms.values()), None)
    return ActivationView(
        token_texts(subject, ids),
        tuple(rows),
        first.curve if first else (),
        first.relu_distance if first else None,
        _sentence(rows),
        plane,
    )


def _before(mlp: Mlp, weights: MlpWeights, x: Tensor) -> Tensor:
    """(T, N): what the activation acts on."""
    return torch.nn.functional.linear(
        x, weights.inputs[mlp.gate].to(x), _to(weights.input_biases[mlp.gate], x)
    )


def _to(bias: Tensor | None, x: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(x)


def _row(
    number: int,
    mlp: Mlp,
    weights: MlpWeights,
    form: FunctionForm,
    x: Tensor,
    before: Tensor,
    start: int,
    generator: torch.Generator,
) -> LayerActivations:
    assert mlp.activation is not None  # asked before
    order = torch.stack([torch.randperm(x.shape[1], generator=generator) for _ in x])
    other = _before(mlp, weights, x.gather(1, order.to(x.device)))
    out = mlp.activation(before.clone()).float()
    is_relu = form.name == "ReLU"
    # In most models a causal sequence's first token has outputs far larger than the others.
    threshold = 0.0 if is_relu else THRESHOLD * float(out[start:].square().mean().sqrt())

    def active(given: Tensor) -> tuple[float, ...]:
        # A ReLU's output is above 0 just where its input is.
        return tuple((given.abs() > threshold).double().mean(1).tolist())

    return LayerActivations(
        layer=number,
        function=form.name,
        is_gated=len(weights.inputs) > 1,
        active=active(out),
        shuffled=active(mlp.activation(other.clone()).float()),
        positive=tuple((before > 0).double().mean(1).tolist()),
        positive_shuffled=tuple((other > 0).double().mean(1).tolist()),
        threshold=threshold,
        n_neurons=weights.n_neurons,
    )


def _without(number: int, mlp: Mlp | None, missing: dict[str, str]) -> LayerActivations:
    n_neurons = 0 if mlp is None else mlp.n_neurons
    reason = _reason(mlp, missing)
    return LayerActivations(number, "unknown", False, (), (), (), (), 0.0, n_neurons, reason)


def _reason(mlp: Mlp | None, missing: dict[str, str]) -> str:
    if mlp is None:
        return missing.get("mlp_post", "no MLP was found in its blocks")
    return "no function of the MLP's inputs alone was found to give its neurons"


def view_neurons(
    before: Tensor,
    after: Tensor,
    labels: tuple[str, ...],
    layer: int,
    form: FunctionForm,
    *,
    is_gated: bool = False,
    neurons: tuple[int, int] | None = None,
) -> PlaneView:
    """Show two neurons as the axes of a plane: inputs before, outputs of the activation after.

    Args:
        before, after: (n, N) float32, inputs and outputs of the function.
        neurons: the two neurons; by default those with inputs that vary most.

    Raises:
        SettingError: on ``neurons``, if they are the same, or the layer doesn't have them.
    """
    n_neurons = before.shape[1]
    if neurons is None:
        varies = before.double().var(0, unbiased=False)
        first, second = (*varies.topk(min(2, n_neurons)).indices.tolist(), 0)[:2]
    else:
        first, second = neurons
        if first == second or not all(0 <= each < n_neurons for each in neurons):
            raise SettingError(
                "neurons",
                neurons,
                f"are not two neurons of layer {layer}",
                f"give two different numbers from 0 to {n_neurons - 1}",
            )
    pair = torch.tensor([first, second])
    drawn = place_points(before[:, pair], after[:, pair], ())
    notes = [_RELU if form.name == "ReLU" else _NOT_RELU]
    if is_gated:
        notes.append("The result is then multiplied by a second input, which may change its sign.")
    return PlaneView(
        kind="neurons",
        title=f"layer {layer} · neurons {first} and {second}",
        matrix=IDENTITY,
        space_before="inputs of two neurons",
        space_after="outputs of the activation function",
        axes_before=(f"neuron {first}", f"neuron {second}"),
        axes_after=(f"neuron {first}", f"neuron {second}"),
        is_same_plane=True,
        follows_matrix=False,
        singular_values=(),
        points_before=drawn.before,
        points_after=drawn.after,
        labels=labels,
        point_unit=drawn.unit,
        orthant_before=drawn.orthant_before,
        orthant_after=drawn.orthant_after,
        notes=tuple(notes),
    )


_RELU = (
    "A ReLU keeps the positive orthant as it is, and moves every other point to its edge or to 0."
)
_NOT_RELU = (
    "This function is not a ReLU: it makes negative inputs small but not 0, so the picture of "
    "the positive orthant holds for ReLU only."
)


def describe_functions(subject: Subject) -> str:
    """Describe the model's activation function, identified by its values, compared with a ReLU; no
    prompt is run.
    """
    names, gated, reason = set(), False, ""
    for block in subject.architecture.blocks:
        if block.mlp is None or block.mlp.activation is None:
            reason = reason or _reason(block.mlp, block.missing)
            continue
        names.add(probe_function(block.mlp.activation).name)
        gated |= block.mlp.fused or len(block.mlp.inputs) > 1
    return _function_words(names, gated, reason)


def _function_words(names: set[str], gated: bool, reason: str) -> str:
    if not names:
        return f"No activation function was found: {reason}."
    gate = " with a gate" if gated else ""
    if names == {"ReLU"}:
        return f"This model uses ReLU exactly{gate}."
    if names == {"identity"}:
        return f"This model's MLPs{gate} have no activation function: neurons pass inputs on."
    if len(names) > 1 or names == {"unnamed"}:
        return (
            f"This model's activation function{gate} isn't ReLU: the picture of the positive "
            "orthant holds for ReLU only."
        )
    return (
        f"This model uses {min(names)}{gate}, not ReLU: the picture of the positive orthant holds "
        "for ReLU only."
    )


def _sentence(rows: Sequence[LayerActivations]) -> str:
    known = [row for row in rows if row.reason is None]
    names = {row.function for row in known}
    gated = any(row.is_gated for row in known)
    words = _function_words(names, gated, "" if known else str(rows[0].reason))
    if names == {"ReLU"}:
        words += " A neuron is active where its input is above 0."
    elif known:
        words += (
            " A neuron counts as active where the size of the activation is above "
            f"{100 * THRESHOLD:.0f} % of its root mean square in the layer."
        )
    return words + (" The activation is then multiplied by a second input." if gated else "")
