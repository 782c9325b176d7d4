"""Poles of correlated neurons, pruning, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruning.plan import PruningPlan
    from pruning.poles import Poles, PoleSettings, find_poles
    from pruning.pruning import PruneSettings, prune_model
    from pruning.report import PruningReport
    from pruning.saving import load_plan
    from pruning.surgery import apply_plan
    from pruning.sweep import SweepRequest, SweepSettings, prepare_sweep, run_sweep

_HOMES = {
    "PoleSettings": "pruning.poles",
    "Poles": "pruning.poles",
    "PruneSettings": "pruning.pruning",
    "PruningPlan": "pruning.plan",
    "PruningReport": "pruning.report",
    "SweepRequest": "pruning.sweep",
    "SweepSettings": "pruning.sweep",
    "apply_plan": "pruning.surgery",
    "find_poles": "pruning.poles",
    "load_plan": "pruning.saving",
    "prepare_sweep": "pruning.sweep",
    "prune_model": "pruning.pruning",
    "run_sweep": "pruning.sweep",
}

__all__ = [
    "PoleSettings",
    "Poles",
    "PruneSettings",
    "PruningPlan",
    "PruningReport",
    "SweepRequest",
    "SweepSettings",
    "apply_plan",
    "find_poles",
    "load_plan",
    "prepare_sweep",
    "prune_model",
    "run_sweep",
]


def __getattr__(name: str) -> Any:
    # Importing the package loads neither torch nor transformers, so `pruning --help` is quick.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pruning' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
