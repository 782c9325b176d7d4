"""Compare planning's time with the calibration's passes: ``python -m benchmarks.planning``.

One layer of a model with random weights reads made-up tokens; its moments have a spectrum that
falls as those of trained models do. Each plan and each least-squares fit is timed by turns with
batches of the layer's bare forward pass; what is told is the ratio of medians, for as many tokens
as a calibration takes when nothing else is asked for. A second ratio has the sums of moments in it,
which a calibration makes in the same pass.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.results import describe_machine, write_results
from projector.corpus.tokens import DEFAULT_SEQUENCE_LENGTH
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Mlp
from projector.model.capture import Tap, capture
from projector.statistics.covariance import RunningCovariance
from pruning.calibration.moments import LayerMoments
from pruning.limits import DEFAULT_SEQUENCES
from pruning.methods.method import Layer, Proposals
from pruning.methods.plan import kept_width
from pruning.methods.registry import method_named
from pruning.refit.products import Products, fit_output

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
METHODS = ("wanda", "flap", "obs", "poles")
MOST = 1.0
_BATCH = 16
_N_WORDS = 512


@dataclass(frozen=True)
class Shape:
    """The shape of one layer: hidden size, neurons, heads of queries and of keys."""

    name: str
    hidden: int
    neurons: int
    heads: int
    key_heads: int


SHAPES = (
    Shape("SmolLM2-135M", 576, 1_536, 9, 3),
    Shape("Qwen2.5-0.5B", 896, 4_864, 14, 2),
)


@dataclass(frozen=True)
class Row:
    """The cost of one plan of a layer with its least-squares fit, and of the passes.

    Attributes:
        share: of the neurons, those that go.
        plan, fit: seconds of every repeat.
        passes, sums: seconds of a calibration's tokens through the layer, and of their sums, from
            one batch a repeat.
    """

    shape: str
    n_neurons: int
    method: str
    share: float
    plan: list[float]
    fit: list[float]
    passes: list[float]
    sums: list[float]

    def ratios(self) -> tuple[float, float, float]:
        """Median ratios of the plan, the fit, and both to the passes."""
        plan, fit, passes = map(statistics.median, (self.plan, self.fit, self.passes))
        return plan / passes, fit / passes, (plan + fit) / passes

    def ratio_with_sums(self) -> float:
        """Median ratio of plan and fit to the passes with their sums."""
        plan, fit = statistics.median(self.plan), statistics.median(self.fit)
        return (plan + fit) / (statistics.median(self.passes) + statistics.median(self.sums))


class Subject:
    """One layer with random weights, and the moments of its neurons over made-up tokens."""

    def __init__(self, shape: Shape, n_sequences: int) -> None:
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=_N_WORDS,
            hidden_size=shape.hidden,
            intermediate_size=shape.neurons,
            num_hidden_layers=1,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_heads,
        )
        model = Qwen2ForCausalLM(config).eval()
        self.mlp = self._scaled(model, shape)
        self.trunk: Any = model.base_model
        self.moments = LayerMoments(shape.neurons, torch.device("cpu"))
        for i in range(-(-n_sequences // _BATCH)):
            rows = self.run(i)
            # Whole sequences, as in a calibration.
            is_held_out = torch.arange(_BATCH).repeat_interleave(DEFAULT_SEQUENCE_LENGTH) % 5 == 4
            for held_out in (False, True):
                self.moments.update(rows[is_held_out == held_out], held_out=held_out)
        self.proposals = made_up_proposals(self.moments.all.second)

    @staticmethod
    @torch.no_grad()
    def _scaled(model: Qwen2ForCausalLM, shape: Shape) -> Mlp:
        """The MLP, its weights of usual size, and inputs of a falling spectrum."""
        words: Any = model.get_input_embeddings().weight
        words.mul_(torch.arange(1, shape.hidden + 1) ** -0.5)
        mlp = find_architecture(model).blocks[0].mlp
        assert mlp is not None
        for matrix in mlp.inputs:
            weight: Any = matrix.module.weight
            # Some neurons are louder than others.
            loudness = torch.randn(shape.neurons, 1).mul(0.5).exp()
            weight.normal_(std=shape.hidden**-0.5).mul_(loudness)
        return mlp

    @torch.no_grad()
    def run(self, batch: int) -> Tensor:
        """A batch's neurons, (tokens, N)."""
        generator = torch.Generator().manual_seed(batch)
        ids = torch.randint(
            _N_WORDS, (_BATCH, DEFAULT_SEQUENCE_LENGTH), generator=generator, dtype=torch.int64
        )
        seen: list[Tensor] = []
        taps = {"h": Tap(self.mlp.output.module, "input")}
        with capture(taps, lambda _, rows: seen.append(rows.detach())):
            self.trunk(input_ids=ids, use_cache=False)
        return seen[0].reshape(-1, self.mlp.n_neurons)

    def layer(self) -> Layer:
        """The layer as methods read it, with nothing computed yet."""
        return Layer(0, self.mlp, self.moments, centred=False, seed=0, proposals=self.proposals)


def made_up_proposals(second: Tensor) -> Proposals:
    """Positions that neurons share if they fire together, and poles of half of them."""
    generator = torch.Generator().manual_seed(0)
    spread = second.diagonal().clamp_min(torch.finfo(second.dtype).tiny).sqrt()
    axes = torch.randn(len(second), 2, generator=generator, dtype=torch.float64)
    places = second @ (axes / spread[:, None]) / spread[:, None]
    labels = (places[:, 0] - places[:, 0].min()).long()
    labels[torch.rand(len(second), generator=generator) < 0.5] = -1
    return Proposals(labels, (None,) * (int(labels.max()) + 1), places.float())


def seconds_of(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds of one call."""
    start = clock()
    run()
    return clock() - start


def measure(
    subject: Subject,
    shape: Shape,
    method: str,
    share: float,
    *,
    n_sequences: int,
    n_repeats: int,
    clock: Callable[[], float],
) -> Row:
    """Measure plan, fit and passes in turns."""
    row = Row(shape.name, shape.neurons, method, share, [], [], [], [])
    n_batches = n_sequences / _BATCH
    n_kept = kept_width(shape.neurons, share)
    record = method_named(method)
    output = subject.layer().output
    sums = RunningCovariance(shape.neurons)

    def plan() -> Tensor:
        layer = subject.layer()
        if record.plan is not None:
            return record.plan(layer, n_kept).kept_index
        assert record.scores is not None
        return record.scores(layer).argsort()[shape.neurons - n_kept :].sort().values

    def fit(kept: Tensor) -> None:
        parts = (subject.moments.fit, subject.moments.held_out)
        near, far = (Products.of_moments(part, kept, output) for part in parts)
        fit_output(near, far, output[:, kept], centred=False)

    kept = plan()
    for turn in range(n_repeats):
        rows = subject.run(turn)
        row.passes.append(n_batches * seconds_of(partial(subject.run, turn), clock))
        row.sums.append(n_batches * seconds_of(partial(sums.update, rows), clock))
        row.plan.append(seconds_of(plan, clock))
        row.fit.append(seconds_of(partial(fit, kept), clock))
    return row


def table(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = [
        "| shape | N | method | share | forward passes | plan | least squares "
        "| both, of the passes | with the sums |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        plan, fit, both = row.ratios()
        missed = "" if both <= MOST else ", missed"
        lines.append(
            f"| {row.shape} | {row.n_neurons:,} | `{row.method}` | {row.share:.0%} "
            f"| {statistics.median(row.passes):.1f} s | {statistics.median(row.plan):.2f} s "
            f"({plan:.2f}) | {statistics.median(row.fit):.2f} s ({fit:.2f}) "
            f"| {both:.2f} (≤ {MOST:g}{missed}) | {row.ratio_with_sums():.2f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write everything as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Only the smaller shape.")
    parser.add_argument(
        "--sequences", type=int, default=DEFAULT_SEQUENCES, help="Sequences of 256 tokens."
    )
    parser.add_argument("--shares", default="0.2,0.5", help="Shares of neurons to remove.")
    parser.add_argument("--methods", default=",".join(METHODS), help="Methods to time.")
    parser.add_argument(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="Wall-clock seconds, or processor seconds of this process, which depend little on "
        "other load.",
    )
    parser.add_argument("--repeats", type=int, default=3, help="Repetitions of each measurement.")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/benchmarks/planning.json"),
        help="JSON file to write.",
    )
    given = parser.parse_args(arguments)
    machine = describe_machine()
    rows = []
    for shape in SHAPES[:1] if given.quick else SHAPES:
        subject = Subject(shape, given.sequences)
        for method in given.methods.split(","):
            for share in map(float, given.shares.split(",")):
                row = measure(
                    subject,
                    shape,
                    method,
                    share,
                    n_sequences=given.sequences,
                    n_repeats=given.repeats,
                    clock=CLOCKS[given.clock],
                )
                rows.append(row)
                print(f"  {shape.name}, {method}, {share:g}", file=sys.stderr, flush=True)
    print(table(rows))
    write_results(given.out, machine, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
