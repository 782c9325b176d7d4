"""Words for how far a map can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from projector.projection import faithfulness
from projector.projection.faithfulness import in_words, told
from pruning.poles.poles import Poles


@dataclass(frozen=True)
class Figure:
    """One number: its name, its value in short, and its meaning."""

    name: str
    value: str
    meaning: str


def _said(each: faithfulness.Figure, figures: Mapping[str, Any], dim: int) -> Figure:
    """A figure of trust of one map."""
    number = each.number(figures)
    if number is None:
        return Figure(each.title, "–", f"Not known: {each.reason(figures)}.")
    value = in_words(each.value, figures) or each.pattern.format(number)
    return Figure(each.title, value, in_words(each.meaning, figures, dim=dim))


def trust_figures(figures: Mapping[str, Any], poles: Poles | None, dim: int) -> list[Figure]:
    """Stress, neighbours, stability and noise of one map.

    See :mod:`projector.projection.faithfulness`.

    Args:
        figures: figures of the map, as in ``projection.json``.
        poles: poles of the map, if they were found.
    """
    found = [_said(each, figures, dim) for each in told() if each.title]
    found.append(
        Figure(
            "In no pole",
            "–" if poles is None or poles.noise_share is None else f"{poles.noise_share:.0%}",
            "Neurons that HDBSCAN assigns to no group (noise). You can change its settings on the "
            "Poles page.",
        )
    )
    sample = figures.get("sample")
    if sample is not None:
        off = sample["measured"]
        found.append(
            Figure(
                "Sampling error of ρ",
                "–" if off is None else f"±{off:.2g}",
                "The map has too many neurons for a correlation matrix, so it was placed from "
                f"{sample['n_tokens']:,} of {sample['n_corpus_tokens']:,} tokens. This is the "
                "root mean square difference between those correlations and the corpus's.",
            )
        )
    return found
