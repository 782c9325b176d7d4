"""Several processes that make one fit together, as ``accelerate launch`` starts them."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from projector.environment import is_told_cpu
from projector.errors import SettingError, UserError, named

# One waits for another that has more to do, but not for ever: what is dead is noticed at once
# where its connection breaks, and after this where it does not.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class Processes:
    """How many there are, and which of them this is.

    Every method but :meth:`mine` must be called by all of them, in the same order.

    Raises:
        UserError: by every method that waits for the others, if one of them has ended.
    """

    n: int = 1
    rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def mine(self, number: int) -> bool:
        """Whether the piece of work of this number, from 0, falls to this process."""
        return number % self.n == self.rank

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of everyone's tensor, of one shape."""
        if self.n == 1:
            return tensor
        from accelerate.utils import reduce

        with _speaking():
            total: Tensor = reduce(tensor, reduction="sum")
        return total

    def stacked(self, tensor: Tensor) -> Tensor:
        """Everyone's tensor, of one shape (…); (n, …)."""
        if self.n == 1:
            return tensor[None]
        from accelerate.utils import gather

        with _speaking():
            every: Tensor = gather(tensor[None].contiguous())
        return every

    def collected(self, value: Any) -> list[Any]:
        """Everyone's value, by rank."""
        if self.n == 1:
            return [value]
        from accelerate.utils import gather_object

        with _speaking():
            return list(gather_object([value]))

    def of_the_first(self, value: Any) -> Any:
        """The value that the first process has."""
        if self.n == 1:
            return value
        from accelerate.utils import broadcast_object_list

        with _speaking():
            return broadcast_object_list([value])[0]

    def wait(self) -> None:
        """Until all have come this far."""
        self.collected(None)


def join_processes(device: str = "auto") -> Processes:
    """Meet the others that a launcher has started; alone where it has not.

    All of them must come here, and take part in all that follows: who waits for one that does not
    waits two hours.

    Args:
        device: where the model is to run: ``auto`` or ``cuda`` gives each process of a machine a
            GPU of its own, and makes it the current one; ``auto`` is the CPU where the launcher
            was told so (``accelerate launch --cpu``).

    Raises:
        UserError: if they can't meet.
    """
    world_size = os.environ.get("WORLD_SIZE", "1")
    if not world_size.isdecimal():
        raise UserError(
            f"WORLD_SIZE is '{world_size}', which isn't a number: start the fit with a launcher"
        )
    if int(world_size) < 2:
        return Processes()
    from accelerate import PartialState

    on_cpu = device == "cpu" or (
        device == "auto" and (is_told_cpu() or not torch.cuda.is_available())
    )
    if not on_cpu and device not in ("auto", "cuda"):
        raise SettingError(
            "device",
            device,
            "works with one process only",
            "leave it out: each of several processes has its own device",
        )
    with _speaking("the processes of this fit could not connect"):
        state = PartialState(cpu=on_cpu, timeout=_PATIENCE)
    if state.num_processes != int(world_size):
        raise UserError(
            f"this is one of {world_size} processes, but is connected to "
            f"{state.num_processes - 1} others: start them with `accelerate launch`"
        )
    atexit.register(_leave)
    return Processes(state.num_processes, state.process_index)


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class OthersEnded(UserError):
    """Another process of this fit has ended, or can't be reached."""


@contextmanager
def _speaking(what: str = "another process of this fit has ended") -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise
        # Each backend has its own kinds: a connection that broke, a time that ran out.
        reason = " ".join(str(error).split())
        raise OthersEnded(
            f"{what} ({reason[:100].rstrip()}…): see its output; if a checkpoint was written, "
            f"{named('resume', True)} continues from there"
        ) from error
