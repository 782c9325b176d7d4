"""The bounded folders on disk: what is kept between runs of the app."""

from __future__ import annotations

import os
from pathlib import Path

from dashboard.prompts import STORED_PROMPTS
from projector.storage.bounded import BoundedFolder

# Of a layer and site of 3,072 neurons, examples take some 27 MB.
_MOST_BYTES_OF_EXAMPLES = 4 * 2**30
# Some hundred thousand prompts as people type them.
_MOST_BYTES_OF_PROMPTS = 256 * 2**20
# Of a model of 1,000 heads, scores take half a MB.
_MOST_BYTES_OF_HEADS = 64 * 2**20
# Of a stream of 576 numbers and 1,024 particles, an autoencoder takes some 15 MB.
_MOST_BYTES_OF_AUTOENCODERS = 2**30
_STORED_AUTOENCODERS = f"autoencoders/{'[0-9a-f]' * 16}/autoencoder.safetensors"
_STORED_HEADS = f"heads/{'[0-9a-f]' * 16}.json"
_STORED_EXAMPLES = f"examples/{'[0-9a-f]' * 16}-[0-9]*-*.safetensors"


def stored_prompts() -> BoundedFolder:
    """Where prompts are, which links name by their ids.

    They can't be made again: however many examples there are, none of them makes room for those.
    """
    return BoundedFolder(_place(), (STORED_PROMPTS,), _MOST_BYTES_OF_PROMPTS)


def stored_examples() -> BoundedFolder:
    """Where what drives neurons is; each layer and site can be gathered again."""
    return BoundedFolder(_place(), (_STORED_EXAMPLES,), _MOST_BYTES_OF_EXAMPLES)


def examples_name(sha256: str, layer: int, site: str) -> str:
    """The file that holds what drives the neurons of a layer and site of a model."""
    return f"examples/{sha256[:16]}-{layer}-{site}.safetensors"


def stored_heads() -> BoundedFolder:
    """Where scores of heads are; each model's can be computed again."""
    return BoundedFolder(_place(), (_STORED_HEADS,), _MOST_BYTES_OF_HEADS)


def heads_name(sha256: str) -> str:
    """The file that holds the scores of a model's heads."""
    return f"heads/{sha256[:16]}.json"


def stored_autoencoders() -> BoundedFolder:
    """Where autoencoders are that the app has trained; each can be trained again."""
    return BoundedFolder(_place(), (_STORED_AUTOENCODERS,), _MOST_BYTES_OF_AUTOENCODERS)


def autoencoder_folder(training: str) -> Path:
    """The folder that holds the autoencoder of a training, which counts as used now.

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
