"""A trained autoencoder, and its files: safetensors, and JSON with its provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from projector.errors import UserError, named
from projector.residual.particles.autoencoder.model import Autoencoder
from projector.residual.particles.autoencoder.normalising import Normaliser
from projector.residual.particles.autoencoder.records import Evaluation
from projector.residual.particles.records import AUTOENCODER_FOLDER
from projector.residual.subject import Subject
from projector.storage.folders import replacing_folder
from projector.storage.places import check_replaceable, disk_errors
from projector.storage.tensors import write_tensors
from projector.storage.versions import Artifact, json_text

JSON_FILE, TENSOR_FILE = "autoencoder.json", "autoencoder.safetensors"
FORMAT, VERSION = "autoencoder", 2
_NETWORK, _STATES = "network.", ("means", "scales", "usual")
_KIND = Artifact(
    "autoencoder",
    JSON_FILE,
    TENSOR_FILE,
    FORMAT,
    VERSION,
    setting="autoencoder",
    source="in which `projector layer-time` saved one",
    remedy="train the autoencoder again",
)


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained autoencoder of one model's hidden states.

    Attributes:
        network: the network, without gradients.
        normaliser: the normaliser of the model's F frames.
        evaluation: its quality on unseen text.
        facts: its provenance, as in its JSON: ``model``, ``corpus``, ``settings``, ``notes`` and
            ``versions``.
    """

    network: Autoencoder
    normaliser: Normaliser
    evaluation: Evaluation
    facts: Mapping[str, Any]

    @property
    def warning(self) -> str | None:
        """A sentence if it isn't better than a simpler method."""
        return self.evaluation.warning

    @torch.no_grad()
    def particles(self, states: Tensor) -> Tensor:
        """The particles of a sequence in every frame: (F, T, H) → (F, K, W) float32."""
        return self.network.encode(self.normaliser.apply(states))

    @torch.no_grad()
    def reconstruct(self, states: Tensor) -> Tensor:
        """Reconstruct a sequence (F, T, H) from its particles, in units of the stream."""
        return self.normaliser.undo(self.network(self.normaliser.apply(states)))

    def check(self, subject: Subject) -> None:
        """Raise a UserError on ``autoencoder`` if it was trained on other weights than the
        subject's.
        """
        model = self.facts["model"]
        if model["sha256"] != subject.loaded.weights_sha256:
            raise UserError(
                f"{named('autoencoder')} was trained on '{model['id']}' (weights "
                f"{model['sha256'][:12]}), but this model is '{subject.loaded.identifier}' "
                f"(weights {subject.loaded.weights_sha256[:12]}): give an autoencoder that was "
                "trained on it",
                setting="autoencoder",
                value=model["id"],
            )

    def as_dict(self) -> dict[str, Any]:
        """Convert its provenance and evaluation to JSON values, without paths and times."""
        return {**self.facts, "evaluation": self.evaluation.as_dict()}

    def write(self, folder: Path) -> None:
        """Write both files into a folder, which is created; for callers that write a report there
        too.

        Raises:
            OSError: if the files can't be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {_NETWORK + name: each for name, each in self.network.state_dict().items()}
        tensors |= {name: getattr(self.normaliser, name) for name in _STATES}
        content = {"format": FORMAT, "format_version": VERSION, **self.as_dict()}
        write_tensors(folder / TENSOR_FILE, tensors, {"model": self.facts["model"]["sha256"]})
        (folder / JSON_FILE).write_text(json_text(content), encoding="utf-8")

    def save(self, folder: Path, *, force: bool = False) -> None:
        """Write both files atomically.

        Raises:
            UserError: if the folder must not be replaced (it holds something else; or an
                autoencoder, and ``force`` is False), or the files can't be written.
        """
        check_replaceable(folder, JSON_FILE, "an autoencoder", force=force)
        with disk_errors(folder), replacing_folder(folder) as new:
            self.write(new)

    @classmethod
    def load(cls, folder: Path | str, subject: Subject | None = None) -> Trained:
        """Read an autoencoder.

        Args:
            subject: the model that it must belong to; None to skip this check.

        Raises:
            UserError: on ``autoencoder``, if the folder holds none, or it is damaged, newer, or
                belongs to other weights than the subject's.
        """
        found = _KIND.read(Path(folder), _read)
        if subject is not None:
            found.check(subject)
        return found


def place_of_autoencoder(folder: Path) -> Path:
    """Find the autoencoder in a folder, which may be its own folder or that of a picture."""
    within = folder / AUTOENCODER_FOLDER
    return within if within.is_dir() else folder


def _read(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Trained:
    """Raises KeyError, TypeError, ValueError or RuntimeError for what is no autoencoder's."""
    names = ("model", "corpus", "settings", "notes", "versions")
    facts = {name: content[name] for name in names}
    if not all(isinstance(facts["model"][name], str) for name in ("id", "sha256")):
        raise ValueError("it does not say which model it is of")
    n_hidden, n_frames = int(facts["model"]["n_hidden"]), int(facts["model"]["n_layers"]) + 1
    loaded = {name: tensors[name] for name in tensors}
    for name, each in loaded.items():
        if each.dtype != torch.float32 or not bool(each.isfinite().all()):
            raise ValueError(f"tensor '{name}' is {each.dtype}, or has a number that is not finite")
    parts = [loaded.pop(name) for name in _STATES]
    for part, shape in zip(parts, ((n_frames, n_hidden), (n_frames,), (n_frames,)), strict=True):
        if tuple(part.shape) != shape:
            raise ValueError(f"a tensor of its frames is {tuple(part.shape)} and not {shape}")
    settings = facts["settings"]
    with torch.device("meta"):  # no numbers are drawn for weights that are read
        network = Autoencoder(n_hidden, int(settings["n_particles"]), int(settings["width"]))
    weights = {name.removeprefix(_NETWORK): each.clone() for name, each in loaded.items()}
    network.load_state_dict(weights, assign=True)
    network.requires_grad_(False)
    return Trained(network, Normaliser(*parts), Evaluation.of_dict(content["evaluation"]), facts)
