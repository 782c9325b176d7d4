"""Refits against sums made another way: rows, ``lstsq``, and means taken by plain hooks."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture
from projector.model.architecture.weights import MlpWeights, read_weights
from projector.model.loading import LoadedModel
from pruning.calibration.mlps import mlps_of
from pruning.calibration.moments import Moments
from pruning.calibration.text import read_calibration
from pruning.methods.plan import LayerPlan, NotApplicable, PruningPlan, StandIn
from pruning.refit import products
from pruning.refit.products import Products, fit_output
from pruning.refit.registry import REFITS
from pruning.surgery import apply_plan
from tests.conftest import make_text
from tests.families import ENCODERS, FAMILIES, N_LAYERS, N_NEURONS, N_VOCABULARY, build
from tests.pruning.all_at_once import Calibration, Planner, calibrate, refit
from tests.pruning.methods.plain import hostile_moments, ridge_fit
from tests.refused import refused, refused_naming

LENGTH = 24
N_SEQUENCES = 45
# Outputs with a bias, or a setting that gives them one; the others' moments are about zero.
BIASED = ("llama", "gpt2", "gpt_neox", "opt", "falcon", "bert", "roberta")
UNBIASED = ("qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi3", "olmo2")
PRUNABLE = (*BIASED, *UNBIASED)
# What calibration is read from: of the tests' own tokenizer, which a fixture gives.
_documents = [make_text(120, seed=seed) for seed in range(20)]


def calibrated(model: Any, tokenizer: Any) -> tuple[Architecture, Calibration]:
    architecture = find_architecture(model)
    loaded = LoadedModel(model, tokenizer, "made-up", "0" * 64)
    text = read_calibration(_documents, loaded, architecture, sequence_length=LENGTH)
    return architecture, calibrate(loaded, architecture, text, n_sequences=N_SEQUENCES)


class Shared:
    """Models and their calibrations, shared by the tests that change neither."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

        @cache
        def make(family: str) -> tuple[Any, Architecture, Calibration]:
            model = build(family)
            return model, *calibrated(model, tokenizer)

        self.of = make


@pytest.fixture(scope="module")
def shared(tokenizer: Any) -> Shared:
    return Shared(tokenizer)


def spread_plan(n_removed: int = 12, seed: int = 3) -> PruningPlan:
    """Neurons removed at random, others in each layer."""
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for _ in range(N_LAYERS):
        order = torch.randperm(N_NEURONS, generator=generator)
        layers.append(LayerPlan(N_NEURONS, tuple(sorted(order[n_removed:].tolist()))))
    return PruningPlan("random", n_removed / N_NEURONS, 0, "uniform", 1, tuple(layers))


def folded_plan(n_kept: int = 26) -> PruningPlan:
    """Neurons averaged in pairs and threes, the first of each naming it."""
    groups = tuple(j % n_kept for j in range(N_NEURONS))
    layer = LayerPlan(N_NEURONS, tuple(range(n_kept)), groups=groups)
    return PruningPlan("folding", 1 - n_kept / N_NEURONS, 0, "uniform", 1, (layer,) * N_LAYERS)


def mlp_rows(
    model: Any, architecture: Architecture, calibration: Calibration
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """By plain hooks: each layer's MLP input and neurons over the tokens that count, float64, and
    which rows are held out."""
    seen: dict[tuple[int, str], list[Tensor]] = {}
    handles = []
    for layer, mlp in enumerate(mlps_of(architecture)):
        for name, module in (("x", mlp.inputs[0].module), ("h", mlp.output.module)):

            def hook(module: Any, args: Any, key: tuple[int, str] = (layer, name)) -> None:
                seen.setdefault(key, []).append(args[0].reshape(-1, args[0].shape[-1]).double())

            handles.append(module.register_forward_pre_hook(hook))
    held_out = []
    starts = calibration.corpus.starts
    for i in range(len(starts) - 1):
        ids = torch.from_numpy(calibration.corpus.ids[starts[i] : starts[i + 1]].astype("int64"))
        with torch.no_grad():
            model(input_ids=ids[None])
        held_out.append(torch.full((len(ids),), i % 5 == 4))
    for handle in handles:
        handle.remove()
    joined = {key: torch.cat(parts) for key, parts in seen.items()}
    layers = [(joined[layer, "x"], joined[layer, "h"]) for layer in range(N_LAYERS)]
    return layers, torch.cat(held_out)


def weights_of(model: Any) -> list[MlpWeights]:
    return [read_weights(mlp) for mlp in mlps_of(find_architecture(model))]


def logits(model: Any) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(2, N_VOCABULARY, (3, 11), generator=generator)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def state(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# Sums of products


def problem(n: int, seed: int, *, noise: float = 1e-3) -> tuple[Tensor, Tensor, Tensor]:
    """Neurons (n, 7) and targets (n, 5) with means of their own, and a start far off."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    truth = torch.linspace(-2, 2, 35, dtype=torch.float64).reshape(5, 7).sin()
    k = normal(n, 7) @ torch.diag(torch.linspace(0.5, 2, 7, dtype=torch.float64)) + 1 + seed % 3
    t = k @ truth.T + torch.arange(5, dtype=torch.float64) + noise * normal(n, 5)
    return k, t, truth + normal(5, 7)


def assert_same(a: Products, b: Products) -> None:
    for name in ("inner", "cross", "neuron_mean", "target_mean"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-10, atol=1e-10)
    assert a.power == pytest.approx(b.power, rel=1e-10)
    assert a.n_tokens == b.n_tokens


def test_products_are_means_over_rows() -> None:
    k, t, start = problem(50, 0)
    found = Products.of_rows(k.float(), t.float())
    assert found.inner.dtype == torch.float64
    found = Products.of_rows(k, t)
    torch.testing.assert_close(found.inner, torch.einsum("ni,nj->ij", k, k) / 50)
    torch.testing.assert_close(found.cross, torch.einsum("ni,nj->ij", k, t) / 50)
    torch.testing.assert_close(found.neuron_mean, k.mean(0))
    torch.testing.assert_close(found.target_mean, t.mean(0))
    assert found.power == pytest.approx(float(t.square().sum(1).mean()))
    assert found.loss(start) == pytest.approx(float((t - k @ start.T).square().sum(1).mean()))


def test_products_join_by_tokens_and_move() -> None:
    k, t, _ = problem(70, 1)
    both = Products.of_rows(k[:13], t[:13]).joined(Products.of_rows(k[13:], t[13:]))
    assert_same(both, Products.of_rows(k, t))
    p, q = k[0], t[3]
    assert_same(both.about(p, q), Products.of_rows(k - p, t - q))
    nothing = Products.of_rows(k[:0], t[:0])
    assert_same(nothing.joined(both), both)
    assert_same(both.joined(nothing), both)


def test_products_of_moments_are_those_of_the_kept_neurons() -> None:
    h, _, _ = problem(60, 2)
    output = torch.randn(5, 7, dtype=torch.float64)
    kept = torch.tensor([0, 2, 5])
    moments = Moments(60, h.mean(0), h.T @ h / 60)
    found = Products.of_moments(moments, kept, output)
    assert_same(found, Products.of_rows(h[:, kept], h @ output.T))


# The fit itself


@pytest.mark.parametrize("centred", [True, False])
def test_a_fit_is_least_squares_where_damping_is_of_no_account(centred: bool) -> None:
    # Other numbers of rows, and other means, in the two parts.
    (k, t, start), (far_k, far_t, _) = (problem(n, i, noise=1e-7) for i, n in enumerate((400, 90)))
    if not centred:
        # No bias: targets are sums of neurons alone.
        t, far_t = (a - torch.arange(5, dtype=a.dtype) for a in (t, far_t))
    output, bias = fit_output(
        Products.of_rows(k, t), Products.of_rows(far_k, far_t), start, centred=centred
    )
    all_k, all_t = torch.cat([k, far_k]), torch.cat([t, far_t])
    if centred:
        ones = torch.ones(len(all_k), 1, dtype=torch.float64)
        solution = torch.linalg.lstsq(torch.cat([all_k, ones], 1), all_t).solution
        assert bias is not None
        torch.testing.assert_close(bias, solution[-1], rtol=1e-5, atol=1e-5)
        solution = solution[:-1]
    else:
        solution = torch.linalg.lstsq(all_k, all_t).solution
        assert bias is None
    torch.testing.assert_close(output, solution.T, rtol=1e-5, atol=1e-5)


def ridge(k: Tensor, t: Tensor, start: Tensor, damping: float) -> Tensor:
    """By rows: those of the data, and one a neuron that holds the weights where they are."""
    usual = k.square().mean(0).sort().values[(k.shape[1] - 1) // 2]
    scale = (damping * usual * len(k)).sqrt()
    rows = torch.cat([k, scale * torch.eye(k.shape[1], dtype=k.dtype)])
    aims = torch.cat([t - k @ start.T, torch.zeros(k.shape[1], t.shape[1], dtype=t.dtype)])
    return start + torch.linalg.lstsq(rows, aims).solution.T


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("centred", [True, False])
def test_damping_is_what_does_best_on_held_out_rows(seed: int, centred: bool) -> None:
    """Few rows and much noise: with too little damping the fit would be to the noise."""
    (k, t, _), (far_k, far_t, start) = (problem(n, 3 * seed, noise=4) for n in (11, 12))
    output, bias = fit_output(
        Products.of_rows(k, t), Products.of_rows(far_k, far_t), start, centred=centred
    )

    def moved(a: Tensor, by: Tensor) -> Tensor:
        return a - by.mean(0) if centred else a

    near, near_t = moved(k, k), moved(t, t)
    checked, checked_t = moved(far_k, k), moved(far_t, t)

    def loss(weights: Tensor) -> float:
        return float((checked_t - checked @ weights.T).square().sum())

    losses = {d: loss(ridge(near, near_t, start, d)) for d in (10.0**e for e in range(-7, 2))}
    best = min(losses, key=lambda d: losses[d])
    all_k, all_t = torch.cat([k, far_k]), torch.cat([t, far_t])
    expected = start
    if losses[best] < loss(start):
        expected = ridge(moved(all_k, all_k), moved(all_t, all_t), start, best)
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)
    if centred:
        assert bias is not None
        torch.testing.assert_close(bias, all_t.mean(0) - expected @ all_k.mean(0))


def test_a_start_that_nothing_betters_stays() -> None:
    k, t, _ = problem(12, 0, noise=3)
    far_k, _, start = problem(40, 1)
    # On held-out rows the start is right.
    near, far = Products.of_rows(k, t), Products.of_rows(far_k, far_k @ start.T)
    output, bias = fit_output(near, far, start, centred=False)
    assert torch.equal(output, start)
    assert bias is None


@pytest.mark.parametrize("centred", [True, False])
def test_neurons_that_never_fire_and_copies_are_no_trouble(centred: bool) -> None:
    k, t, start = problem(300, 0)
    k[:, 3] = 0
    k[:, 4] = k[:, 5]
    near, far = Products.of_rows(k[:200], t[:200]), Products.of_rows(k[200:], t[200:])
    output, _ = fit_output(near, far, start, centred=centred)
    assert bool(output.isfinite().all())
    # No one knows better of a neuron that is silent.
    torch.testing.assert_close(output[:, 3], start[:, 3])
    silent = Products.of_rows(0 * k, t)
    output, _ = fit_output(silent, silent, start, centred=centred)
    assert torch.equal(output, start)


@pytest.mark.parametrize("n_tokens", [(300, 80), (30, 80), (80, 30)])
def test_a_fit_is_that_of_each_damping_solved_by_itself(
    n_tokens: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    n, n_targets = 40, 6
    monkeypatch.setattr(products, "_BLOCK_ROWS", 7)
    near, far = (hostile_moments(n, i, n_tokens=each) for i, each in enumerate(n_tokens))
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(n_targets, n, generator=generator, dtype=torch.float64)
    kept, start = torch.arange(0, n, 2), output[:, ::2]
    nothing = torch.zeros(n, dtype=torch.float64)
    whole = [
        Products.of_moments(Moments(each, nothing, second), kept, output)
        for each, second in zip(n_tokens, (near, far), strict=True)
    ]
    found, _ = fit_output(whole[0], whole[1], start, centred=False)
    expected = ridge_fit(
        near[kept][:, kept],
        near[kept] @ output.T,
        far[kept][:, kept],
        far[kept] @ output.T,
        float(((output @ far) * output).sum()),
        start,
        (n_tokens[0] / sum(n_tokens), n_tokens[1] / sum(n_tokens)),
    )
    assert not torch.equal(found, start)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


# Every refit of every family


@pytest.mark.parametrize("family", PRUNABLE)
def test_every_refit_works_or_has_a_reason(family: str, shared: Shared) -> None:
    model, architecture, calibration = shared.of(family)
    before = state(model)
    plan = spread_plan()
    expected_error = family in UNBIASED
    for kind in REFITS:
        if kind == "bias" and expected_error:
            with pytest.raises(NotApplicable, match=type(model).__name__) as caught:
                refit(model, architecture, plan, kind, calibration)
            assert (caught.value.setting, caught.value.value) == ("refit", "bias")
            continue
        pruned: Any = refit(model, architecture, plan, kind, calibration, n_steps=3)
        assert [w.n_neurons for w in weights_of(pruned)] == plan.widths
        assert bool(logits(pruned).isfinite().all())
        assert type(pruned) is type(model)
        has_bias = weights_of(pruned)[0].output_bias is not None
        assert has_bias == (
            family in BIASED and (kind != "none" or family not in ("llama", "falcon"))
        )
        assert all(p.requires_grad and p.grad is None for p in pruned.parameters())
        assert not pruned.training
    # The dense model is as it was, and nothing is left on it.
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_what_can_not_be_is_refused(shared: Shared) -> None:
    model, architecture, calibration = shared.of("llama")
    with refused("refit", "magic"):
        refit(model, architecture, spread_plan(), "magic", calibration)
    bloom, its_architecture, its_calibration = shared.of("bloom")
    layer = LayerPlan(96, tuple(range(90)))
    plan = PruningPlan("random", 0.1, 0, "uniform", 1, (layer,) * N_LAYERS)
    for kind in REFITS:
        with refused_naming("BloomForCausalLM", "90 neurons"):
            refit(bloom, its_architecture, plan, kind, its_calibration)


@pytest.mark.parametrize("kind", ["least-squares", "reconstruct"])
def test_too_little_text_is_refused(kind: str, tokenizer: Any) -> None:
    model = build("qwen2")
    architecture = find_architecture(model)
    loaded = LoadedModel(model, tokenizer, "made-up", "0" * 64)
    text = read_calibration(_documents, loaded, architecture, sequence_length=8)
    calibration = calibrate(loaded, architecture, text, n_sequences=5)
    with refused("n_sequences", 5, "32 calibration tokens", "33 neurons", "n_sequences=6"):
        # As many as the neurons that stay, and one less.
        refit(model, architecture, spread_plan(7), kind, calibration)
    refit(model, architecture, spread_plan(8), kind, calibration, n_steps=1)


@pytest.mark.parametrize("family", ["llama", "qwen2", "bert"])
@pytest.mark.parametrize("kind", REFITS)
def test_with_nothing_removed_every_tensor_is_as_it_was(
    family: str, kind: str, shared: Shared
) -> None:
    model, architecture, calibration = shared.of(family)
    layer = LayerPlan(N_NEURONS, tuple(range(N_NEURONS)))
    plan = PruningPlan("obs", 0.0, 0, "uniform", 1, (layer,) * N_LAYERS)
    if kind == "bias" and family == "qwen2":
        with pytest.raises(NotApplicable):
            refit(model, architecture, plan, kind, calibration)
        return
    pruned = refit(model, architecture, plan, kind, calibration)
    before, after = model.state_dict(), pruned.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


# The bias


@pytest.mark.parametrize("family", BIASED)
def test_the_bias_is_what_removed_neurons_gave_on_average(family: str, shared: Shared) -> None:
    model, architecture, calibration = shared.of(family)
    plan = spread_plan()
    pruned: Any = refit(model, architecture, plan, "bias", calibration)
    rows, _ = mlp_rows(model, architecture, calibration)
    if family == "llama":
        assert pruned.config.mlp_bias
    for old, new, layer, (_, h) in zip(
        weights_of(model), weights_of(pruned), plan.layers, rows, strict=True
    ):
        gone = list(layer.removed)
        given = old.output[:, gone].double() @ h[:, gone].mean(0)
        if old.output_bias is not None:
            given = given + old.output_bias.double()
        assert new.output_bias is not None
        torch.testing.assert_close(new.output_bias.double(), given, rtol=1e-4, atol=1e-5)
        assert float(given.abs().max()) > 1e-2
        # All else is what stayed.
        assert torch.equal(new.output, old.output[:, list(layer.kept)])


def test_a_stand_in_s_own_mean_is_counted(shared: Shared) -> None:
    model, architecture, calibration = shared.of("gpt2")
    kept = tuple(range(2, N_NEURONS))
    layer = LayerPlan(N_NEURONS, kept, (StandIn(0, 2, 0.7), StandIn(1, 3, -1.5)))
    plan = PruningPlan("poles", 0.05, 0, "uniform", 1, (layer,) * N_LAYERS)
    pruned = refit(model, architecture, plan, "bias", calibration)
    rows, _ = mlp_rows(model, architecture, calibration)
    for old, new, (_, h) in zip(weights_of(model), weights_of(pruned), rows, strict=True):
        mean, w = h.mean(0), old.output.double()
        given = w[:, 0] * (mean[0] - 0.7 * mean[2]) + w[:, 1] * (mean[1] + 1.5 * mean[3])
        assert old.output_bias is not None
        assert new.output_bias is not None
        expected = (old.output_bias + given).float()
        torch.testing.assert_close(new.output_bias, expected, rtol=1e-4, atol=1e-5)


# Least squares


def plant_sums(model: Any) -> PruningPlan:
    """Give every layer of a gated MLP removed neurons that are sums of kept ones."""
    for weights in weights_of(model):
        gate, up = weights.inputs
        for j, a, b, by in ((0, 1, 2, 0.5), (10, 11, 12, -2.0), (39, 20, 21, 1.5)):
            # With one gate in common, what comes through is as linear as what goes in.
            gate[j] = gate[a]
            gate[b] = gate[a]
            up[j] = by * up[a] + 0.3 * up[b]
    kept = tuple(j for j in range(N_NEURONS) if j not in (0, 10, 39))
    layer = LayerPlan(N_NEURONS, kept)
    return PruningPlan("random", 3 / N_NEURONS, 0, "uniform", 1, (layer,) * N_LAYERS)


@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3", "gemma3"])
def test_sums_of_kept_neurons_can_go(family: str, tokenizer: Any) -> None:
    model = build(family)
    plan = plant_sums(model)
    architecture, calibration = calibrated(model, tokenizer)
    expected = logits(model)
    bare = logits(refit(model, architecture, plan, "none", calibration))
    assert float((bare - expected).abs().max()) > 1e-2
    found = logits(refit(model, architecture, plan, "least-squares", calibration))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def block_errors(
    model: Any,
    pruned: Any,
    architecture: Architecture,
    calibration: Calibration,
    part: bool | None = None,
) -> list[float]:
    """What each MLP's output loses on what the dense one reads, mean square over tokens."""
    rows, held_out = mlp_rows(model, architecture, calibration)
    chosen = torch.ones_like(held_out) if part is None else held_out == part
    errors = []
    for dense, mlp, new, (x, _) in zip(
        weights_of(model), mlps_of(architecture), weights_of(pruned), rows, strict=True
    ):
        one = x[chosen].float()
        errors.append(float((dense.apply(mlp, one) - new.apply(mlp, one)).square().mean()))
    return errors


@pytest.mark.parametrize("family", PRUNABLE)
def test_least_squares_is_the_least_that_an_output_can_lose(family: str, shared: Shared) -> None:
    model, architecture, calibration = shared.of(family)
    plan = spread_plan(16)
    fitted = refit(model, architecture, plan, "least-squares", calibration)
    bare = refit(model, architecture, plan, "none", calibration)
    errors = [block_errors(model, each, architecture, calibration) for each in (fitted, bare)]
    assert all(a < 0.9 * b for a, b in zip(*errors, strict=True))
    rows, _ = mlp_rows(model, architecture, calibration)
    for old, new, layer, (_, h), error in zip(
        weights_of(model), weights_of(fitted), plan.layers, rows, errors[0], strict=True
    ):
        k, t = h[:, list(layer.kept)], h @ old.output.double().T
        if new.output_bias is not None:
            k = torch.cat([k, torch.ones(len(k), 1, dtype=k.dtype)], 1)
        least = float((t - k @ torch.linalg.lstsq(k, t).solution).square().mean())
        # Damping may leave a little.
        assert least * 0.999 - 1e-9 <= error <= least * 1.15 + 1e-9


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "phi3", "bert", "opt"])
def test_averaged_neurons_are_fitted_by_their_own_products(family: str, shared: Shared) -> None:
    model, architecture, calibration = shared.of(family)
    plan = folded_plan()
    fitted = refit(model, architecture, plan, "least-squares", calibration)
    with_bias = family in BIASED
    averaged = weights_of(apply_plan(model, plan, with_bias=with_bias))
    rows, held_out = mlp_rows(model, architecture, calibration)
    for old, start, new, mlp, (x, h) in zip(
        weights_of(model), averaged, weights_of(fitted), mlps_of(architecture), rows, strict=True
    ):
        # By hand: the averages of what makes a group's neurons, on what the MLP reads.
        groups = torch.tensor(plan.layers[0].groups)
        pre = []
        for matrix, bias in zip(old.inputs, old.input_biases, strict=True):
            means = torch.stack([matrix[groups == g].mean(0) for g in range(26)])
            shift = (
                torch.stack([bias[groups == g].mean() for g in range(26)])
                if bias is not None
                else torch.zeros(26)
            )
            pre.append(x.float() @ means.T + shift)
        k, t = mlp.neurons(pre).double(), h @ old.output.double().T
        output, bias_ = fit_output(
            Products.of_rows(k[~held_out], t[~held_out]),
            Products.of_rows(k[held_out], t[held_out]),
            start.output.double(),
            centred=with_bias,
        )
        scale = float(output.abs().max())
        torch.testing.assert_close(new.output.double(), output, rtol=1e-3, atol=1e-3 * scale)
        if bias_ is not None:
            assert new.output_bias is not None
            if old.output_bias is not None:
                bias_ = bias_ + old.output_bias
            torch.testing.assert_close(new.output_bias.double(), bias_, rtol=1e-3, atol=1e-3)
        for a, b in zip(start.inputs, new.inputs, strict=True):
            assert torch.equal(a, b)


def test_least_squares_changes_the_output_alone(shared: Shared) -> None:
    model, architecture, calibration = shared.of("qwen2")
    planner = Planner(model, architecture, calibration)
    plan = planner.plan("obs", 0.3)
    assert plan.widths == [28, 28]
    pruned = refit(model, architecture, plan, "least-squares", calibration)
    for old, new, layer in zip(weights_of(model), weights_of(pruned), plan.layers, strict=True):
        assert not torch.equal(old.output[:, list(layer.kept)], new.output)
        for a, b in zip(old.inputs, new.inputs, strict=True):
            assert torch.equal(a[list(layer.kept)], b)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_reconstruct_gives_no_more_error_than_least_squares(family: str, shared: Shared) -> None:
    model, architecture, calibration = shared.of(family)
    plan = spread_plan(16)
    pruned = {
        kind: refit(model, architecture, plan, kind, calibration, n_steps=60)
        for kind in ("none", "least-squares", "reconstruct")
    }
    # In the first layer both read what the dense one reads.
    errors = {
        kind: block_errors(model, each, architecture, calibration, part=True)[0]
        for kind, each in pruned.items()
    }
    assert errors["reconstruct"] <= errors["least-squares"] * (1 + 1e-5) < errors["none"]
    # And what comes out behind the last is nearer too.
    distances = [float((logits(each) - logits(model)).square().mean()) for each in pruned.values()]
    assert distances == sorted(distances, reverse=True)


def test_the_encoders_are_here() -> None:
    assert set(PRUNABLE) == set(FAMILIES) - {"bloom"}
    assert set(ENCODERS) <= set(BIASED)


def test_the_damping_is_the_best_of_all_nine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several spectra, with much noise and little, of much text and little."""
    generator = torch.Generator().manual_seed(0)
    n, n_targets = 24, 5
    tried: list[float] = []
    own = products._ridge

    def counted(near: Products, damping: float) -> Tensor | None:
        tried.append(damping)
        return own(near, damping)

    monkeypatch.setattr(products, "_ridge", counted)
    found = set()
    for fall in (0.0, 1.0, 3.0):
        for noise in (1e-3, 0.3, 3.0, 30.0):
            for n_tokens in (30, 3000):
                shape = (n_tokens + 1000, n)
                k = torch.randn(shape, generator=generator, dtype=torch.float64)
                k *= torch.arange(1, n + 1) ** -fall
                w = torch.randn(n, n_targets, generator=generator, dtype=torch.float64)
                t = k @ w
                t += noise * torch.randn(t.shape, generator=generator, dtype=torch.float64)
                near = Products.of_rows(k[:n_tokens], t[:n_tokens])
                far = Products.of_rows(k[n_tokens:], t[n_tokens:])
                every = {}
                for damping in products._DAMPINGS:
                    step = own(near, damping)
                    assert step is not None
                    every[damping] = far.loss(step)
                best = min(every, key=lambda d: every[d])
                tried.clear()
                chosen = products._chosen(near, far)
                assert chosen == (best if every[best] < far.power else None)
                assert len(tried) == len(set(tried)) <= 6
                found.add(chosen)
    assert len(found) >= 4
