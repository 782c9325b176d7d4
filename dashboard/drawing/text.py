"""Numbers as they are read, and tokens as coloured text: the one place that writes HTML, all of it
escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from dashboard.drawing import palette
from projector.errors import UserError
from projector.sites import short_words

_LEAST_SHOWN = 0.04
# What advice no page can follow speaks of.
_NOT_ON_PAGES = ("force", "resume")
# What the fields of pages are called, by the settings that they set.
LABELS = {
    "methods": "Methods",
    "refits": "Refits",
    "sparsities": "Shares to remove",
    "n_seeds": "Seeds",
    "n_sequences": "Calibration sequences",
    "calibration": "Calibration text",
    "evaluation": "Evaluation text",
    "evaluations": "Evaluation text",
    "out": "Name of the report",
    "space": "Space",
    "min_cluster_size": "Fewest neurons of a pole",
    "selection": "Selection",
    "epsilon": "Poles closer than this are one",
    "layout": "Layout",
}


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


def neuron_name(layer: int, site: str) -> str:
    """What a neuron's number stands behind, such as ``L3``."""
    short = short_words(site)
    return f"L{layer} {short}" if short else f"L{layer}"


def page_words(setting: str, value: tuple[Any, ...]) -> str:
    """How pages call a setting: by its field's label, or its name in words.

    Args:
        value: see :data:`projector.errors.Face`.
    """
    label = LABELS.get(setting, setting.replace("_", " "))
    if not value:
        return label
    if isinstance(value[0], bool):
        return f"{label}: {'yes' if value[0] else 'no'}"
    return f"{label}: {value[0]}"


def page_text(error: UserError) -> str:
    """An error's message in the words of pages, which can't replace what another run left there.

    Where the message advises to, a page says what can be done on it.
    """
    text = ""
    for part in error.to_record()["parts"]:
        if isinstance(part, str):
            text += part
        elif part[0] in _NOT_ON_PAGES:
            problem = text[: max(text.rfind("; "), text.rfind(": "), 0)]
            return f"{problem}; start another one under another name".removeprefix("; ")
        else:
            text += page_words(part[0], tuple(part[1:]))
    return text
