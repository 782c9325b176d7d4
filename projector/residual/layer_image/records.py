"""Images of layers and their provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from projector.residual.layer_image.image import LayerImage
from projector.residual.layer_image.settings import ImageSettings
from projector.residual.outliers import Outlier

KIND, VERSION = "layer-image", 1


@dataclass(frozen=True, eq=False)
class LayerImages:
    """All layers of a token in one model, two models, or a sequence of checkpoints.

    Attributes:
        settings: the settings.
        prompt: the text; None if token ids were given.
        tokens: the texts of the prompt's tokens.
        position: the token's position; None for the mean.
        left_out: tokens with outlier norms, which the mean leaves out; () for a single token.
        image: the model's image.
        other: the image of the model it is compared with, in the same range.
        difference: ``other`` − ``image``, in its own range.
        checkpoints: images of a sequence of checkpoints, in the same range as ``image``.
        hashes: SHA-256 of the weights of the model, and then of ``other`` or ``checkpoints``.
        versions: versions of the software.
    """

    settings: ImageSettings
    prompt: str | None
    tokens: tuple[str, ...]
    position: int | None
    left_out: tuple[Outlier, ...]
    image: LayerImage
    other: LayerImage | None
    difference: LayerImage | None
    checkpoints: tuple[LayerImage, ...]
    hashes: tuple[str, ...]
    versions: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values, without paths, times and NaN."""
        n_frames, n_hidden = self.image.shape
        other, difference = self.other, self.difference
        with_hash = [
            {**each.as_dict(), "sha256": sha256}
            for each, sha256 in zip(
                (self.image, *((other,) if other else ()), *self.checkpoints),
                self.hashes,
                strict=True,
            )
        ]
        return {
            "kind": KIND,
            "version": VERSION,
            "model": self.image.model,
            "sha256": self.hashes[0],
            "prompt": self.prompt,
            "tokens": list(self.tokens),
            "token": "mean" if self.position is None else self.position,
            "left_out": [each.as_dict() for each in self.left_out],
            "n_layers": n_frames - 1,
            "n_frames": n_frames,
            "n_hidden": n_hidden,
            "range": self.settings.range,
            "quantile": self.settings.quantile,
            "image": with_hash[0],
            "against": None if other is None else with_hash[1],
            "difference": None if difference is None else difference.as_dict(),
            "checkpoints": with_hash[1:] if self.checkpoints else None,
            "versions": dict(self.versions),
        }
