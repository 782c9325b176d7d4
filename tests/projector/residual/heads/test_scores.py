"""Heads are called by a kind only where their scores are high and beyond chance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

from projector.errors import SettingError, UserError
from projector.model.loading import LoadedModel
from projector.residual.heads.kinds import KINDS, LEAST_PERCENTILE
from projector.residual.heads.scores import score_heads
from projector.residual.subject import Subject
from tests.families import _LLAMA_LIKE, subject_of


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_random_models_have_no_kinds_of_heads(family: str) -> None:
    for seed in range(2):
        heads = score_heads(subject_of(family), n_sequences=2, length=20, n_random=100, seed=seed)
        assert heads.kinds["induction"] == []
        assert heads.kinds["previous_token"] == []
        assert heads.kinds["duplicate_token"] == []
        assert len(heads.rows) == 8
        for row in heads.rows:
            assert row.induction_percentile is not None
            assert -1 <= (row.copying or 0) <= 1


def test_what_the_mask_alone_gives_makes_no_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where heads see two tokens, all attend to the one before; so do random heads."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {**_LLAMA_LIKE, "sliding_window": 2}
    config = hf.MistralConfig(**settings)
    subject = Subject(LoadedModel(hf.MistralForCausalLM(config).eval(), None, "mistral", ""))
    heads = score_heads(subject, n_sequences=2, length=20)
    assert all(row.previous_token > 0.3 for row in heads.rows)
    assert heads.kinds["previous_token"] == []
    # Were their scores not compared with random heads', all would be called so.
    monkeypatch.setattr("projector.residual.heads.kinds.LEAST_PERCENTILE", 0.0)
    assert len(score_heads(subject, n_sequences=2, length=20).kinds["previous_token"]) == 8


def test_a_result_tells_what_its_kinds_rest_on() -> None:
    heads = score_heads(subject_of("llama"), n_sequences=1, length=8, n_random=4)
    value = heads.as_dict()
    assert [(row["layer"], row["head"]) for row in value["rows"]] == [
        (layer, head) for layer in range(2) for head in range(4)
    ]
    assert [row["kv_group"] for row in value["rows"]] == [0, 0, 1, 1] * 2
    for kind in KINDS:
        assert {kind.name, f"{kind.name}_percentile"} <= set(value["rows"][0])
        assert value["kinds"][kind.name]["least_percentile"] == LEAST_PERCENTILE
    assert value["n_random"] == 4


def test_the_same_seed_gives_the_same_scores_and_leaves_the_model_as_it_was() -> None:
    subject = subject_of("llama")
    before = {name: each.clone() for name, each in subject.model.state_dict().items()}
    first = score_heads(subject, n_sequences=1, length=8, n_random=4, seed=3)
    again = score_heads(subject, n_sequences=1, length=8, n_random=4, seed=3)
    assert first == again
    assert all(torch.equal(before[n], each) for n, each in subject.model.state_dict().items())
    assert subject.model.config._attn_implementation == "sdpa"


def test_without_random_heads_no_head_is_called_anything() -> None:
    heads = score_heads(subject_of("llama"), n_sequences=1, length=8, n_random=0)
    assert all(row.kinds == () and row.induction_percentile is None for row in heads.rows)
    assert heads.expected["induction"] is None


def test_few_random_heads_make_no_kinds() -> None:
    heads = score_heads(subject_of("llama"), n_sequences=1, length=8, n_random=2)
    assert all(row.kinds == () for row in heads.rows)
    assert any(row.beginning_percentile == 100 for row in heads.rows)
    assert set(heads.expected.values()) == {None}
    assert any("100" in reason for reason in heads.reasons)


def test_encoders_have_no_such_kinds() -> None:
    with pytest.raises(UserError):
        score_heads(subject_of("bert"), n_sequences=1, length=8, n_random=4)


@pytest.mark.parametrize(
    ("setting", "value"), [("length", 3), ("length", 40), ("n_sequences", 0), ("n_random", -1)]
)
def test_bad_numbers_are_named(setting: str, value: Any) -> None:
    with pytest.raises(SettingError) as caught:
        score_heads(subject_of("llama"), **{setting: value})
    assert (caught.value.setting, caught.value.value) == (setting, value)
