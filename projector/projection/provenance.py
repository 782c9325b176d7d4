"""The provenance of a projection: its model, corpus and settings."""

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
    """The settings of a layout as a projection stores them."""
    return LayoutSettings.from_dict({**asdict(layout), "method": layout.method})


def dtype_name(model: nn.Module) -> str:
    """The dtype that a model computes in, such as ``float32``."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def model_facts(loaded: LoadedModel, architecture: Architecture) -> ModelFacts:
    """The facts of a projection's model."""
    return ModelFacts(
        id=loaded.identifier,
        sha256=loaded.weights_sha256,
        dtype=dtype_name(loaded.model),
        is_causal=architecture.is_causal,
        n_layers=len(architecture.blocks),
    )


def versions() -> dict[str, str]:
    """Versions of the packages that affect the numbers."""
    return {
        "python": platform.python_version(),
        "transformer-projector": importlib.metadata.version("transformer-projector"),
        **{name: importlib.metadata.version(name) for name in _VERSIONS_OF},
    }
