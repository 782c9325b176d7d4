"""Ranges of colours for images of layers; importing this is fast."""

from __future__ import annotations

from projector.errors import SettingError, check_choice, check_least

RANGES = ("all", "per-layer")
QUANTILE = 0.995


def check_image(range: str, quantile: float, fold: int | None) -> None:
    """Raise a SettingError on ``range``, ``quantile`` or ``fold`` if the value is invalid."""
    check_choice("range", range, RANGES)
    # Written so that NaN fails.
    if not 0.5 < quantile <= 1:
        raise SettingError(
            "quantile", quantile, "is out of range", "give more than 0.5, and 1 at most"
        )
    check_least("fold", fold, 1)
