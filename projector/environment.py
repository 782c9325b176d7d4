"""What libraries read from the environment when they are loaded: set before they are."""

from __future__ import annotations

import os

# How often a waiting thread of GNU OpenMP looks again before it sleeps. Its own 300,000 keep a core
# busy that the thread it waits for may need, where other work takes cores too.
_SPIN_COUNT = "3000"


def prepare_environment() -> None:
    """Call before PyTorch and Transformers are imported; what the user has set stays."""
    # Transformers' messages are for those who write models.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)


def n_on_this_machine() -> int:
    """How many of the processes share this machine's memory."""
    n = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, int(n)) if n.isdecimal() else 1


def is_told_cpu() -> bool:
    """Whether Accelerate's launcher was told to leave GPUs alone."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
