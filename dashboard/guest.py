"""A model that is ready to be worked with."""

from __future__ import annotations

from dataclasses import dataclass

from projector.model.architecture.records import Architecture
from projector.model.loading import LoadedModel


@dataclass(frozen=True)
class Guest:
    """The model in memory and where its parts are."""

    loaded: LoadedModel
    architecture: Architecture
