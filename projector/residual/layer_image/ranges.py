"""What the colours of an image of layers may be, for settings and maths. Nothing heavy."""

from __future__ import annotations

from projector.errors import SettingError, check_choice, check_least

RANGES = ("all", "per-layer")
QUANTILE = 0.995


def check_image(range: str, quantile: float, fold: int | None) -> None:
    """Raise a SettingError on ``range``, ``quantile`` or ``fold`` if no image can be made so."""
    check_choice("range", range, RANGES)
    # Written so that NaN fails.
    if not 0.5 < quantile <= 1:
        raise SettingError(
            "quantile", quantile, "is out of range", "give more than 0.5, and 1 at most"
        )
    check_least("fold", fold, 1)
