"""A model that is ready to be worked with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from projector.model.architecture.records import Architecture
from projector.model.loading import LoadedModel
from projector.residual.subject import Subject


@dataclass(frozen=True)
class Guest:
    """The model in memory and where its parts are."""

    loaded: LoadedModel
    architecture: Architecture

    @cached_property
    def subject(self) -> Subject:
        """The same model as one whose residual stream is looked at."""
        return Subject(self.loaded, self.architecture)
