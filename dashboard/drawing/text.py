"""Numbers as they are read, and tokens as coloured text: the one place that writes HTML, all of it
escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from dashboard.drawing import palette

_LEAST_SHOWN = 0.04


def number(value: float, form: str = ".2g") -> str:
    """A number as it is set: with a minus, not a hyphen."""
    return format(value, form).replace("-", "−")


def colored_tokens(
    texts: Sequence[str], values: Sequence[float], scale: float, focus: int | None = None
) -> str:
    """One HTML paragraph; each token's background tells its value, its title the number.

    Args:
        scale: the magnitude that has the full colour.
        focus: a token to underline.
    """
    table = palette.diverging()
    parts = []
    for k, (text, value) in enumerate(zip(texts, values, strict=True)):
        share = max(-1.0, min(1.0, value / scale)) if scale > 0 and not math.isnan(value) else 0.0
        color = palette.hex_of(table, 128 + round(127 * share))
        # See-through, so that the text's own colour reads on either theme.
        strength = round(200 * abs(share)) if abs(share) > _LEAST_SHOWN else 0
        style = f"background:{color}{strength:02x};border-radius:3px;"
        if k == focus:
            style += "border-bottom:2px solid currentColor;font-weight:600;"
        title, shown = number(value, ".3g"), html.escape(text, quote=True)
        parts.append(f'<span style="{style}" title="{title}">{shown}</span>')
    return (
        '<div style="font-family:var(--st-code-font,monospace);font-size:0.85rem;line-height:1.7;'
        f'white-space:pre-wrap;overflow-wrap:anywhere">{"".join(parts)}</div>'
    )
