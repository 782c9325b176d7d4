"""Products of float32 that are products of float32."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# The setting is one for the process: the first use that begins changes it, and the last that ends
# puts it back.
_lock = threading.Lock()
_n_users = 0
_usual: list[str] = []


@contextmanager
def full_float32() -> Iterator[None]:
    """Float32 products in float32, neither TF32 nor bf16, while open.

    Uses may overlap between threads: when the last has ended, all is as it was before the first.
    """
    rooms: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    global _n_users, _usual
    with _lock:
        if not _n_users:
            _usual = [room.fp32_precision for room in rooms]
            for room in rooms:
                room.fp32_precision = "ieee"
        _n_users += 1
    try:
        yield
    finally:
        with _lock:
            _n_users -= 1
            if not _n_users:
                for room, precision in zip(rooms, _usual, strict=True):
                    room.fp32_precision = precision
