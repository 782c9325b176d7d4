"""What the rows of a seed and share take beside a model, measured in a process of its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers as hf

from projector.memory import give_back
from projector.model.architecture.finding import find_architecture
from projector.progress import Silent
from projector.statistics.cross_layer.partners import PartnerList
from pruning.reuse.budget import needs_of_reuse
from pruning.reuse.partners import LayerPartners
from pruning.reuse.records import METHODS_HELP, REMOVAL
from pruning.reuse.replacing.moments import gather_scales
from pruning.reuse.replacing.operations import dense_operations
from pruning.reuse.replacing.seeds import SeedMaker
from pruning.reuse.settings import ReuseSettings
from tests.pruning.layerwise.child import corpus_of, resident

N_NEURONS, N_LAYERS, SHARE = 640, 4, 0.1


def made_partners(n_neurons: int) -> LayerPartners:
    """Eight of each neuron, at random."""
    generator = torch.Generator().manual_seed(0)
    layers = []
    for layer in range(N_LAYERS):
        shape, kind = (n_neurons, 8), torch.int32
        rho = torch.rand(shape, generator=generator).sort(dim=1, descending=True).values
        of = torch.randint(0, max(1, layer), shape, generator=generator, dtype=kind)
        number = torch.randint(0, n_neurons, shape, generator=generator, dtype=kind)
        layers.append(PartnerList(rho, of - int(layer == 0), number))
    return LayerPartners(tuple(layers), 100)


def make_rows(n_neurons: int, budget: int | None = None) -> dict[str, int]:
    """Fit all rows of one share: what that took, and what was predicted, in bytes."""
    config = hf.Qwen2Config(
        vocab_size=320,
        hidden_size=16,
        intermediate_size=n_neurons,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = hf.Qwen2ForCausalLM(config).eval()
    architecture, corpus = find_architecture(model), corpus_of(100, 16)
    settings = ReuseSettings(shares=(SHARE,), n_seeds=1, n_sequences=100)
    text: Any = SimpleNamespace(n_positions=16)
    needs = needs_of_reuse(model, architecture, corpus, text, settings).within(budget)
    scales = gather_scales(model, architecture, corpus)
    maker = SeedMaker(
        model,
        architecture,
        made_partners(n_neurons),
        dense_operations(architecture),
        with_bias=True,
        has_new_constant=True,
        n_bytes=needs.sums,
        progress=Silent(),
    )
    names = [
        (method, SHARE, 0 if method == REMOVAL else 1)
        for method in METHODS_HELP
        if method != "dense"
    ]
    give_back()
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")
    maker.make(corpus, scales, 0, names)
    return {"took": resident("VmHWM") - before, "predicted": needs.sums + needs.fitting}


def measure() -> dict[str, int]:
    """The peak of a wide model, once libraries are loaded."""
    make_rows(32)
    return make_rows(N_NEURONS)
