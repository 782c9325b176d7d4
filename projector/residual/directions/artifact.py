"""Saved directions of a model's stream: the difference of two sets' means, layer by layer.

The difference of means d = mean(positive) − mean(negative) points from the negative set to the
positive one (Marks and Tegmark 2023, arXiv:2310.06824; Rimsky et al. 2023, arXiv:2312.06681).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from projector.errors import SettingError, UserError, named
from projector.residual.outliers import TIMES_USUAL
from projector.residual.subject import Subject
from projector.storage.folders import replacing_folder, restore_folder
from projector.storage.places import check_replaceable, disk_errors
from projector.storage.tensors import write_tensors
from projector.storage.versions import Artifact, json_text

JSON_FILE, TENSOR_FILE = "directions.json", "directions.safetensors"
FORMAT, VERSION = "directions", 1
# Where a report about one model, or several, holds them.
FOLDER = "directions"
# The only streams that an intervention at one tap changes whole.
STREAMS = ("resid_pre", "resid_post")
_NAME = re.compile(r"layers\.(\d+)\.(resid_pre|resid_post)", re.ASCII)
_KIND = Artifact(
    "directions",
    JSON_FILE,
    TENSOR_FILE,
    FORMAT,
    VERSION,
    setting="direction",
    source="that `projector contrast` wrote",
    remedy="run the contrast again",
)


@dataclass(frozen=True, eq=False)
class Directions:
    """One direction per layer and stream, for one model and one pair of sets.

    Attributes:
        model_name: the model's identifier.
        model_sha256: hash of its weights; directions are valid for these weights only.
        pair: the name of the two sets.
        positive_name, negative_name: names of the sets; adding a direction leads towards the
            positive set.
        sets_sha256: hash of the prompts.
        at: the tokens that were read, ``last`` (a prompt's last token) or ``mean`` (the mean over
            its tokens).
        n_fit_positive, n_fit_negative: number of prompts in the means, without the prompts for
            testing effects.
        n_tested_positive, n_tested_negative: number of prompts for testing effects.
        vectors: (layer, stream) → (H,) float32, mean(positive) − mean(negative), in units of the
            stream.
        usual_norms: (layer, stream) → the median norm of tokens there, in units of the stream.
        keep_outliers: whether tokens with outlying norms count in means over a prompt's tokens, and
            are changed too. A last token always counts.
        seed: seed of the choice of tested prompts.
        versions: versions of the packages that affect the numbers.
        n_outlying_positive, n_outlying_negative: number of prompts in the means with a vector that
            is many times longer than the median after some layer.
    """

    model_name: str
    model_sha256: str
    pair: str
    positive_name: str
    negative_name: str
    sets_sha256: str
    at: str
    n_fit_positive: int
    n_fit_negative: int
    n_tested_positive: int
    n_tested_negative: int
    vectors: Mapping[tuple[int, str], Tensor]
    usual_norms: Mapping[tuple[int, str], float]
    keep_outliers: bool = False
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    n_outlying_positive: int = 0
    n_outlying_negative: int = 0

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers with a direction after them, in ``resid_post``."""
        return tuple(sorted(layer for layer, stream in self.vectors if stream == "resid_post"))

    def at_layer(self, layer: int, stream: str = "resid_post") -> Tensor:
        """The direction after a layer, (H,) float32.

        Raises:
            SettingError: on ``layer``, if it has no direction.
        """
        found = self.vectors.get((layer, stream))
        if found is None:
            raise SettingError(
                "layer", layer, "has no direction here", f"give one of {_ranges(self.layers)}"
            )
        return found

    def most_norm(self, layer: int, stream: str = "resid_post") -> float | None:
        """The norm above which a token is an outlier that changes to the stream skip; None if
        outliers are kept.
        """
        return None if self.keep_outliers else TIMES_USUAL * self.usual_norms[layer, stream]

    def check(self, subject: Subject) -> None:
        """Raise a UserError if these directions belong to other weights than the subject's."""
        if self.model_sha256 != subject.loaded.weights_sha256:
            raise _of_another(self, subject)

    def facts(self) -> dict[str, Any]:
        """The content of the JSON file and of a report, without paths and times."""
        return {
            "format": FORMAT,
            "format_version": VERSION,
            "model": {"id": self.model_name, "sha256": self.model_sha256},
            "sets": {
                "pair": self.pair,
                "positive_name": self.positive_name,
                "negative_name": self.negative_name,
                "sha256": self.sets_sha256,
                "n_fit_positive": self.n_fit_positive,
                "n_fit_negative": self.n_fit_negative,
                "n_tested_positive": self.n_tested_positive,
                "n_tested_negative": self.n_tested_negative,
                "n_outlying_positive": self.n_outlying_positive,
                "n_outlying_negative": self.n_outlying_negative,
            },
            "at": self.at,
            "keep_outliers": self.keep_outliers,
            "seed": self.seed,
            "directions": [
                {
                    "layer": key[0],
                    "stream": key[1],
                    "norm": float(self.vectors[key].norm()),
                    "usual_norm": self.usual_norms[key],
                }
                for key in self._order()
            ],
            "versions": dict(self.versions),
        }

    def write(self, folder: Path) -> None:
        """Write both files into a folder, which is created; for callers that write a report there
        too.

        Raises:
            OSError: if the files can't be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"layers.{i}.{s}": self.vectors[i, s] for i, s in self._order()}
        write_tensors(folder / TENSOR_FILE, tensors, {"model": self.model_sha256})
        (folder / JSON_FILE).write_text(json_text(self.facts()), encoding="utf-8")

    def save(self, folder: Path, *, force: bool = False) -> None:
        """Write both files atomically.

        Raises:
            UserError: if the folder must not be replaced (it holds something else; or directions,
                and ``force`` is False), or the files can't be written.
        """
        check_replaceable(folder, JSON_FILE, "directions", force=force)
        with disk_errors(folder), replacing_folder(folder) as new:
            self.write(new)

    @classmethod
    def load(cls, folder: Path | str) -> Directions:
        """Read the directions of one model.

        Raises:
            UserError: on ``direction``, if the folder holds no directions, or they are damaged or
                newer.
        """
        return _KIND.read(Path(folder), _read)

    def _order(self) -> list[tuple[int, str]]:
        return sorted(self.vectors, key=lambda key: (key[0], STREAMS.index(key[1])))


def list_directions(folder: Path | str) -> list[Directions]:
    """List the directions of every model in a folder, which holds directions or a report.

    A report about one model has them in ``directions/``, a report about several models in a
    subfolder of ``directions/`` for each.

    Raises:
        UserError: on ``direction``, if there are no directions; see also :meth:`Directions.load`.
    """
    folder = Path(folder)
    with disk_errors(folder):
        restore_folder(folder)
    places = [folder, folder / FOLDER]
    for parent in (folder / FOLDER, folder):
        if parent.is_dir():
            places += sorted(each for each in parent.iterdir() if each.is_dir())
    found = [place for place in dict.fromkeys(places) if (place / JSON_FILE).is_file()]
    if not found:
        raise _KIND.missing(folder)
    return [Directions.load(place) for place in found]


def find_directions(folder: Path | str, subject: Subject) -> Directions:
    """Find the directions from :func:`list_directions` that belong to the subject's weights.

    Raises:
        UserError: on ``direction``, if there are no directions, or none for these weights.
    """
    loaded = list_directions(folder)
    for each in loaded:
        if each.model_sha256 == subject.loaded.weights_sha256:
            return each
    if len(loaded) == 1:
        raise _of_another(loaded[0], subject)
    names = ", ".join(f"'{each.model_name}'" for each in loaded)
    raise UserError(
        f"{named('direction')} holds directions of {names}, but none of '{_words(subject)}: "
        "contrast the sets on this model first",
        setting="direction",
        value=str(folder),
    )


def _read(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Directions:
    """Raises KeyError, TypeError or ValueError for content that is not directions'."""
    model, sets = content["model"], content["sets"]
    texts = {
        "model_name": model["id"],
        "model_sha256": model["sha256"],
        "pair": sets["pair"],
        "positive_name": sets["positive_name"],
        "negative_name": sets["negative_name"],
        "sets_sha256": sets["sha256"],
        "at": content["at"],
    }
    counts = {
        name: sets[name]
        for name in ("n_fit_positive", "n_fit_negative", "n_tested_positive", "n_tested_negative")
    }
    counts["seed"] = content["seed"]
    # Directions that were saved before these were counted have none.
    for name in ("n_outlying_positive", "n_outlying_negative"):
        counts[name] = sets.get(name, 0)
    for name, value in texts.items():
        if not isinstance(value, str):
            raise TypeError(f"{name} is not a text")
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise TypeError(f"{name} is not a count")
    norms = {
        (int(each["layer"]), str(each["stream"])): float(each["usual_norm"])
        for each in content["directions"]
    }
    if not isinstance(content["keep_outliers"], bool):
        raise TypeError("keep_outliers is not true or false")
    vectors = _vectors(tensors)
    if set(norms) != set(vectors):
        raise ValueError("its two files list different layers")
    return Directions(
        **texts,
        **counts,
        vectors=vectors,
        usual_norms=norms,
        keep_outliers=content["keep_outliers"],
        versions=dict(content["versions"]),
    )


def _vectors(tensors: Mapping[str, Tensor]) -> dict[tuple[int, str], Tensor]:
    vectors: dict[tuple[int, str], Tensor] = {}
    for name in tensors:
        parts, tensor = _NAME.fullmatch(name), tensors[name]
        if parts is None:
            raise ValueError(f"tensor '{name}' is not known")
        if tensor.ndim != 1 or tensor.dtype != torch.float32:
            raise ValueError(f"tensor '{name}' is {tensor.dtype} {tuple(tensor.shape)}")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"tensor '{name}' has a number that is not finite")
        vectors[int(parts[1]), parts[2]] = tensor
    if len({len(each) for each in vectors.values()}) != 1:
        raise ValueError("it has no directions, or some of different widths")
    return vectors


def _words(subject: Subject) -> str:
    """The end of a sentence, behind a quotation mark: ``bundled' (weights 0123…)``."""
    return f"{subject.loaded.identifier}' (weights {subject.loaded.weights_sha256[:12]})"


def _of_another(directions: Directions, subject: Subject) -> UserError:
    return UserError(
        f"{named('direction')} holds directions of '{directions.model_name}' (weights "
        f"{directions.model_sha256[:12]}), but this model is '{_words(subject)}: contrast the sets "
        "on this model first",
        setting="direction",
        value=directions.model_name,
    )


def _ranges(layers: tuple[int, ...]) -> str:
    """``0 to 5``, or the numbers where some are missing between them."""
    if len(layers) > 2 and layers == tuple(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(str(layer) for layer in layers)
