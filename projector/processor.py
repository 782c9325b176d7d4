"""The processor: the number of PyTorch threads, and the available instructions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch

# Names of the instructions that multiply bfloat16: of x86, and of ARM.
_BF16 = frozenset({"amx_bf16", "avx512_bf16", "bf16", "sve_bf16", "svebf16"})

# The number is each thread's own; but a thread that computes for the first time takes the number
# that was set last, in whichever thread. So what was set before all uses is known here, and every
# use that ends sets that again.
_lock = threading.Lock()
_n_users = 0
_usual = 1
_own = threading.local()


@contextmanager
def in_threads(n: int | None) -> Iterator[None]:
    """Compute in ``n`` threads in this context; None keeps the current number.

    The number of threads affects the rounding of sums. Uses may be nested and may overlap between
    Python threads: after the last one ends, the original number is restored.
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


def multiplies_bf16() -> bool:
    """Whether this CPU has instructions for products of bfloat16, and PyTorch uses them.

    Without them, PyTorch converts each number first, which is slower than float32.
    """
    return torch.backends.mkldnn.is_available() and bool(_BF16 & _instructions())


@cache
def _instructions() -> frozenset[str]:
    known = getattr(torch.cpu, "get_capabilities", None)
    if known is not None:
        return frozenset(name for name, has in known().items() if has is True)
    # Older versions of PyTorch don't say.
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, words = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return frozenset(words.split())
    return frozenset()
