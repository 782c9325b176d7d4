"""The parts of every family's stream sum to it; heads and neurons sum to their sublayer."""

from __future__ import annotations

import weakref
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from projector.errors import UserError, named
from projector.model.capture import Tap, collect
from projector.model.intervention import Replacement, intervene
from projector.residual.bigrams.alone import streams_alone
from projector.residual.circuits.goals import find_goal
from projector.residual.contributions import (
    BlockContributions,
    Contributions,
    EmbeddingContributions,
    Part,
    StreamError,
    SumCheck,
    check_additivity,
    collect_contributions,
    watch_contributions,
)
from projector.residual.subject import Subject
from tests.families import CLOSE_PER_BLOCK, FAMILIES, MIXTURES, STREAMS, subject_of

IDS = [(13 * i + 5) % 300 for i in range(20)]
ALL = (*FAMILIES, *MIXTURES, *STREAMS)


@cache
def found(family: str) -> tuple[Subject, Contributions]:
    """A model and its contributions, shared by the tests that change neither."""
    subject = subject_of(family)
    return subject, collect_contributions(subject, IDS, neurons=True)


def summed(parts: list[Part]) -> Tensor:
    return torch.stack([part.values for part in parts]).sum(0)


def off_by(given: Tensor, expected: Tensor) -> float:
    """The largest error of a token relative to what is expected there."""
    return float(((given - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


@pytest.mark.parametrize("family", ALL)
def test_the_parts_sum_to_the_stream(family: str) -> None:
    subject, given = found(family)
    assert given.additivity_error <= 1e-5
    check_additivity(given.check)
    assert off_by(summed(list(given.embedding.parts)), given.embedding.stream) < 1e-5
    assert given.closes_per_block == (family in CLOSE_PER_BLOCK)
    if given.closes_per_block:
        return
    taps = subject.architecture.taps(["resid_pre", "resid_post"], [0, 1])
    streams = collect(subject.model, taps, subject.inputs(IDS))
    for layer, block in enumerate(given.blocks):
        assert torch.equal(block.pre, streams[layer, "resid_pre"].reshape(20, -1))
        assert torch.equal(block.post, streams[layer, "resid_post"].reshape(20, -1))
    for by_head in (False, True):
        parts = given.parts(by_head=by_head)
        assert off_by(summed(parts), streams[1, "resid_post"].reshape(20, -1)) < 1e-5
        assert len({part.name for part in parts}) == len(parts)
        assert sum(part.kind == "head" for part in parts) == (8 if by_head else 0)


@pytest.mark.parametrize("family", ALL)
def test_heads_and_neurons_sum_to_their_sublayer(family: str) -> None:
    _, given = found(family)
    directions = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))
    for block in given.blocks:
        assert block.attention is not None
        assert block.mlp is not None
        heads = block.heads()
        assert heads.shape == (20, 4, 24)
        assert off_by(heads.sum(1), block.attention) < 1e-5
        torch.testing.assert_close(
            block.project_heads(directions), heads @ directions.T, rtol=1e-4, atol=1e-4
        )
        if family in MIXTURES:
            with pytest.raises(UserError):
                block.project_neurons(directions)
            continue
        neurons = block.project_neurons(directions)
        torch.testing.assert_close(neurons.sum(1), block.mlp @ directions.T, rtol=1e-4, atol=1e-3)
        one_by_one = block.take(torch.tensor([3])).project_neurons(directions)
        torch.testing.assert_close(one_by_one, neurons[3:4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gemma2_capped", "olmo2", "granite"])
def test_the_sum_of_what_sublayers_give_is_off_where_ours_closes(family: str) -> None:
    """Summed another way: what each sublayer's module gives, by its name in the source."""
    subject, given = found(family)
    trunk = subject.model.model
    modules = {
        (i, name): Tap(layer.get_submodule(name), "output")
        for i, layer in enumerate(trunk.layers)
        for name in ("self_attn", "mlp")
    }
    taps: dict[Any, Tap] = {
        **modules,
        "embedding": Tap(trunk.embed_tokens, "output"),
        "end": Tap(trunk.layers[-1], "output"),
    }
    seen = {
        key: tensor[0] for key, tensor in collect(subject.model, taps, subject.inputs(IDS)).items()
    }
    end = seen.pop("end")
    naive = torch.stack(list(seen.values())).sum(0)
    assert off_by(naive, end) > 0.04
    assert off_by(summed(given.parts()), end) < 1e-5
    # What the model's source does with them.
    for i, layer in enumerate(trunk.layers):
        block = given.blocks[i]
        attention, mlp = seen[i, "self_attn"], seen[i, "mlp"]
        if family == "granite":
            attention, mlp = 0.3 * attention, 0.3 * mlp
        else:
            attention = layer.post_attention_layernorm(attention)
            mlp = layer.post_feedforward_layernorm(mlp)
        assert block.attention is not None
        assert block.mlp is not None
        bias = 0 if block.mlp_bias is None else block.mlp_bias
        torch.testing.assert_close(block.attention, attention, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(block.mlp + bias, mlp, rtol=1e-4, atol=1e-4)


def test_a_head_adds_what_the_stream_loses_without_it() -> None:
    """In a parallel block nothing but the sum reads what attention adds."""
    subject, given = found("gpt_neox")
    inputs = subject.inputs(IDS)
    tap = {"post": Tap(subject.architecture.blocks[1].module, "output")}
    with intervene([Replacement.heads(subject.layout.blocks[1], [2])]):
        without = collect(subject.model, tap, inputs)["post"][0]
    added = given.blocks[1].heads()[:, 2]
    torch.testing.assert_close(given.blocks[1].post - without, added, rtol=1e-4, atol=1e-5)


def test_the_bias_of_a_norm_behind_a_sublayer_is_a_part_of_its_own() -> None:
    subject = subject_of("gemma2")
    for layer in subject.model.model.layers:
        layer.post_attention_layernorm = nn.LayerNorm(24)
        for parameter in layer.post_attention_layernorm.parameters():
            nn.init.normal_(parameter)
    given = collect_contributions(Subject(subject.loaded), IDS)
    assert given.additivity_error <= 1e-5
    for layer, block in zip(subject.model.model.layers, given.blocks, strict=True):
        assert block.attention is not None
        assert block.attention_bias is not None
        bias = layer.post_attention_layernorm.bias.expand(20, 24)
        torch.testing.assert_close(block.attention_bias, bias)
        assert off_by(block.heads().sum(1), block.attention) < 1e-5


def test_biases_and_what_goes_before_the_blocks_are_parts_of_their_own() -> None:
    subject, given = found("gpt2")
    trunk = subject.model.transformer
    parts = {part.name: part for part in given.parts()}
    ids = torch.tensor(IDS)
    torch.testing.assert_close(parts["embedding"].values, trunk.wte(ids))
    torch.testing.assert_close(parts["position"].values, trunk.wpe(torch.arange(20)))
    for i, layer in enumerate(trunk.h):
        for name, module in (("attention", layer.attn.c_proj), ("MLP", layer.mlp.c_proj)):
            part = parts[f"L{i} {name} bias"]
            assert (part.kind, part.layer) == ("bias", i)
            torch.testing.assert_close(part.values, module.bias.expand(20, 24))
    _, bloom = found("bloom")
    names = [part.name for part in bloom.embedding.parts]
    assert names == ["embedding", "embedding norm bias"]


def test_an_encoder_closes_before_the_norm_of_each_sum() -> None:
    subject, given = found("bert")
    layer = subject.model.bert.encoder.layer[1]
    taps = {
        "first": Tap(layer.attention.output.LayerNorm, "input"),
        "second": Tap(layer.output.LayerNorm, "input"),
    }
    seen = collect(subject.model, taps, subject.inputs(IDS))
    block = given.blocks[1]
    assert block.mid is not None
    assert torch.equal(block.mid, seen["first"][0])
    assert torch.equal(block.post, seen["second"][0])
    assert block.attention is not None
    assert block.attention_bias is not None
    assert off_by(block.pre + block.attention + block.attention_bias, block.mid) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("layer", "name"), [(0, "mlp"), (1, "mlp"), (1, "self_attn")])
def test_a_sum_that_does_not_close_is_refused_and_its_part_named(
    layer: int, name: str, dtype: torch.dtype
) -> None:
    """The model changes behind our back: its layout was found before."""
    subject = subject_of("llama", dtype)
    assert subject.layout.blocks[layer].reason is None

    def bend(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] * output[0].tanh(), *output[1:])
        return output * output.tanh()

    module = subject.model.model.layers[layer].get_submodule(name)
    with module.register_forward_hook(bend):
        given = collect_contributions(subject, IDS)
    assert given.additivity_error > given.check.tolerance
    part = f"L{layer} {'MLP' if name == 'mlp' else 'attention'}"
    assert given.worst == part
    with pytest.raises(UserError, match=part):
        check_additivity(given.check)


def test_a_block_that_writes_in_another_way_is_refused_and_named() -> None:
    subject = subject_of("llama")
    subject.model.model.layers[1].mlp.register_forward_hook(lambda m, a, out: out * out.tanh())
    with pytest.raises(UserError, match="layer 1"):
        collect_contributions(subject, IDS)


def test_an_error_that_is_not_a_number_is_refused() -> None:
    subject = subject_of("llama")
    with torch.no_grad():
        subject.model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    assert subject.layout.blocks[0].reason is None
    with pytest.raises(UserError):
        check_additivity(collect_contributions(subject, IDS).check)


def test_blocks_are_handed_over_one_at_a_time_and_the_head_is_not_run() -> None:
    subject = subject_of("qwen2")
    seen: list[int | None] = []
    held: list[weakref.ref[Any]] = []
    n_heads_run: list[int] = []
    subject.model.lm_head.register_forward_hook(lambda *args: n_heads_run.append(1))

    def consume(each: BlockContributions | EmbeddingContributions) -> None:
        assert not any(old() is not None for old in held)
        held.append(weakref.ref(each))
        seen.append(each.layer if isinstance(each, BlockContributions) else None)

    subject.layout  # noqa: B018
    n_heads_run.clear()
    check = watch_contributions(subject, subject.inputs(IDS), consume)
    assert seen == [None, 0, 1]
    assert not n_heads_run
    assert [(each.layer, each.stream) for each in check.errors] == [
        (0, "pre"),
        (0, "mid"),
        (0, "post"),
        (1, "mid"),
        (1, "post"),
    ]
    logits: list[Tensor] = []
    held.clear()
    watch_contributions(subject, subject.inputs(IDS), consume, on_logits=logits.append)
    assert torch.equal(logits[0], subject.model(**subject.inputs(IDS)).logits)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_rows_of_a_batch_are_the_tokens_that_the_mask_keeps(family: str) -> None:
    subject, _ = found(family)
    texts = [IDS[:7], IDS[7:11]]
    ids, mask = torch.zeros(2, 7, dtype=torch.int64), torch.zeros(2, 7, dtype=torch.int64)
    for i, each in enumerate(texts):
        ids[i, : len(each)], mask[i, : len(each)] = torch.tensor(each), 1
    blocks: list[Any] = []
    watch_contributions(subject, {"input_ids": ids, "attention_mask": mask}, blocks.append)
    alone = [collect_contributions(subject, each) for each in texts]
    for layer in (0, 1):
        for name in ("post", "attention", "mlp"):
            expected = torch.cat([getattr(each.blocks[layer], name) for each in alone])
            given = getattr(blocks[1 + layer], name)
            torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)
    expected = torch.cat([summed(list(each.embedding.parts)) for each in alone])
    torch.testing.assert_close(summed(list(blocks[0].parts)), expected)


def test_positions_are_rows_of_the_whole() -> None:
    subject, whole = found("gemma2")
    given = collect_contributions(subject, IDS, [2, -1])
    assert given.positions.tolist() == [2, 19]
    assert given.check == whole.check
    for part, all_rows in zip(given.parts(by_head=True), whole.parts(by_head=True), strict=True):
        torch.testing.assert_close(part.values, all_rows.values[[2, 19]])
    assert given.blocks[0].mlp_written is not None
    assert given.blocks[0].mlp_written.reads is None


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "bert"])
def test_what_half_precision_rounds_off_is_a_part(family: str) -> None:
    subject = subject_of(family, torch.bfloat16)
    given = collect_contributions(subject, IDS)
    assert 0 < given.check.step_error <= given.additivity_error <= 2e-2
    check_additivity(given.check)
    assert off_by(summed(list(given.embedding.parts)), given.embedding.stream) < 1e-5
    if family == "bert":
        return
    for by_head in (False, True):
        parts = given.parts(by_head=by_head)
        assert [part.layer for part in parts if part.kind == "rounding"] == [None, 0, 1]
        assert off_by(summed(parts), given.blocks[-1].post) < 1e-5


def test_the_error_in_half_precision_is_that_of_all_parts_without_rounding() -> None:
    given = collect_contributions(subject_of("llama", torch.bfloat16), IDS)
    total = summed([part for part in given.embedding.parts if part.kind != "rounding"])
    errors = [off_by(total, given.embedding.stream)]
    for block in given.blocks:
        for name, stream in (("attention", block.mid), ("mlp", block.post)):
            for values in (getattr(block, name), getattr(block, f"{name}_bias")):
                total = total if values is None else total + values
            assert stream is not None
            errors.append(off_by(total, stream))
    assert [each.error for each in given.check.errors] == pytest.approx(errors, rel=1e-4)
    assert given.additivity_error == pytest.approx(max(errors), rel=1e-4)


def test_factors_that_are_off_show_in_half_precision() -> None:
    """All off by 1.5 %, or one by 5 %, can be seen; one by 30 % is refused and named."""
    subject = subject_of("llama", torch.bfloat16)
    usual = collect_contributions(subject, IDS).check
    layout = subject.layout

    def check_of(factors: dict[tuple[int, str], float]) -> SumCheck:
        blocks = list(layout.blocks)
        for (layer, name), factor in factors.items():
            wrong = replace(blocks[layer].additions()[name], factor=factor)
            blocks[layer] = replace(blocks[layer], **{name: wrong})
        vars(subject)["layout"] = replace(layout, blocks=tuple(blocks))
        return collect_contributions(subject, IDS).check

    every = check_of({(k, name): 1.015 for k in (0, 1) for name in ("attention", "mlp")})
    assert every.additivity_error > max(8e-3, 3 * usual.additivity_error)
    one = check_of({(1, "mlp"): 1.05})
    assert one.step_error > 3 * usual.step_error
    assert one.worst == "L1 MLP"
    with pytest.raises(UserError, match="L1 MLP"):
        check_additivity(check_of({(1, "mlp"): 1.3}))


def test_rounding_that_adds_up_over_layers_is_refused() -> None:
    steps = [
        StreamError(layer, "post", f"L{layer} MLP", 0.006 * layer, 0.004) for layer in range(6)
    ]
    check = SumCheck(tuple(steps), 2e-2, is_rounded=True)
    assert (check.additivity_error, check.step_error) == pytest.approx((0.03, 0.004))
    with pytest.raises(UserError) as caught:
        check_additivity(check)
    assert caught.value.setting == "dtype"
    assert named("dtype", "float32") in caught.value.args[0]
    check_additivity(SumCheck(tuple(steps[:4]), 2e-2, is_rounded=True))
    with pytest.raises(UserError, match="L5 MLP") as caught:
        check_additivity(SumCheck((replace(steps[5], step=0.021),), 2e-2, is_rounded=True))
    assert caught.value.setting is None


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_a_table_of_positions_that_is_zero_is_one_of_positions(family: str) -> None:
    subject = subject_of(family)
    with torch.no_grad():
        for name, parameter in subject.model.named_parameters():
            if "wpe" in name or "embed_positions" in name:
                parameter.zero_()
    assert [each.name for each in subject.layout.embedding.sources] == ["embedding", "position"]


def test_a_model_in_training_is_run_without_dropout_and_goes_on_training() -> None:
    subject, given = found("gpt2")
    training = subject_of("gpt2").model.train()
    assert any(isinstance(m, nn.Dropout) and m.p > 0 for m in training.modules())
    other = type(subject)(replace(subject.loaded, model=training))
    again = collect_contributions(other, IDS)
    torch.testing.assert_close(again.blocks[-1].post, given.blocks[-1].post)
    taps = {"post": other.architecture.blocks[-1].taps["resid_post"]}
    one, two = (streams_alone(other, torch.tensor(IDS), taps)["post"] for _ in range(2))
    assert torch.equal(one, two)
    goals = [find_goal(each, IDS, token=7).logit for each in (other, subject)]
    assert goals[0] == pytest.approx(goals[1], abs=1e-4)
    assert all(module.training for module in training.modules())


def test_the_model_is_left_as_it_was() -> None:
    subject, _ = found("falcon")
    before = {name: each.clone() for name, each in subject.model.state_dict().items()}
    collect_contributions(subject, IDS)
    assert all(torch.equal(before[k], each) for k, each in subject.model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in subject.model.modules())
