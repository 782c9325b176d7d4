"""What this process asks of its libraries and of the system, before it loads the former."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

# How often a waiting thread of GNU OpenMP looks again before it sleeps. Its own 300,000 keep a core
# busy that the thread it waits for may need: beside other work, a fit took four times as long.
_SPIN_COUNT = "3000"
# glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, and bytes: the second is the most it takes.
_TRIM, _TRIM_ABOVE = -1, 1 << 30
_MAP, _MAP_ABOVE = -3, 32 << 20


def prepare_environment() -> None:
    """Call before PyTorch and Transformers are imported; what the user has set stays."""
    # Transformers' messages are for those who write models.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, up to a gigabyte, where the user has not set otherwise.

    It may hand it back after every layer of every batch, and asking for it again, page by page,
    then takes as long as the layer. :func:`projector.budget.give_back` hands it back where that
    matters. For commands, which end, and not for servers.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_TRIM, _TRIM_ABOVE)
            libc.mallopt(_MAP, _MAP_ABOVE)
