"""Records of an autoencoder's evaluation and settings; importing this is fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# What is compared: field of a score → words.
CODES = {
    "autoencoder": "the autoencoder",
    "pca_same_size": "PCA with as many numbers per sequence",
    "pca_per_frame": "PCA of each frame with as many numbers per sequence",
    "pca_width": "PCA with one particle's numbers per token",
    "untrained": "untrained random queries, followed by the best linear map",
    "mean": "the mean vector",
}
# What the autoencoder has to exceed.
COMPARED = ("pca_same_size", "pca_per_frame", "pca_width", "untrained")
# A difference counts where it exceeds its standard error as many times.
_TIMES_ERROR = 2.0
# Of one length; fewer say nothing of its error.
_LEAST_WINDOWS = 2


@dataclass(frozen=True)
class Margin:
    """The advantage of the autoencoder over a simpler method, window by window.

    Attributes:
        difference: mean over windows of the difference of R² within a window.
        error: its standard error; None for one window.
        n_windows: number of windows.
    """

    difference: float
    error: float | None
    n_windows: int

    @property
    def is_better(self) -> bool:
        """Whether the mean difference exceeds twice its standard error."""
        return self.error is not None and self.difference > _TIMES_ERROR * self.error

    @property
    def is_worse(self) -> bool:
        """Whether it is negative by more than twice its standard error."""
        return self.error is not None and self.difference < -_TIMES_ERROR * self.error

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {**asdict(self), "is_better": self.is_better}


@dataclass(frozen=True)
class Score:
    """R² per token on unseen text: 1 − Σ‖x − x̂‖² / Σ‖x − mean‖² over tokens without outliers.

    All values are None if no token counts.

    Attributes:
        frame: "embedding", "layer 0", …; "all" for all frames together, each normalised.
        layer: index of the layer; None for the embedding and for "all".
        autoencoder: R² of the trained autoencoder.
        pca_same_size: R² of principal components, with as many numbers per token as the particles
            of its sequence have, and at most H. Like the autoencoder, they are shared by all
            frames; the autoencoder's training starts from them.
        pca_per_frame: the same with separate principal components for each frame.
        pca_width: R² of as many principal components per token as one particle has numbers.
        untrained: R² of the same network with random weights, followed by the best linear map from
            its output to the tokens, fitted on the training text.
        mean: R² of the mean vector for each token, 0 by definition.
        margins: the advantage of the autoencoder over each of ``COMPARED``.
    """

    frame: str
    layer: int | None
    autoencoder: float | None
    pca_same_size: float | None
    pca_per_frame: float | None
    pca_width: float | None
    untrained: float | None
    mean: float | None = 0.0
    margins: Mapping[str, Margin] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        margins = {name: each.as_dict() for name, each in self.margins.items()}
        return {**vars(self), "margins": margins}


@dataclass(frozen=True)
class Evaluation:
    """How well tokens of unseen text are reconstructed.

    Attributes:
        n_sequences, n_tokens: number of windows and tokens of the unseen text, without outliers.
        total: score over all frames.
        frames: score of each frame.
        by_length: score over all frames for sequences with up to as many tokens as the key.
        held_out: description of the unseen text.
    """

    n_sequences: int
    n_tokens: int
    total: Score
    frames: tuple[Score, ...]
    by_length: Mapping[int, Score]
    held_out: str

    @property
    def reason(self) -> str | None:
        """Why there is no R²; None if there is one."""
        if self.total.autoencoder is not None:
            return None
        return "no token of the unseen text counts: all are outliers"

    @property
    def warning(self) -> str | None:
        """Sentences if the autoencoder isn't clearly better than a simpler method."""
        own = self.total.autoencoder
        if own is None:
            return f"How good the autoencoder is could not be measured, because {self.reason}."
        if own <= 0:
            return (
                f"The autoencoder is no better than the mean vector (R² {_number(own)} on unseen "
                "text): its particles hold no information about the tokens. Train it for more "
                "steps."
            )
        known = _not_exceeded(self.total)
        found = [_no_better("The autoencoder", self.total, known)] if known else []
        for n, score in sorted(self.by_length.items(), reverse=True):
            if _n_windows(score) < _LEAST_WINDOWS:
                continue
            if further := [name for name in _not_exceeded(score) if name not in known]:
                who = f"For texts of up to {n} tokens, the autoencoder"
                found.append(_no_better(who, score, further))
                break
        return " ".join(found) or None

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            "n_sequences": self.n_sequences,
            "n_tokens": self.n_tokens,
            "held_out": self.held_out,
            "reason": self.reason,
            "total": self.total.as_dict(),
            "frames": [each.as_dict() for each in self.frames],
            "by_length": {str(n): each.as_dict() for n, each in self.by_length.items()},
            "warning": self.warning,
        }

    @classmethod
    def of_dict(cls, content: Mapping[str, Any]) -> Evaluation:
        """Restore the result of :meth:`as_dict`.

        Raises:
            KeyError, TypeError, ValueError: for invalid content.
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
    parts = {name: None if content[name] is None else float(content[name]) for name in CODES}
    margins = {str(name): _margin(each) for name, each in content["margins"].items()}
    frame = str(content["frame"])
    return Score(frame, None if layer is None else int(layer), **parts, margins=margins)


def _margin(content: Mapping[str, Any]) -> Margin:
    error = content["error"]
    return Margin(
        float(content["difference"]),
        None if error is None else float(error),
        int(content["n_windows"]),
    )


def _not_exceeded(score: Score) -> list[str]:
    """What is simpler, and not clearly worse."""
    return [
        name for name in COMPARED if name in score.margins and not score.margins[name].is_better
    ]


def _n_windows(score: Score) -> int:
    return next((each.n_windows for each in score.margins.values()), 0)


def _no_better(who: str, score: Score, names: Sequence[str]) -> str:
    worse = [name for name in names if score.margins[name].is_worse]
    unclear = [name for name in names if name not in worse]
    parts = [f"worse than {_compared(score, worse)}"] if worse else []
    parts += [f"not clearly better than {_compared(score, unclear)}"] if unclear else []
    n = _n_windows(score)
    return (
        f"{who} (R² {_number(score.autoencoder)} on {n} {'window' if n == 1 else 'windows'} of "
        f"unseen text) is {', and '.join(parts)}."
    )


def _compared(score: Score, names: Sequence[str]) -> str:
    parts = []
    for name in names:
        margin = score.margins[name]
        error = "" if margin.error is None else f" ± {_number(margin.error)}"
        parts.append(
            f"{CODES[name]} (R² {_number(getattr(score, name))}; difference "
            f"{_number(margin.difference)}{error})"
        )
    return _listed(parts)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}".replace("-", "−")


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
