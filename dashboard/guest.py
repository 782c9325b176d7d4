"""A model that is ready for use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from projector.model.architecture.records import Architecture
from projector.model.loading import LoadedModel
from projector.residual.subject import Subject


@dataclass(frozen=True)
class Guest:
    """The model in memory, with its architecture."""

    loaded: LoadedModel
    architecture: Architecture

    @cached_property
    def subject(self) -> Subject:
        """The model as a subject for measurements of the residual stream."""
        return Subject(self.loaded, self.architecture)
