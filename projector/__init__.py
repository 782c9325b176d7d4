"""Neurons that fire together, placed together: maps of a transformer's neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from projector.errors import UserError
    from projector.fitting.pipeline import fit
    from projector.layouts.solving import place
    from projector.naming.search import search
    from projector.projection.projection import Projection
    from projector.projection.relaying import add_layout, relayout
    from projector.residual.attribution import attribute
    from projector.residual.contrast.report import contrast
    from projector.residual.directions.steering import steer
    from projector.residual.flow.stream import stream
    from projector.residual.heads.report import heads
    from projector.residual.layer_image.report import layer_image
    from projector.residual.lens import lens
    from projector.residual.neuron import neuron
    from projector.residual.particles.report import layer_time
    from projector.residual.readings.tuning import tune_lens

__all__ = [
    "Projection",
    "UserError",
    "add_layout",
    "attribute",
    "contrast",
    "fit",
    "heads",
    "layer_image",
    "layer_time",
    "lens",
    "neuron",
    "place",
    "relayout",
    "search",
    "steer",
    "stream",
    "tune_lens",
]

_HOMES = {
    "Projection": "projector.projection.projection",
    "UserError": "projector.errors",
    "add_layout": "projector.projection.relaying",
    "attribute": "projector.residual.attribution",
    "contrast": "projector.residual.contrast.report",
    "fit": "projector.fitting.pipeline",
    "heads": "projector.residual.heads.report",
    "layer_image": "projector.residual.layer_image.report",
    "layer_time": "projector.residual.particles.report",
    "lens": "projector.residual.lens",
    "neuron": "projector.residual.neuron",
    "place": "projector.layouts.solving",
    "relayout": "projector.projection.relaying",
    "search": "projector.naming.search",
    "steer": "projector.residual.directions.steering",
    "stream": "projector.residual.flow.stream",
    "tune_lens": "projector.residual.readings.tuning",
}


def __getattr__(name: str) -> Any:
    # Importing the package loads neither torch nor transformers, so `projector --help` is quick.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'projector' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
