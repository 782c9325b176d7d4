"""Environment variables that libraries read when they are imported."""

from __future__ import annotations

import os

# How often a waiting thread of GNU OpenMP looks again before it sleeps. Its own 300,000 keep a core
# busy that the thread it waits for may need, where other work takes cores too.
_SPIN_COUNT = "3000"
# The same for OpenBLAS, which NumPy and SciPy compute with: it looks for 2 to this power of clock
# cycles. Its own 26 made small systems of equations take eight times as long next to other work.
_BLAS_TIMEOUT = "6"


def prepare_environment() -> None:
    """Set the variables; call this before importing PyTorch and Transformers. Existing values are
    kept.
    """
    # Transformers' messages are for those who write models.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", _BLAS_TIMEOUT)


def n_on_this_machine() -> int:
    """Number of processes that share this machine's memory."""
    n = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, int(n)) if n.isdecimal() else 1


def is_told_cpu() -> bool:
    """Whether Accelerate's launcher was started with ``--cpu``."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
