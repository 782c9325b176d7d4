"""The kinds of work that run in a separate process, one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from dashboard.contrast import orders as contrast
from dashboard.layer_time import orders as layer_time
from projector.progress import Progress
from projector.residual.subject import Subject


class Order(Protocol):
    """A page's order, which can be sent to a process."""

    @property
    def id(self) -> str:
        """Identifies the order; equal for equal orders."""
        ...

    @property
    def words(self) -> str:
        """The order as part of a sentence."""
        ...

    def to_record(self) -> dict[str, Any]:
        """The order as plain values for JSON."""
        ...


@dataclass(frozen=True)
class Work:
    """A kind of work.

    Attributes:
        name: its name in requests, and in the keys of the page.
        doing: the task of its process, in words that follow "the process that".
        of_record: makes the order from the result of ``to_record``.
        run: runs an order with a model and returns its report as plain values; raises a UserError
            if the order is impossible.
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
