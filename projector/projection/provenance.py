"""What a projection says of where it is from, and what two runs of a fit must share."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from projector.fitting.preparing import Job
from projector.layouts.settings import Layout
from projector.model.architecture.records import Architecture
from projector.model.loading import LoadedModel, input_device
from projector.projection.facts import CorpusFacts, Facts, LayoutSettings, MapFacts, ModelFacts

_VERSIONS_OF = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "numpy",
    "scipy",
    "scikit-learn",
    "umap-learn",
)


def projection_facts(job: Job, maps: Mapping[str, MapFacts]) -> Facts:
    """What a projection is of; ``maps`` is what is known of its single maps."""
    corpus = job.corpus
    return Facts(
        model=model_facts(job.loaded, job.architecture),
        corpus=CorpusFacts(
            source=corpus.source,
            sha256=corpus.sha256,
            n_tokens=corpus.n_tokens,
            n_tokens_available=corpus.n_available,
            n_sequences=corpus.n_sequences,
            sequence_length=job.sequence_length,
            packed=job.packed,
            skip_first=corpus.skip_first,
            notes=tuple(corpus.notes),
        ),
        sites=tuple(job.sites),
        layers=tuple(job.layers),
        left_out_sites=dict(job.left_out),
        correlation=job.settings.correlation,
        maps=dict(maps),
        versions=versions(),
    )


def layout_settings(layout: Layout) -> LayoutSettings:
    """How positions are found, as a projection says it."""
    return LayoutSettings.from_dict({**asdict(layout), "method": layout.method})


def run_facts(job: Job, n_processes: int) -> dict[str, Any]:
    """What two runs must share for one to go on from the other's checkpoint."""
    return {
        "model": job.loaded.weights_sha256,
        "corpus": job.corpus.sha256,
        "number_of_tokens": job.corpus.n_tokens,
        # Another tokenizer, or another way to compute with the same weights, is another run.
        "tokenization": job.corpus.ids_sha256,
        "config": _config_sha256(job.loaded),
        "sites": job.sites,
        "layers": job.layers,
        "sequence_length": job.sequence_length,
        "packed": job.packed,
        "skip_first": job.corpus.skip_first,
        "batch_size": job.settings.batch_size,
        "correlation": job.settings.correlation,
        "keep_statistics": job.settings.keep_statistics,
        "number_of_processes": n_processes,
        "memory_budget": job.settings.memory_budget,
        "layout": asdict(job.layout),
        "dtype": _dtype_name(job.trunk),
        "device": input_device(job.trunk).type,
        "versions": {f"version of {name}": version for name, version in versions().items()},
    }


def _config_sha256(loaded: LoadedModel) -> str | None:
    """Of a model's settings; None where it has none."""
    config: Any = getattr(loaded.model, "config", None)
    if not hasattr(config, "to_diff_dict"):
        return None
    # Where it was loaded from is no setting, and what it computes in is told by itself.
    left_out = ("dtype", "torch_dtype", "transformers_version")
    settings = {
        key: value
        for key, value in config.to_diff_dict().items()
        if not key.startswith("_") and key not in left_out
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def _dtype_name(model: nn.Module) -> str:
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def model_facts(loaded: LoadedModel, architecture: Architecture) -> ModelFacts:
    """What a projection says of its model."""
    return ModelFacts(
        id=loaded.identifier,
        sha256=loaded.weights_sha256,
        dtype=_dtype_name(loaded.model),
        is_causal=architecture.is_causal,
        n_layers=len(architecture.blocks),
    )


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    return {
        "python": platform.python_version(),
        "transformer-projector": importlib.metadata.version("transformer-projector"),
        **{name: importlib.metadata.version(name) for name in _VERSIONS_OF},
    }
