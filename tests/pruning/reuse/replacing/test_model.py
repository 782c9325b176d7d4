"""The model that computes less gives what it should, and computes what the formula says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from projector.model.architecture.finding import find_architecture
from projector.model.architecture.weights import read_weights
from pruning.calibration.mlps import mlps_of
from pruning.reuse.partners import gather_partners
from pruning.reuse.replacing.choosing import Choice, choose_neurons
from pruning.reuse.replacing.files import FittedFiles
from pruning.reuse.replacing.fitting import FittedLayer, Values, early_written, fit_layer
from pruning.reuse.replacing.model import replaced_model
from pruning.reuse.replacing.moments import Pairs, gather_moments, gather_scales
from pruning.reuse.replacing.operations import count_products, dense_operations, total_of
from tests.families import N_NEURONS, N_VOCABULARY, build
from tests.pruning.reuse.replacing.subjects import (
    ORIGINALS,
    PLANTED,
    Subject,
    subject,
    with_duplicates,
)

IDS = torch.arange(2 * 11).reshape(2, 11) * 13 % N_VOCABULARY


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def made_layer(model: Any, n_partners: int) -> FittedLayer:
    """Four neurons of the second layer in the hands of the first one's."""
    replaced = torch.tensor([2, 5, 17, 30])
    kept = torch.tensor([i for i in range(N_NEURONS) if i not in replaced])
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(0, N_NEURONS, (4, n_partners), generator=generator)
    choice = Choice(N_NEURONS, kept, replaced, torch.arange(4), torch.zeros_like(numbers), numbers)
    coefficients = torch.randn(4, n_partners, generator=generator, dtype=torch.float64)
    weights = read_weights(mlps_of(find_architecture(model))[1])
    values = Values(coefficients, torch.ones(4).double(), torch.ones(4).double())
    output = weights.output[:, kept], weights.output[:, replaced]
    return FittedLayer(choice, values, *output, weights.output_bias)


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "phi3", "gpt_neox"])
@pytest.mark.parametrize("n_partners", [1, 2])
def test_values_are_those_of_earlier_neurons_and_products_those_of_the_formula(
    family: str, n_partners: int
) -> None:
    model = build(family)
    before = logits(model)
    architecture = find_architecture(model)
    first, second = mlps_of(architecture)
    layer = made_layer(model, n_partners)
    choice = layer.choice
    reused = replaced_model(model, architecture, [None, layer])
    # The dense model, with the neurons overwritten on their way into the output projection.
    seen: list[Tensor] = []

    def overwrite(module: Any, args: tuple[Tensor]) -> tuple[Tensor]:
        h = args[0].clone()
        partners = seen[-1][..., choice.partner_neuron]
        h[..., choice.replaced] = (partners * layer.values.coefficients.float()).sum(dim=-1)
        return (h,)

    hooks = [
        first.output.module.register_forward_pre_hook(lambda _, args: seen.append(args[0])),
        second.output.module.register_forward_pre_hook(overwrite),
    ]
    expected = logits(model)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(logits(reused), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, before, rtol=1e-3, atol=1e-3)
    # The dense model is as it was.
    assert torch.equal(logits(model), before)
    dense = dense_operations(architecture)
    cut = choice.operations(dense[1], writes_early=False, has_new_constant=False)
    names = [m.name for mlp in (first, second) for m in (*mlp.inputs, mlp.output)]
    assert count_products(model, names) == total_of(dense)
    assert count_products(reused, names) == dense[0].products + cut.products
    assert cut.products < dense[1].products


def test_nothing_replaced_changes_no_byte() -> None:
    model = build("llama")
    copy = replaced_model(model, find_architecture(model), [None, None])
    assert torch.equal(logits(copy), logits(model))
    own = dict(model.named_parameters())
    assert {name: p.data_ptr() for name, p in copy.named_parameters()} == {
        name: p.data_ptr() for name, p in own.items()
    }


def fitted(given: Subject, share: float, *, writes_early: bool = False) -> list[FittedLayer | None]:
    """Both layers of a model, of which the second reuses the first one's neurons."""
    model, architecture = given.model, given.architecture
    partners = gather_partners(given.loaded, architecture, given.corpus)
    mlps = mlps_of(architecture)
    powers = [
        scales.variance * read_weights(mlp).output.double().square().sum(dim=0)
        for scales, mlp in zip(gather_scales(model, architecture, given.corpus), mlps, strict=True)
    ]
    dense = dense_operations(architecture)
    choices = choose_neurons(powers, partners, dense, share, writes_early=writes_early)
    pairs = Pairs.of(choices[1].partner_layer, choices[1].partner_neuron)
    ((_, moments),) = gather_moments(model, architecture, given.corpus, {1: pairs})
    weights = read_weights(mlps[1])
    return [None, fit_layer(choices[1], moments, pairs, weights, with_bias=True)]


def test_planted_duplicates_are_found_and_reused_with_logits_unchanged(tokenizer: Any) -> None:
    given = subject(with_duplicates(), tokenizer)
    # Two of three vectors of each of six neurons, of 2 × 40 × 3 vectors.
    layers = fitted(given, len(PLANTED) * 2 / (2 * N_NEURONS * 3) - 1e-9)
    layer = layers[1]
    assert layer is not None
    found = dict(
        zip(
            layer.choice.replaced.tolist(),
            layer.choice.partner_neuron[layer.choice.column, 0].tolist(),
            strict=True,
        )
    )
    assert found == dict(zip(PLANTED, ORIGINALS, strict=True))
    assert float(layer.values.r2.min()) > 1 - 1e-6
    reused = replaced_model(given.model, given.architecture, layers)
    before = logits(given.model)
    change = (logits(reused) - before).abs().max() / before.abs().max()
    assert float(change) < 1e-5
    # Without what the columns write, it would be another model.
    layer.columns.zero_()
    removed = replaced_model(given.model, given.architecture, layers)
    assert float((logits(removed) - before).abs().max() / before.abs().max()) > 1e-2


def test_partners_write_early_what_later_columns_would(tokenizer: Any) -> None:
    given = subject(with_duplicates(), tokenizer)
    layers = fitted(given, len(PLANTED) * 3 / (2 * N_NEURONS * 3) - 1e-9, writes_early=True)
    layer = layers[1]
    assert layer is not None
    added = early_written(layers, 0, N_NEURONS)
    assert added is not None
    assert early_written(layers, 1, N_NEURONS) is None
    column = layer.choice.column
    for j, c in zip(layer.choice.replaced.tolist(), column.tolist(), strict=True):
        partner = int(layer.choice.partner_neuron[c, 0])
        assert j in PLANTED
        expected = layer.columns[:, c].double()
        # One partner is read at its own scale.
        assert layer.values.coefficients[c, 0] == 1
        torch.testing.assert_close(added[:, partner], expected)
    early = replaced_model(given.model, given.architecture, layers, writes_early=True)
    # What reaches the end of the stream is the same; what the second MLP reads on its way is not.
    first, second = (block.mlp.down_proj for block in early.model.layers)
    torch.testing.assert_close(first.weight.double(), added, rtol=1e-6, atol=1e-6)
    assert second.weight.shape[1] == N_NEURONS - len(PLANTED)
    assert logits(early).isfinite().all()


def test_fitted_layers_come_back_from_disk(tmp_path: Path) -> None:
    pairs = torch.tensor([[[0, 3]]])
    none = torch.zeros(0, dtype=torch.float64)
    for n in (0, 1):
        # Slices of one number, or none, are contiguous whatever their stride.
        layer, neuron = pairs[:n, :, 0], pairs[:n, :, 1]
        replaced = torch.tensor([1])
        choice = Choice(3, torch.tensor([0, 2]), replaced, torch.tensor([n - 1]), layer, neuron)
        values = Values(torch.ones(n, 1).double(), torch.ones(1).double(), none)
        fitted = FittedLayer(choice, values, torch.rand(4, 2), torch.rand(4, n), None)
        files = FittedFiles(tmp_path / str(n), 2)
        files.write(1, fitted)
        first, own = files.read()
        assert first is None
        assert own is not None
        assert own.bias is None
        assert own.choice.n_neurons == 3
        assert torch.equal(own.columns, fitted.columns)
        assert torch.equal(own.choice.partner_neuron, neuron)
        assert own.choice.partner_layer.shape == (n, 1)
