"""How many threads PyTorch computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def in_threads(n: int | None) -> Iterator[None]:
    """Compute in ``n`` threads while open; in as many as before where it is None.

    In another number, sums are rounded otherwise.
    """
    before = torch.get_num_threads()
    if n is not None:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        if n is not None:
            torch.set_num_threads(before)
