"""Bounded folders on disk, which are kept between runs of the app."""

from __future__ import annotations

import os
from pathlib import Path

from dashboard.prompts import STORED_PROMPTS
from projector.storage.bounded import BoundedFolder

# Examples of a layer and site with 3,072 neurons take about 27 MB.
_MOST_BYTES_OF_EXAMPLES = 4 * 2**30
# Enough for some hundred thousand typed prompts.
_MOST_BYTES_OF_PROMPTS = 256 * 2**20
# Scores of a model with 1,000 heads take half a MB.
_MOST_BYTES_OF_HEADS = 64 * 2**20
# An autoencoder with 1,024 particles for a stream of width 576 takes about 15 MB.
_MOST_BYTES_OF_AUTOENCODERS = 2**30
_STORED_AUTOENCODERS = f"autoencoders/{'[0-9a-f]' * 16}/autoencoder.safetensors"
_STORED_HEADS = f"heads/{'[0-9a-f]' * 16}.json"
_STORED_EXAMPLES = f"examples/{'[0-9a-f]' * 16}-[0-9]*-*.safetensors"


def stored_prompts() -> BoundedFolder:
    """The folder of prompts, which links name by id.

    Prompts can't be made again, so examples never push them out.
    """
    return BoundedFolder(_place(), (STORED_PROMPTS,), _MOST_BYTES_OF_PROMPTS)


def stored_examples() -> BoundedFolder:
    """The folder of examples; each layer's and site's can be gathered again."""
    return BoundedFolder(_place(), (_STORED_EXAMPLES,), _MOST_BYTES_OF_EXAMPLES)


def examples_name(sha256: str, layer: int, site: str) -> str:
    """The file with the examples of a model's layer and site."""
    return f"examples/{sha256[:16]}-{layer}-{site}.safetensors"


def stored_heads() -> BoundedFolder:
    """The folder of heads' scores; each model's can be computed again."""
    return BoundedFolder(_place(), (_STORED_HEADS,), _MOST_BYTES_OF_HEADS)


def heads_name(sha256: str) -> str:
    """The file with the scores of a model's heads."""
    return f"heads/{sha256[:16]}.json"


def stored_autoencoders() -> BoundedFolder:
    """The folder of autoencoders that the app has trained; each can be trained again."""
    return BoundedFolder(_place(), (_STORED_AUTOENCODERS,), _MOST_BYTES_OF_AUTOENCODERS)


def autoencoder_folder(training: str) -> Path:
    """The folder of a training's autoencoder; marks it as used now.

    Args:
        training: see :func:`dashboard.layer_time.keeping.training_id`.
    """
    stored, name = stored_autoencoders(), f"autoencoders/{training}"
    stored.find(f"{name}/autoencoder.safetensors")
    return stored.path / name


def _place() -> Path:
    given = os.environ.get("TRANSFORMER_PROJECTOR_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "transformer-projector"
