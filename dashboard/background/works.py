"""What can be run in a process of its own: one line a work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from dashboard.contrast import orders as contrast
from dashboard.layer_time import orders as layer_time
from projector.progress import Progress
from projector.residual.subject import Subject


class Order(Protocol):
    """What a page asks for, as a process is told it."""

    @property
    def id(self) -> str:
        """Another one for another order."""
        ...

    @property
    def words(self) -> str:
        """What it asks for, as part of a sentence."""
        ...

    def to_record(self) -> dict[str, Any]:
        """What JSON can hold of it."""
        ...


@dataclass(frozen=True)
class Work:
    """A kind of work.

    Attributes:
        name: in requests, and of the page's own keys.
        doing: what its process does, in words that follow "the process that".
        of_record: the order that ``to_record`` was of.
        run: gives what came of an order in a model, as JSON can hold it; raises a UserError where
            nothing can come of it.
    """

    name: str
    doing: str
    of_record: Callable[[dict[str, Any]], Order]
    run: Callable[[Subject, Any, Progress], dict[str, Any]]


WORKS = {
    work.name: work
    for work in (
        Work("contrast", "compares the sets", contrast.ContrastOrder.of_record, contrast.run_order),
        Work(
            "layer-time",
            "places the particles",
            layer_time.LayerTimeOrder.of_record,
            layer_time.run_order,
        ),
    )
}
