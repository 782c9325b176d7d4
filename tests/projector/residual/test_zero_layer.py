"""Zero-layer paths of models whose weights are set so that the answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from projector.errors import UserError
from projector.model.loading import LoadedModel
from projector.residual.bigrams.alone import run_alone
from projector.residual.bigrams.paths import (
    ATTENTION_FREE,
    DIRECT,
    predict_alone,
    score_zero_layer,
)
from projector.residual.bigrams.symmetry import (
    CENTRING,
    EMBEDDING,
    NORM_BIAS,
    asymmetry,
)
from projector.residual.flow.words import symmetry_words
from projector.residual.subject import Subject
from tests.families import ENCODERS, FAMILIES, N_VOCABULARY, STREAMS, build
from tests.projector.residual.test_bigrams import corpus


def subject_of(family: str, tokenizer: Any) -> Subject:
    return Subject(LoadedModel(build(family), tokenizer, family, ""))


def walk(step: int, n: int = 600) -> Any:
    """A corpus in which each token is followed by the one ``step`` further, most of the time."""
    rng = np.random.default_rng(0)
    ids = [5]
    for _ in range(n):
        ids.append(int(rng.integers(1, 60)) if rng.random() < 0.3 else 1 + (ids[-1] + step) % 60)
    return corpus(ids)


def knows_next(subject: Subject, step: int) -> None:
    """Let the direct path say what :func:`walk` does."""
    model = subject.model
    table = model.get_input_embeddings().weight.data
    table.copy_(torch.nn.functional.normalize(torch.randn_like(table), dim=-1))
    head = model.get_output_embeddings().weight.data
    assert head.data_ptr() != table.data_ptr()
    head.zero_()
    form = subject.readout.form
    assert form is not None
    for a in range(61):
        head[1 + (a + step) % 60] += 2 * table[a] / form.weight


def test_a_direct_path_that_knows_the_bigrams_is_found_to(tokenizer: Any) -> None:
    subject = subject_of("llama", tokenizer)
    knows_next(subject, 7)
    for block in subject.architecture.blocks:
        assert block.mlp is not None
        block.mlp.output.module.get_parameter("weight").data.zero_()
    found = score_zero_layer(subject, walk(7))
    assert not found.tied
    assert found.asymmetry > 0.5
    direct, free = found.path(DIRECT), found.path(ATTENTION_FREE)
    assert direct.score.agreement > 0.95
    assert direct.score.accuracy == pytest.approx(0.7, abs=0.06)
    assert direct.shuffled.agreement < 0.3
    # With MLPs that add nothing, it is the same path, whatever attention does.
    assert free.score == direct.score
    wrong = score_zero_layer(subject, walk(13)).path(DIRECT)
    assert wrong.score.agreement < 0.1
    assert wrong.score.kl is not None
    assert direct.score.kl is not None
    assert wrong.score.kl > direct.score.kl
    first = found.examples[0]
    assert first.follows == 1 + (first.token + 7) % 60
    assert first.guesses[DIRECT].token == first.follows


def test_with_tied_embeddings_the_direct_path_is_symmetric(tokenizer: Any) -> None:
    subject = subject_of("gemma2", tokenizer)
    found = score_zero_layer(subject, walk(7))
    assert found.tied
    assert found.asymmetry < 1e-4 < found.asymmetry_shuffled
    assert found.symmetric
    # It can't tell which of two tokens comes second: its top token is most often the token itself.
    tops = predict_alone(subject, list(range(1, 40)))
    assert sum(each.guesses[DIRECT].token == each.token for each in tops) > 30


def norm_with_a_bias(subject: Subject) -> None:
    """Let the final norm's bias matter as much as its weight."""
    norm = subject.readout.norm
    assert norm is not None
    with torch.no_grad():
        weight, bias = norm.get_parameter("weight"), norm.get_parameter("bias")
        weight.mul_(1 + 0.5 * torch.randn_like(weight))
        bias.copy_(torch.randn_like(bias))
    # What was found of the old weights.
    del subject.readout


@pytest.mark.parametrize(
    ("family", "breaks"),
    [("gpt2", {CENTRING, NORM_BIAS}), ("bloom", {EMBEDDING, CENTRING, NORM_BIAS})],
)
def test_a_tied_direct_path_is_not_called_symmetric_where_norms_break_it(
    family: str, breaks: set[str], tokenizer: Any
) -> None:
    subject = subject_of(family, tokenizer)
    norm_with_a_bias(subject)
    found = score_zero_layer(subject, walk(7))
    assert found.tied
    assert not found.symmetric
    assert found.asymmetry > 0.1
    assert set(found.broken_by) == breaks
    # Of the logits that are scored, each row over its token's scale of the norm.
    ids = np.random.default_rng(0).permutation(np.arange(1, 61))
    with torch.no_grad():
        stream = run_alone(subject, torch.from_numpy(ids))[0]
        form, norm = subject.readout.form, subject.readout.norm
        assert form is not None
        assert norm is not None
        logits = subject.readout.logits(stream)[:, ids] / form.scale(stream, norm(stream))
    assert found.asymmetry == pytest.approx(asymmetry(logits), rel=1e-3)
    words = symmetry_words(found)
    assert all(what in words for what in breaks)
    assert "is symmetric" not in words


@pytest.mark.parametrize("family", [name for name in (*FAMILIES, *STREAMS) if name not in ENCODERS])
def test_the_attention_free_path_is_the_model_without_attention(
    family: str, tokenizer: Any
) -> None:
    """The model itself, its attention's and positions' weights set to zero, on single tokens."""
    subject, ids = subject_of(family, tokenizer), [3, 8, 120, 8]
    found = predict_alone(subject, ids)
    assert [each.position for each in found] == [0, 1, 2, 3]
    assert found[1].guesses == found[3].guesses
    silent = subject_of(family, tokenizer)
    with torch.no_grad():
        for block in silent.architecture.blocks:
            assert block.attention_output is not None
            for parameter in block.attention_output.module.parameters():
                parameter.zero_()
        for name, parameter in silent.model.named_parameters():
            if "wpe" in name or "embed_positions" in name:
                parameter.zero_()
        logits = silent.model(torch.tensor(ids)[:, None]).logits[:, 0]
    best = logits.softmax(dim=-1).max(dim=-1)
    for each, token, probability in zip(found, best.indices, best.values, strict=True):
        guess = each.guesses[ATTENTION_FREE]
        assert guess.token == int(token)
        assert guess.probability == pytest.approx(float(probability), rel=1e-4)


def test_an_encoder_has_none(tokenizer: Any) -> None:
    for family in ENCODERS:
        with pytest.raises(UserError):
            score_zero_layer(subject_of(family, tokenizer), walk(7))


def test_few_logits_at_once_give_the_same(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of("qwen3", tokenizer)
    at_once = score_zero_layer(subject, walk(7))
    monkeypatch.setattr("projector.residual.bigrams.paths._LOGITS_AT_ONCE", 5 * N_VOCABULARY)
    monkeypatch.setattr("projector.residual.bigrams.paths._TOKENS_AT_ONCE", 7)
    few = score_zero_layer(subject, walk(7))
    for a, b in zip(at_once.paths, few.paths, strict=True):
        assert a.score.agreement == b.score.agreement
        assert a.score.log_probability == pytest.approx(b.score.log_probability, rel=1e-5)
