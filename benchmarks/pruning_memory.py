"""The peak memory of ``pruning prune``, stage by stage: ``python -m benchmarks.pruning_memory``.

A model with random weights in the shape of Qwen2.5-0.5B is pruned in a process of its own, saved,
and loaded again. The peak of each stage is that of the process's resident memory, as Linux counts
it, above what it had once the model was loaded and all its weights had been read. All 24 layers
take some twenty minutes on one core; ``--layers 2`` takes two.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from benchmarks.results import describe_machine, write_results
from projector import bundled
from projector.memory import size_text
from pruning import preparing, pruning
from pruning.layerwise.budget import Needs

_STATUS = Path("/proc/self/status")
_HEAD = 64


@dataclass(frozen=True)
class Row:
    """One model pruned: what was reported before it started, and the peak of each stage.

    Attributes:
        peaks: bytes above the loaded model, by stage.
        seconds: by stage.
    """

    case: dict[str, Any]
    reported_bytes: int
    peaks: dict[str, int]
    seconds: dict[str, float]


class Stages:
    """Progress that records the peak of every stage."""

    def __init__(self) -> None:
        self.before = 0
        self.peaks: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self._stage, self._began = "", 0.0

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """Reset the peak."""
        self.end()
        self._stage, self._began = stage, time.perf_counter()
        Path("/proc/self/clear_refs").write_text("5")

    def advance(self, n: int) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Record the stage that has ended, after the model is loaded."""
        if self._stage and self.before:
            peak = _memory("VmHWM") - self.before
            self.peaks[self._stage] = max(peak, self.peaks.get(self._stage, peak))
            spent = time.perf_counter() - self._began
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + spent
        self._stage = ""


def make_model(folder: Path, case: argparse.Namespace) -> None:
    """A checkpoint of random weights in the loaded dtype, so that its file is mapped."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(Path(bundled.__file__).parent)
    config = Qwen2Config(
        vocab_size=case.vocabulary,
        hidden_size=case.hidden,
        intermediate_size=case.neurons,
        num_hidden_layers=case.layers,
        num_attention_heads=case.hidden // _HEAD,
        num_key_value_heads=max(1, case.hidden // _HEAD // 7),
        max_position_embeddings=case.length,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).to(getattr(torch, case.stored)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure_here(folder: Path, case: argparse.Namespace) -> dict[str, Any]:
    """Prune the model in this process; return the reported needs, and the peak of each stage."""
    stages = Stages()
    reported: list[int] = []
    own = preparing.load_prunable
    room: Any = pruning

    def loading(*given: Any, **options: Any) -> Any:
        loaded, architecture = own(*given, **options)
        # Every page of a mapped file; and libraries that are loaded at their first use.
        for parameter in loaded.model.parameters():
            parameter.sum()
        torch.linalg.inv(torch.eye(_HEAD).double())
        torch.linalg.solve(torch.eye(_HEAD).double(), torch.ones(_HEAD, 1).double())
        stages.before = _memory("VmRSS")
        return loaded, architecture

    def tell(what: Any) -> None:
        if isinstance(what, Needs):
            reported.append(what.total)

    room.load_prunable = loading
    pruning.prune_model(
        str(folder / "model"),
        pruning.PruneSettings(case.method, case.share, case.refit, case.sequences, case.steps),
        folder / "pruned",
        calibration="stdlib:heldout",
        sequence_length=case.length,
        device="cpu",
        dtype=case.dtype,
        projection=case.projection,
        progress=stages,
        tell=tell,
    )
    stages.end()
    return {"reported_bytes": reported[0], "peaks": stages.peaks, "seconds": stages.seconds}


def _memory(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def measure(arguments: Sequence[str], case: argparse.Namespace) -> Row:
    """Run :func:`measure_here` in a separate process."""
    with tempfile.TemporaryDirectory(dir=case.scratch) as folder:
        make_model(Path(folder) / "model", case)
        command = [sys.executable, "-m", "benchmarks.pruning_memory", *arguments, "--here", folder]
        process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told = {key: value for key, value in vars(case).items() if isinstance(value, (str, int, float))}
    return Row(told, **json.loads(process.stdout.splitlines()[-1]))


def table(row: Row) -> str:
    """The table as Markdown."""
    lines = [
        f"Reported before it starts: {size_text(row.reported_bytes)}",
        "",
        "| stage | seconds | most besides the model |",
        "| --- | ---: | ---: |",
    ]
    for stage, peak in row.peaks.items():
        lines.append(f"| {stage} | {row.seconds[stage]:.0f} | {size_text(max(0, peak))} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write everything as JSON."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pruning_memory")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--neurons", type=int, default=4_864)
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--stored", default="float32", help="Type of the checkpoint's weights.")
    parser.add_argument("--dtype", default="float32", help="Type of the loaded weights.")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--length", type=int, default=128, help="Tokens of a sequence.")
    parser.add_argument("--method", default="obs")
    parser.add_argument("--refit", default="least-squares")
    parser.add_argument("--share", type=float, default=0.2, help="Share of neurons to remove.")
    parser.add_argument("--steps", type=int, default=200, help="Training steps of the refit.")
    parser.add_argument("--projection", type=Path, help="Projection, for methods that read one.")
    parser.add_argument(
        "--scratch", type=Path, help="Folder with space for two copies of the model."
    )
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/benchmarks/pruning-memory.json"),
        help="JSON file to write.",
    )
    case = parser.parse_args(arguments)
    if not Path("/proc/self/clear_refs").exists():
        print("error: this benchmark needs Linux: it reads the peak from /proc", file=sys.stderr)
        return 2
    if case.here is not None:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
        print(json.dumps(measure_here(case.here, case)))
        return 0
    machine = describe_machine()
    row = measure(arguments, case)
    print(table(row))
    write_results(case.out, machine, [row])
    return 0


if __name__ == "__main__":
    sys.exit(main())
