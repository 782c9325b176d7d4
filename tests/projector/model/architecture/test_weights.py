"""Weights are read in one form, whatever the family stores them in."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture, Mlp
from projector.model.architecture.weights import MlpWeights, native_tensors, read_weights
from projector.model.capture import collect
from tests.families import FAMILIES, N_HIDDEN, N_NEURONS, N_NEURONS_OF, N_VOCABULARY, build
from tests.projector.model.architecture.test_architecture import NAMES


@cache
def found(family: str) -> tuple[Any, Architecture]:
    model = build(family)
    return model, find_architecture(model)


def mlp_of(architecture: Architecture, layer: int) -> Mlp:
    mlp = architecture.blocks[layer].mlp
    assert mlp is not None
    return mlp


def by_names(model: Any, family: str, layer: int) -> MlpWeights:
    """The weights read by what the family's source calls them."""
    names = NAMES[family]

    def get(name: str) -> tuple[Tensor, Tensor | None]:
        module = model.get_submodule(f"{names.blocks}.{layer}.{name}")
        weight = module.weight.detach()
        bias = getattr(module, "bias", None)
        return weight if names.input_axis else weight.T, None if bias is None else bias.detach()

    rows = [get(name) for name in names.mlp_inputs]
    if family == "phi3":
        ((both, bias),) = rows
        rows = [(both[:N_NEURONS], bias), (both[N_NEURONS:], bias)]
    output, output_bias = get(names.mlp_output)
    return MlpWeights(tuple(w for w, _ in rows), tuple(b for _, b in rows), output, output_bias)


def same(a: MlpWeights, b: MlpWeights) -> bool:
    first = [*a.inputs, *a.input_biases, a.output, a.output_bias]
    second = [*b.inputs, *b.input_biases, b.output, b.output_bias]
    return len(first) == len(second) and all(
        x is y if x is None or y is None else x.dtype == y.dtype and torch.equal(x, y)
        for x, y in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_the_model_s_own_in_one_form(family: str) -> None:
    model, architecture = found(family)
    n_neurons = N_NEURONS_OF.get(family, N_NEURONS)
    for layer in range(len(architecture.blocks)):
        weights = read_weights(mlp_of(architecture, layer))
        assert weights.n_neurons == n_neurons
        assert all(matrix.shape == (n_neurons, N_HIDDEN) for matrix in weights.inputs)
        assert weights.output.shape == (N_HIDDEN, n_neurons)
        expected = by_names(model, family, layer)
        assert same(weights, expected)
        # Not copies: what they weigh is not held twice.
        assert weights.output.data_ptr() == expected.output.data_ptr()
        assert not weights.output.requires_grad


@pytest.mark.parametrize("family", FAMILIES)
def test_native_tensors_are_what_was_read(family: str) -> None:
    model, architecture = found(family)
    state = model.state_dict()
    for layer in range(len(architecture.blocks)):
        mlp = mlp_of(architecture, layer)
        tensors = native_tensors(mlp, read_weights(mlp))
        prefixes = [f"{matrix.name}." for matrix in (*mlp.inputs, mlp.output)]
        assert tensors.keys() == {
            name for name in state if any(name.startswith(prefix) for prefix in prefixes)
        }
        for name, tensor in tensors.items():
            assert tensor.is_contiguous()
            assert torch.equal(tensor, state[name])


@pytest.mark.parametrize("family", FAMILIES)
def test_taking_some_neurons_takes_their_rows_and_columns(family: str) -> None:
    _, architecture = found(family)
    mlp = mlp_of(architecture, 1)
    weights = read_weights(mlp)
    kept = torch.tensor([0, 3, 17, 39])
    taken = weights.take(kept)
    assert taken.n_neurons == 4
    for place, j in enumerate(kept.tolist()):
        for matrix, part in zip(weights.inputs, taken.inputs, strict=True):
            assert torch.equal(part[place], matrix[j])
        for bias, part in zip(weights.input_biases, taken.input_biases, strict=True):
            assert (bias is None and part is None) or torch.equal(part[place], bias[j])
        assert torch.equal(taken.output[:, place], weights.output[:, j])
    assert taken.output_bias is weights.output_bias
    tensors = native_tensors(mlp, taken)
    if family == "phi3":
        fused = tensors[f"{mlp.inputs[0].name}.weight"]
        assert torch.equal(fused, torch.cat(taken.inputs))
        assert fused.shape == (8, N_HIDDEN)
    if family == "gpt2":
        assert tensors[f"{mlp.inputs[0].name}.weight"].shape == (N_HIDDEN, 4)
        assert tensors[f"{mlp.output.name}.weight"].shape == (4, N_HIDDEN)


@pytest.mark.parametrize("family", FAMILIES)
def test_applied_they_give_what_the_mlp_gives(family: str) -> None:
    model, architecture = found(family)
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(2, N_VOCABULARY, (2, 7), generator=generator)
    for layer in range(len(architecture.blocks)):
        mlp, block = mlp_of(architecture, layer), architecture.blocks[layer]
        read: dict[str, Tensor] = {}
        handle = mlp.inputs[0].module.register_forward_pre_hook(
            lambda module, args, read=read: read.update(x=args[0].clone())
        )
        taps = {site: block.taps[site] for site in ("mlp_post", "mlp_out")}
        read |= collect(model, taps, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        handle.remove()
        weights = read_weights(mlp)
        x = read["x"]
        torch.testing.assert_close(weights.neurons(mlp, x), read["mlp_post"])
        # Falcon adds attention's output, in place, to what the tap gave.
        if family != "falcon":
            torch.testing.assert_close(weights.apply(mlp, x), read["mlp_out"])


def test_every_tensor_moves_to_another_type() -> None:
    _, architecture = found("opt")
    weights = read_weights(mlp_of(architecture, 0)).to(torch.float64)
    tensors = [*weights.inputs, *weights.input_biases, weights.output, weights.output_bias]
    assert all(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors)
    _, architecture = found("llama")
    assert read_weights(mlp_of(architecture, 0)).to(torch.float64).input_biases == (None, None)
