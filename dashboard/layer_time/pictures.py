"""A picture of hidden states over the layers, made here or saved."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from projector.errors import UserError
from projector.residual.particles.artifact import JSON_FILE, TENSOR_FILE, read_particles
from projector.residual.particles.records import KIND, LayerTime
from projector.storage.versions import read_json

# A report with the predictions of 256 tokens at thirty layers takes half a MB.
_MOST_BYTES = 256 * 2**20
# Written next to the particles.
IMAGE_FILE = "layers.png"


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture on the page.

    Attributes:
        report: content of ``report.json``.
        tensors: content of ``particles.safetensors``, by name.
        image: the saved PNG; None if the page draws it.
        has_old_autoencoder: whether it uses an autoencoder that was trained for another picture.
    """

    report: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]]
    image: bytes | None = None
    has_old_autoencoder: bool = False

    @classmethod
    def of(cls, found: LayerTime, *, has_old_autoencoder: bool = False) -> Picture:
        """The picture of a result."""
        tensors = {name: each.cpu().numpy() for name, each in found.tensors().items()}
        return cls(found.as_dict(), tensors, has_old_autoencoder=has_old_autoencoder)

    def to_record(self) -> dict[str, Any]:
        """The picture as plain values for JSON."""
        tensors = {name: np.ascontiguousarray(each) for name, each in self.tensors.items()}
        text = base64.b64encode(save(tensors)).decode("ascii")
        return {
            "report": dict(self.report),
            "tensors": text,
            "has_old_autoencoder": self.has_old_autoencoder,
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Picture:
        """Read the result of :meth:`to_record`."""
        return cls(
            record["report"],
            load(base64.b64decode(record["tensors"])),
            has_old_autoencoder=record["has_old_autoencoder"],
        )

    @property
    def layers(self) -> list[int | None]:
        """The layer of each frame; None for the embedding."""
        return [frame["layer"] for frame in self.report["frames"]]

    @property
    def n_tokens(self) -> list[int]:
        """Number of tokens of each prompt."""
        return [len(prompt["tokens"]) for prompt in self.report["prompts"]]


def is_picture(folder: Path) -> bool:
    """Whether a folder holds a picture, by the format in its report."""
    try:
        if (folder / JSON_FILE).stat().st_size > _MOST_BYTES:
            return False
        report, _ = read_json(folder / JSON_FILE)
        return isinstance(report, Mapping) and report.get("kind") == KIND
    except (UserError, OSError):
        return False


def read_picture(folder: Path) -> Picture:
    """Read the picture in a folder.

    Raises:
        UserError: if it is damaged, too large, or of a newer version.
    """
    for name in (JSON_FILE, TENSOR_FILE):
        size = _size(folder / name)
        if size > _MOST_BYTES:
            raise UserError(
                f"'{folder.name}/{name}' has {size / 2**20:,.0f} MB, which is too large for a "
                f"page: a page reads up to {_MOST_BYTES / 2**20:,.0f} MB"
            )
    report, tensors = read_particles(folder)
    image = folder / IMAGE_FILE
    try:
        drawn = image.read_bytes() if 0 < _size(image) <= _MOST_BYTES else None
    except OSError:
        drawn = None
    return Picture(report, tensors, drawn)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
