"""Compare a fit's time with the model's forward passes: ``python -m benchmarks.fit``.

The whole of ``projector fit`` is timed, stage by stage, and the bare forward passes over the very
same batches before and after it, so that both meet the same machine. Models: the bundled one on the
CPU; where there is a CUDA device, one of random weights in the shape of Qwen2.5-0.5B, in bf16.
Takes some ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.gpu_rows import FULL, Sizes
from benchmarks.results import describe_machine, write_results
from projector.fitting.estimating import estimate
from projector.fitting.pipeline import run
from projector.fitting.preparing import Job, prepare
from projector.fitting.settings import FitSettings
from projector.layouts.settings import DEFAULT_LAYOUTS, Layout, parse_layouts
from projector.model.loading import BUNDLED, LoadedModel, load_model

# About as long as what is read of it: what a longer text costs to tokenize is not the fit's.
CORPUS = "stdlib:heldout"
N_TOKENS = 200_000
MOST_RATIO = 2.0
# Target for the time that examples add, as a share of a fit without them.
MOST_OF_EXAMPLES = 0.1
# Target for the slope of time against tokens, on logarithmic axes.
MOST_SLOPE = 1.05
WRITING = "Writing"


@dataclass(frozen=True)
class Row:
    """One row of the table: a stage's seconds, and its ratio to the bare forward passes."""

    model: str
    n_tokens: int
    what: str
    seconds: list[float]
    ratios: list[float]
    target: str = ""
    is_met: bool = True


class Stages:
    """Progress that records the seconds of every stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage = "Starting"
        self._began = time.perf_counter()

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        self.end()
        self._stage = stage

    def advance(self, n: int) -> None:
        pass

    def end(self) -> None:
        """The time after a stage, until the next begins, is for writing its results."""
        now = time.perf_counter()
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._began
        self._stage, self._began = WRITING, now


def forward_seconds(job: Job) -> float:
    """Seconds of the model alone over all batches, made as in a fit."""
    device = next(job.trunk.parameters()).device
    _wait(device)
    began = time.perf_counter()
    with torch.no_grad():
        for batch in job.corpus.batches(job.settings.batch_size):
            job.trunk(
                input_ids=batch.input_ids.to(device),
                attention_mask=batch.attention_mask.to(device),
            )
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fit_seconds(
    load: Callable[[], str | LoadedModel],
    n_tokens: int,
    corpus: str | Iterable[str] = CORPUS,
    *,
    layouts: Sequence[Layout] | None = None,
    keep_examples: bool = True,
) -> tuple[Job, dict[str, float]]:
    """Seconds of the command by stage, without importing libraries.

    Args:
        layouts: None for a fit's default layouts.
    """
    stages = Stages()
    stages.begin("Loading the model", None, "")
    model = load()
    settings = FitSettings(max_tokens=n_tokens, keep_examples=keep_examples)
    with tempfile.TemporaryDirectory() as folder:
        job = prepare(model, corpus, settings, layouts, progress=stages)
        stages.begin("Timing a batch", None, "")
        estimate(job)
        run(job, out=Path(folder) / "out", progress=stages)
        stages.end()
    return job, stages.seconds


def measure(
    name: str, load: Callable[[], str | LoadedModel], n_tokens: int, n_times: int
) -> list[Row]:
    """All stages of fits over ``n_tokens``, and the forward passes."""
    bare: list[float] = []
    found: dict[str, list[float]] = {}
    # Not counted: compiles kernels and reads the libraries' pages.
    job, _ = fit_seconds(load, n_tokens)
    before = forward_seconds(job)
    for i in range(n_times):
        job, seconds = fit_seconds(load, n_tokens)
        after = forward_seconds(job)
        bare.append((before + after) / 2)
        before = after
        for stage, value in seconds.items():
            found.setdefault(stage, []).append(value)
        found.setdefault("whole fit", []).append(sum(seconds.values()))
        ratio = found["whole fit"][-1] / bare[-1]
        print(f"  {name}, {n_tokens:,} tokens, {i + 1}: {ratio:.2f}", file=sys.stderr, flush=True)
    rows = [Row(name, job.corpus.n_tokens, "bare forward passes", bare, [1.0] * n_times)]
    for stage, values in found.items():
        ratios = [value / base for value, base in zip(values, bare, strict=True)]
        is_whole = stage == "whole fit"
        target = f"≤ {MOST_RATIO:g}" if is_whole else ""
        is_met = not is_whole or statistics.median(ratios) <= MOST_RATIO
        rows.append(Row(name, job.corpus.n_tokens, stage, values, ratios, target, is_met))
    return rows


def additions(
    name: str, load: Callable[[], str | LoadedModel], n_tokens: int, n_times: int
) -> list[Row]:
    """The time that examples and each further layout add to a fit of one layout without examples.

    Shares are of that fit's time for running the model, placing and writing: loading the model and
    reading the corpus are the same for all.
    """
    (stress, *others) = parse_layouts(DEFAULT_LAYOUTS)

    def seconds(layouts: Sequence[Layout], keep_examples: bool) -> float:
        _, found = fit_seconds(load, n_tokens, layouts=layouts, keep_examples=keep_examples)
        before = ("Loading the model", "Reading the corpus", "Timing a batch")
        return sum(value for stage, value in found.items() if stage not in before)

    plain: list[float] = []
    wholes: dict[str, list[float]] = {"examples": []} | {each.name: [] for each in others}
    for _ in range(n_times):
        plain.append(seconds([stress], False))
        wholes["examples"].append(seconds([stress], True))
        for each in others:
            wholes[each.name].append(seconds([stress, each], False))
    rows = [Row(name, n_tokens, f"{stress.name} alone, no examples", plain, [1.0] * n_times)]
    for what, values in wholes.items():
        added = [value - base for value, base in zip(values, plain, strict=True)]
        shares = [more / base for more, base in zip(added, plain, strict=True)]
        is_met = what != "examples" or statistics.median(shares) <= MOST_OF_EXAMPLES
        target = f"≤ {MOST_OF_EXAMPLES:g}" if what == "examples" else ""
        rows.append(Row(name, n_tokens, f"{what}: more, of that", added, shares, target, is_met))
    return rows


def growth(load: Callable[[], str | LoadedModel], sizes: Sequence[int], n_times: int) -> Row:
    """The slope of time against tokens, for the stage that depends on tokens."""
    seconds: list[list[float]] = [[] for _ in sizes]
    for _ in range(n_times):
        for values, n_tokens in zip(seconds, sizes, strict=True):
            values.append(fit_seconds(load, n_tokens)[1]["Running the model"])
    x = [math.log(n) for n in sizes]
    slopes = [
        statistics.linear_regression(x, [math.log(values[i]) for values in seconds]).slope
        for i in range(n_times)
    ]
    median = statistics.median(slopes)
    what = f"slope of running the model, {sizes[0]:,} to {sizes[-1]:,} tokens"
    return Row(BUNDLED, sizes[-1], what, [], slopes, f"≤ {MOST_SLOPE:g}", median <= MOST_SLOPE)


def qwen_shaped(sizes: Sizes, device: torch.device) -> LoadedModel:
    """A model of random weights in the shape of a Qwen2, bf16, with the bundled tokenizer."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.neurons,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.groups,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
        dtype=torch.bfloat16,
    )
    with device:
        model = Qwen2ForCausalLM(config).to(torch.bfloat16).eval()
    return LoadedModel(model, load_model(device="cpu").tokenizer, "qwen2-shaped", "0" * 64)


def table(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = [
        "| model | tokens | what | seconds | of the forward passes | target |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        seconds = f"{statistics.median(row.seconds):.2f}" if row.seconds else ""
        low, high = min(row.ratios), max(row.ratios)
        ratio = f"{statistics.median(row.ratios):.2f} ({low:.2f}–{high:.2f})"
        mark = "" if row.is_met else ", missed"
        lines.append(
            f"| {row.model} | {row.n_tokens:,} | {row.what} | {seconds} | {ratio} "
            f"| {row.target}{mark} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write everything as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="Repetitions of each measurement.")
    parser.add_argument("--tokens", type=int, default=N_TOKENS, help="Tokens of a fit.")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/benchmarks/fit.json"), help="JSON file to write."
    )
    given = parser.parse_args(arguments)
    machine = describe_machine()
    rows = measure(BUNDLED, lambda: load_model(device="cpu"), given.tokens, given.repeats)
    rows += additions(BUNDLED, lambda: load_model(device="cpu"), given.tokens, given.repeats)
    sizes = [given.tokens // 4, given.tokens // 2, given.tokens]
    rows.append(growth(lambda: load_model(device="cpu"), sizes, given.repeats))
    if torch.cuda.is_available():
        device = torch.device("cuda")
        rows += measure(
            "Qwen2.5-0.5B's shape", lambda: qwen_shaped(FULL, device), given.tokens, given.repeats
        )
    print(table(rows))
    if not torch.cuda.is_available():
        print("\nQwen2.5-0.5B's shape: not measured: no GPU")
    write_results(given.out, machine, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
