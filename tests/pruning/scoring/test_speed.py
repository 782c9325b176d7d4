"""Speed and size: what is counted, and that both models are measured alike."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from pruning.scoring import speed
from pruning.scoring.speed import compare_speed
from tests.families import ENCODERS, FAMILIES, N_HIDDEN, N_LAYERS, N_NEURONS, N_VOCABULARY, build
from tests.refused import refused

SEQUENCE = 8
N_REPEATS = 7


def narrow(n_neurons: int, **options: Any) -> Any:
    config = build("qwen2").config.to_dict() | {"intermediate_size": n_neurons} | options
    torch.manual_seed(1)
    return Qwen2ForCausalLM(Qwen2Config(**config)).eval()


def compare(dense: Any, pruned: Any, **options: Any) -> Any:
    settings = {"batch_size": 2, "sequence_length": SEQUENCE, "n_repeats": N_REPEATS}
    return compare_speed(dense, pruned, **settings | options)


def operations(n_neurons: int) -> int:
    """By hand: two for each weight of each matrix, and attention's two products."""
    heads, width = 4, N_HIDDEN // 4
    attention = 2 * N_HIDDEN * (N_HIDDEN + 2 * 2 * width + N_HIDDEN)
    products = 2 * 2 * heads * width * SEQUENCE
    mlp = 2 * 3 * N_HIDDEN * n_neurons
    return N_LAYERS * (attention + products + mlp) + 2 * N_HIDDEN * N_VOCABULARY


def test_operations_are_those_of_every_matrix_attention_and_head() -> None:
    found = compare(build("qwen2"), narrow(N_NEURONS // 2))
    # Turning positions by cosines and sines takes a small product of its own.
    assert found.dense.operations_per_token == pytest.approx(operations(N_NEURONS), rel=0.01)
    assert found.pruned.operations_per_token == pytest.approx(operations(N_NEURONS // 2), rel=0.01)
    difference = found.dense.operations_per_token - found.pruned.operations_per_token
    assert difference == N_LAYERS * 2 * 3 * N_HIDDEN * N_NEURONS / 2
    assert found.operations_ratio == pytest.approx(
        found.pruned.operations_per_token / found.dense.operations_per_token
    )


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ENCODERS])
def test_every_family_can_be_measured(family: str) -> None:
    found = compare(build(family), build(family))
    assert found.operations_ratio == 1
    assert found.parameters_ratio == 1
    assert found.notes == ()
    # Of the weights alone, the embedding left out: more than the matrices give cannot be missing.
    matrices = sum(p.numel() for n, p in build(family).named_parameters() if p.ndim == 2)
    assert found.dense.operations_per_token > 2 * (matrices - 2 * N_HIDDEN * (N_VOCABULARY + 66))


def test_parameters_and_bytes_count_tied_weights_once() -> None:
    tied = narrow(N_NEURONS, tie_word_embeddings=True)
    loose = narrow(N_NEURONS, tie_word_embeddings=False)
    found = compare(loose, tied)
    n = N_VOCABULARY * N_HIDDEN
    assert found.dense.n_parameters - found.pruned.n_parameters == n
    assert found.dense.weight_bytes - found.pruned.weight_bytes == 4 * n
    buffers = sum(b.numel() * b.element_size() for b in tied.buffers())
    assert found.pruned.weight_bytes >= 4 * found.pruned.n_parameters
    assert found.pruned.weight_bytes <= 4 * found.pruned.n_parameters + buffers
    assert found.dense.operations_per_token == found.pruned.operations_per_token


def test_peak_memory_holds_weights_and_what_a_pass_makes() -> None:
    model = build("qwen2")
    one, two = (compare(model, model, batch_size=n).dense for n in (4, 8))
    logits = 4 * SEQUENCE * N_VOCABULARY * 4
    assert one.peak_bytes >= one.weight_bytes + logits
    # What a pass makes grows with the batch, but for what all sequences share.
    made = [each.peak_bytes - each.weight_bytes for each in (one, two)]
    assert 1.8 < made[1] / made[0] <= 2


def test_held_bytes_are_let_go() -> None:
    model = torch.nn.Linear(4, 4, bias=False)
    held = speed._Held(model)
    with torch.no_grad(), held:
        first = torch.zeros(1000)
        view = first[:10]
        del first
        assert held.held == 4000  # A view keeps all of it.
        del view
        assert held.held == 0
        kept = model.weight.t()  # Weights are no new memory.
        assert held.held == 0
    assert held.most == 4000
    assert kept.shape == (4, 4)


def test_models_take_turns_and_pairs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slows down tenfold half-way slows both."""
    dense, pruned = build("qwen2"), narrow(8)
    order: list[str] = []

    def timed(model: Any, ids: Any) -> float:
        order.append("dense" if model is dense else "pruned")
        slowness = 10 if len(order) > 9 else 1
        return slowness * (2.0 if model is dense else 1.0)

    monkeypatch.setattr(speed, "_time", timed)
    found = compare(dense, pruned)
    assert order == ["dense", "pruned"] * (N_REPEATS + 2)
    assert found.time_ratio == 0.5
    assert found.time_ratio_range == (0.5, 0.5)
    assert found.dense.tokens_per_second == pytest.approx(2 * SEQUENCE / found.dense.seconds)
    assert found.excess == pytest.approx(0.5 / found.operations_ratio - 1)


def test_time_grows_with_the_work() -> None:
    # A thousand times the neurons: longer on any machine, however busy.
    found = compare(narrow(16), narrow(16 * 1024), sequence_length=64)
    assert found.time_ratio > 1
    assert found.dense.tokens_per_second > found.pruned.tokens_per_second


def test_unlike_models_are_compared_and_it_says_so() -> None:
    other = narrow(N_NEURONS, vocab_size=500).to(torch.bfloat16)
    notes = " ".join(compare(build("gpt2"), other).notes)
    assert "GPT2LMHeadModel against Qwen2ForCausalLM" in notes
    assert "vocabularies of 320 and 500" in notes
    assert "float32 and bfloat16" in notes


def test_figures_are_json() -> None:
    figures = compare(build("qwen2"), narrow(8)).figures()
    again = json.loads(json.dumps(figures, allow_nan=False))
    assert again["operations_ratio"] < 1
    sizes = [again[name]["n_parameters"] for name in ("dense", "pruned")]
    assert again["parameters_ratio"] == sizes[1] / sizes[0]
    assert again["excess"] == figures["excess"]
    assert again["pruned"]["n_parameters"] < again["dense"]["n_parameters"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("batch_size", 0), ("sequence_length", 0), ("n_repeats", 6), ("sequence_length", 65)],
)
def test_settings_that_can_not_be_are_one_line(setting: str, value: int) -> None:
    options: Any = {setting: value}
    with refused(setting, value):
        compare(build("qwen2"), build("qwen2"), **options)


def test_a_sequence_is_as_long_as_both_models_take() -> None:
    assert compare(build("qwen2"), build("qwen2"), sequence_length=None).sequence_length == 64
    assert compare(build("bloom"), build("bloom"), sequence_length=None).sequence_length == 256
