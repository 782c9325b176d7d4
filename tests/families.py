"""Tiny random models of every supported family; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf

N_VOCABULARY = 320
N_LAYERS = 2
N_HIDDEN = 24
N_NEURONS = 40

_LLAMA_LIKE = {
    "vocab_size": N_VOCABULARY,
    "hidden_size": N_HIDDEN,
    "intermediate_size": N_NEURONS,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_PLAIN = {k: v for k, v in _LLAMA_LIKE.items() if k != "num_key_value_heads"}
_ENCODER = {k: v for k, v in _PLAIN.items() if not k.startswith(("bos", "eos", "pad"))}
_SPECIAL = {"bos_token_id": 0, "eos_token_id": 0}

FAMILIES: dict[str, Callable[[], Any]] = {
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**_LLAMA_LIKE)),
    # Heads wider than hidden / heads: attn_z is not as wide as the residual stream.
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**_LLAMA_LIKE, head_dim=8)),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**_LLAMA_LIKE)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**_LLAMA_LIKE)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**_LLAMA_LIKE, head_dim=8)),
    "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**_LLAMA_LIKE, head_dim=8)),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**_LLAMA_LIKE)),
    "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**_LLAMA_LIKE)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=N_VOCABULARY,
            n_embd=N_HIDDEN,
            n_inner=N_NEURONS,
            n_layer=N_LAYERS,
            n_head=4,
            n_positions=64,
            **_SPECIAL,
        )
    ),
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**_PLAIN)),
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(
            vocab_size=N_VOCABULARY,
            hidden_size=N_HIDDEN,
            word_embed_proj_dim=N_HIDDEN,
            ffn_dim=N_NEURONS,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=4,
            max_position_embeddings=64,
            pad_token_id=1,
            **_SPECIAL,
        )
    ),
    "bloom": lambda: hf.BloomForCausalLM(
        hf.BloomConfig(
            vocab_size=N_VOCABULARY, hidden_size=N_HIDDEN, n_layer=N_LAYERS, n_head=4, **_SPECIAL
        )
    ),
    "falcon": lambda: hf.FalconForCausalLM(
        hf.FalconConfig(
            vocab_size=N_VOCABULARY,
            hidden_size=N_HIDDEN,
            ffn_hidden_size=N_NEURONS,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=4,
            **_SPECIAL,
        )
    ),
    "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**_ENCODER)),
    "roberta": lambda: hf.RobertaForMaskedLM(hf.RobertaConfig(**_ENCODER)),
}
ENCODERS = ("bert", "roberta")
# Attention and MLP read the same residual stream, so there is nothing between them.
PARALLEL = ("gpt_neox", "falcon")
# The MLP is four times as wide as the stream, whatever the config says.
N_NEURONS_OF = {"bloom": 4 * N_HIDDEN}

MIXTURES: dict[str, Callable[[], Any]] = {
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**_LLAMA_LIKE, num_local_experts=4)),
    # A shared expert beside the routed ones: an MLP like any other, but not the whole of it.
    "qwen2_moe": lambda: hf.Qwen2MoeForCausalLM(
        hf.Qwen2MoeConfig(
            **_LLAMA_LIKE,
            num_experts=4,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
        )
    ),
}


def build(family: str, seed: int = 0) -> Any:
    """A model of ``family`` with weights of ``seed``, in evaluation mode.

    Biases and norms are random too: left at 0 and 1, they would hide a mix-up.
    """
    torch.manual_seed(seed)
    model = {**FAMILIES, **MIXTURES}[family]().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif "embed" not in name and "wte" not in name:
                parameter.mul_(5)
    return model


def subject_of(family: str, dtype: torch.dtype = torch.float32) -> Any:
    """A model of ``family`` as the rooms that look at its stream take it; it has no tokenizer."""
    from projector.model.loading import LoadedModel
    from projector.residual.subject import Subject

    return Subject(LoadedModel(build(family).to(dtype), None, family, ""))
