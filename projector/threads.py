"""How many threads PyTorch computes in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# The number is each thread's own; but a thread that computes for the first time takes the number
# that was set last, in whichever thread. So what was set before all uses is known here, and every
# use that ends sets that again.
_lock = threading.Lock()
_n_users = 0
_usual = 1
_own = threading.local()


@contextmanager
def in_threads(n: int | None) -> Iterator[None]:
    """Compute in ``n`` threads while open; in as many as before where it is None.

    In another number, sums are rounded otherwise. Uses may stand within one another and overlap
    between threads of Python: when the last has ended, all is as it was before the first.
    """
    if n is None:
        yield
        return
    global _n_users, _usual
    within: list[int] = _own.__dict__.setdefault("within", [])
    with _lock:
        # Asked in any case: a thread that never did takes what was set last once it computes.
        now = torch.get_num_threads()
        if not _n_users:
            _usual = now
        _n_users += 1
        torch.set_num_threads(n)
    within.append(n)
    try:
        yield
    finally:
        within.pop()
        with _lock:
            _n_users -= 1
            torch.set_num_threads(_usual)
            if within:
                torch.set_num_threads(within[-1])
