"""Layer-wise reconstruction: the streams it reads, and what it leaves as it was."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from projector.model.architecture.finding import find_architecture
from projector.model.architecture.weights import read_weights
from projector.model.loading import LoadedModel
from projector.progress import Silent
from pruning.calibration.mlps import mlps_of
from pruning.methods.plan import LayerPlan, NotApplicable, PruningPlan
from pruning.refit import reconstruction
from pruning.refit import streams as streaming
from pruning.refit.reconstruction import check_reconstructable
from pruning.refit.streams import DenseStreams
from tests.families import FAMILIES, N_LAYERS, N_NEURONS, build
from tests.projector.model.architecture.test_widths import varied
from tests.projector.model.test_capture_calls import streams_of
from tests.pruning.all_at_once import Calibration, calibrate, refit
from tests.pruning.refit.test_refits import (
    PRUNABLE,
    Shared,
    calibrated,
    folded_plan,
    spread_plan,
    state,
)

N_STEPS = 12


@pytest.fixture(scope="module")
def shared(tokenizer: Any) -> Shared:
    return Shared(tokenizer)


def weights(model: Any) -> list[Tensor]:
    return [tensor for _, tensor in sorted(model.state_dict().items())]


def assert_same(a: Any, b: Any, *, tolerance: float = 0.0) -> None:
    for one, other in zip(weights(a), weights(b), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_streams_are_the_model_s_own(
    family: str, keeps: bool, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, architecture, calibration = shared.of(family)
    if not keeps:
        monkeypatch.setattr(streaming, "_MOST_KEPT_BYTES", 0)
    dense = DenseStreams(model, architecture, calibration.corpus)
    batch = dense.batches[-1]
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    expected = streams_of(model, architecture, inputs)
    outputs: list[Tensor] = []
    handles = [
        mlp.output.module.register_forward_hook(
            lambda module, args, output: outputs.append(output.clone())
        )
        for mlp in mlps_of(architecture)
    ]
    with torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    index = len(dense.batches) - 1
    _, before = dense.start(index)
    assert torch.equal(before, expected[0])
    for layer in range(N_LAYERS):
        found = dense.block(index, layer, before if layer else None)
        torch.testing.assert_close(found.after, expected[layer + 1], rtol=1e-5, atol=1e-5)
        assert found.out.shape == expected[0].shape
        wanted = outputs[layer].reshape(found.out.shape)
        torch.testing.assert_close(found.out, wanted, rtol=1e-5, atol=1e-5)
        assert (dense.block(index, layer, before if layer else None) is found) == keeps
        before = found.after


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "falcon", "opt", "bert"])
def test_what_is_kept_for_the_next_does_not_matter(
    family: str, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, architecture, calibration = shared.of(family)
    plan = spread_plan()

    def run(streams: DenseStreams | None = None) -> Any:
        return refit(
            model, architecture, plan, "reconstruct", calibration, n_steps=N_STEPS, streams=streams
        )

    streams = DenseStreams(model, architecture, calibration.corpus)
    first, again = run(streams), run(streams)
    assert_same(first, again)
    assert_same(first, run())
    monkeypatch.setattr(streaming, "_MOST_KEPT_BYTES", 0)
    assert_same(first, run())


def test_the_seed_draws_the_batches(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "_BATCH_TOKENS", 64)
    model, architecture, calibration = shared.of("qwen2")
    plan = spread_plan()
    runs = [
        refit(model, architecture, plan, "reconstruct", calibration, n_steps=N_STEPS, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert_same(runs[0], runs[1])
    differ = [
        not torch.equal(a, b) for a, b in zip(weights(runs[0]), weights(runs[2]), strict=True)
    ]
    assert any(differ)


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "bert"])
def test_nothing_is_left_on_the_models(family: str, shared: Shared) -> None:
    model, architecture, calibration = shared.of(family)
    model = deepcopy(model).train()
    frozen = next(p for name, p in model.named_parameters() if "embed" in name or "wte" in name)
    frozen.requires_grad_(False)
    before = state(model)
    architecture = find_architecture(model)
    wants = {name: p.requires_grad for name, p in model.named_parameters()}
    pruned: Any = refit(
        model, architecture, spread_plan(), "reconstruct", calibration, n_steps=N_STEPS
    )
    assert wants == {name: p.requires_grad for name, p in model.named_parameters()}
    assert all(p.grad is None for p in (*model.parameters(), *pruned.parameters()))
    assert all(p.is_leaf and p.requires_grad for p in pruned.parameters())
    assert all(module.training for module in (*model.modules(), *pruned.modules()))
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for module in (*model.modules(), *pruned.modules()):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert torch.is_grad_enabled()
    # Dropout was off all the while.
    calm = refit(
        model.eval(), architecture, spread_plan(), "reconstruct", calibration, n_steps=N_STEPS
    )
    assert_same(calm, pruned)


@pytest.mark.parametrize("family", PRUNABLE)
def test_only_mlps_are_trained(family: str, shared: Shared) -> None:
    model, architecture, calibration = shared.of(family)
    plan = spread_plan()
    pruned: Any = refit(model, architecture, plan, "reconstruct", calibration, n_steps=60)
    before = model.state_dict()
    mlp_names = {
        f"{matrix.name}.{kind}"
        for mlp in mlps_of(architecture)
        for matrix in (*mlp.inputs, mlp.output)
        for kind in ("weight", "bias")
    }
    changed = set()
    for name, tensor in pruned.state_dict().items():
        if any(name.endswith(each) for each in mlp_names):
            changed.add(name)
            assert bool(tensor.isfinite().all())
        elif name in before:
            assert torch.equal(tensor, before[name]), name
    assert len(changed) >= 2 * N_LAYERS
    # What makes the neurons learns as well, wherever held-out text is the better for it.
    learned = [
        not torch.equal(old, trained)
        for mlp, new, layer in zip(
            mlps_of(architecture), mlps_of(find_architecture(pruned)), plan.layers, strict=True
        )
        for old, trained in zip(
            read_weights(mlp).take(layer.kept_index).inputs, read_weights(new).inputs, strict=True
        )
    ]
    assert any(learned)


def test_a_layer_that_keeps_all_follows_the_ones_below(shared: Shared) -> None:
    _, _, calibration = shared.of("llama")
    # Widths of the layers' own, so that one can keep all.
    model = varied(40, 32)
    architecture = find_architecture(model)
    first, whole = spread_plan().layers[0], LayerPlan(32, tuple(range(32)))
    plan = PruningPlan("random", 0.3, 0, "global", 1, (first, whole))
    calibration = _recalibrated(model, calibration)
    pruned: Any = refit(model, architecture, plan, "reconstruct", calibration, n_steps=N_STEPS)
    found = [read_weights(mlp) for mlp in mlps_of(find_architecture(pruned))]
    assert [w.n_neurons for w in found] == [28, 32]
    assert all(bool(w.output.isfinite().all()) for w in found)
    fitted: Any = refit(model, architecture, plan, "least-squares", calibration)
    dense = read_weights(mlps_of(architecture)[1])
    # Least squares knows each layer alone, and leaves this one.
    alone = read_weights(mlps_of(find_architecture(fitted))[1])
    assert torch.equal(alone.output, dense.output)
    assert not torch.equal(found[1].output, dense.output)


def _recalibrated(model: Any, calibration: Calibration) -> Calibration:
    loaded = LoadedModel(model, None, "made-up", "0" * 64)
    return calibrate(loaded, find_architecture(model), calibration.text, n_sequences=45)


def test_progress_is_a_step_at_a_time(shared: Shared) -> None:
    model, architecture, calibration = shared.of("qwen2")

    class Counts(Silent):
        n = 0

        def advance(self, n: int) -> None:
            self.n += n

    counts = Counts()
    refit(
        model, architecture, spread_plan(), "reconstruct", calibration, n_steps=7, progress=counts
    )
    assert counts.n == 7 * N_LAYERS


def test_steps_never_make_held_out_tokens_worse(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that lead astray are not taken: a wild rate gives the closed form."""
    model, architecture, calibration = shared.of("llama")
    plan = spread_plan()
    monkeypatch.setattr(reconstruction, "_RELATIVE_RATE", 1e-12)
    still = refit(model, architecture, plan, "reconstruct", calibration, n_steps=3)
    monkeypatch.setattr(reconstruction, "_RELATIVE_RATE", 1e3)
    wild = refit(model, architecture, plan, "reconstruct", calibration, n_steps=3)
    assert_same(still, wild, tolerance=1e-5)


def test_an_unknown_activation_is_not_applicable(tokenizer: Any) -> None:
    model = build("llama")
    architecture, calibration = calibrated(model, tokenizer)
    blocks = tuple(
        replace(block, mlp=replace(block.mlp, activation=None))
        for block in architecture.blocks
        if block.mlp is not None
    )
    unknown = replace(architecture, blocks=blocks)
    with pytest.raises(NotApplicable, match="layer 0"):
        check_reconstructable(unknown)
    with pytest.raises(NotApplicable, match="layer 0"):
        refit(model, unknown, spread_plan(), "reconstruct", calibration)
    # Neurons that are averages would have to be computed; those that are real ones need not.
    with pytest.raises(NotApplicable, match="layer 0"):
        refit(model, unknown, folded_plan(), "least-squares", calibration)
    pruned = refit(model, unknown, spread_plan(), "least-squares", calibration)
    assert all(bool(p.isfinite().all()) for p in pruned.parameters())


def test_half_precision_comes_back_as_it_was(tokenizer: Any) -> None:
    model = build("llama").to(torch.bfloat16)
    architecture, calibration = calibrated(model, tokenizer)
    for kind in ("least-squares", "reconstruct"):
        pruned = refit(model, architecture, spread_plan(), kind, calibration, n_steps=3)
        assert {p.dtype for p in pruned.parameters()} == {torch.bfloat16}
        assert all(bool(p.isfinite().all()) for p in pruned.parameters())
    assert all(layer.n_neurons == N_NEURONS for layer in spread_plan().layers)
