"""Say in one line how far a map can be trusted: neighbours that it keeps, compared with chance."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from projector.layouts.registry import OBJECTIVES
from projector.projection.faithfulness import FIGURES, N_NEIGHBOURS

# Shares of the neighbours that chance does not give, from which on a map serves for more. Between
# random positions and a map of every neighbour there is no sharp border: these are for words.
_LEAST_SHARES = (0.02, 0.2, 0.5)


def kept_words(figures: Mapping[str, Any]) -> str:
    """``1.2 of 10 neighbours kept; chance 0.1``.

    Args:
        figures: figures of a map in a layout, from :meth:`Projection.figures`. If the figure is
            unknown, the text has the reason.
    """
    kept, chance = FIGURES["neighbour_overlap"], FIGURES["chance_overlap"]
    number, by_chance = kept.number(figures), chance.number(figures)
    if number is None:
        return f"how many neighbours this map keeps is not known: {kept.reason(figures)}"
    words = f"{number:.1f} of {N_NEIGHBOURS} neighbours kept"
    return words if by_chance is None else f"{words}; chance {by_chance:.1f}"


def verdict(figures: Mapping[str, Any], objective: str) -> str:
    """The :func:`kept_words` and the conclusion.

    ``1.2 of 10 neighbours kept; chance 0.1: use this map for its large shape only``. Neighbours
    that two halves of the corpus don't agree on aren't to be trusted, however many the map keeps.

    Args:
        figures: of a map in a layout.
        objective: the layout's objective, ``projection.layout(name).settings.objective``. If it
            preserves neighbours and not distances, the map has no meaningful large shape.
    """
    words, kept = kept_words(figures), FIGURES["neighbour_overlap"].number(figures)
    if kept is None:
        return words
    chance = FIGURES["chance_overlap"].number(figures) or 0.0
    # With 11 neurons all are neighbours of all.
    share = _beyond_chance(kept, chance)
    stable = FIGURES["stability"].number(figures)
    few = _LEAST_SHARES[1]
    if stable is not None and share >= few > _beyond_chance(stable, chance):
        return (
            f"{words}; two halves of the corpus agree on only {stable:.1f}: read more tokens "
            "before you trust its groups"
        )
    return f"{words}: {_use(share, objective)}"


def site_verdicts(projection: Any, layout: str | None = None) -> list[str]:
    """One line for each site of a projection, with the median of its layers' figures.

    ``mlp_post, median of 6 layers: 2.8 of 10 neighbours kept; chance 0.1: trust its groups …``
    """
    objective = projection.layout(layout).settings.objective
    lines = []
    for site in projection.sites:
        found = [projection.figures(i, s, layout) for i, s in projection.maps if s == site]
        known = [each for each in found if each.get("neighbour_overlap") is not None]
        middle = {
            name: median(each[name] for each in known)
            for name in ("neighbour_overlap", "chance_overlap", "stability")
            if known and all(each.get(name) is not None for each in known)
        }
        over = f", median of {len(known)} layers" if len(known) > 1 else ""
        lines.append(f"{site}{over}: {verdict(middle or found[0], objective)}")
    return lines


def _beyond_chance(number: float, chance: float) -> float:
    """The share of the neighbours that random positions don't give; of ten, both."""
    return (number - chance) / (N_NEIGHBOURS - chance) if chance < N_NEIGHBOURS else 1.0


def _use(share: float, objective: str) -> str:
    """What a map is good for that keeps this share of the neighbours beyond chance."""
    none, few, many = _LEAST_SHARES
    if share < none:
        return "a random map would be nearly as good"
    if share < few:
        lacks = OBJECTIVES[objective].lacks if objective in OBJECTIVES else {}
        what = "larger groups" if "distances" in lacks else "large shape"
        return f"use this map for its {what} only"
    if share < many:
        return "trust its groups, and check a pair of neurons by ρ"
    return "most neighbours on this map are neighbours by ρ"
