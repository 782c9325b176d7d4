"""What a benchmark ran on."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch


def describe_machine() -> dict[str, Any]:
    """Processor, memory, threads and GPU, and the day."""
    has_gpu = torch.cuda.is_available()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": _processor(),
        "n_cores": os.cpu_count(),
        "n_threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        # What else was running: above the number of cores, all figures are too high.
        "load_at_start": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": torch.cuda.get_device_name() if has_gpu else None,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
