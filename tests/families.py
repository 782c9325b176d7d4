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

# Models that are looked at for their stream and head alone: norms behind the sublayers,
# multipliers, softcaps and scales of values that matter.
STREAMS: dict[str, Callable[[], Any]] = {
    "granite": lambda: hf.GraniteForCausalLM(
        hf.GraniteConfig(
            **_LLAMA_LIKE,
            embedding_multiplier=5.0,
            residual_multiplier=0.3,
            attention_multiplier=0.2,
            logits_scaling=3.0,
            mlp_bias=True,
        )
    ),
    "cohere": lambda: hf.CohereForCausalLM(hf.CohereConfig(**_LLAMA_LIKE, logit_scale=0.2)),
    "gptj": lambda: hf.GPTJForCausalLM(
        hf.GPTJConfig(
            vocab_size=N_VOCABULARY,
            n_embd=N_HIDDEN,
            n_inner=N_NEURONS,
            n_layer=N_LAYERS,
            n_head=4,
            n_positions=64,
            rotary_dim=4,
            **_SPECIAL,
        )
    ),
    "stablelm": lambda: hf.StableLmForCausalLM(
        hf.StableLmConfig(**_LLAMA_LIKE, partial_rotary_factor=0.67)
    ),
    "stablelm_parallel": lambda: hf.StableLmForCausalLM(
        hf.StableLmConfig(**_LLAMA_LIKE, partial_rotary_factor=0.67, use_parallel_residual=True)
    ),
    "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**_LLAMA_LIKE, partial_rotary_factor=0.67)),
    "glm4": lambda: hf.Glm4ForCausalLM(hf.Glm4Config(**_LLAMA_LIKE, head_dim=8)),
    "gemma2_capped": lambda: hf.Gemma2ForCausalLM(
        hf.Gemma2Config(
            **_LLAMA_LIKE, head_dim=8, final_logit_softcapping=2.0, attn_logit_softcapping=1.0
        )
    ),
    "falcon_in_turn": lambda: hf.FalconForCausalLM(
        hf.FalconConfig(
            vocab_size=N_VOCABULARY,
            hidden_size=N_HIDDEN,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=4,
            alibi=True,
            parallel_attn=False,
            bias=True,
            **_SPECIAL,
        )
    ),
    # As OPT-350m: norms of the whole stream behind each sum, and a narrower table.
    "opt_350m": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(
            vocab_size=N_VOCABULARY,
            hidden_size=N_HIDDEN,
            word_embed_proj_dim=16,
            ffn_dim=N_NEURONS,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=4,
            max_position_embeddings=64,
            do_layer_norm_before=False,
            pad_token_id=1,
            **_SPECIAL,
        )
    ),
}
# No running sum goes through them.
CLOSE_PER_BLOCK = (*ENCODERS, "opt_350m")


def build(family: str, seed: int = 0) -> Any:
    """A model of ``family`` with weights of ``seed``, in evaluation mode.

    Biases and norms are random too: left at 0 and 1, they would hide a mix-up.
    """
    torch.manual_seed(seed)
    model = {**FAMILIES, **MIXTURES, **STREAMS}[family]().eval()
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
