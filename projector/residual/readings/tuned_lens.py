"""The tuned lens: one affine map per layer, applied to the stream before the model's own head.

Belrose et al. 2023, "Eliciting Latent Predictions from Transformers with the Tuned Lens"
(arXiv:2303.08112): a layer's stream h becomes h + A h + b before the final norm; A and b are
trained so that the head's prediction is close to the model's final prediction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from projector.errors import UserError, named
from projector.residual.readings.records import STREAMS, Reading
from projector.residual.subject import Subject
from projector.storage.folders import replacing_folder
from projector.storage.places import check_replaceable, disk_errors
from projector.storage.tensors import TensorFile, write_tensors
from projector.storage.versions import Artifact, json_text

JSON_FILE, TENSOR_FILE = "tuned_lens.json", "tuned_lens.safetensors"
FORMAT, VERSION = "tuned-lens", 1
_KIND = Artifact(
    "tuned lens",
    JSON_FILE,
    TENSOR_FILE,
    FORMAT,
    VERSION,
    setting="tuned",
    source="that `projector tune-lens` wrote",
    remedy="train the lens again",
)
_NAME = re.compile(r"layers\.(\d+)\.(resid_\w+)\.(weight|bias)", re.ASCII)


@dataclass(frozen=True)
class Translation:
    """An affine map of the stream: h becomes ``h + weight h + bias``.

    Attributes:
        weight: (H, H) float32. bias: (H,) float32. Zeros leave the stream unchanged.
    """

    weight: Tensor
    bias: Tensor

    def apply(self, stream: Tensor) -> Tensor:
        """(P, H) → (P, H) float32, on the stream's device."""
        weight, bias = self.weight.to(stream.device), self.bias.to(stream.device)
        wide = stream.float()
        return torch.addmm(wide + bias, wide, weight.T)


@dataclass(frozen=True, eq=False)
class TunedLens:
    """A tuned lens of one model.

    Attributes:
        maps: maps for every reading except the last.
        facts: its provenance, as in its JSON: ``model``, ``corpus``, ``settings``,
            ``held_out`` and ``versions``.
    """

    maps: Mapping[Reading, Translation]
    facts: Mapping[str, Any]

    def translate(self, reading: Reading, stream: Tensor) -> Tensor:
        """Transform a stream, (P, H) → (P, H), both in the model's dtype."""
        return self.maps[reading].apply(stream).to(stream.dtype)

    def check(self, subject: Subject) -> None:
        """Raise a UserError if this lens was trained on other weights than the subject's."""
        model = self.facts["model"]
        if model["sha256"] != subject.loaded.weights_sha256:
            raise UserError(
                f"{named('tuned')} is a lens of '{model['id']}' (weights {model['sha256'][:12]}), "
                f"but this model is '{subject.loaded.identifier}' (weights "
                f"{subject.loaded.weights_sha256[:12]}): give a lens that was trained on it",
                setting="tuned",
                value=model["id"],
            )

    def save(self, folder: Path, *, force: bool = False) -> None:
        """Write both files atomically.

        Raises:
            UserError: if the folder must not be replaced (:func:`check_tuned_place`), or the files
                can't be written.
        """
        check_tuned_place(folder, force=force)
        tensors: dict[str, Tensor] = {}
        for reading, each in self.maps.items():
            name = f"layers.{reading.layer}.{reading.stream}"
            tensors |= {f"{name}.weight": each.weight, f"{name}.bias": each.bias}
        content = {"format": FORMAT, "format_version": VERSION, **self.facts}
        with disk_errors(folder), replacing_folder(folder) as new:
            new.mkdir()
            write_tensors(new / TENSOR_FILE, tensors, {"model": self.facts["model"]["sha256"]})
            (new / JSON_FILE).write_text(json_text(content), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str) -> TunedLens:
        """Read a lens.

        Raises:
            UserError: on ``tuned``, if the folder holds no tuned lens, or it is damaged or newer.
        """
        return _KIND.read(Path(folder), cls._parsed)

    @classmethod
    def _parsed(cls, content: dict[str, Any], tensors: TensorFile) -> TunedLens:
        facts = {k: v for k, v in content.items() if k not in ("format", "format_version")}
        return cls(_maps_of(tensors, int(facts["model"]["n_hidden"])), _checked(facts))


def check_tuned_place(folder: Path, *, force: bool) -> None:
    """Raise a UserError if a tuned lens must not be written there.

    Existing files are replaced only if they are a tuned lens and ``force`` is True.
    """
    check_replaceable(folder, JSON_FILE, "a tuned lens", force=force)


def _checked(facts: dict[str, Any]) -> dict[str, Any]:
    if not all(isinstance(facts["model"][name], str) for name in ("id", "sha256")):
        raise ValueError("it does not say which model it is of")
    return facts


def _maps_of(tensors: Mapping[str, Tensor], n_hidden: int) -> dict[Reading, Translation]:
    parts: dict[Reading, dict[str, Tensor]] = {}
    shapes = {"weight": (n_hidden, n_hidden), "bias": (n_hidden,)}
    for name in tensors:
        found = _NAME.fullmatch(name)
        if found is None:
            raise ValueError(f"tensor '{name}' is not known")
        tensor = tensors[name]
        if tuple(tensor.shape) != shapes[found[3]] or tensor.dtype != torch.float32:
            raise ValueError(f"tensor '{name}' is {tensor.dtype} {tuple(tensor.shape)}")
        parts.setdefault(Reading(int(found[1]), found[2]), {})[found[3]] = tensor
    order = sorted(parts, key=lambda each: (each.layer, STREAMS.index(each.stream)))
    return {each: Translation(parts[each]["weight"], parts[each]["bias"]) for each in order}
