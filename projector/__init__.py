"""Neurons that fire together, placed together: maps of a transformer's neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from projector.errors import UserError
    from projector.fitting import fit
    from projector.projection import Projection
    from projector.solvers import place

__all__ = ["Projection", "UserError", "fit", "place", "relayout"]

_HOMES = {
    "Projection": "projector.projection",
    "UserError": "projector.errors",
    "fit": "projector.fitting",
    "place": "projector.solvers",
    "relayout": "projector.relaying",
}


def __getattr__(name: str) -> Any:
    # Importing the package loads neither torch nor transformers, so `projector --help` is quick.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'projector' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
