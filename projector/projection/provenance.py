"""Where a projection comes from: its model, corpus and settings."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict

from torch import nn

from projector.layouts.settings import Layout
from projector.model.architecture.records import Architecture
from projector.model.loading import LoadedModel
from projector.projection.facts import LayoutSettings, ModelFacts

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


def layout_settings(layout: Layout) -> LayoutSettings:
    """How positions are found, as a projection says it."""
    return LayoutSettings.from_dict({**asdict(layout), "method": layout.method})


def dtype_name(model: nn.Module) -> str:
    """What a model computes in: ``float32``."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def model_facts(loaded: LoadedModel, architecture: Architecture) -> ModelFacts:
    """The model of a projection, as its facts record it."""
    return ModelFacts(
        id=loaded.identifier,
        sha256=loaded.weights_sha256,
        dtype=dtype_name(loaded.model),
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
