"""The settings of an image of layers, checked before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from projector.errors import SettingError, named
from projector.residual.layer_image.ranges import QUANTILE, RANGES, check_image
from projector.settings import setting

MEAN = "mean"
# A sequence of one is a picture.
LEAST_CHECKPOINTS = 2


@dataclass(frozen=True)
class ImageSettings:
    """The states to draw, and their colours.

    Attributes:
        token: a token's position in the prompt, where negative values count from the end; or
            "mean", the mean over the prompt's tokens.
        against: a second model of the same shape, for an image of the difference.
        checkpoints: two or more models of the same shape, in order, for a film.
        range: "all", one symmetric range of colours for all layers and models; "per-layer", one
            range for each layer.
        quantile: the share of magnitudes within the range, 0.5 < quantile ≤ 1.
        fold: hidden dimensions per row; None to choose a width that suits the picture.
        keep_outliers: whether a mean includes tokens with outlier norms.

    Raises:
        SettingError: on an invalid field.
    """

    token: str = setting(
        "-1",
        help="A token's number in the prompt, from 0; -1 is the last; or [b]mean[/b] of all "
        "tokens.",
    )
    against: str | None = setting(
        None, help="A second model of the same shape: before, after and difference are drawn."
    )
    checkpoints: tuple[str, ...] | None = setting(
        None,
        help=(
            "Two or more models of the same shape, as A,B,C: makes a film with a frame for "
            "each. They share MODEL's range of colours; MODEL itself is in the film only if it "
            "is listed."
        ),
    )
    range: str = setting(
        "all",
        help="all: one range of colours for all layers; per-layer: one for each.",
        choices=RANGES,
    )
    quantile: float = setting(
        QUANTILE,
        help="Share of the magnitudes that the range of colours covers; larger ones are clipped.",
    )
    fold: int | None = setting(
        None, help="Hidden dimensions per row. By default, chosen to suit the picture."
    )
    keep_outliers: bool = setting(
        False,
        help="Include tokens with outlier norms (many times the median) in the mean. By default, "
        "they are left out.",
    )

    def __post_init__(self) -> None:
        self.position_or_mean()
        check_image(self.range, self.quantile, self.fold)
        if self.checkpoints is None:
            return
        shown = ",".join(self.checkpoints)
        if len(self.checkpoints) < LEAST_CHECKPOINTS or not all(self.checkpoints):
            raise SettingError(
                "checkpoints", shown, "is not a sequence", "give two models or more, as A,B"
            )
        if self.against is not None:
            raise SettingError(
                "checkpoints",
                shown,
                f"can't be combined with {named('against')}",
                "give one of the two",
            )

    def position_or_mean(self) -> int | None:
        """The token's position, possibly negative; None for the mean.

        Raises:
            SettingError: on ``token``, if it is neither a position nor "mean".
        """
        text = str(self.token).strip()
        if text == MEAN:
            return None
        try:
            return int(text)
        except ValueError:
            raise SettingError(
                "token", self.token, "can't be read", f"give a token's number, or {MEAN}"
            ) from None
