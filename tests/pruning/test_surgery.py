"""A plan applied to a model changes what it says and nothing else."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture
from projector.model.architecture.weights import MlpWeights, read_weights
from projector.model.architecture.widths import config_with_widths
from pruning.methods import folding, standins
from pruning.methods.method import Proposals
from pruning.methods.plan import LayerPlan, PruningPlan, StandIn
from pruning.surgery import apply_plan, cut_layer, merged, moved, write_weights
from tests.families import (
    ENCODERS,
    FAMILIES,
    MIXTURES,
    N_LAYERS,
    N_NEURONS,
    N_VOCABULARY,
    build,
)
from tests.projector.model.architecture.test_architecture import NAMES
from tests.projector.model.architecture.test_widths import VariedForCausalLM, varied
from tests.refused import refused, refused_naming

PRUNABLE = [family for family in FAMILIES if family != "bloom"]
GATED = ("qwen2", "qwen3", "llama", "mistral", "gemma2", "gemma3", "phi3", "olmo2")
# Those that go in every layer: the first, the last, neighbours.
GONE = (0, 1, 9, 22, 30, 39)
KEPT = tuple(j for j in range(N_NEURONS) if j not in GONE)


def plan_of(*layers: LayerPlan) -> PruningPlan:
    return PruningPlan("random", 0.15, 0, "uniform", 1, layers)


def same_plan(*stand_ins: StandIn, kept: tuple[int, ...] = KEPT) -> PruningPlan:
    return plan_of(*[LayerPlan(N_NEURONS, kept, stand_ins)] * N_LAYERS)


@cache
def source(family: str) -> tuple[Any, Architecture]:
    """A model and its architecture, shared by the tests that do not change them."""
    model = build(family)
    return model, find_architecture(model)


def weights_of(model: Any) -> list[MlpWeights]:
    """Views of the weights of every layer's MLP, to plant neurons in."""
    return [read_weights(block.mlp) for block in find_architecture(model).blocks if block.mlp]


def logits(model: Any, n_tokens: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(2, N_VOCABULARY, (3, n_tokens), generator=generator)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def copies(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_bitwise(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name], b[name]), name


def assert_same_logits(a: Tensor, b: Tensor) -> None:
    assert a.shape == b.shape
    # It would be no test if the MLPs or the text did not matter.
    assert float(a.std()) > 0.05
    torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)


def widths(model: Any) -> list[int]:
    return [block.mlp.n_neurons for block in find_architecture(model).blocks if block.mlp]


def auto(family: str) -> Any:
    return hf.AutoModelForMaskedLM if family in ENCODERS else hf.AutoModelForCausalLM


# What must not change the logits


@pytest.mark.parametrize("family", PRUNABLE)
def test_neurons_that_write_nothing_can_go(family: str) -> None:
    model = build(family)
    before = logits(model)
    for weights in weights_of(model):
        weights.output[:, GONE] = 0
    expected = logits(model)
    assert float((expected - before).abs().max()) > 1e-3
    pruned = apply_plan(model, same_plan())
    assert widths(pruned) == [len(KEPT)] * N_LAYERS
    assert_same_logits(expected, logits(pruned))


def plant_copies(model: Any, family: str, negatives: bool) -> tuple[StandIn, ...]:
    """Make each neuron that goes a copy, or the negative, of one that stays."""
    pairs = tuple(zip(GONE, (2, 2, 8, 21, 38, 37), strict=True))
    stand_ins = []
    for weights in weights_of(model):
        stand_ins = []
        for place, (j, by) in enumerate(pairs):
            negative = negatives and place % 2 == 0
            for matrix in weights.inputs:
                matrix[j] = matrix[by]
            for bias in weights.input_biases:
                if bias is not None:
                    bias[j] = bias[by]
            if negative:
                # Of gate and up, the second is not bent by the activation.
                weights.inputs[1][j] *= -1
            stand_ins.append(StandIn(j, by, -1.0 if negative else 1.0))
    return tuple(stand_ins)


CASES = [(f, False) for f in PRUNABLE] + [(f, True) for f in GATED]


@pytest.mark.parametrize(("family", "negatives"), CASES)
def test_copies_and_negatives_are_merged_into_their_stand_ins(family: str, negatives: bool) -> None:
    model = build(family)
    stand_ins = plant_copies(model, family, negatives)
    expected = logits(model)
    assert_same_logits(expected, logits(apply_plan(model, same_plan(*stand_ins))))
    # They did matter.
    dropped = logits(apply_plan(model, same_plan()))
    assert float((expected - dropped).abs().max()) > 1e-3


def neurons(model: Any, n_sequences: int = 60) -> list[Tensor]:
    """What every layer's MLP neurons do over random tokens, (T, N) float64."""
    architecture = find_architecture(model)
    found: list[Tensor] = []
    handles = [
        block.taps["mlp_post"].module.register_forward_pre_hook(
            lambda module, args: found.append(args[0].detach().flatten(0, -2).double())
        )
        for block in architecture.blocks
    ]
    generator = torch.Generator().manual_seed(8)
    ids = torch.randint(2, N_VOCABULARY, (n_sequences, 10), generator=generator)
    with torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize(("family", "negatives"), CASES)
def test_the_method_of_poles_finds_copies_and_negatives_by_itself(
    family: str, negatives: bool
) -> None:
    model = build(family)
    stand_ins = plant_copies(model, family, negatives)
    expected = logits(model)
    partner = {each.neuron: each.by for each in stand_ins}
    nothing = Proposals(torch.full((N_NEURONS,), -1), (), torch.full((N_NEURONS, 2), float("nan")))
    layers = []
    for weights, rows in zip(weights_of(model), neurons(model), strict=True):
        layer = standins.plan_layer(
            rows.T @ rows / len(rows), weights.output.double(), nothing, N_NEURONS - len(GONE)
        )
        # Of every pair one goes; of the three that are one (0, 1 and 2), two.
        name = {j: partner.get(j, j) for j in range(N_NEURONS)}
        assert {name[j] for j in layer.kept} == set(KEPT)
        layers.append(layer)
    assert_same_logits(expected, logits(apply_plan(model, plan_of(*layers))))


@pytest.mark.parametrize("family", PRUNABLE)
def test_groups_of_equal_neurons_are_folded(family: str) -> None:
    model = build(family)
    plant_copies(model, family, negatives=False)
    layers = [
        folding.plan_layer(weights, N_NEURONS - len(GONE), seed=0) for weights in weights_of(model)
    ]
    assert_same_logits(logits(model), logits(apply_plan(model, plan_of(*layers))))


# What is kept, and what is left as it was


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_to_remove_leaves_every_tensor_bitwise(family: str) -> None:
    model, architecture = source(family)
    layers = [
        LayerPlan(block.mlp.n_neurons, tuple(range(block.mlp.n_neurons)))
        for block in architecture.blocks
        if block.mlp
    ]
    pruned = apply_plan(model, plan_of(*layers))
    assert pruned is not model
    assert_bitwise(model.state_dict(), pruned.state_dict())
    assert pruned.config.to_dict() == model.config.to_dict()
    # A copy, not the same storage.
    with torch.no_grad():
        next(pruned.parameters()).add_(1)
    assert not torch.equal(next(pruned.parameters()), next(model.parameters()))


@pytest.mark.parametrize("family", PRUNABLE)
def test_only_the_mlp_s_tensors_change_and_by_slices(family: str) -> None:
    model, _ = source(family)
    before, config = copies(model), model.config.to_dict()
    pruned = apply_plan(model, same_plan())
    # The source is as it was.
    assert_bitwise(before, model.state_dict())
    assert model.config.to_dict() == config
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pruned.modules())
    assert pruned.training == model.training is False
    after = pruned.state_dict()
    names = NAMES[family]
    kept = torch.tensor(KEPT)
    rows = torch.cat([kept, kept + N_NEURONS]) if family == "phi3" else kept
    expected = dict(before)
    for layer in range(N_LAYERS):
        prefix = f"{names.blocks}.{layer}."
        for name in names.mlp_inputs:
            axis = 1 - names.input_axis
            weight = f"{prefix}{name}.weight"
            expected[weight] = before[weight].index_select(axis, rows)
            bias = f"{prefix}{name}.bias"
            if bias in before:
                expected[bias] = before[bias][rows]
        weight = f"{prefix}{names.mlp_output}.weight"
        expected[weight] = before[weight].index_select(names.input_axis, kept)
    assert_bitwise(expected, after)
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.zero_()
    assert_bitwise(before, model.state_dict())


@pytest.mark.parametrize("family", PRUNABLE)
def test_a_saved_model_is_a_stock_one(family: str, tmp_path: Path) -> None:
    model, _ = source(family)
    pruned: Any = apply_plan(model, same_plan(StandIn(0, 2, 0.5), StandIn(9, 3, -2.0)))
    pruned.save_pretrained(tmp_path)
    loaded, report = auto(family).from_pretrained(
        tmp_path, output_loading_info=True, use_safetensors=True
    )
    assert type(loaded) is type(model)
    assert not any(report[part] for part in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(logits(pruned), logits(loaded.eval()))
    assert widths(loaded) == [len(KEPT)] * N_LAYERS
    removed = sum(p.numel() for p in model.parameters()) - sum(
        p.numel() for p in loaded.parameters()
    )
    per_neuron = sum(matrix.shape[1] for matrix in weights_of(model)[0].inputs)
    per_neuron += sum(bias is not None for bias in weights_of(model)[0].input_biases)
    per_neuron += weights_of(model)[0].output.shape[0]
    assert removed == per_neuron * len(GONE) * N_LAYERS


@pytest.mark.parametrize("family", [f for f in PRUNABLE if f not in ENCODERS])
def test_a_pruned_model_generates(family: str) -> None:
    model, _ = source(family)
    pruned: Any = apply_plan(model, same_plan())
    ids = torch.tensor([[5, 9, 12, 30]])
    # No end before the fifth token.
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    out = pruned.generate(ids, attention_mask=torch.ones_like(ids), **options)
    assert out.shape == (1, 9)
    # Read again without the cache, each token is the most likely one but for the end.
    with torch.no_grad():
        scores = pruned(input_ids=out).logits[0, 3:-1]
    ends = pruned.generation_config.eos_token_id
    if ends is not None:
        scores[:, ends] = -torch.inf
    assert torch.equal(scores.argmax(dim=-1), out[0, 4:])
    assert pruned.generation_config.to_dict() == model.generation_config.to_dict()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", PRUNABLE)
def test_tied_weights_stay_tied_and_untied_ones_apart(
    family: str, tied: bool, tmp_path: Path
) -> None:
    config = deepcopy(source(family)[0].config)
    config.tie_word_embeddings = tied
    torch.manual_seed(0)
    model = type(source(family)[0])(config).eval()

    def is_tied(model: Any) -> bool:
        head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        return head.data_ptr() == table.data_ptr()

    pruned: Any = apply_plan(model, same_plan())
    assert is_tied(model) == is_tied(pruned) == tied
    assert not any(
        p.data_ptr() == q.data_ptr() for p in model.parameters() for q in pruned.parameters()
    )
    pruned.save_pretrained(tmp_path)
    loaded = auto(family).from_pretrained(tmp_path).eval()
    assert is_tied(loaded) == tied
    assert torch.equal(logits(loaded), logits(pruned))


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "opt", "gemma3", "bert"])
def test_a_bfloat16_model_stays_one(family: str, tmp_path: Path) -> None:
    model = build(family).to(torch.bfloat16)
    pruned: Any = apply_plan(model, same_plan(StandIn(0, 2, 0.3), StandIn(1, 2, 0.3)))
    assert {p.dtype for p in pruned.parameters()} == {torch.bfloat16}
    for weights, new in zip(weights_of(model), weights_of(pruned), strict=True):
        # Summed before it is rounded.
        added = weights.output[:, 2].double() + 0.3 * weights.output[:, :2].double().sum(dim=1)
        assert torch.equal(new.output[:, 0], added.to(torch.bfloat16))
    pruned.save_pretrained(tmp_path)
    loaded = auto(family).from_pretrained(tmp_path, dtype="auto").eval()
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(logits(loaded), logits(pruned))


def test_what_is_not_a_parameter_and_the_mode_are_kept() -> None:
    model = build("llama").train()
    model.generation_config.max_new_tokens = 17
    pruned: Any = apply_plan(model, same_plan())
    assert pruned.training
    assert pruned.generation_config.max_new_tokens == 17
    assert pruned.generation_config is not model.generation_config
    torch.testing.assert_close(
        pruned.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq, rtol=0, atol=0
    )


# Plans of every kind


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "opt"])
def test_stand_ins_take_over_columns_times_their_coefficients(family: str) -> None:
    model, _ = source(family)
    stand_ins = (StandIn(0, 2, 0.5), StandIn(0, 38, -2.0), StandIn(9, 2, 3.0))
    pruned = apply_plan(model, same_plan(*stand_ins))
    for old, new in zip(weights_of(model), weights_of(pruned), strict=True):
        output = old.output.clone()
        output[:, 2] += 0.5 * old.output[:, 0] + 3 * old.output[:, 9]
        output[:, 38] -= 2 * old.output[:, 0]
        torch.testing.assert_close(new.output, output[:, list(KEPT)])
        for a, b in zip(old.inputs, new.inputs, strict=True):
            assert torch.equal(a[list(KEPT)], b)


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "opt"])
def test_averages_are_those_of_every_group(family: str) -> None:
    model, _ = source(family)
    groups = tuple((5 * j) % 7 for j in range(N_NEURONS))
    kept = tuple(sorted(groups.index(group) for group in range(7)))
    # Group g is put in the place of ``kept`` that its first member has.
    place = {groups[j]: i for i, j in enumerate(kept)}
    plan = LayerPlan(N_NEURONS, kept, groups=tuple(place[group] for group in groups))
    assert plan.problem() is None
    pruned = apply_plan(model, plan_of(*[plan] * N_LAYERS))
    for old, new in zip(weights_of(model), weights_of(pruned), strict=True):
        for i, j in enumerate(kept):
            members = [k for k in range(N_NEURONS) if groups[k] == groups[j]]
            assert len(members) > 1
            for a, b in zip(old.inputs, new.inputs, strict=True):
                torch.testing.assert_close(b[i], sum(a[k] for k in members) / len(members))
            for a, b in zip(old.input_biases, new.input_biases, strict=True):
                if a is not None and b is not None:
                    torch.testing.assert_close(b[i], sum(a[k] for k in members) / len(members))
            torch.testing.assert_close(new.output[:, i], sum(old.output[:, k] for k in members))


def test_layers_of_different_widths_where_the_config_holds_them(tmp_path: Path) -> None:
    model = varied(40, 32)
    first, second = (
        LayerPlan(40, KEPT, (StandIn(0, 2, 1.0),)),
        LayerPlan(32, tuple(range(0, 32, 2))),
    )
    for weights, layer in zip(weights_of(model), (first, second), strict=True):
        weights.output[:, layer.removed] = 0
    pruned: Any = apply_plan(model, plan_of(first, second))
    assert widths(pruned) == [34, 16]
    assert_same_logits(logits(model), logits(pruned))
    pruned.save_pretrained(tmp_path)
    loaded = VariedForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(loaded), logits(pruned))


def test_layers_of_different_widths_are_refused_elsewhere() -> None:
    model, _ = source("llama")
    plan = plan_of(LayerPlan(N_NEURONS, KEPT), LayerPlan(N_NEURONS, KEPT[1:]))
    with refused("allocation", None, "LlamaForCausalLM"):
        apply_plan(model, plan)


# Biases


@pytest.mark.parametrize("layer", [LayerPlan(40, KEPT), LayerPlan(40, tuple(range(40)))])
@pytest.mark.parametrize("family", ["llama", "falcon"])
def test_a_bias_is_added_of_zeros(family: str, layer: LayerPlan, tmp_path: Path) -> None:
    model, architecture = source(family)
    plan = plan_of(*[layer] * N_LAYERS)
    plain = apply_plan(model, plan, architecture=architecture)
    biased: Any = apply_plan(model, plan, architecture=architecture, with_bias=True)
    without, state = plain.state_dict(), biased.state_dict()
    added = {name for name in state if name not in without}
    outputs = {f"{block.mlp.output.name}.bias" for block in architecture.blocks if block.mlp}
    assert outputs <= added
    assert all(name.endswith(".bias") and not state[name].any() for name in added)
    assert_bitwise(without, {name: state[name] for name in without})
    assert torch.equal(logits(plain), logits(biased))
    biased.save_pretrained(tmp_path)
    loaded, report = hf.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert all(weights.output_bias is not None for weights in weights_of(loaded.eval()))
    assert torch.equal(logits(loaded), logits(biased))


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "opt", "bert", "roberta"])
def test_a_bias_that_is_there_is_kept(family: str) -> None:
    model, _ = source(family)
    plain, biased = (apply_plan(model, same_plan(), with_bias=b) for b in (False, True))
    assert_bitwise(plain.state_dict(), biased.state_dict())
    for old, new in zip(weights_of(model), weights_of(biased), strict=True):
        assert old.output_bias is not None
        assert new.output_bias is not None
        assert torch.equal(old.output_bias, new.output_bias)


def test_a_bias_that_can_not_be_is_refused() -> None:
    with refused_naming("Qwen2ForCausalLM", "bias"):
        apply_plan(source("qwen2")[0], same_plan(), with_bias=True)


# Refitted weights


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "opt", "falcon", "bert"])
def test_written_weights_are_read_again(family: str) -> None:
    model = build(family)
    architecture = find_architecture(model)
    before = copies(model)
    generator = torch.Generator().manual_seed(4)

    def new(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else torch.randn(tensor.shape, generator=generator)

    old = weights_of(model)[1]
    written: Any = MlpWeights(
        tuple(new(w) for w in old.inputs),  # type: ignore[misc]
        tuple(new(b) for b in old.input_biases),
        new(old.output),  # type: ignore[arg-type]
        new(old.output_bias),
    )
    write_weights(model, architecture, 1, written)
    found = weights_of(model)[1]
    for a, b in zip(
        (*written.inputs, *written.input_biases, written.output, written.output_bias),
        (*found.inputs, *found.input_biases, found.output, found.output_bias),
        strict=True,
    ):
        assert a is b is None or torch.equal(a, b)
    prefix = f"{NAMES[family].blocks}.1."
    for name, tensor in model.state_dict().items():
        inside = any(
            name.startswith(prefix + each)
            for each in (*NAMES[family].mlp_inputs, NAMES[family].mlp_output)
        )
        assert torch.equal(tensor, before[name]) != inside, name
    assert all(p.requires_grad for p in model.parameters())


# Refusals


@pytest.mark.parametrize("family", MIXTURES)
def test_a_mixture_of_experts_is_refused(family: str) -> None:
    with refused_naming("layer 0", "4 experts"):
        apply_plan(build(family), same_plan())


def test_a_width_that_is_hard_wired_is_refused() -> None:
    model, _ = source("bloom")
    plan = plan_of(*[LayerPlan(96, tuple(range(90)))] * N_LAYERS)
    with refused_naming("BloomForCausalLM", "90 neurons"):
        apply_plan(model, plan)


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ([LayerPlan(41, KEPT)] * 2, ("2 × 41 neurons", "2 × 40")),
        ([LayerPlan(40, KEPT)] * 3, ("3 × 40 neurons", "2 × 40")),
        ([LayerPlan(40, KEPT), LayerPlan(1040, KEPT)], ("40, 1,040 neurons", "2 × 40")),
    ],
)
def test_a_plan_of_another_model_is_refused(
    layers: list[LayerPlan], names: tuple[str, ...]
) -> None:
    with refused_naming(*names):
        apply_plan(source("llama")[0], plan_of(*layers))


def test_the_architecture_of_the_trunk_will_do() -> None:
    model, architecture = source("llama")
    by_trunk = apply_plan(model, same_plan(), architecture=find_architecture(model.model))
    assert_bitwise(
        apply_plan(model, same_plan(), architecture=architecture).state_dict(),
        by_trunk.state_dict(),
    )
    mutable = build("llama")
    old = weights_of(mutable)[0]
    write_weights(mutable, find_architecture(mutable.model), 0, old.to(torch.float64))
    assert_bitwise(model.state_dict(), mutable.state_dict())


# Cut in place


def cut(model: Any) -> Any:
    """The model cut by the plan that removes the same neurons of every layer."""
    architecture = find_architecture(model)
    config = config_with_widths(model, architecture, [len(KEPT)] * N_LAYERS)
    for layer, weights in enumerate(weights_of(model)):
        cut_layer(model, architecture, layer, merged(weights, LayerPlan(N_NEURONS, KEPT)))
    return moved(model, config)


def mlp_places(model: Any) -> list[int]:
    return [
        matrix.module.weight.data_ptr()
        for block in find_architecture(model).blocks
        if block.mlp
        for matrix in (*block.mlp.inputs, block.mlp.output)
    ]


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_weights_are_cut_where_they_lie_and_their_file_is_not_changed(
    family: str, tmp_path: Path
) -> None:
    source(family)[0].save_pretrained(tmp_path / "dense")
    file = tmp_path / "dense" / "model.safetensors"
    before = file.read_bytes()
    model = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    places = mlp_places(model)
    pruned = cut(model)
    assert mlp_places(pruned) == places
    assert file.read_bytes() == before
    assert_bitwise(apply_plan(source(family)[0], same_plan()).state_dict(), pruned.state_dict())
    # What is saved is what is left of them.
    pruned.save_pretrained(tmp_path / "pruned")
    n_bytes = sum(p.nbytes for p in pruned.parameters())
    assert (tmp_path / "pruned" / "model.safetensors").stat().st_size < n_bytes + 10_000
    again = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "pruned")
    assert_bitwise(again.state_dict(), pruned.state_dict())


def test_memory_that_others_have_too_is_not_overwritten(tmp_path: Path) -> None:
    model = build("llama")
    first, second = (layer.mlp for layer in model.model.layers)
    # Another of the model's tensors has it, or a file.
    model.model.norm.weight = torch.nn.Parameter(first.gate_proj.weight.detach()[1])
    expected = apply_plan(model, same_plan()).state_dict()
    own = second.up_proj.weight
    file = tmp_path / "shared"
    own.detach().numpy().tofile(file)
    before = file.read_bytes()
    mapped = torch.from_file(str(file), shared=True, size=own.numel()).view(own.shape)
    second.up_proj.weight = torch.nn.Parameter(mapped, requires_grad=own.requires_grad)
    pruned = cut(model)
    found = pruned.state_dict()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert file.read_bytes() == before
