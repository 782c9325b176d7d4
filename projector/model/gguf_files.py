"""Models in one ``.gguf`` file: dequantised to float32 by Transformers, with the package gguf.

If that package isn't installed, the error says how to install it.
"""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from projector.errors import UserError

SUFFIX = ".gguf"
_MAGIC = b"GGUF"
# What llama.cpp calls the parts that it splits a file into.
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
_UNSUPPORTED = re.compile(r"architecture (\S+) is not supported")


def is_gguf(name: str) -> bool:
    """Whether a model name denotes a ``.gguf`` file, existing or not; False for a folder."""
    return name.lower().endswith(SUFFIX) and not Path(name).is_dir()


def check_gguf(path: Path) -> None:
    """Raise a UserError if the file doesn't exist, isn't GGUF, or the package gguf isn't installed.

    A truncated file is only noticed when it is loaded.
    """
    if not path.is_file():
        raise UserError(f"there is no model file '{path}': check its name")
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UserError(
                f"model '{path}' isn't a GGUF file, despite its name: download it again"
            )
    if _PART.search(path.name):
        raise UserError(
            f"model '{path}' is one part of several: merge them with llama.cpp's "
            "llama-gguf-split, and give the file that it writes"
        )
    if find_spec("gguf") is None:
        raise UserError(
            f"model '{path}' needs the package gguf: install it with "
            "`pip install 'transformer-projector[gguf]'`"
        )


def hash_gguf(path: Path) -> str:
    """SHA-256 of the file, as ``sha256sum`` gives it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def explained(path: Path, error: Exception) -> UserError:
    """Explain, in one line, an error of Transformers or gguf while loading a file."""
    text = " ".join(str(error).split())
    if found := _UNSUPPORTED.search(text):
        return UserError(
            f"model '{path}' has the architecture {found[1]}, which Transformers does not read "
            "from GGUF files: give the model as a folder of safetensors"
        )
    told = text if isinstance(error, (OSError, ValueError, RuntimeError)) else ""
    told = f"{type(error).__name__}: {told or text}"
    return UserError(
        f"model '{path}' can't be loaded: the file is damaged or truncated, or holds no language "
        f"model ({told[:200]})"
    )


def forget_quantization(model: Any) -> None:
    """Remove from a model every trace of the quantised file it was loaded from.

    Its weights are plain float32: saved, it is a plain checkpoint.
    """
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for name, plain in (("hf_quantizer", None), ("is_quantized", False)):
        if hasattr(model, name):
            setattr(model, name, plain)
    if hasattr(model, "quantization_method"):
        del model.quantization_method
