"""The settings of a contrast, checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from projector.errors import SettingError, check_choice, check_least, check_seed, check_text, named
from projector.residual.contrast.pairs.registry import DEFAULT_PAIR, PAIRS, find_pair
from projector.settings import setting

AT = ("last", "mean")
# Fewer draws have no 5th and 95th percentile.
LEAST_DRAWS = 20


def _pair_help() -> str:
    holds = "; ".join(f"{each.name}, {each.holds}" for each in PAIRS.values())
    return f"Built-in sets to use instead of files: {holds}. By default {DEFAULT_PAIR}."


@dataclass(frozen=True)
class ContrastSettings:
    """The settings of a contrast: the sets of prompts, the tokens to read, and the nulls.

    Attributes:
        positive: the file of the first set; see :func:`read_sets`. None to draw a pair.
        negative: the file of the second set.
        pair: a name in :data:`PAIRS`; None for the first one if there are no files.
        at: "last", the last token's state; "mean", the mean over a prompt's tokens.
        layers: the layers at which the direction is tested; None for a third, a half and two thirds
            of the depth.
        n_draws: number of random halves, permutations and rotations for each null.
        seed: of every draw.
        keep_outliers: whether means over tokens include those with an outlying norm.

    Raises:
        SettingError: on an invalid field.
    """

    positive: Path | None = setting(
        None,
        help=(
            "File of the first set: one prompt per line, or .jsonl with a text or prompt in "
            "each line."
        ),
    )
    negative: Path | None = setting(None, help="File of the second set.")
    pair: str | None = setting(None, help=_pair_help)
    at: str = setting(
        "last", help="last: read each prompt's last token; mean: the mean over its tokens."
    )
    layers: tuple[int, ...] | None = setting(
        None,
        help="The layers at which the direction is tested: 2,4-5. By default a third, a half and "
        "two thirds of the depth.",
    )
    n_draws: int = setting(
        100,
        help="How many random halves and permutations each figure is compared with; at least 20.",
    )
    seed: int = setting(0, help="Seed of the sampled prompts and of all controls.")
    keep_outliers: bool = setting(
        False,
        help="Include tokens with outlier norms (many times the median) in means. By default, they "
        "are left out.",
    )

    def __post_init__(self) -> None:
        check_choice("at", self.at, AT)
        check_least("n_draws", self.n_draws, LEAST_DRAWS)
        check_seed("seed", self.seed)
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            raise SettingError(
                "layers", str(self.layers), "can't be tested", "give layers, counted from 0"
            )
        given = {"positive": self.positive, "negative": self.negative}
        files = {name: path for name, path in given.items() if path is not None}
        for name, path in files.items():
            if self.pair is not None:
                raise SettingError(
                    "pair",
                    self.pair,
                    f"can't be combined with {named(name)}",
                    "give files or a pair, not both",
                )
            if len(files) == 1:
                other = "negative" if name == "positive" else "positive"
                raise SettingError(
                    name, str(path), f"needs {named(other)} too", "give a file for each set"
                )
        if self.pair is not None:
            find_pair(self.pair)


def check_layers(layers: Sequence[int] | None, counts: Sequence[int | None]) -> None:
    """Raise a SettingError on ``layers`` if a model lacks one of them.

    Args:
        counts: number of layers of each model; None if not yet known.
    """
    n = min((each for each in counts if each is not None), default=None)
    for layer in layers or ():
        if n is not None and layer >= n:
            problem = "is not a layer of the model"
            if len(counts) > 1:
                problem = "is not a layer of every model"
            raise SettingError("layers", layer, problem, f"give 0 to {n - 1}")


def check_continuations(texts: Sequence[str] | None) -> None:
    """Raise a SettingError on ``continuations`` if the list is empty, or one can't be used."""
    if texts is None:
        return
    if not texts:
        raise SettingError("continuations", [], "is empty", "give at least one text")
    for i, text in enumerate(texts):
        check_text("continuations", text)
        if text in texts[:i]:
            raise SettingError("continuations", text, "is given twice", "give each text once")


def check_models(names: Sequence[str]) -> None:
    """Raise a SettingError on ``models`` if there is no model, or one occurs twice."""
    if not names:
        raise SettingError("models", "", "is empty", "name at least one model")
    for i, name in enumerate(names):
        if name in names[:i]:
            raise SettingError("models", name, "is named twice", "name each model once")
