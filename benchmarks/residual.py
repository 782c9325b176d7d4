"""Time commands on the residual stream relative to the model: ``python -m benchmarks.residual``.

The lens of a prompt is timed by turns with the model's forward pass and with the head's own
products at every reading, and what every part adds to the stream with the forward pass up to the
last block, in one run; what is told is the ratio of medians. Models: the bundled one, and those
whose folders are given.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.results import describe_machine, write_results
from projector.errors import UserError
from projector.model.capture import Tap, capture, evaluating
from projector.model.loading import BUNDLED, load_model
from projector.residual.contributions import (
    BlockContributions,
    EmbeddingContributions,
    check_additivity,
    watch_contributions,
)
from projector.residual.lens import run_lens
from projector.residual.readings.streams import find_readings, read_streams
from projector.residual.subject import Subject

N_TOKENS = 256
MOST_OF_LENS = 2.0
MOST_OF_CONTRIBUTIONS = 1.5
# After loading, for the bundled model.
MOST_LENS_SECONDS = 1.0


@dataclass(frozen=True)
class Row:
    """The time of one command.

    Attributes:
        what: the command, and what it is compared with.
        seconds: name → seconds of every repeat; ``whole`` is the command.
        beside: names whose sum it is compared with.
        most: the target of the ratio.
        most_seconds: the target of ``whole``; None for none.
    """

    model: str
    n_tokens: int
    what: str
    seconds: dict[str, list[float]]
    beside: tuple[str, ...]
    most: float
    most_seconds: float | None = None
    note: str = ""

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    @property
    def ratio(self) -> float:
        return self.median("whole") / sum(map(self.median, self.beside))


def time_by_turns(
    parts: Mapping[str, Callable[[], object]], n_times: int
) -> dict[str, list[float]]:
    """Seconds of each part, once per turn, after one turn that isn't counted."""
    found: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(n_times + 1):
        for name, run in parts.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                found[name].append(time.perf_counter() - start)
    return found


def made_up_ids(subject: Subject, n_tokens: int) -> list[int]:
    """Random tokens, because the operations don't depend on the tokens."""
    table = subject.model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    return torch.randint(table.shape[0], (n_tokens,), generator=generator).tolist()


@torch.no_grad()
def measure_lens(subject: Subject, ids: Sequence[int], n_times: int) -> Row:
    """Time the lens at all readings, compared with a forward pass and the head at every reading."""
    readout, inputs = subject.readout, subject.inputs(list(ids))
    readings, _ = find_readings(subject.architecture, ("resid_pre", "resid_mid", "resid_post"))
    streams, _ = read_streams(subject, inputs, readings, torch.arange(len(ids)))
    normed = [readout.normed(stream) for stream in streams.values()]

    def head() -> None:
        for each in normed:
            readout.head(each)

    with evaluating(subject.model):
        seconds = time_by_turns(
            {
                "forward": lambda: subject.model(**inputs),
                "head": head,
                "whole": lambda: run_lens(subject, ids),
            },
            n_times,
        )
    gflop = 2e-9 * len(ids) * len(readings) * readout.n_hidden * readout.n_vocabulary
    return Row(
        subject.loaded.identifier,
        len(ids),
        "lens",
        seconds,
        ("forward", "head"),
        MOST_OF_LENS,
        MOST_LENS_SECONDS if subject.loaded.identifier == BUNDLED else None,
        f"{len(readings)} readings, {gflop:,.0f} Gflop of the head",
    )


@torch.no_grad()
def measure_contributions(subject: Subject, ids: Sequence[int], n_times: int) -> Row:
    """Time all contributions at every token, compared with the forward pass.

    Both stop after the last block: the vocabulary head isn't part of them, and would only lower the
    ratio.
    """
    inputs = subject.inputs(list(ids))
    last = subject.architecture.blocks[-1].module
    # Found once a model, and not timed.
    n_layers = len(subject.layout.blocks)

    def forward() -> None:
        with capture({"last": Tap(last, "output")}, lambda _key, _stream: None, then_stop=True):
            subject.model(**inputs)

    def each(found: BlockContributions | EmbeddingContributions) -> None:
        if isinstance(found, BlockContributions):
            found.parts(by_head=True)

    def whole() -> None:
        check_additivity(watch_contributions(subject, inputs, each))

    with evaluating(subject.model):
        seconds = time_by_turns({"forward": forward, "whole": whole}, n_times)
    return Row(
        subject.loaded.identifier,
        len(ids),
        "contributions of all heads",
        seconds,
        ("forward",),
        MOST_OF_CONTRIBUTIONS,
        note=f"{n_layers} layers, each head's vector at each token",
    )


# Each: a subject, token ids and a number of repeats → a row.
PARTS: dict[str, Callable[[Subject, Sequence[int], int], Row]] = {
    "lens": measure_lens,
    "contributions": measure_contributions,
}


def table(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = ["| model | what | beside | seconds | ratio |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        parts = " + ".join(f"{name} {row.median(name):.3f} s" for name in row.beside)
        seconds = f"{row.median('whole'):.3f}"
        if row.most_seconds is not None:
            missed = "" if row.median("whole") <= row.most_seconds else ", missed"
            seconds += f" (≤ {row.most_seconds:g}{missed})"
        missed = "" if row.ratio <= row.most else ", missed"
        lines.append(
            f"| {row.model} | {row.what} of {row.n_tokens} tokens; {row.note} | {parts} "
            f"| {seconds} | {row.ratio:.2f} (≤ {row.most:g}{missed}) |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write everything as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.residual", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="Folders or hub ids.")
    parser.add_argument("--part", choices=list(PARTS), help="Measure only one part.")
    parser.add_argument("--tokens", type=int, default=N_TOKENS, help="Tokens of the prompt.")
    parser.add_argument("--repeats", type=int, default=5, help="Repetitions of each measurement.")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/benchmarks/residual.json"),
        help="JSON file to write.",
    )
    given = parser.parse_args(arguments)
    machine = describe_machine()
    rows = []
    try:
        for name in (BUNDLED, *given.models):
            subject = Subject(load_model(name, with_head=True))
            ids = made_up_ids(subject, given.tokens)
            for part in (given.part,) if given.part else PARTS:
                rows.append(PARTS[part](subject, ids, given.repeats))
                print(f"  {name}, {part}: {rows[-1].ratio:.2f}", file=sys.stderr, flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(rows))
    write_results(given.out, machine, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
