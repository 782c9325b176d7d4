"""Each method plans as many removals as were asked for, in the layers that it may."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture
from projector.model.architecture.weights import read_weights
from projector.model.loading import LoadedModel
from pruning.calibration.mlps import mlps_of
from pruning.calibration.text import read_calibration
from pruning.methods.elimination import damped, eliminate
from pruning.methods.method import Proposals
from pruning.methods.plan import PruningPlan, kept_width
from pruning.methods.registry import METHODS
from tests.families import N_LAYERS, N_NEURONS, build
from tests.projector.model.architecture.test_widths import varied
from tests.pruning.all_at_once import Calibration, Planner, calibrate
from tests.refused import refused, refused_naming

SEEDED = tuple(name for name, method in METHODS.items() if method.depends_on_seed)
REGULAR = tuple(name for name, method in METHODS.items() if method.needs_regular_moments)
GLOBAL = tuple(name for name, method in METHODS.items() if method.allocates)


def _proposals(n: int, seed: int) -> Proposals:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 3, (n,), generator=generator)
    return Proposals(labels, (1, 0, None), torch.randn(n, 2, generator=generator))


@cache
def _source(kind: str) -> tuple[Any, Architecture]:
    model = varied(40, 40) if kind == "varied" else build(kind)
    return model, find_architecture(model)


Plannable = Callable[..., Planner]


@pytest.fixture(scope="module")
def calibrated(tokenizer: Any, text: str) -> Callable[..., Calibration]:
    known: dict[tuple[str, int], Calibration] = {}

    def run(model: Any, architecture: Architecture, n_sequences: int = 12) -> Calibration:
        loaded = LoadedModel(model, tokenizer, "made-up", "0" * 64)
        read = read_calibration([text], loaded, architecture, sequence_length=32)
        return calibrate(loaded, architecture, read, n_sequences=n_sequences)

    def remember(
        model: Any, architecture: Architecture, n_sequences: int = 12, key: str | None = None
    ) -> Calibration:
        if key is None:
            return run(model, architecture, n_sequences)
        if (key, n_sequences) not in known:
            known[key, n_sequences] = run(model, architecture, n_sequences)
        return known[key, n_sequences]

    return remember


@pytest.fixture(scope="module")
def planner(calibrated: Callable[..., Calibration]) -> Plannable:
    """A fresh planner: it holds nothing that another one has found."""

    def make(kind: str = "llama", seed: int = 0, n_sequences: int = 12) -> Planner:
        model, architecture = _source(kind)
        proposals = tuple(_proposals(N_NEURONS, layer) for layer in range(N_LAYERS))
        calibration = calibrated(model, architecture, n_sequences, key=kind)
        return Planner(model, architecture, calibration, proposals, seed)

    return make


def _removed(plan: PruningPlan) -> int:
    return sum(len(layer.removed) for layer in plan.layers)


# The same width


@pytest.mark.parametrize("round_to", [1, 8])
def test_every_method_keeps_exactly_as_many(planner: Plannable, round_to: int) -> None:
    for kind in ("llama", "gpt2"):
        shared = planner(kind)
        for sparsity in (0.0, 0.1, 0.33, 0.5, 0.9, 0.999):
            expected = [kept_width(N_NEURONS, sparsity, round_to)] * N_LAYERS
            for method in METHODS:
                plan = shared.plan(method, sparsity, round_to=round_to)
                assert plan.widths == expected, method
                assert [layer.n_neurons for layer in plan.layers] == [N_NEURONS] * N_LAYERS
                assert not any(layer.problem() for layer in plan.layers)
                assert (plan.method, plan.sparsity, plan.round_to) == (method, sparsity, round_to)
                assert plan.allocation == "uniform"
                assert plan.changes_nothing == (sparsity == 0)
                # Only poles have stand-ins, and only folding averages: as their records say.
                has_gone, record = sparsity > 0, METHODS[method]
                assert any(x.stand_ins for x in plan.layers) == (record.hands_on and has_gone)
                assert any(x.groups for x in plan.layers) == (record.averages and has_gone)


@pytest.mark.parametrize("method", METHODS)
def test_what_was_asked_before_makes_no_difference(planner: Plannable, method: str) -> None:
    alone = {s: planner().plan(method, s) for s in (0.3, 0.5)}
    falling, rising = planner(), planner()
    assert falling.plan(method, 0.5) == alone[0.5]
    assert falling.plan(method, 0.3) == alone[0.3]
    assert rising.plan(method, 0.3) == alone[0.3]
    assert rising.plan(method, 0.5) == alone[0.5]
    centred = planner().plan(method, 0.5, centred=True)
    assert rising.plan(method, 0.5, centred=True) == centred
    other = planner()
    assert other.plan(method, 0.5, centred=True) == centred
    assert other.plan(method, 0.3) == alone[0.3]
    if method not in ("poles", "folding"):
        # More sparsity removes more, and nothing else.
        for more, fewer in zip(alone[0.5].layers, alone[0.3].layers, strict=True):
            assert set(fewer.removed) < set(more.removed)


@pytest.mark.parametrize("method", METHODS)
def test_only_what_is_random_depends_on_the_seed(planner: Plannable, method: str) -> None:
    plans = [planner(seed=seed).plan(method, 0.4) for seed in (0, 0, 1)]
    assert plans[0] == plans[1]
    assert [plan.seed for plan in plans] == [0, 0, 1]
    assert (plans[0].layers != plans[2].layers) == (method in SEEDED)
    # No two layers by the same dice.
    assert plans[0].layers[0] != plans[0].layers[1]


# Which


def test_those_of_the_least_score_go(planner: Plannable) -> None:
    made = planner("gpt2")
    weights = [read_weights(mlp) for mlp in mlps_of(made.architecture)]
    moments = [layer.all for layer in made.calibration.layers]
    for layer in range(N_LAYERS):
        norms = weights[layer].output.double().norm(dim=0)
        second, mean = moments[layer].second.diagonal(), moments[layer].mean
        scores = {
            "activation": second.sqrt(),
            "wanda": second.sqrt() * weights[layer].output.double().abs().sum(dim=0),
            "flap": (second - mean**2) * norms**2,
            "magnitude": (norms**2 + weights[layer].inputs[0].double().pow(2).sum(dim=1)).sqrt(),
        }
        for method, score in scores.items():
            kept = made.plan(method, 0.3).layers[layer].kept
            assert set(kept) == set(score.topk(28).indices.tolist()), method


@pytest.mark.parametrize("centred", [False, True])
def test_brain_surgery_is_on_the_moments_that_are_asked_for(
    planner: Plannable, centred: bool
) -> None:
    made = planner("opt")
    for layer, mlp in enumerate(mlps_of(made.architecture)):
        moments = made.calibration.layers[layer].all
        matrix = moments.covariance if centred else moments.second
        output = read_weights(mlp).output.double()
        expected = set(eliminate(damped(matrix), output, 20).order.tolist())
        assert set(made.plan("obs", 0.5, centred=centred).layers[layer].removed) == expected
    uncentred, other = (made.plan("poles", 0.5, centred=c) for c in (False, True))
    assert uncentred.layers != other.layers


# Over all layers


@pytest.mark.parametrize("method", GLOBAL)
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3, 0.5, 0.9])
def test_a_global_allocation_removes_as_many_in_all(
    planner: Plannable, method: str, sparsity: float
) -> None:
    plan = planner("varied").plan(method, sparsity, allocation="global")
    assert plan.allocation == "global"
    assert sum(plan.widths) == kept_width(2 * N_NEURONS, sparsity)
    assert not any(layer.problem() for layer in plan.layers)


def test_a_global_allocation_takes_from_the_layer_that_loses_least(
    calibrated: Callable[..., Calibration],
) -> None:
    model = varied(40, 40)
    architecture = find_architecture(model)
    with torch.no_grad():
        read_weights(mlps_of(architecture)[1]).output.mul_(1e-3)
    proposals = tuple(_proposals(N_NEURONS, layer) for layer in range(2))
    made = Planner(model, architecture, calibrated(model, architecture), proposals)
    assert made.plan("obs", 0.3, allocation="global").widths == [40, 16]
    # Never all of a layer.
    for method in REGULAR:
        plan = made.plan(method, 0.6, allocation="global")
        assert plan.widths == [31, 1]
        assert len(plan.layers[1].kept) == 1
    rounded = made.plan("obs", 0.6, allocation="global", round_to=8)
    assert rounded.widths == [32, 8]
    # Scores that are standardized first know nothing of it.
    assert abs(made.plan("wanda", 0.3, allocation="global").widths[0] - 28) < 8


@pytest.mark.parametrize("method", ["wanda", "flap", "magnitude", "activation"])
def test_equal_scores_do_not_all_go_at_once(
    calibrated: Callable[..., Calibration], method: str
) -> None:
    # Neurons that write nothing, or never fire, as many do behind a ReLU.
    model = varied(40, 40)
    architecture = find_architecture(model)
    with torch.no_grad():
        weights = read_weights(mlps_of(architecture)[0])
        weights.output[:, :20] = 0
        for matrix in weights.inputs:
            matrix[:20] = 0
    made = Planner(model, architecture, calibrated(model, architecture))
    plan = made.plan(method, 0.1, allocation="global")
    assert _removed(plan) == 8
    assert set(plan.layers[0].removed) <= set(range(20))


# Refusals


def test_a_global_allocation_of_folds_is_refused(planner: Plannable) -> None:
    with refused("allocation", "global"):
        planner("varied").plan("folding", 0.3, allocation="global")


def test_a_global_allocation_that_the_config_can_not_hold_is_refused(planner: Plannable) -> None:
    with refused("allocation", None, "LlamaForCausalLM", "allocation='uniform'"):
        planner("llama").plan("flap", 0.3, allocation="global")
    assert planner("llama").plan("flap", 0.0, allocation="global").changes_nothing


@pytest.mark.parametrize("method", METHODS)
def test_too_few_tokens_are_refused_where_moments_must_be_regular(
    planner: Plannable, method: str
) -> None:
    # One sequence of 32 tokens, and 40 neurons.
    scant = planner(n_sequences=1)
    assert scant.plan(method, 0.0).changes_nothing
    if method not in REGULAR:
        assert scant.plan(method, 0.3).widths == [28, 28]
        return
    for allocation in ("uniform", "global"):
        with refused("n_sequences", 1, "32 calibration tokens", "40 neurons") as no:
            scant.plan(method, 0.3, allocation=allocation)
    needed = int(str(no.value).partition("n_sequences=")[2].split()[0])
    assert planner(n_sequences=needed).plan(method, 0.3).widths == [28, 28]


def test_poles_without_a_projection_are_refused(planner: Plannable) -> None:
    bare = planner()
    bare.proposals = None
    with refused("projection"):
        bare.plan("poles", 0.3)
    assert bare.plan("obs", 0.3).widths == [28, 28]


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, math.nan, math.inf])
@pytest.mark.parametrize("method", ["random", "poles"])
def test_an_impossible_sparsity_is_refused(
    planner: Plannable, method: str, sparsity: float
) -> None:
    with refused("sparsity", sparsity):
        planner().plan(method, sparsity)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("method", "best"), ("allocation", "even"), ("round_to", 0), ("round_to", -8)],
)
def test_impossible_options_are_refused(planner: Plannable, setting: str, value: object) -> None:
    options: dict[str, Any] = {"method": "random", "sparsity": 0.3, setting: value}
    with refused(setting, value):
        planner().plan(**options)


def test_models_that_can_not_be_pruned_are_refused(
    planner: Plannable, calibrated: Callable[..., Calibration]
) -> None:
    model, architecture = _source("bloom")
    made = Planner(model, architecture, calibrated(model, architecture))
    with refused_naming("BloomForCausalLM", "67 neurons"):
        made.plan("flap", 0.3)
    model, architecture = _source("mixtral")
    mixed = Planner(model, architecture, planner().calibration)
    with refused_naming("layer 0", "4 experts"):
        mixed.plan("random", 0.3)


def test_the_model_is_left_as_it_was(planner: Plannable) -> None:
    model, _ = _source("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    for method in METHODS:
        planner().plan(method, 0.5)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert model.config.to_dict() == config
