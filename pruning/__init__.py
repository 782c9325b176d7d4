"""Find poles of correlated neurons, prune models, and measure the cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruning.methods.plan import PruningPlan
    from pruning.poles.describing import label_poles
    from pruning.poles.finding import find_poles
    from pruning.poles.judging import judge_poles
    from pruning.poles.poles import Poles, PoleSettings
    from pruning.pruning import prune_model
    from pruning.saving import load_plan
    from pruning.settings import PruneSettings
    from pruning.surgery import apply_plan
    from pruning.sweep.job import prepare_sweep
    from pruning.sweep.report import PruningReport
    from pruning.sweep.running import run_sweep
    from pruning.sweep.settings import SweepRequest, SweepSettings

_HOMES = {
    "PoleSettings": "pruning.poles.poles",
    "Poles": "pruning.poles.poles",
    "PruneSettings": "pruning.settings",
    "PruningPlan": "pruning.methods.plan",
    "PruningReport": "pruning.sweep.report",
    "SweepRequest": "pruning.sweep.settings",
    "SweepSettings": "pruning.sweep.settings",
    "apply_plan": "pruning.surgery",
    "find_poles": "pruning.poles.finding",
    "judge_poles": "pruning.poles.judging",
    "label_poles": "pruning.poles.describing",
    "load_plan": "pruning.saving",
    "prepare_sweep": "pruning.sweep.job",
    "prune_model": "pruning.pruning",
    "run_sweep": "pruning.sweep.running",
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
    "judge_poles",
    "label_poles",
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
