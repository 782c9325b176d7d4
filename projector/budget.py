"""What a fit may use of disk and memory, and what is said when that does not suffice."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil
import torch

from projector.errors import UserError


def size_text(n_bytes: float) -> str:
    """A number of bytes for a person: ``14.3 MB``."""
    if n_bytes < 1000:
        return f"{n_bytes:.0f} B"
    power = min(4, int(math.log(n_bytes, 1000)))
    return f"{n_bytes / 1000**power:.3g} {['B', 'kB', 'MB', 'GB', 'TB'][power]}"


def check_disk(n_bytes: int, folder: Path) -> None:
    """Raise a UserError if the disk of ``folder`` has fewer than ``n_bytes`` free."""
    existing = folder.resolve()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if n_bytes > free:
        raise UserError(
            f"no space left: the projection takes {size_text(n_bytes)}, and '{existing}' has "
            f"{size_text(free)} free: add --no-statistics, or fewer --layers or --sites"
        )


def check_memory(widths: Mapping[tuple[int, str], int], n_bytes: int, device: torch.device) -> None:
    """Raise a UserError if the statistics of maps of these widths do not fit into memory."""
    free = (
        torch.cuda.mem_get_info(device)[0]
        if device.type == "cuda"
        else psutil.virtual_memory().available
    )
    if n_bytes <= free:
        return
    (layer, site), n = max(widths.items(), key=lambda item: item[1])
    raise UserError(
        f"out of memory: statistics of {len(widths)} maps take {size_text(n_bytes)} "
        f"({size_text(8 * n * n)} for one {n:,} × {n:,} matrix of layer {layer} {site}), and "
        f"{size_text(free)} are free: choose fewer with --layers or --sites"
    )


@contextmanager
def out_of_memory(what: str) -> Iterator[None]:
    """Turn what a full memory raises into one line for the user.

    Args:
        what: what did not fit, and what to do; follows "out of memory".
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
    """The same in a fit; the line names the widest matrix."""
    return out_of_memory(
        f": the widest matrix, {n_neurons:,} × {n_neurons:,} of layer {layer} {site}, takes "
        f"{size_text(8 * n_neurons**2)}: lower --batch-size or --sequence-length, or choose fewer "
        "with --layers or --sites"
    )
