"""Describe a benchmark's machine, and write its results."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch

from projector.projection.provenance import versions


def describe_machine() -> dict[str, Any]:
    """Processor, memory, threads and GPU, and the day."""
    has_gpu = torch.cuda.is_available()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": _processor(),
        "n_cores": os.cpu_count(),
        "n_threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        # Other load: above the number of cores, all figures are too high.
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


def write_results(path: Path, machine: Mapping[str, Any], rows: Sequence[Any]) -> None:
    """Write rows, which are dataclasses, as JSON with the machine."""
    content = {"machine": machine, "versions": versions(), "rows": [asdict(row) for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
