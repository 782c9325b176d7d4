"""How the stream grows: means over tokens are those of the model's own sums; controls are fair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from projector.corpus.batches import Batch
from projector.errors import SettingError, UserError
from projector.model.capture import collect
from projector.model.loading import LoadedModel
from projector.residual.contributions import collect_contributions
from projector.residual.flow.measuring import measure_flow, prompt_batch, shuffled_successive
from projector.residual.flow.stream import stream
from projector.residual.flow.words import number, tokens_words
from projector.residual.subject import Subject
from tests.families import CLOSE_PER_BLOCK, FAMILIES, N_VOCABULARY, PARALLEL, STREAMS, build
from tests.refused import refused_naming

IDS = [0, 5, 9, 33, 71, 5, 120, 8, 44, 9]


def subject_of(family: str, tokenizer: Any) -> Subject:
    return Subject(LoadedModel(build(family), tokenizer, family, ""))


@pytest.mark.parametrize("family", [*FAMILIES, *STREAMS])
def test_norms_are_those_of_the_stream(family: str, tokenizer: Any) -> None:
    subject = subject_of(family, tokenizer)
    flow = measure_flow(subject, [prompt_batch(subject, IDS)])
    first = 1 if subject.architecture.is_causal else 0
    assert (flow.n_tokens, flow.n_skipped) == (len(IDS) - first, first)
    taps = subject.architecture.taps(["resid_pre", "resid_post"], [0, 1])
    streams = collect(subject.model, taps, subject.inputs(IDS))
    for row in flow.rows:
        before, after = (
            streams[row.layer, site].reshape(len(IDS), -1)[first:].float()
            for site in ("resid_pre", "resid_post")
        )
        assert row.before == pytest.approx(float(before.norm(dim=-1).mean()), rel=1e-4)
        shares = (row.attention_share, row.mlp_share, row.bias_share)
        assert sum(s for s in shares if s is not None) == pytest.approx(1, abs=1e-4)
        if family in CLOSE_PER_BLOCK:
            continue
        assert row.after == pytest.approx(float(after.norm(dim=-1).mean()), rel=1e-4)
        update = after - before
        assert row.update == pytest.approx(float(update.norm(dim=-1).mean()), rel=1e-3)
        along = torch.nn.functional.cosine_similarity(update, before, dim=-1).mean()
        assert row.along_stream == pytest.approx(float(along), abs=1e-3)
    assert (flow.per_block_reason is not None) == (family in CLOSE_PER_BLOCK)
    assert flow.additivity_error <= 1e-5
    json.dumps(flow.as_dict(), allow_nan=False)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "bloom", "granite"])
def test_norms_of_heads(family: str, tokenizer: Any) -> None:
    subject = subject_of(family, tokenizer)
    flow = measure_flow(subject, [prompt_batch(subject, IDS)])
    blocks = collect_contributions(subject, IDS).blocks
    for row, block in zip(flow.rows, blocks, strict=True):
        expected = block.heads()[1:].norm(dim=-1).mean(dim=0)
        assert row.heads == pytest.approx(expected.tolist(), rel=1e-4)
    assert flow.heads_error is not None
    assert flow.heads_error <= 1e-5
    assert "heads_error" in flow.as_dict()


def test_heads_that_do_not_sum_to_attention_are_refused(tokenizer: Any) -> None:
    """A tenth of what attention adds comes from no head."""
    subject = subject_of("llama", tokenizer)
    assert not subject.layout.closes_per_block
    projection = subject.model.model.layers[1].self_attn.o_proj
    projection.register_forward_hook(lambda _m, _a, output: 1.1 * output)
    assert collect_contributions(subject, IDS).additivity_error <= 1e-5
    with refused_naming("layer 1", "heads"):
        measure_flow(subject, [prompt_batch(subject, IDS)])


def test_cosines_between_updates(tokenizer: Any) -> None:
    subject = subject_of("llama", tokenizer)
    flow = measure_flow(subject, [prompt_batch(subject, IDS)])
    taps = subject.architecture.taps(["resid_pre", "resid_post"], [0, 1])
    streams = collect(subject.model, taps, subject.inputs(IDS))
    updates = [(streams[k, "resid_post"] - streams[k, "resid_pre"])[0, 1:] for k in range(2)]
    expected = torch.nn.functional.cosine_similarity(updates[0], updates[1], dim=-1).mean()
    assert flow.rows[0].next_cosine == pytest.approx(float(expected), abs=1e-4)
    assert flow.rows[1].next_cosine is None
    assert flow.cosines[0][0] == pytest.approx(1, abs=1e-4)
    # Two layers have no other order.
    assert flow.successive is None


def test_batches_and_padding_change_no_mean(tokenizer: Any) -> None:
    subject = subject_of("gpt2", tokenizer)
    other = IDS[:4]
    ids = torch.zeros(2, len(IDS), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate((IDS, other)):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.tensor(tokens), 1
    keep = mask.bool()
    keep[:, 0] = False
    padded = measure_flow(subject, [Batch(ids, mask, keep, 0)])
    apart = measure_flow(subject, [prompt_batch(subject, IDS), prompt_batch(subject, other)])
    assert padded.n_tokens == apart.n_tokens == len(IDS) + len(other) - 2
    for a, b in zip(padded.rows, apart.rows, strict=True):
        assert a.attention == pytest.approx(b.attention, rel=1e-5)
        assert a.mlp_share == pytest.approx(b.mlp_share, rel=1e-5)
    assert padded.rows[0].next_cosine == pytest.approx(apart.rows[0].next_cosine, rel=1e-4)
    assert padded.norms is None
    assert len(measure_flow(subject, [prompt_batch(subject, IDS)]).norms or ()) == 3


def test_a_parallel_block_and_biases_are_told(tokenizer: Any) -> None:
    for family in PARALLEL:
        both = subject_of(family, tokenizer)
        flow = measure_flow(both, [prompt_batch(both, IDS)])
        assert flow.rows[0].attention is not None
    biased = subject_of("gpt2", tokenizer)
    row = measure_flow(biased, [prompt_batch(biased, IDS)]).rows[1]
    block = biased.architecture.blocks[1]
    assert block.mlp is not None
    expected = float(block.mlp.output.module.get_parameter("bias").detach().norm())
    assert row.mlp_bias == pytest.approx(expected, rel=1e-4)
    plain = subject_of("llama", tokenizer)
    assert measure_flow(plain, [prompt_batch(plain, IDS)]).rows[1].mlp_bias is None
    names = [each.name for each in measure_flow(biased, [prompt_batch(biased, IDS)]).embedding]
    assert names == ["embedding", "position"]


def test_outlying_tokens_are_listed_and_left_out_on_request(tokenizer: Any) -> None:
    subject = subject_of("llama", tokenizer)
    table = subject.model.get_input_embeddings().weight
    with torch.no_grad():
        table[33] *= 1e3
    batch = prompt_batch(subject, IDS)
    every = measure_flow(subject, [batch])
    assert [(each.token, each.is_first, each.n) for each in every.outliers] == [(33, False, 1)]
    assert every.outliers[0].layer == -1
    assert every.outliers[0].times_usual is not None
    assert every.outliers[0].times_usual > 100
    assert (every.n_outlying, every.n_tokens, every.outliers_left_out) == (1, 9, False)
    rest = measure_flow(subject, [batch], leave_outliers_out=True)
    assert (rest.n_tokens, rest.n_left_out, rest.outliers_left_out) == (8, 1, True)
    assert every.n_left_out == 0
    assert rest.rows[0].before < every.rows[0].before / 10
    # The command leaves them out unless it is asked to keep them, as the lens does.
    assert stream(subject, prompt=IDS).flow.rows == rest.rows
    assert stream(subject, prompt=IDS, keep_outliers=True).flow.rows == every.rows
    # All where none would be left: of two tokens the first doesn't count.
    alone = measure_flow(subject, [prompt_batch(subject, [IDS[0], 33])], leave_outliers_out=True)
    assert (alone.n_tokens, alone.n_outlying, alone.outliers_left_out) == (1, 1, False)


def test_a_skipped_token_is_not_counted_as_left_out(tokenizer: Any) -> None:
    subject = subject_of("llama", tokenizer)
    with torch.no_grad():
        subject.model.get_input_embeddings().weight[33] *= 1e3
    flow = measure_flow(subject, [prompt_batch(subject, [33, *IDS[:3]])], leave_outliers_out=True)
    assert (flow.n_skipped, flow.n_outlying, flow.n_left_out) == (1, 1, 0)
    assert "left out" not in tokens_words(flow)


def test_numbers_have_a_printed_minus_and_zero_has_no_sign() -> None:
    assert [number(value, "+.1f") for value in (-1.25, -0.01, 0.01, 2)] == [
        "−1.2",
        "0.0",
        "0.0",
        "+2.0",
    ]
    assert number(None) == "–"


def test_layers_in_order_against_shuffled_ones() -> None:
    """Where neighbours alone are alike, the order stands out; where all are alike, it does not."""
    n = 12
    near = torch.eye(n) + 0.5 * (torch.eye(n).roll(1, 0) + torch.eye(n).roll(-1, 0))
    near[0, -1] = near[-1, 0] = 0
    found = shuffled_successive(near)
    assert found is not None
    assert found.mean == pytest.approx(0.5)
    assert found.percentile == 100
    # Of two layers, drawn at random, one in six are neighbours.
    assert found.shuffled_mean == pytest.approx(0.5 / 6, abs=0.02)
    assert found.shuffled_most < 0.5
    flat = shuffled_successive(torch.full((n, n), 0.3, dtype=torch.float64))
    assert flat is not None
    assert flat.mean == pytest.approx(flat.shuffled_mean)
    assert flat.percentile < 95
    assert shuffled_successive(torch.eye(2)) is None


def test_three_layers_have_another_order() -> None:
    cosines = torch.tensor([[1.0, 0.9, 0.1], [0.9, 1.0, 0.8], [0.1, 0.8, 1.0]])
    found = shuffled_successive(cosines, n_draws=50)
    assert found is not None
    assert found.mean == pytest.approx(0.85)
    # 0-2-1 and 1-0-2, and both backwards.
    assert found.shuffled_least == pytest.approx(0.45)
    assert found.shuffled_most == pytest.approx(0.5)


def test_a_model_whose_sum_does_not_close_is_refused(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = subject_of("llama", tokenizer)
    _ = subject.layout
    block = subject.architecture.blocks[1].module
    block.register_forward_hook(lambda module, args, output: output * 1.01)
    with pytest.raises(UserError) as error:
        measure_flow(subject, [prompt_batch(subject, IDS)])
    assert "L1 MLP" in str(error.value)


def test_of_a_corpus_and_of_a_prompt(tokenizer: Any, text_file: Path) -> None:
    subject = subject_of("qwen2", tokenizer)
    found = stream(subject, corpus=str(text_file), max_tokens=400, sequence_length=32)
    assert found.corpus == text_file.name
    assert found.flow.n_tokens == 400
    assert found.zero_layer is not None
    assert found.zero_layer.n_bigrams > 300
    assert found.zero_layer.path("bigram").score.agreement == 1
    assert found.text is None
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["additivity_error"] <= 1e-5
    again = stream(subject, corpus=str(text_file), max_tokens=400, sequence_length=32)
    assert again == found
    of_prompt = stream(subject, prompt="kalo mi ten")
    assert of_prompt.text is not None
    assert len(of_prompt.alone) == len(of_prompt.text) == of_prompt.flow.n_tokens + 1
    assert of_prompt.zero_layer is None


def test_an_encoder_has_contributions_and_no_zero_layer_paths(
    tokenizer: Any, text_file: Path
) -> None:
    found = stream(subject_of("bert", tokenizer), corpus=str(text_file), max_tokens=200)
    assert found.zero_layer is None
    assert found.zero_layer_reason
    assert found.flow.per_block_reason


def test_what_can_not_be_read_is_refused(tokenizer: Any, text_file: Path) -> None:
    subject = subject_of("gpt2", tokenizer)
    for prompt, source in ((None, None), ("a", "b")):
        with pytest.raises(UserError) as error:
            stream(subject, prompt=prompt, corpus=source)
        assert error.value.setting == "prompt"
    with pytest.raises(UserError):
        stream(subject, corpus="nowhere.txt")
    with pytest.raises(UserError):
        stream(subject, prompt="")
    with pytest.raises(SettingError) as too_long:
        stream(subject, corpus=str(text_file), sequence_length=65)
    assert (too_long.value.setting, too_long.value.value) == ("sequence_length", 65)
    with pytest.raises(SettingError) as too_few:
        stream(subject, corpus=str(text_file), n_shuffles=0)
    assert too_few.value.setting == "n_shuffles"
    assert len(tokenizer) == N_VOCABULARY
