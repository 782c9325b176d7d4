"""Numbers as text, and tokens as coloured text. Only this module writes HTML, always escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard.drawing import palette
from projector.errors import UserError
from projector.naming.labels import LOWEST
from projector.sites import short_words

_LEAST_SHOWN = 0.04
_BAR_COLOR = "#3f8fd6"
# Colour of cells, and its strength, at which text has a contrast of 4.5 on both themes.
_TINT, _MOST_TINT = "#dd7a2c", 176
_TEXT_STYLE = (
    "font-family:var(--st-code-font,monospace);font-size:0.85rem;line-height:1.7;"
    "white-space:pre-wrap;overflow-wrap:anywhere;min-width:0"
)
# Longer tokens may wrap, because they may be wider than their column.
_MOST_UNBROKEN = 24
_LINES_STYLE = "display:grid;grid-template-columns:max-content 1fr;gap:0.45rem 0.9rem"
_HEAD_STYLE = (
    "font-size:0.85rem;line-height:1.7;font-variant-numeric:tabular-nums;font-weight:600;"
    "text-align:right"
)
# Settings in advice that pages can't follow.
_NOT_ON_PAGES = ("force", "resume")
# Names of the fields of pages, by setting.
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
    "space": "Find poles in",
    "min_cluster_size": "Smallest pole",
    "selection": "Cluster selection",
    "epsilon": "Merge poles closer than",
    "layout": "Layout",
    "target": "‘Token’:",
    "against": "‘Against’:",
    "positive": "Set A",
    "negative": "Set B",
    "prompt_b": "Prompt B",
    "particles": "Particles",
    "reduction": "Placed by",
    "per_layer": "A map for each layer",
    "dim": "Dimensions",
    "neighbours": "UMAP’s neighbours",
    "n_lines": "Lines per particle",
    "n_pairs": "Sampled pairs",
    "fit": "Fit the map on",
    "max_tokens": "Tokens of the corpus, at most",
    "keep_outliers": "Include outlier tokens in the fit",
    "n_particles": "Number of particles",
    "width": "Numbers per particle",
    "steps": "Training steps",
    "n_groups": "Neuron groups per layer",
}


def number(value: float, form: str = ".2g") -> str:
    """A number as text, with a minus sign instead of a hyphen."""
    return format(value, form).replace("-", "−")


def numbers(values: Sequence[float], digits: int = 3) -> list[str]:
    """Signed numbers for a column, with the decimals that give the largest ``digits`` digits."""
    most = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if not 1e-5 <= most < 1e7:
        return [number(value, f"+.{digits}g") for value in values]
    decimals = max(0, digits - 1 - math.floor(math.log10(most)))
    found = [number(round(value, decimals), f"+.{decimals}f") for value in values]
    # Numbers that round to 0 have no sign.
    return [each if each.strip("+−0.") else each[1:] for each in found]


def cut_label(name: str, most: int) -> str:
    """A neuron's label, cut to ``most`` characters and an ellipsis."""
    if len(name) <= most:
        return name
    # Its qualifier stays.
    end = name[name.index(" (mixed)") :] if " (mixed)" in name else ""
    end = end or (LOWEST if name.endswith(LOWEST) else "")
    return name[: most - len(end)].rstrip(" ·") + "…" + end


def fills(values: Sequence[float] | NDArray[np.floating], scale: float) -> list[str]:
    """Backgrounds of tokens, ``#rrggbbaa``: blue below zero, orange above; empty for NaN.

    Args:
        scale: the magnitude with the full colour.
    """
    table = palette.diverging()
    found = []
    for value in np.asarray(values, dtype=np.float64).tolist():
        if math.isnan(value):
            found.append("")
            continue
        share = max(-1.0, min(1.0, value / scale)) if scale > 0 else 0.0
        share = 0.0 if math.isnan(share) else share
        # See-through, so that the text's own colour reads on either theme.
        strength = round(200 * abs(share)) if abs(share) > _LEAST_SHOWN else 0
        found.append(f"{palette.hex_of(table, 128 + round(127 * share))}{strength:02x}")
    return found


def tints(shares: Sequence[float] | NDArray[np.floating], color: str = _TINT) -> list[str]:
    """Backgrounds of cells, ``#rrggbbaa``: stronger for larger shares; empty for NaN.

    Args:
        shares: from 0 to 1.
        color: ``#rrggbb``.
    """
    found = []
    for share in np.asarray(shares, dtype=np.float64).tolist():
        # See-through, so that the text's own colour reads on either theme.
        strength = 0 if math.isnan(share) else round(_MOST_TINT * max(0.0, min(1.0, share)))
        found.append(f"{color}{strength:02x}" if strength else "")
    return found


def colored_tokens(
    texts: Sequence[str], values: Sequence[float], scale: float, focus: int | None = None
) -> str:
    """One HTML paragraph; each token's background shows its value, and its title the number.

    Args:
        values: NaN for tokens without a known value.
        scale: the magnitude with the full colour.
        focus: a token to underline.
    """
    return f'<div style="{_TEXT_STYLE}">{_spans(texts, values, scale, focus)}</div>'


@dataclass(frozen=True)
class Line:
    """One excerpt: its heading, and its tokens; see :func:`colored_tokens`."""

    head: str
    texts: Sequence[str]
    values: Sequence[float]
    focus: int


def colored_lines(lines: Sequence[Line], scale: float) -> str:
    """Excerpts below one another, each after its heading."""
    rows = "".join(
        f'<div style="{_HEAD_STYLE}">{html.escape(each.head)}</div>'
        f'<div style="{_TEXT_STYLE}">{_spans(each.texts, each.values, scale, each.focus)}</div>'
        for each in lines
    )
    return f'<div style="{_LINES_STYLE}">{rows}</div>'


def _spans(
    texts: Sequence[str], values: Sequence[float], scale: float, focus: int | None = None
) -> str:
    parts = []
    colors = fills(values, scale)
    for k, (text, value, color) in enumerate(zip(texts, values, colors, strict=True)):
        style = f"background:{color};border-radius:3px;" if color else ""
        if k == focus:
            style += "border-bottom:2px solid currentColor;font-weight:600;"
            # Its space stays with it, because at the end of a line it would split the mark.
            style += "white-space:pre;" if len(text) <= _MOST_UNBROKEN else ""
        title = "" if math.isnan(value) else f' title="{number(value, ".3g")}"'
        shown = html.escape(text, quote=True)
        parts.append(f'<span style="{style}"{title}>{shown}</span>')
    return "".join(parts)


def color_scale(label: str, scale: float) -> str:
    """The colour scale of tokens, as HTML: a bar from −``scale`` to ``scale``."""
    stops = ",".join(fills(np.linspace(-1, 1, 17), 1.0))
    low, high = (html.escape(number(value, "+.2g")) for value in (-scale, scale))
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:0.5rem;align-items:center;font-size:0.8rem">'
        f"<span>{html.escape(label)}</span><span>{low}</span>"
        '<span style="width:9rem;height:0.7rem;border-radius:4px;'
        f'background:linear-gradient(to right,{stops})"></span><span>{high}</span></div>'
    )


def tint_scale(label: str, low: str, high: str) -> str:
    """The colour scale of cells, as HTML: a bar from ``low`` to ``high``."""
    stops = ",".join(each or "transparent" for each in tints(np.linspace(0, 1, 9)))
    words, first, last = map(html.escape, (label, low, high))
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:0.5rem;align-items:center;font-size:0.8rem">'
        f"<span>{words}</span><span>{first}</span>"
        '<span style="width:9rem;height:0.7rem;border-radius:4px;border:1px solid #8886;'
        f'background:linear-gradient(to right,{stops})"></span><span>{last}</span></div>'
    )


def lettered_swatches(items: Sequence[tuple[str, str, str]], ink: str) -> str:
    """The legend of backgrounds with letters, as HTML: each name after its swatch.

    Args:
        items: letter, name and ``#rrggbb`` of each.
        ink: colour of the letters.
    """
    parts = "".join(
        '<span style="display:flex;gap:0.35rem;align-items:center">'
        f'<span style="min-width:1.3rem;text-align:center;border-radius:3px;color:{ink};'
        f'background:{color}">{html.escape(letter)}</span>{html.escape(name)}</span>'
        for letter, name, color in items
    )
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:0.3rem 1.1rem;font-size:0.8rem">{parts}</div>'
    )


def shares_list(shares: Sequence[tuple[str, float]]) -> str:
    """Texts with their probabilities, as HTML: a bar after each, with the whole width for 1."""
    rows = "".join(
        f'<code style="background:none;white-space:pre">{html.escape(text)}</code>'
        f'<div style="height:0.7rem;border-radius:4px;width:{max(share, 0.004):.1%};'
        f'background:{_BAR_COLOR}"></div><span>{share:.1%}</span>'
        for text, share in shares
    )
    return (
        '<div style="display:grid;grid-template-columns:minmax(4rem,max-content) 1fr max-content;'
        "gap:0.35rem 0.8rem;align-items:center;font-size:0.85rem;"
        f'font-variant-numeric:tabular-nums">{rows}</div>'
    )


def joined_list(
    rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], *, is_faint: bool = False
) -> str:
    """Texts with the texts that each is joined to, as HTML: one per line, with scores as titles.

    Args:
        is_faint: whether to draw them pale, for controls.
    """
    code = "background:none;white-space:pre-wrap;overflow-wrap:anywhere;padding:0"
    lines = "".join(
        f'<code style="{code}">{html.escape(text)}</code><span style="opacity:0.6">→</span>'
        '<span style="display:flex;flex-wrap:wrap;gap:0.1rem 0.9rem">'
        + "".join(
            f'<code style="{code}" title="{number(score, ".3g")}">{html.escape(each)}</code>'
            for each, score in joined
        )
        + "</span>"
        for text, joined in rows
    )
    return (
        '<div style="display:grid;grid-template-columns:minmax(3rem,max-content) max-content 1fr;'
        f"opacity:{0.6 if is_faint else 1};gap:0.3rem 0.7rem;font-size:0.85rem;"
        f'align-items:baseline">{lines}</div>'
    )


def written_list(effects: Sequence[tuple[str, float]]) -> str:
    """Texts with signed numbers, as HTML: one per line."""
    rows = "".join(
        f'<code style="background:none;white-space:pre-wrap;overflow-wrap:anywhere">'
        f'{html.escape(text)}</code><span style="text-align:right">{number(value, "+.3f")}</span>'
        for text, value in effects
    )
    return (
        '<div style="display:grid;grid-template-columns:1fr max-content;gap:0.3rem 0.8rem;'
        f'font-size:0.85rem;font-variant-numeric:tabular-nums">{rows}</div>'
    )


def neuron_name(layer: int, site: str) -> str:
    """The text before a neuron's number, such as ``L3``."""
    short = short_words(site)
    return f"L{layer} {short}" if short else f"L{layer}"


def page_words(setting: str, value: tuple[Any, ...]) -> str:
    """The name of a setting on pages: its field's label, or its name in words.

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
    """An error's message in the words of pages, which can't replace another run's files.

    If the message advises to replace them, the page gives advice that it can follow.
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
