"""The reductions by name. A new reduction needs one module and one line here."""

from __future__ import annotations

from projector.errors import check_choice
from projector.residual.particles.reduction.pca import PCA
from projector.residual.particles.reduction.reduction import Fitted, Metric, Reduction
from projector.residual.particles.reduction.stress import STRESS
from projector.residual.particles.reduction.umap_map import UMAP

__all__ = ["REDUCTIONS", "Fitted", "Metric", "Reduction", "find_reduction", "reduction_help"]

REDUCTIONS: dict[str, Reduction] = {each.name: each for each in (PCA, UMAP, STRESS)}


def find_reduction(name: str) -> Reduction:
    """Find a reduction by its name.

    Raises:
        SettingError: on ``reduction``, if there is no reduction with this name.
    """
    check_choice("reduction", name, REDUCTIONS)
    return REDUCTIONS[name]


def reduction_help() -> str:
    """Describe each reduction, for a help text."""
    return "; ".join(f"{each.name}: {each.help}" for each in REDUCTIONS.values()) + "."
