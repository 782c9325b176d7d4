"""How far a map can be trusted, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pruning.poles.poles import Poles


@dataclass(frozen=True)
class Figure:
    """One number: its name, what it is in short, and what it means."""

    name: str
    value: str
    meaning: str


def trust_figures(figures: Mapping[str, Any], poles: Poles | None, dim: int) -> list[Figure]:
    """Stress, neighbours, stability and noise of one map.

    See :mod:`projector.projection.faithfulness`.

    Args:
        figures: of the map, as in ``projection.json``.
        poles: of the map, where they were found.
    """
    reasons = figures.get("reasons") or {}

    def of_ten(name: str) -> str:
        value = figures.get(name)
        return "–" if value is None else f"{10 * value:.1f} of 10"

    def plain(name: str, digits: int = 3) -> str:
        value = figures.get(name)
        return "–" if value is None else f"{value:.{digits}f}"

    def why(name: str, meaning: str) -> str:
        return (
            f"Not known: {reasons[name]}."
            if figures.get(name) is None and name in reasons
            else meaning
        )

    chance = figures.get("chance_overlap")
    by_chance = "" if chance is None else f" By chance it would be {10 * chance:.1f}."
    found = [
        Figure(
            "Neighbours kept",
            of_ten("neighbour_overlap"),
            why(
                "neighbour_overlap",
                "Of a neuron's 10 nearest by correlation, so many are among its 10 nearest on the "
                f"map.{by_chance}",
            ),
        ),
        Figure(
            "Stress",
            plain("stress"),
            why(
                "stress",
                f"The mean squared difference between distance and 1 − ρ: what {dim} dimensions "
                "can't hold. 0 would be an exact map.",
            ),
        ),
        Figure(
            "Stability",
            of_ten("stability"),
            why(
                "stability",
                "Two fits, each of one half of the corpus, agree on so many of a neuron's 10 "
                "nearest.",
            ),
        ),
        Figure(
            "In no pole",
            "–" if poles is None or poles.noise_share is None else f"{poles.noise_share:.0%}",
            "Neurons that HDBSCAN puts in no group: noise. On the Poles page its settings can be "
            "changed.",
        ),
    ]
    sample = figures.get("sample")
    if sample is not None:
        off = sample["measured"]
        found.append(
            Figure(
                "Sampling error of ρ",
                "–" if off is None else f"±{off:.2g}",
                f"The map has too many neurons for a matrix, and was placed by "
                f"{sample['n_tokens']:,} of {sample['n_corpus_tokens']:,} tokens. So far are their "
                "correlations from the corpus's, root mean square.",
            )
        )
    return found
