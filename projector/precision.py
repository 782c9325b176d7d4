"""Products of float32 that are products of float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Float32 products in float32, neither TF32 nor bf16, while open."""
    rooms: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [room.fp32_precision for room in rooms]
    for room in rooms:
        room.fp32_precision = "ieee"
    try:
        yield
    finally:
        for room, precision in zip(rooms, before, strict=True):
            room.fp32_precision = precision
