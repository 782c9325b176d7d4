"""Direct logit attribution: parts that sum to the model's own logit, checked in other ways."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as hf

from projector.errors import SettingError, UserError
from projector.model.capture import Tap, collect
from projector.model.loading import LoadedModel
from projector.residual.attribution import attribute, check_closure
from projector.residual.lens import run_lens
from projector.residual.logits.records import Attribution
from projector.residual.subject import Subject
from tests.families import CLOSE_PER_BLOCK, FAMILIES, MIXTURES, STREAMS, build

IDS = [0, 17, 204, 33, 9, 161, 250, 33, 9]
DECODERS = [f for f in {**FAMILIES, **MIXTURES, **STREAMS} if f not in CLOSE_PER_BLOCK]


def subject_of(model: Any, tokenizer: Any) -> Subject:
    return Subject(LoadedModel(model, tokenizer, "tiny", ""))


@pytest.fixture(scope="module")
def llama(tokenizer: Any) -> Subject:
    return subject_of(build("llama"), tokenizer)


def own_logits(subject: Subject, ids: list[int] = IDS) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = subject.model(**subject.inputs(ids)).logits[0].double()
    return logits


def value_of(found: Attribution, name: str) -> float:
    (value,) = (part.value for part in (*found.parts, *found.neurons) if part.name == name)
    return value


@pytest.mark.parametrize("family", DECODERS)
def test_parts_close_to_the_models_own_logit(family: str, tokenizer: Any) -> None:
    subject = subject_of(build(family), tokenizer)
    logits = own_logits(subject)
    token = int(logits[-1].argmax())
    found = attribute(subject, IDS)
    total, size = sum(p.value for p in found.parts), sum(abs(p.value) for p in found.parts)
    assert found.token == token
    assert found.logit == pytest.approx(float(logits[-1, token]), abs=1e-6)
    assert abs(total - float(logits[-1, token])) / size <= 1e-5
    assert found.closure_error == pytest.approx(abs(total - found.logit) / size, abs=1e-12)
    assert found.additivity_error <= 1e-5
    assert found.steps[-1].total == pytest.approx(total)
    heads = [part for part in found.parts if part.kind == "head"]
    assert len(heads) == 4 * len(subject.architecture.blocks)
    # No part is huge and undone by another: the sum would close without telling anything.
    assert size < 200 * max(abs(found.logit), 1)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "bloom"])
def test_a_difference_is_the_difference_of_attributions(family: str, tokenizer: Any) -> None:
    subject = subject_of(build(family), tokenizer)
    one, two = (attribute(subject, IDS, token=t, position=-3) for t in (40, 77))
    both = attribute(subject, IDS, token=40, against=77, position=6)
    assert both.position == one.position == 6
    logits = own_logits(subject)[6]
    assert both.logit == pytest.approx(float(logits[40] - logits[77]), abs=1e-5)
    minus = {p.name: p.value for p in two.parts}
    for part in one.parts:
        found = next((p.value for p in both.parts if p.name == part.name), 0.0)
        assert found == pytest.approx(part.value - minus[part.name], abs=1e-5)


def frozen_logit_gradient(subject: Subject, token: int, norm: Any, eps: float) -> torch.Tensor:
    """∂logit/∂stream at the last position, with the norm's scale held fixed, by autograd."""
    last = subject.architecture.blocks[-1].module
    stream = collect(subject.model, {"x": Tap(last, "output")}, subject.inputs(IDS))["x"][0, -1]
    x = stream.double().requires_grad_()
    weight = subject.model.get_output_embeddings().weight.double()
    if isinstance(norm, torch.nn.LayerNorm):
        centred = x - x.mean()
        scale = (centred.pow(2).mean() + eps).rsqrt().detach()
        normed = centred * scale * norm.weight.double() + norm.bias.double()
    else:
        gain = norm.weight.double() + (1 if "Gemma" in type(norm).__name__ else 0)
        normed = x * (x.pow(2).mean() + eps).rsqrt().detach() * gain
    logit = weight[token] @ normed
    (gradient,) = torch.autograd.grad(logit, x)
    return gradient


@pytest.mark.parametrize(
    ("family", "attention", "mlp", "norm"),
    [
        ("llama", "model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp", "model.norm"),
        (
            "gemma2",
            "model.layers.{}.post_attention_layernorm",
            "model.layers.{}.post_feedforward_layernorm",
            "model.norm",
        ),
        ("gpt2", "transformer.h.{}.attn.c_proj", "transformer.h.{}.mlp", "transformer.ln_f"),
    ],
)
def test_values_are_gradient_times_contribution(
    family: str, attention: str, mlp: str, norm: str, tokenizer: Any
) -> None:
    subject = subject_of(build(family), tokenizer)
    module = subject.model.get_submodule
    token = 123
    eps = getattr(module(norm), "eps", None) or getattr(module(norm), "variance_epsilon", 1e-6)
    gradient = frozen_logit_gradient(subject, token, module(norm), eps)
    found = attribute(subject, IDS, token=token)
    taps = {
        (layer, kind): Tap(module(name.format(layer)), "output")
        for layer in range(2)
        for kind, name in (("attention", attention), ("mlp", mlp))
    }
    for (layer, kind), given in collect(subject.model, taps, subject.inputs(IDS)).items():
        expected = float(given[0, -1].double() @ gradient)
        kinds = (
            ("head", "attention", "attention bias")
            if kind == "attention"
            else (
                "mlp",
                "mlp bias",
            )
        )
        value = sum(p.value for p in found.parts if p.layer == layer and p.kind in kinds)
        assert value == pytest.approx(expected, abs=1e-4)


def test_a_heads_value_is_what_taking_it_away_changes(llama: Subject) -> None:
    token, head, layer = 55, 2, 1
    block = llama.architecture.blocks[layer].module
    z = collect(llama.model, {"z": Tap(block.self_attn.o_proj, "input")}, llama.inputs(IDS))["z"]
    width = z.shape[-1] // 4
    columns = slice(head * width, (head + 1) * width)
    added = block.self_attn.o_proj.weight[:, columns].detach() @ z[0, -1, columns]
    gradient = frozen_logit_gradient(llama, token, llama.model.model.norm, 1e-6)
    found = attribute(llama, IDS, token=token)
    expected = pytest.approx(float(gradient @ added.double()), abs=1e-5)
    assert value_of(found, f"L{layer} H{head}") == expected


@pytest.mark.parametrize("family", ["llama", "gemma2", "bloom"])
def test_neurons_are_shares_of_their_mlp(family: str, tokenizer: Any) -> None:
    subject = subject_of(build(family), tokenizer)
    found = attribute(subject, IDS, n_neurons=10_000)
    for layer in range(2):
        neurons = sum(p.value for p in found.neurons if p.layer == layer)
        assert neurons == pytest.approx(value_of(found, f"L{layer} MLP"), abs=1e-4)
    few = attribute(subject, IDS, n_neurons=3)
    assert [p.kind for p in few.neurons] == ["neuron"] * 3 + ["other neurons"]
    assert {p.part_of for p in few.neurons} == {"mlp"}
    assert few.neurons[:3] == found.neurons[:3]
    assert sum(p.value for p in few.neurons) == pytest.approx(
        sum(p.value for p in found.neurons), abs=1e-4
    )
    assert not any(p.part_of for p in few.parts)
    sizes = [abs(p.value) for p in found.neurons]
    assert sizes == sorted(sizes, reverse=True)


def by_hand() -> Any:
    """One layer, one head, two dimensions, whose numbers can be followed on paper."""
    model = hf.LlamaForCausalLM(
        hf.LlamaConfig(
            vocab_size=320,
            hidden_size=2,
            intermediate_size=2,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=2,
            hidden_act="relu",
            rms_norm_eps=1e-9,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    ).eval()
    layer = model.model.layers[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
        for norm in (layer.input_layernorm, layer.post_attention_layernorm, model.model.norm):
            norm.weight.fill_(1.0)
        # Token 5 is (3, 4), whose root mean square is √12.5.
        model.model.embed_tokens.weight[5] = torch.tensor([3.0, 4.0])
        layer.self_attn.v_proj.weight.copy_(12.5**0.5 * torch.eye(2))
        layer.self_attn.o_proj.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        # Behind attention the stream is (3, 4) + (4, 3); normed, (1, 1).
        layer.mlp.gate_proj.weight.copy_(torch.eye(2))
        layer.mlp.up_proj.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        # Neurons are 1 and 2: they add (2, −1) and 2·(−1, 9).
        layer.mlp.down_proj.weight.copy_(torch.tensor([[2.0, -1.0], [-1.0, 9.0]]))
        # The stream ends as (7, 24), of root mean square 25/√2.
        model.lm_head.weight[7] = torch.tensor([1.0, -1.0])
    return model


def test_a_case_worked_by_hand(tokenizer: Any) -> None:
    found = attribute(subject_of(by_hand(), tokenizer), [5], token=7)
    unit = 2**0.5 / 25
    values = {part.name: part.value / unit for part in found.parts}
    assert values == pytest.approx({"embedding": 3 - 4, "L0 H0": 4 - 3, "L0 MLP": 0 - 17}, abs=1e-5)
    assert found.logit / unit == pytest.approx(7 - 24, abs=1e-5)
    neurons = {part.name: part.value / unit for part in found.neurons}
    assert neurons == pytest.approx({"L0 N0": 2 + 1, "L0 N1": -2 - 18}, abs=1e-5)


def test_a_softcap_is_a_step_of_its_own(tokenizer: Any) -> None:
    model = build("gemma2")
    model.config.final_logit_softcapping = 0.3
    found = attribute(subject_of(model, tokenizer), IDS)
    assert found.softcap == pytest.approx(0.3)
    before = sum(p.value for p in found.parts if p.kind != "softcap")
    cap = value_of(found, "softcap")
    # The cap matters here, or this would test nothing.
    assert abs(cap) > 0.01
    assert 0.3 * float(torch.tensor(before / 0.3).tanh()) == pytest.approx(found.logit, abs=1e-5)
    assert before + cap == pytest.approx(found.logit, abs=1e-5)
    assert [step.name for step in found.steps][-1] == "softcap"


def test_a_logit_scale_multiplies_every_part(tokenizer: Any) -> None:
    model = build("cohere")
    before = attribute(subject_of(model, tokenizer), IDS, token=7)
    assert before.scale == pytest.approx(model.logit_scale)
    model.logit_scale *= 3
    after = attribute(subject_of(model, tokenizer), IDS, token=7)
    assert after.scale == pytest.approx(3 * before.scale)
    assert after.logit == pytest.approx(3 * before.logit, rel=1e-4)
    for one, two in zip(before.parts, after.parts, strict=True):
        assert two.value == pytest.approx(3 * one.value, abs=1e-5)


def test_short_types_close_within_their_own_bound(tokenizer: Any) -> None:
    found = attribute(subject_of(build("llama").to(torch.bfloat16), tokenizer), IDS, token=5)
    assert 1e-5 < found.closure_bound <= 2e-2
    assert found.closure_error <= found.closure_bound
    exact = attribute(subject_of(build("llama"), tokenizer), IDS, token=5)
    assert value_of(found, "L1 MLP") == pytest.approx(value_of(exact, "L1 MLP"), abs=0.02)
    rounded = [p.value for p in found.parts if p.kind == "rounding"]
    assert 0 < sum(abs(value) for value in rounded) < 0.02 * found.total_size
    assert found.rounding == pytest.approx(sum(rounded))
    assert found.as_dict()["rounding_share"] == pytest.approx(abs(sum(rounded)) / found.total_size)
    # Rounding is whatever the other parts miss: it must not make the error small.
    others = [p.value for p in found.parts if p.kind != "rounding"]
    error = abs(sum(others) - found.logit) / sum(abs(value) for value in others)
    assert found.closure_error == pytest.approx(error)
    assert 0 < found.step_error <= found.additivity_error <= 2e-2
    assert (exact.rounding, exact.rounding_share) == (0, 0)


def test_factors_that_are_off_show_in_half_precision(tokenizer: Any) -> None:
    model = build("llama")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight *= 8
            layer.mlp.down_proj.weight *= 8
    subject = subject_of(model.to(torch.bfloat16), tokenizer)
    usual = [attribute(subject, IDS, token=token) for token in range(5, 17)]
    blocks = []
    for block in subject.layout.blocks:
        wrong: dict[str, Any] = {
            name: replace(each, factor=1.015) for name, each in block.additions().items()
        }
        blocks.append(replace(block, **wrong))
    vars(subject)["layout"] = replace(subject.layout, blocks=tuple(blocks))
    found = [attribute(subject, IDS, token=token) for token in range(5, 17)]
    assert found[0].additivity_error > 3 * usual[0].additivity_error
    assert sum(e.closure_error for e in found) > 2 * sum(e.closure_error for e in usual)


def test_controls_are_what_a_part_adds_to_other_tokens(llama: Subject) -> None:
    found = attribute(llama, IDS, token=40)
    part = next(p for p in found.parts if p.name == "L1 MLP")
    others = [value_of(attribute(llama, IDS, token=t), "L1 MLP") for t in range(60, 120)]
    assert part.control_mean is not None
    assert part.control_sd is not None
    spread = float(torch.tensor(others).std())
    assert part.control_mean == pytest.approx(float(torch.tensor(others).mean()), abs=spread / 2)
    assert part.control_sd == pytest.approx(spread, rel=0.5)


def test_a_stream_that_does_not_add_up_is_refused(tokenizer: Any) -> None:
    subject = subject_of(build("llama"), tokenizer)
    attribute(subject, IDS)
    block = subject.architecture.blocks[1].module
    # What no part of the block adds.
    handle = block.register_forward_hook(lambda _m, _a, output: output + 0.5)
    try:
        with pytest.raises(UserError):
            attribute(subject, IDS)
    finally:
        handle.remove()


def test_a_sum_that_misses_the_logit_is_refused(llama: Subject) -> None:
    found = attribute(llama, IDS)
    check_closure(found)
    for error in (1.01 * found.closure_bound, float("nan")):
        with pytest.raises(UserError):
            check_closure(replace(found, closure_error=error))


@pytest.mark.parametrize("family", CLOSE_PER_BLOCK)
def test_without_a_running_sum_or_a_causal_head_nothing_is_attributed(
    family: str, tokenizer: Any
) -> None:
    with pytest.raises(UserError):
        attribute(subject_of(build(family), tokenizer), IDS)


@pytest.mark.parametrize(
    ("setting", "value", "more"),
    [
        ("position", 9, {}),
        ("position", -10, {}),
        ("token", 320, {}),
        ("against", "#400", {}),
        ("against", 40, {"token": 40}),
        ("n_neurons", -1, {}),
    ],
)
def test_settings_that_cannot_be(
    setting: str, value: Any, more: dict[str, Any], llama: Subject
) -> None:
    with pytest.raises(SettingError) as caught:
        attribute(llama, IDS, **{setting: value, **more})
    assert (caught.value.setting, caught.value.value) == (setting, value)


def test_as_json(llama: Subject) -> None:
    found = attribute(llama, IDS, token=3, against=4)
    value = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    total = sum(part["value"] for part in value["parts"])
    assert total == pytest.approx(value["logit"], abs=1e-4)
    assert {"name", "layer", "value", "kind", "head", "neuron"} <= set(value["parts"][0])
    assert value["closure_error"] == found.closure_error
    assert sum(abs(part["share"]) for part in value["parts"]) == pytest.approx(1)


@pytest.mark.parametrize("ids", [[], [0, 320], [0, -1], [5] * 65])
def test_ids_that_the_model_cannot_take(ids: list[int], llama: Subject) -> None:
    with pytest.raises(UserError):
        attribute(llama, ids)


@pytest.mark.parametrize(
    "family", ["llama", "gemma2", "gpt2", "granite", "cohere", "opt", "stablelm_parallel"]
)
def test_the_parts_written_by_then_close_to_what_the_lens_reads(
    family: str, tokenizer: Any
) -> None:
    subject = subject_of(build(family), tokenizer)
    read = run_lens(subject, IDS, n_top=3)
    own = attribute(subject, IDS, position=4)
    places = [(each.layer, each.stream) for each in read.readings]
    for number, (layer, stream) in enumerate(places):
        found = attribute(subject, IDS, position=4, until=(layer, stream))
        assert found.until == (layer, stream)
        top = [(i, share) for _, i, share in read.top(number, 4)]
        assert [i for _, i, _ in found.top[:3]] == [i for i, _ in top]
        assert found.token == top[0][0]
        assert found.probability == pytest.approx(top[0][1], abs=1e-6)
        total, size = sum(p.value for p in found.parts), sum(abs(p.value) for p in found.parts)
        assert abs(total - found.logit) / size <= 1e-5
        # What is written later is no part of it.
        layers = {p.layer for p in found.parts if p.layer is not None}
        assert layers == set(range(layer + (stream != "resid_pre")))
        mlps = {p.layer for p in (*found.parts, *found.neurons) if p.kind in ("mlp", "neuron")}
        assert mlps == set(range(layer + (stream == "resid_post")))
    # The last place of all is the model's own logit.
    assert found.logit == pytest.approx(own.logit, abs=1e-5)
    names = [part.name for part in own.parts]
    assert [part.name for part in found.parts] == names
    # Against another token, as a difference.
    one, other = (attribute(subject, IDS, token=t, until=places[1]) for t in (40, 77))
    both = attribute(subject, IDS, token=40, against=77, until=places[1])
    assert both.logit == pytest.approx(one.logit - other.logit, abs=1e-5)


def test_the_lens_of_a_model_in_half_precision_closes_too(tokenizer: Any) -> None:
    subject = subject_of(build("llama").to(torch.bfloat16), tokenizer)
    for until in ((0, "resid_pre"), (0, "resid_mid"), (1, "resid_mid"), (1, "resid_pre")):
        found = attribute(subject, IDS, until=until)
        total, size = sum(p.value for p in found.parts), sum(abs(p.value) for p in found.parts)
        assert abs(total - found.logit) / size <= 2e-2


def test_a_place_is_given_by_its_name_too(llama: Subject) -> None:
    assert attribute(llama, IDS, until="1 mid") == attribute(llama, IDS, until=(1, "resid_mid"))
    assert attribute(llama, IDS, until="L1 resid_post").until == (1, "resid_post")
    assert attribute(llama, IDS).until is None


@pytest.mark.parametrize("until", [(2, "resid_mid"), (-1, "resid_post"), (0, "mlp"), "1", "2 mid"])
def test_a_place_that_is_not_there_is_refused(llama: Subject, until: Any) -> None:
    with pytest.raises(SettingError) as error:
        attribute(llama, IDS, until=until)
    assert error.value.setting == "until"


def test_a_parallel_block_has_no_place_between(tokenizer: Any) -> None:
    subject = subject_of(build("stablelm_parallel"), tokenizer)
    with pytest.raises(SettingError) as error:
        attribute(subject, IDS, until=(0, "resid_mid"))
    assert error.value.setting == "until"
