"""What a fit may use of disk and memory, and what is said when that does not suffice."""

from __future__ import annotations

import ctypes
import math
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from projector.errors import UserError
from projector.statistics import packed_numel

# Layer and site.
Key = tuple[int, str]
# Of what is free, what a fit takes unasked.
_SHARE_OF_FREE = 0.9
# Beside the sums, while one map of N neurons is placed: bytes for each of its N² pairs, measured.
_PLACING_BYTES = {"smacof": 90, "moves": 144, "umap": 100, "adamw": 60}
# Token ids, buffers, and what libraries load and compile when they are first used.
_LIBRARIES_BYTES = {"smacof": 96 << 20, "moves": 128 << 20, "umap": 384 << 20, "adamw": 96 << 20}


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


def free_memory(device: torch.device, *, spread: bool = False) -> int:
    """Bytes that are free where the sums of a model are kept.

    Args:
        device: where the model takes its inputs.
        spread: whether its layers, and with them their sums, are on all GPUs.
    """
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    if not spread:
        return int(torch.cuda.mem_get_info(device)[0])
    n_devices = torch.cuda.device_count()
    # The layers are spread evenly, and the fullest of the devices ends a fit.
    return n_devices * min(int(torch.cuda.mem_get_info(i)[0]) for i in range(n_devices))


@dataclass(frozen=True)
class Needs:
    """What a fit takes of memory beside the loaded model, in bytes.

    Attributes:
        sums: of every map, while it is gathered.
        working: whatever else there is at one time: a batch under way, or one map being placed.
        results: what is found of every map, where that is kept in memory.
    """

    sums: dict[Key, int]
    working: int
    results: int

    def of(self, passes: Iterable[Sequence[Key]]) -> int:
        """The most at one time, where maps are gathered in these passes."""
        return self.working + self.results + max(sum(self.sums[k] for k in p) for p in passes)


def reckon_needs(
    widths: Mapping[Key, int],
    *,
    correlation: str,
    method: str,
    device: torch.device,
    n_positions: int,
    widest: int,
    in_memory: bool,
) -> Needs:
    """What a fit takes of memory, from the neurons of its maps.

    Args:
        n_positions: tokens of a batch, padding included.
        widest: neurons of the model's widest site, whether it is fitted or not.
        in_memory: whether what is found stays in memory, for there is no folder to write it to.
    """
    n_sums = 3 if correlation == "per-sequence" else 1
    sums = {}
    for key, n in widths.items():
        packed = 8 * packed_numel(n, device)
        sums[key] = 2 * n_sums * packed
        if method == "adamw":
            # Each batch's own sums, its correlations in both precisions, and what autograd keeps.
            sums[key] += packed + (8 + 4 + 16) * n * n
    n = max(widths.values())
    placing = (_PLACING_BYTES[method] + 22 * (n_sums > 1)) * n * n
    # Of the MLP under way its gate, its neurons before and after; and the rows of a half, twice.
    batch = n_positions * widest * (4 * 4 + 4)
    results = sum(4 * n * (n + 8) for n in widths.values()) if in_memory else 0
    return Needs(sums, max(placing, batch) + _LIBRARIES_BYTES[method], results)


def plan_passes(
    needs: Needs, widths: Mapping[Key, int], budget: int | None, free: int
) -> tuple[tuple[Key, ...], ...]:
    """Which maps to gather together, pass by pass over the corpus: as many as there is room for.

    Args:
        budget: bytes that a fit may take beside the model; None for what is free, less a margin.
        free: bytes that are free.

    Raises:
        UserError: if there is no room for one map.
    """
    room = (int(_SHARE_OF_FREE * free) if budget is None else budget) - needs.working
    room -= needs.results
    passes: list[list[Key]] = [[]]
    left = room
    for key, n_bytes in needs.sums.items():
        if n_bytes > room:
            break
        if n_bytes > left:
            passes.append([])
            left = room
        passes[-1].append(key)
        left -= n_bytes
    else:
        return tuple(tuple(keys) for keys in passes)
    (layer, site), n = max(widths.items(), key=lambda item: item[1])
    least = needs.working + needs.results + max(needs.sums.values())
    what = f"{size_text(free)} are free" if budget is None else f"the budget is {size_text(budget)}"
    raise UserError(
        f"out of memory: a fit of one map at a time takes {size_text(least)} beside the model "
        f"({size_text(8 * n * n)} for one {n:,} × {n:,} matrix of layer {layer} {site}), and "
        f"{what}: "
        + ("raise --memory-budget, or " if budget is not None else "")
        + "choose fewer with --layers or --sites, or lower --batch-size"
    )


def give_back() -> None:
    """Hand freed memory back to the system: glibc keeps what is smaller than 32 MiB for itself."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


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
