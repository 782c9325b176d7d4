"""Memory: free memory, out-of-memory errors, and sizes as text."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import psutil
import torch

from projector.environment import n_on_this_machine
from projector.errors import UserError, named


def size_text(n_bytes: float) -> str:
    """A number of bytes as text: ``14.3 MB``."""
    if n_bytes < 1000:
        return f"{n_bytes:.0f} B"
    # Of what rounds to a thousand of a unit, the next.
    power = min(4, int(math.log(float(f"{n_bytes:.3g}"), 1000) + 1e-9))
    return f"{n_bytes / 1000**power:.3g} {['B', 'kB', 'MB', 'GB', 'TB'][power]}"


def enough_text(n_bytes: float) -> str:
    """Like :func:`size_text`, but rounded up, so that this size is sufficient."""
    digit = 10 ** max(0, math.floor(math.log10(max(n_bytes, 1))) - 2)
    return size_text(math.ceil(n_bytes / digit) * digit)


def free_memory(device: torch.device, *, spread: bool = False) -> int:
    """Free bytes on the device of a model's sums: this process's share.

    Args:
        device: the device of the model's inputs.
        spread: whether its layers and their sums are spread over all GPUs.
    """
    if device.type != "cuda":
        return int(psutil.virtual_memory().available) // n_on_this_machine()
    if not spread:
        return int(torch.cuda.mem_get_info(device)[0])
    n_devices = torch.cuda.device_count()
    # The layers are spread evenly, and the fullest of the devices ends a fit.
    return n_devices * min(int(torch.cuda.mem_get_info(i)[0]) for i in range(n_devices))


def is_private(tensor: torch.Tensor) -> bool:
    """Whether a tensor's memory is private to this process, so that writing to it changes no file.

    False if it maps a shared or read-only file, or if the system doesn't report it.
    """
    if tensor.device.type != "cpu":
        return True
    begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return False
    for line in lines:
        span, rights = line.split(maxsplit=2)[:2]
        first, last = (int(place, 16) for place in span.split("-"))
        if first < end and begin < last:
            if rights[:2] != "rw" or rights[3] != "p":
                return False
            begin = max(begin, last)
    return begin >= end


def give_back() -> None:
    """Return freed memory to the system, because glibc keeps blocks smaller than 32 MiB."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def out_of_memory(what: str) -> Iterator[None]:
    """Turn out-of-memory errors into one line for the user.

    Args:
        what: what didn't fit, and what to do; follows "out of memory".
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch.OutOfMemoryError is a RuntimeError; the CPU's allocator raises a plain one.
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and (
            "allocate memory" not in str(error)
        ):
            raise
        raise UserError(f"out of memory{what}") from error


def memory_errors(layer: int, site: str, n_neurons: int) -> AbstractContextManager[None]:
    """Turn out-of-memory errors of a fit into one line that names the widest matrix."""
    return out_of_memory(
        f": the widest matrix, {n_neurons:,} × {n_neurons:,} of layer {layer} {site}, takes "
        f"{size_text(8 * n_neurons**2)}: lower {named('batch_size')} or "
        f"{named('sequence_length')}, or choose fewer {named('layers')} or {named('sites')}"
    )
