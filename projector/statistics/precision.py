"""What products of float32 are computed in: in float32, or in bf16 where that loses nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from projector.processor import multiplies_bf16

# The settings are those of the process: the first use that begins changes them, and the last that
# ends puts them back.
_lock = threading.Lock()
_n_users = {"ieee": 0, "bf16": 0}
_usual: list[str] = []


def full_float32() -> AbstractContextManager[None]:
    """Float32 products in float32, neither TF32 nor bf16, while open.

    Uses may overlap between threads: when the last has ended, all is as it was before the first.
    """
    return _using("ieee")


def products_of(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[None]:
    """What products of float32 numbers are computed in that a model gave in ``dtype``, while open.

    In float32; but where the model gave bf16 on a CPU that multiplies bf16, oneDNN may round each
    number to bf16 once more. It adds up in float32, and gives float32. Over 8,000 tokens of the
    bundled model this moves ρ by at most 1.3e-3, and the model's own bf16 moves it by up to 5e-3.
    CPUs without matrix units (AMX) round nothing, and gain from the faster library.

    Whoever asks for full float32 in another thread has it meanwhile.
    """
    is_bf16 = dtype == torch.bfloat16 and device.type == "cpu" and multiplies_bf16()
    return _using("bf16" if is_bf16 else "ieee")


@contextmanager
def _using(precision: str) -> Iterator[None]:
    rooms: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    global _usual
    with _lock:
        if not any(_n_users.values()):
            _usual = [room.fp32_precision for room in rooms]
        _n_users[precision] += 1
        _set(rooms)
    try:
        yield
    finally:
        with _lock:
            _n_users[precision] -= 1
            _set(rooms)


def _set(rooms: tuple[Any, ...]) -> None:
    """The precision that the present users need: float32 before bf16, which is the CPU's alone."""
    wanted = list(_usual)
    if _n_users["ieee"]:
        wanted = ["ieee"] * len(rooms)
    elif _n_users["bf16"]:
        wanted[-1] = "bf16"
    for room, each in zip(rooms, wanted, strict=True):
        room.fp32_precision = each
