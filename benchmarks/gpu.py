"""All measurements that need a GPU, in at most 8 minutes: ``python -m benchmarks.gpu``.

It runs the tests marked ``gpu``, times both Triton kernels, a copy and a product in float16, and
times whole fits of a model with random weights, in the shape of Qwen2.5-0.5B, beside its bare
forward passes. Nothing is fetched. What can't be measured is told with its reason. ``--toy`` takes
sizes of no meaning, and on a machine without a GPU Triton's interpreter, to try the command itself.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_parts import PARTS, ROOT
from benchmarks.gpu_rows import FULL, TOY, Part, Row, Unmeasurable
from benchmarks.results import describe_machine
from projector.projection.provenance import versions

MINUTES = 8.0
# Seconds that a part's process needs to start and to end.
_AROUND_S = 5.0


def measure_here(part: Part, is_toy: bool, seconds: float, told: Path) -> str | None:
    """Measure one part in this process, and write each row when it is measured.

    Args:
        told: a file, of which each line is a row.

    Returns:
        Why what is not told could not be measured; None where everything was.
    """
    sizes = TOY if is_toy else FULL
    until = time.monotonic() + seconds
    with told.open("a", encoding="utf-8") as file:
        try:
            for row in part.measure(sizes, until):
                file.write(json.dumps(row.as_json()) + "\n")
                file.flush()
        except Unmeasurable as reason:
            return str(reason)
        except subprocess.TimeoutExpired:
            return f"took longer than the {seconds:.0f} s that it was given"
        except Exception as error:
            return " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return None


def measure_apart(part: Part, is_toy: bool, seconds: float, told: Path) -> str | None:
    """Run :func:`measure_here` in a separate process, because a GPU error ends its process."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", part.name, str(told)]
    command += ["--seconds", f"{seconds - _AROUND_S:.1f}", *(["--toy"] if is_toy else [])]
    environment = dict(os.environ)
    if is_toy and not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    try:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"took longer than the {seconds:.0f} s that it was given"
    if ended.returncode != 0:
        return f"its process ended with status {ended.returncode}"
    why: str | None = json.loads(ended.stdout.splitlines()[-1])
    return why


def rows_of(part: Part, is_toy: bool, told: Path, why: str | None) -> list[Row]:
    """The part's planned rows, each with its last values or the reason for missing values."""
    found: dict[tuple[str, str], Row] = {}
    if told.exists():
        for line in told.read_text(encoding="utf-8").splitlines():
            row = Row.from_json(json.loads(line))
            found[row.what, row.size] = row
    plan = part.plan(TOY if is_toy else FULL)
    reason = why or "its part told nothing of it"
    rows = [found.get((row.what, row.size), replace(row, unmeasured=reason)) for row in plan]
    # Toy sizes have no targets.
    return [replace(row, target=None) for row in rows] if is_toy else rows


def measure(
    is_toy: bool,
    minutes: float,
    run: Callable[[Part, bool, float, Path], str | None] = measure_apart,
    parts: Sequence[Part] = PARTS,
) -> list[Row]:
    """All rows of all parts; parts that don't fit in the remaining time are skipped."""
    end = time.monotonic() + 60 * minutes
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for i, part in enumerate(parts):
            print(f"  {part.name} …", file=sys.stderr, flush=True)
            told = Path(folder) / f"{part.name}.jsonl"
            # Later parts keep the time that they need.
            left = end - time.monotonic() - sum(later.needs_s for later in parts[i + 1 :])
            why: str | None
            if left < part.needs_s:
                why = f"needs {part.needs_s:.0f} s, and {max(0, left):.0f} s were left for it"
            elif not is_toy and not torch.cuda.is_available():
                why = "no GPU"
            else:
                why = run(part, is_toy, left, told)
            rows += rows_of(part, is_toy, told, why)
    return rows


def describe_gpu() -> dict[str, Any]:
    """The device and its driver; empty without a device."""
    if not torch.cuda.is_available():
        return {}
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }


def triton_version() -> str | None:
    """The installed version.

    Triton isn't imported, because it would decide then whether to interpret.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("triton")
    except PackageNotFoundError:
        return None


def table(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = [
        "| part | what | size | median (least–most) | target | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        value = f"unmeasured: {row.unmeasured}"
        if row.values:
            value = f"{statistics.median(row.values):.3g} {row.unit}"
            if len(row.values) > 1:
                value += f" ({min(row.values):.3g}–{max(row.values):.3g})"
        target = ""
        if row.target is not None:
            target = f"{'≥' if row.is_least else '≤'} {row.target:g}"
            target += ", missed" if row.is_met is False else ""
        lines.append(f"| {row.part} | {row.what} | {row.size} | {value} | {target} | {row.note} |")
    return "\n".join(lines)


def write(path: Path, is_toy: bool, machine: dict[str, Any], seconds: float, rows: Any) -> None:
    """Everything as JSON."""
    content = {
        "is_toy": is_toy,
        "seconds": seconds,
        "machine": machine,
        "gpu": describe_gpu(),
        "versions": {**versions(), "triton": triton_version()},
        "rows": [row.as_json() for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main(
    arguments: Sequence[str] | None = None,
    run: Callable[[Part, bool, float, Path], str | None] = measure_apart,
) -> int:
    """Measure, print the table, and write everything as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/gpu.json"), help="JSON file to write."
    )
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="No part is begun that would take longer."
    )
    parser.add_argument("--toy", action="store_true", help="Sizes that try the command itself.")
    parser.add_argument("--part", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.part is not None:
        name, told = given.part
        (part,) = (part for part in PARTS if part.name == name)
        print(json.dumps(measure_here(part, given.toy, given.seconds, Path(told))))
        return 0
    began = time.monotonic()
    machine = describe_machine()
    rows = measure(given.toy, given.minutes, run)
    print(table(rows))
    if given.toy:
        print("\nAt toy sizes: these figures mean nothing.")
    write(given.out, given.toy, machine, time.monotonic() - began, rows)
    print(f"\nWrote {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
