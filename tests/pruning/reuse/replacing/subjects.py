"""Tiny models for tests of reuse: some with a third layer, one with duplicates across layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf

from projector.corpus.batches import Corpus
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture
from projector.model.loading import LoadedModel
from pruning.calibration.text import CalibrationText, read_calibration
from tests.conftest import make_text
from tests.families import N_HIDDEN, N_NEURONS, N_VOCABULARY, build

LENGTH, N_SEQUENCES, SEED = 24, 20, 3
# Of the second layer, neurons that are multiples of the first one's; and which.
PLANTED, ORIGINALS = (1, 5, 8, 21, 30, 39), (0, 3, 5, 11, 22, 30)
FACTORS = (2.0, -1.0, 0.5, 1.5, -3.0, 1.0)
_documents = [make_text(60, seed=seed) for seed in range(10)]


@dataclass
class Subject:
    """A model, what was found of it, and calibration text."""

    model: Any
    architecture: Architecture
    loaded: LoadedModel
    text: CalibrationText
    corpus: Corpus


def subject(model: Any, tokenizer: Any) -> Subject:
    """A model as an experiment takes it."""
    architecture = find_architecture(model)
    loaded = LoadedModel(model, tokenizer, "made-up", "0" * 64)
    text = read_calibration(_documents, loaded, architecture, sequence_length=LENGTH)
    return Subject(model, architecture, loaded, text, text.draw(N_SEQUENCES, SEED))


def three_layers() -> Any:
    """A Qwen2 of three layers."""
    torch.manual_seed(1)
    config = hf.Qwen2Config(
        vocab_size=N_VOCABULARY,
        hidden_size=N_HIDDEN,
        intermediate_size=N_NEURONS,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = hf.Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for block in model.model.layers:
            for parameter in block.parameters():
                parameter.mul_(5 if parameter.ndim > 1 else 1)
    return model


def with_duplicates() -> Any:
    """A Llama whose second layer holds neurons that are multiples of the first one's.

    What stands between the two MLPs writes nothing, so both read the same stream.
    """
    model = build("llama")
    first, second = model.model.layers
    with torch.no_grad():
        first.self_attn.o_proj.weight.zero_()
        second.self_attn.o_proj.weight.zero_()
        first.mlp.down_proj.weight.zero_()
        second.post_attention_layernorm.weight.copy_(first.post_attention_layernorm.weight)
        for new, old, factor in zip(PLANTED, ORIGINALS, FACTORS, strict=True):
            second.mlp.gate_proj.weight[new] = first.mlp.gate_proj.weight[old]
            second.mlp.up_proj.weight[new] = factor * first.mlp.up_proj.weight[old]
    return model
