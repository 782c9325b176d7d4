"""Several processes that run a fit together, started by ``accelerate launch``."""

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
    """The number of processes, and the rank of this one.

    Every method except :meth:`mine` must be called by all processes, in the same order.

    Raises:
        UserError: by every method that waits for other processes, if one of them has ended.
    """

    n: int = 1
    rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    def mine(self, number: int) -> bool:
        """Whether the piece of work with this index, from 0, belongs to this process."""
        return number % self.n == self.rank

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of the tensors of all processes, which have the same shape."""
        if self.n == 1:
            return tensor
        from accelerate.utils import reduce

        with _speaking():
            total: Tensor = reduce(tensor, reduction="sum")
        return total

    def stacked(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, (…) each, stacked to (n, …)."""
        if self.n == 1:
            return tensor[None]
        from accelerate.utils import gather

        with _speaking():
            every: Tensor = gather(tensor[None].contiguous())
        return every

    def collected(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.n == 1:
            return [value]
        from accelerate.utils import gather_object

        with _speaking():
            return list(gather_object([value]))

    def of_the_first(self, value: Any) -> Any:
        """The value of the first process."""
        if self.n == 1:
            return value
        from accelerate.utils import broadcast_object_list

        with _speaking():
            return broadcast_object_list([value])[0]

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        self.collected(None)


def join_processes(device: str = "auto") -> Processes:
    """Connect to the other processes of a launcher; a single process without one.

    All processes must call this and take part in everything that follows: waiting for a missing
    process times out after two hours.

    Args:
        device: the device of the model: ``auto`` or ``cuda`` gives each process on a machine its
            own GPU and makes it the current one; ``auto`` is the CPU with ``accelerate launch
            --cpu``.

    Raises:
        UserError: if they can't connect.
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
            f"{state.num_processes - 1} other processes: start all with `accelerate launch`"
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
