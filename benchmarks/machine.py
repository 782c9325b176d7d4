"""What a benchmark says of the machine it ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch


def describe() -> dict[str, Any]:
    """Processor, cores, threads, memory, and the GPU where there is one."""
    names = Path("/proc/cpuinfo")
    found = [
        line.partition(":")[2].strip()
        for line in (names.read_text().splitlines() if names.exists() else [])
        if line.startswith("model name")
    ]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": found[0] if found else platform.processor(),
        "n_cores": os.cpu_count(),
        "n_threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        # Of other work on the machine while this began.
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
