"""What is measured of an autoencoder, and how it is made: frozen records. Nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# What is compared: field of a score → words.
CODES = {
    "autoencoder": "the autoencoder",
    "pca_same_size": "PCA with as many numbers a sequence",
    "pca_width": "PCA with one particle's numbers a token",
    "untrained": "untrained random queries with the best linear map behind them",
    "mean": "the mean vector",
}


@dataclass(frozen=True)
class Score:
    """R² per token on unseen text: 1 − Σ‖x − x̂‖² / Σ‖x − mean‖² over tokens without outliers.

    Attributes:
        frame: "embedding", "layer 0", …; "all" for all frames together, each normalised.
        layer: None in the embedding and over all.
        autoencoder: of the trained autoencoder.
        pca_same_size: of principal components, as many a token as the particles of its sequence
            have numbers for it, and at most H. They are shared by all frames, as the autoencoder
            is.
        pca_width: of as many principal components a token as one particle has numbers.
        untrained: of the same network with random weights, with the best linear map from what it
            gives to the tokens, found on the text of the training.
        mean: 0 by definition: the mean vector in place of each token.
    """

    frame: str
    layer: int | None
    autoencoder: float
    pca_same_size: float
    pca_width: float
    untrained: float
    mean: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """How well tokens are reconstructed on text that was not trained on.

    Attributes:
        n_sequences, n_tokens: of the unseen text, outliers left out.
        total: over all frames.
        frames: of each.
        by_length: over all frames, of sequences by their number of tokens: up to the number that
            is the key.
        held_out: what the unseen text is.
    """

    n_sequences: int
    n_tokens: int
    total: Score
    frames: tuple[Score, ...]
    by_length: Mapping[int, Score]
    held_out: str

    @property
    def warning(self) -> str | None:
        """A plain sentence where the autoencoder is no better than something simpler."""
        own = self.total.autoencoder
        if own <= 0:
            return (
                f"The autoencoder is no better than the mean vector (R² {_number(own)} on unseen "
                "text): its particles say nothing about the tokens. Train it for more steps."
            )
        if better := _no_worse(self.total):
            return (
                f"The autoencoder (R² {_number(own)} on unseen text) is no better than "
                f"{_listed(better)}."
            )
        for n, score in sorted(self.by_length.items(), reverse=True):
            if better := _no_worse(score):
                return (
                    f"For texts of up to {n} tokens, the autoencoder (R² "
                    f"{_number(score.autoencoder)} on unseen text) is no better than "
                    f"{_listed(better)}."
                )
        return None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "n_sequences": self.n_sequences,
            "n_tokens": self.n_tokens,
            "held_out": self.held_out,
            "total": self.total.as_dict(),
            "frames": [each.as_dict() for each in self.frames],
            "by_length": {str(n): each.as_dict() for n, each in self.by_length.items()},
            "warning": self.warning,
        }

    @classmethod
    def of_dict(cls, content: Mapping[str, Any]) -> Evaluation:
        """What :meth:`as_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: for other content.
        """
        return cls(
            int(content["n_sequences"]),
            int(content["n_tokens"]),
            _score(content["total"]),
            tuple(_score(each) for each in content["frames"]),
            {int(n): _score(each) for n, each in content["by_length"].items()},
            str(content["held_out"]),
        )


def _score(content: Mapping[str, Any]) -> Score:
    layer = content["layer"]
    return Score(
        str(content["frame"]),
        None if layer is None else int(layer),
        *(float(content[name]) for name in CODES),
    )


def _no_worse(score: Score) -> list[str]:
    """What is simpler, and keeps as much or more: with its R²."""
    own = score.autoencoder
    return [
        f"{CODES[name]} (R² {_number(value)})"
        for name in ("pca_same_size", "pca_width", "untrained")
        if (value := getattr(score, name)) >= own
    ]


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
