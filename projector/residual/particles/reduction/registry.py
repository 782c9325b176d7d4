"""The reductions by name: a new one is one module and one line here."""

from __future__ import annotations

from projector.errors import check_choice
from projector.residual.particles.reduction.pca import PCA
from projector.residual.particles.reduction.reduction import Fitted, Metric, Reduction
from projector.residual.particles.reduction.stress import STRESS
from projector.residual.particles.reduction.umap_map import UMAP

__all__ = ["REDUCTIONS", "Fitted", "Metric", "Reduction", "find_reduction", "reduction_help"]

REDUCTIONS: dict[str, Reduction] = {each.name: each for each in (PCA, UMAP, STRESS)}


def find_reduction(name: str) -> Reduction:
    """The reduction of a name.

    Raises:
        SettingError: on ``reduction``, if there is none.
    """
    check_choice("reduction", name, REDUCTIONS)
    return REDUCTIONS[name]


def reduction_help() -> str:
    """What each of them keeps, for a help text."""
    return "; ".join(f"{each.name}: {each.help}" for each in REDUCTIONS.values()) + "."
