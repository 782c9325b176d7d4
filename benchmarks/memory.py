"""Compare the peak memory of a fit with its budget: ``python -m benchmarks.memory``.

A model with wide MLPs and little else is fitted under several budgets, each fit in a process of
its own. The peak is that of the process's resident memory, as Linux counts it, above what it had
once the model was loaded. Takes some twenty minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from benchmarks.results import describe_machine, write_results
from projector import bundled
from projector.fitting.pipeline import run
from projector.fitting.preparing import prepare
from projector.fitting.settings import FitSettings
from projector.layouts.settings import Layout
from projector.memory import size_text
from projector.model.loading import load_model
from projector.terminal.options import parse_size

# Neurons of a layer, layers, and budgets. Of the first two sizes the second has room for all maps
# at once; of the last there is room for no matrix.
CASES = (
    (1536, 8, "320MiB"),
    (1536, 8, "512MiB"),
    (3072, 6, "800MiB"),
    (3072, 6, "2GiB"),
    (6144, 1, "600MiB"),
)
MOST = 1.1
_N_TOKENS = 20_000
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Row:
    """One fit: its budget, and the peaks of every time it was run."""

    n_neurons: int
    n_layers: int
    budget: str
    n_passes: int
    reckoned_bytes: int
    peak_bytes: list[int]

    @property
    def ratio(self) -> float:
        """The peak as a share of the budget."""
        return max(self.peak_bytes) / (parse_size(self.budget) or 1)


def make_model(folder: Path, n_neurons: int, n_layers: int) -> Path:
    """A checkpoint of random weights."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(Path(bundled.__file__).parent)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=n_neurons,
        num_hidden_layers=n_layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def measure_here(
    n_neurons: int, n_layers: int, budget: str, folder: Path, n_tokens: int
) -> dict[str, int]:
    """Run the fit in this process, and return the memory it took besides the loaded model."""
    loaded = load_model(str(make_model(folder / "model", n_neurons, n_layers)), device="cpu")
    before = _memory("VmRSS")
    # Reset the peak here.
    Path("/proc/self/clear_refs").write_text("5")
    settings = FitSettings(
        sites=("mlp_post",),
        max_tokens=n_tokens,
        batch_size=4,
        memory_budget=parse_size(budget),
    )
    job = prepare(loaded, "stdlib:heldout", settings, Layout(dim=3))
    run(job, out=folder / "out")
    return {
        "n_passes": len(job.plan.passes),
        "reckoned_bytes": job.plan.n_bytes,
        "peak_bytes": _memory("VmHWM") - before,
    }


def _memory(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def measure(n_neurons: int, n_layers: int, budget: str, n_times: int) -> Row:
    """Run :func:`measure_here` in separate processes."""
    found = []
    for _ in range(n_times):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.memory", "--case"]
            command += [str(n_neurons), str(n_layers), budget, folder]
            process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(process.stdout.splitlines()[-1]))
    peaks = [case["peak_bytes"] for case in found]
    row = Row(n_neurons, n_layers, budget, found[0]["n_passes"], found[0]["reckoned_bytes"], peaks)
    print(f"  {n_neurons:,} × {n_layers}, {budget}: {row.ratio:.2f}", file=sys.stderr, flush=True)
    return row


def table(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = [
        "| neurons × layers | budget | passes | reckoned | besides the model | of the budget |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        mark = "" if row.ratio <= MOST else ", missed"
        lines.append(
            f"| {row.n_neurons:,} × {row.n_layers} | {row.budget} | {row.n_passes} "
            f"| {size_text(row.reckoned_bytes)} | {size_text(max(row.peak_bytes))} "
            f"| {row.ratio:.2f} (≤ {MOST:g}{mark}) |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write everything as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="Repetitions of each measurement.")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/benchmarks/memory.json"), help="JSON file to write."
    )
    parser.add_argument("--tokens", type=int, default=_N_TOKENS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--case",
        nargs=4,
        metavar=("NEURONS", "LAYERS", "BUDGET", "FOLDER"),
        help=argparse.SUPPRESS,
    )
    given = parser.parse_args(arguments)
    if not Path("/proc/self/clear_refs").exists():
        print("error: the peak of a process is read as Linux tells it", file=sys.stderr)
        return 2
    if given.case is not None:
        n_neurons, n_layers, budget, folder = given.case
        print(
            json.dumps(
                measure_here(int(n_neurons), int(n_layers), budget, Path(folder), given.tokens)
            )
        )
        return 0
    machine = describe_machine()
    rows = [measure(*case, given.repeats) for case in CASES]
    print(table(rows))
    write_results(given.out, machine, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
