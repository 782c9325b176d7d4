"""Records of a picture of hidden states over the layers, and of its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from projector.residual.particles.cloud import Cloud as Cloud
from projector.residual.particles.cloud import Frame as Frame
from projector.residual.particles.cloud import Owner as Owner
from projector.residual.particles.reduction.reduction import Reduced as Reduced
from projector.residual.particles.settings import ParticleSettings

KIND, VERSION = "layer-time", 1
# Within the folder of a picture: the autoencoder that was trained for it.
AUTOENCODER_FOLDER = "autoencoder"


@dataclass(frozen=True)
class PromptTokens:
    """A prompt with its tokens.

    Attributes:
        text: the user's text; None if token ids were given.
        ids: token ids, T of them.
        pieces: the text of each token.
        made: whether each token was added by the tokenizer or the chat template.
    """

    text: str | None
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    made: tuple[bool, ...]

    @property
    def n_own(self) -> int:
        """The number of tokens of the text itself."""
        return len(self.made) - sum(self.made)

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        tokens = [
            {"text": piece, "id": number, "made": made}
            for piece, number, made in zip(self.pieces, self.ids, self.made, strict=True)
        ]
        return {"text": self.text, "tokens": tokens}


@dataclass(frozen=True)
class FrameFidelity:
    """How faithful one frame of the picture is. Unknown values are None.

    Attributes:
        frame: name of the frame.
        layer: None for the embedding.
        variance_explained: Σ‖p − p̄‖² / Σ‖x − x̄‖² over the frame's particles, which for an
            orthogonal projection is the share of variance it keeps; for linear maps only.
        variance_random: its mean for random subspaces of as many dimensions.
        variance_shuffled: the share that the same method keeps of as many particles without
            structure: each coordinate is shuffled over the frame's particles, and the map is fitted
            again. For linear maps only.
        neighbours_kept: share of each particle's k nearest in the picture that are as near in full
            space as its k nearest there.
        neighbours_chance: the share for random positions, k / (n − 1); more if there are ties.
        neighbours_random: its mean for random orthogonal projections.
        neighbours_shuffled: the share that the same method keeps of shuffled particles, as above.
        neighbours_k: k: 10, or a fifth of the other particles if that is less.
        displacement_correlation: Spearman's rank correlation, over particles, of displacements
            since the previous frame, in full space and in the picture; None in the first frame.
        displacement_random: its mean for random projections.
        displacement_n: number of particles in it.
        reason: why a figure is None; None if there is no such figure, except in the first frame.
    """

    frame: str
    layer: int | None
    variance_explained: float | None = None
    variance_random: float | None = None
    neighbours_kept: float | None = None
    neighbours_chance: float | None = None
    displacement_correlation: float | None = None
    displacement_random: float | None = None
    displacement_n: int = 0
    variance_shuffled: float | None = None
    neighbours_random: float | None = None
    neighbours_shuffled: float | None = None
    neighbours_k: int | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class OutlierParticle:
    """A token with a norm many times the median of the prompts' tokens, and where it is most
    extreme.

    Attributes:
        prompt: 0 or 1.
        token: its position in the prompt.
        text: the token's text.
        frame: the name of the frame in which it is most extreme.
        times_usual: its norm there, divided by the median; None if it isn't finite.
    """

    prompt: int
    token: int
    text: str
    frame: str
    times_usual: float | None

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Prediction:
    """The token that the logit lens finds most probable, and its probability."""

    id: int
    token: str
    probability: float

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {"token": self.token, "id": self.id, "probability": self.probability}


# Of each prompt, each frame and each token; None where a token is not read.
Predictions = tuple[tuple[tuple[Prediction | None, ...], ...], ...]


class PairFacts(Protocol):
    """The facts about two prompts: which tokens are partners, and where the prompts diverge."""

    @property
    def partners(self) -> tuple[tuple[int, int], ...]:
        """Partner tokens, (token of the first, token of the second)."""
        ...

    @property
    def reasons(self) -> dict[str, str]:
        """Figure → reason why it is missing."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """``first_difference``, ``causal_zeros`` and ``shared`` of a report."""
        ...


class Writable(Protocol):
    """An object that writes its files into a folder, which is created."""

    def write(self, folder: Path) -> None: ...


@dataclass(frozen=True, eq=False)
class LayerTime:
    """Hidden states of one or two prompts as particles over the layers.

    Attributes:
        settings: the settings.
        model_name, model_sha256: the model, and the hash of its weights.
        prompts: one or two.
        frames: F.
        owners: P.
        positions: (F, P, 3) float32; z = 0 in a picture of two dimensions; NaN for no position.
        norms: (F, P) float32, in full space.
        displacements: (F, P) float32, since the previous frame; 0 in the first.
        neighbours: (F, P, k) int32, the nearest particles in full space; −1 for none.
        distances: (F, P, k) float32, in full space; NaN for none.
        born: (P,) int64, the frame from which a particle exists.
        outlying: (P,) bool, whether it belongs to a token with an outlying norm.
        outliers: the tokens with outlying norms.
        fidelity: F.
        displacement_correlation: Spearman's rank correlation over all frames and particles; None if
            undefined.
        displacement_random: its mean for random projections.
        last_states: (n_prompts, F, H) float32, the last token's hidden states.
        metric: metric of ``distances`` and of neighbours: "euclidean" or "cosine".
        pair: facts about two prompts.
        predictions: predictions of the logit lens; None if ``reasons`` explains it.
        autoencoder: facts about the autoencoder.
        saved: the autoencoder itself, which is written next to its picture.
        notes: remarks for the user.
        reasons: part → reason why it is missing.
        versions: versions of the packages that affect the numbers.
    """

    settings: ParticleSettings
    model_name: str
    model_sha256: str
    prompts: tuple[PromptTokens, ...]
    frames: tuple[Frame, ...]
    owners: tuple[Owner, ...]
    positions: Tensor
    norms: Tensor
    displacements: Tensor
    neighbours: Tensor
    distances: Tensor
    born: Tensor
    outlying: Tensor
    outliers: tuple[OutlierParticle, ...]
    fidelity: tuple[FrameFidelity, ...]
    displacement_correlation: float | None
    last_states: Tensor
    displacement_random: float | None = None
    metric: str = "euclidean"
    pair: PairFacts | None = None
    predictions: Predictions | None = None
    autoencoder: Mapping[str, Any] | None = None
    saved: Writable | None = None
    notes: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[str, ...]:
        """The distinct parts of the model that particles belong to."""
        return tuple(dict.fromkeys(each.part for each in self.owners if each.part is not None))

    @property
    def part_kinds(self) -> tuple[str, ...]:
        """The kind of each of ``parts``."""
        kinds = {each.part: each.kind for each in self.owners if each.part is not None}
        return tuple(kinds[part] for part in self.parts)

    @property
    def n_layers(self) -> int:
        """The number of shown layers."""
        return sum(each.layer is not None for each in self.frames)

    def as_dict(self) -> dict[str, Any]:
        """The content of ``report.json``, without paths, times and NaN."""
        predicted = self.predictions
        pair: Mapping[str, Any] = {} if self.pair is None else self.pair.as_dict()
        return {
            "kind": KIND,
            "version": VERSION,
            "model": self.model_name,
            "sha256": self.model_sha256,
            "settings": self.settings.facts(),
            "prompts": [each.as_dict() for each in self.prompts],
            "n_particles": len(self.owners),
            "n_layers": self.n_layers,
            "n_frames": len(self.frames),
            "frames": [each.as_dict() for each in self.frames],
            "parts": list(self.parts),
            "part_kinds": list(self.part_kinds),
            "metric": self.metric,
            "fidelity": [each.as_dict() for each in self.fidelity],
            "displacement_correlation": self.displacement_correlation,
            "displacement_random": self.displacement_random,
            "outliers": [each.as_dict() for each in self.outliers],
            "first_difference": self._shown(pair.get("first_difference")),
            "causal_zeros": pair.get("causal_zeros"),
            "shared": pair.get("shared"),
            "predictions": None
            if predicted is None
            else [
                [[None if e is None else e.as_dict() for e in row] for row in prompt]
                for prompt in predicted
            ],
            "autoencoder": None if self.autoencoder is None else dict(self.autoencoder),
            "notes": list(self.notes),
            "reasons": dict(self.reasons),
            "versions": dict(self.versions),
        }

    def _shown(self, difference: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """A difference whose frames count among those that are shown; None for another."""
        if difference is None:
            return None
        places = {each.layer: i for i, each in enumerate(self.frames)}

        def placed(row: Mapping[str, Any]) -> dict[str, Any]:
            frame = None if row["frame"] is None else places.get(row["layer"])
            return {**row, "frame": frame}

        rows = [placed(each) for each in difference.get("per_frame", ())]
        return {**placed(difference), "per_frame": rows}

    def tensors(self) -> dict[str, Tensor]:
        """The content of ``particles.safetensors``.

        ``owner_part`` are indices in ``parts`` of the report, −1 for no part; ``partners`` (n, 2)
        are particles of aligned tokens of both prompts.
        """
        parts = {part: i for i, part in enumerate(self.parts)}
        return {
            "positions": self.positions.float(),
            "norms": self.norms.float(),
            "displacements": self.displacements.float(),
            "neighbours": self.neighbours.to(torch.int32),
            "distances": self.distances.float(),
            "born": self.born.to(torch.int32),
            "outlying": self.outlying.to(torch.uint8),
            "owner_prompt": _int32([each.prompt for each in self.owners]),
            "owner_token": _int32([each.token for each in self.owners]),
            "owner_part": _int32(
                [-1 if each.part is None else parts[each.part] for each in self.owners]
            ),
            "partners": _int32(self._partners()).reshape(-1, 2),
        }

    def _partners(self) -> list[tuple[int, int]]:
        """Particles of aligned tokens, of the same part; of an autoencoder, of the same query."""
        if self.pair is None:
            return []
        places: dict[Any, int] = {}
        queries: tuple[dict[int, int], dict[int, int]] = ({}, {})
        for i, each in enumerate(self.owners):
            if each.query is not None:
                queries[each.prompt][each.query] = i
            else:
                places[each.prompt, each.token, each.part] = i
        of_a, of_b = queries
        found = [(place, of_b[query]) for query, place in of_a.items() if query in of_b]
        for a, b in self.pair.partners:
            for part in self.parts or (None,):
                if (0, a, part) in places and (1, b, part) in places:
                    found.append((places[0, a, part], places[1, b, part]))
        return found


def _int32(values: Any) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.int32))
