"""Measure how fast positions are found: ``python -m benchmarks.positions``.

Every figure is a ratio of two things timed in this run on the same data. Against other ways to
positions, each has its own defaults and what counts is the time to equal or lower stress. Rows that
need a GPU, or a package that is not here, say so and hold no figure.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.baseline import StraightforwardLoop, count_steps, uniform_start
from benchmarks.made_up import grouped_activations, grouped_correlation
from benchmarks.results import describe_machine, write_results
from projector.layouts.costs import dissimilarity, stress_figures
from projector.layouts.kernels import (
    Distances,
    MatrixFree,
    Target,
    guttman_transform,
    guttman_transforms,
)
from projector.layouts.solvers.smacof import TOLERANCE, minimize_stress
from projector.layouts.start import classical_start
from projector.statistics.sampling import standardize

DIM = 3
SIZES_OF_BASELINE = (896, 1_536, 4_864)
SIZES_OF_OTHERS = (1_536, 4_864)
SIZES_OF_GROWTH = (1_000, 2_000, 4_000, 8_000, 16_000)
# Most steps of the loop, which converges before.
_MOST_STEPS = 60_000
_N_STEPS_TIMED = 3


@dataclass(frozen=True)
class Measurement:
    """One row of the table; ``value`` is None where nothing was measured, and ``note`` says why."""

    what: str
    size: str
    unit: str
    target: str
    value: float | None
    is_met: bool | None
    note: str
    seconds: dict[str, list[float]] = field(default_factory=dict)


def not_measured(what: str, size: str, unit: str, target: str, why: str) -> Measurement:
    return Measurement(what, size, unit, target, None, None, f"not measured: {why}")


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds of a call, and its result."""
    began = time.perf_counter()
    found = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, found


def place_here(target: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """Run start and solver as ``projector.place`` does."""
    start = classical_start(target, DIM, torch.Generator().manual_seed(0))
    return minimize_stress(target, start, tolerance=tolerance).positions


def measure_baseline(n: int, repeats: int) -> Measurement:
    """Compare with the straightforward loop: count its steps, and time a step."""
    target = dissimilarity(grouped_correlation(n))
    place_here(target)
    here, steps = [], []
    loop = StraightforwardLoop(target, uniform_start(n, DIM))
    loop.step()
    stress = math.inf
    for _ in range(repeats):
        seconds, positions = timed(lambda: place_here(target))
        here.append(seconds)
        stress = stress_figures(positions, target)[0]
        steps.append(timed(lambda: [loop.step() for _ in range(_N_STEPS_TIMED)])[0])
    per_step = [seconds / _N_STEPS_TIMED for seconds in steps]
    course = count_steps(target, uniform_start(n, DIM), 1.01 * stress, _MOST_STEPS)
    ratio = course.n_steps * statistics.median(per_step) / statistics.median(here)
    end = "reaches" if course.is_reached else "comes to rest at"
    note = (
        f"the loop {end} {course.stress / stress:.3f} times the solver's stress after "
        f"{course.n_steps:,} steps of {statistics.median(per_step):.3g} s, which makes "
        f"{course.n_steps * statistics.median(per_step):,.0f} s (extrapolated: steps counted with "
        f"the one-pass gradient); the solver took {statistics.median(here):.3g} s"
    )
    return Measurement(
        "sooner than the straightforward loop",
        f"N = {n:,}",
        "×",
        "≥ 1,000",
        ratio,
        ratio >= 1000,
        note,
        {"solver": here, "a step of the loop": per_step},
    )


def import_pymde() -> Any:
    """Import pymde without torchvision, which only its example data sets need."""
    is_there = "torchvision" in sys.modules
    if not is_there:
        sys.modules["torchvision"] = types.ModuleType("torchvision")
    try:
        import pymde
    finally:
        if not is_there:
            # Transformers takes a stand-in for the real package.
            del sys.modules["torchvision"]
    return pymde


def place_by_pymde(target: Tensor) -> Tensor:
    """Run pymde with all pairs, quadratic distortion, and otherwise its defaults."""
    pymde = import_pymde()
    pymde.seed(0)
    edges = pymde.all_edges(len(target))
    distortion = pymde.losses.Quadratic(target[edges[:, 0], edges[:, 1]])
    problem = pymde.MDE(len(target), DIM, edges, distortion, constraint=pymde.Centered())
    found: Tensor = problem.embed()
    return found


def place_by_sklearn(target: Tensor) -> Tensor:
    """Run scikit-learn's metric MDS on given distances, with its defaults."""
    from sklearn.manifold import MDS

    with warnings.catch_warnings():
        # Of defaults that will change.
        warnings.simplefilter("ignore", FutureWarning)
        mds = MDS(n_components=DIM, metric="precomputed", random_state=0)
        found = mds.fit_transform(target.double().numpy())
    return torch.from_numpy(found).float()


def measure_other(
    name: str, place: Callable[[Tensor], Tensor], n: int, goal: float, repeats: int
) -> Measurement:
    """Compare with another package: both run to the end, and the solver's stress is not higher."""
    target = dissimilarity(grouped_correlation(n))
    what, size, aim = f"sooner than {name}", f"N = {n:,}", f"≥ {goal:g}"
    theirs: list[float] = []
    try:
        for _ in range(repeats):
            seconds, positions = timed(lambda: place(target))
            theirs.append(seconds)
    except ImportError as error:
        return not_measured(what, size, "×", aim, f"{error}; see benchmarks/README.md")
    their_stress = stress_figures(positions, target)[0]
    here: list[float] = []
    for tolerance in (TOLERANCE, TOLERANCE / 10, TOLERANCE / 100):
        place_here(target, tolerance)
        here = []
        for _ in range(repeats):
            seconds, positions = timed(lambda tolerance=tolerance: place_here(target, tolerance))
            here.append(seconds)
        stress = stress_figures(positions, target)[0]
        if stress <= their_stress:
            break
    ratio = statistics.median(theirs) / statistics.median(here)
    note = (
        f"{statistics.median(here):.3g} s to stress {stress:.6f} (tolerance {tolerance:g}), "
        f"{statistics.median(theirs):.3g} s to {their_stress:.6f}"
    )
    is_met = ratio >= goal and stress <= their_stress
    return Measurement(what, size, "×", aim, ratio, is_met, note, {"solver": here, name: theirs})


def measure_growth(sizes: Sequence[int], repeats: int) -> Measurement:
    """Measure the exponent of N in the time of one pass."""
    seconds: dict[str, list[float]] = {}
    for n in sizes:
        generator = torch.Generator().manual_seed(0)
        target = Distances(torch.rand(n, n, generator=generator))
        positions = torch.randn(n, DIM, generator=generator) / 2
        guttman_transform(positions, target)
        seconds[f"{n}"] = [
            timed(lambda x=positions, t=target: guttman_transform(x, t))[0] for _ in range(repeats)
        ]
        # The time for reading the half of the matrix that a pass reads.
        half = target.matrix[: n // 2]
        reading = [timed(half.sum)[0] for _ in range(repeats)]
        del target, half
    medians = [statistics.median(values) for values in seconds.values()]
    exponent = _slope([math.log(n) for n in sizes], [math.log(s) for s in medians])
    times = ", ".join(f"{n:,}: {1e3 * s:.3g}" for n, s in zip(sizes, medians, strict=True))
    size = f"N = {sizes[0]:,} to {sizes[-1]:,}"
    times_reading = medians[-1] / statistics.median(reading)
    note = f"milliseconds a pass: {times}; the last is {times_reading:.3g} times its reading"
    is_met = exponent <= 2.05
    return Measurement(
        "power of N in the time of a pass", size, "", "≤ 2.05", exponent, is_met, note, seconds
    )


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    return statistics.linear_regression(x, y).slope


def _seconds_on_gpu(run: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of the device, by its clock."""
    for _ in range(3):
        run()
    found = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end) / 1e3)
    return found


def measure_bandwidth(n: int, n_layers: int, repeats: int) -> Measurement:
    """Bytes of the matrices per second, compared with the bytes of a copy."""
    what, size, aim = "Triton kernel, of copy bandwidth", f"N = {n:,} × {n_layers}", "≥ 60"
    if not torch.cuda.is_available():
        return not_measured(what, size, "%", aim, "no GPU")
    matrices = [torch.rand(n, n, device="cuda") for _ in range(n_layers)]
    targets: list[Target] = [Distances(matrix) for matrix in matrices]
    positions = [torch.randn(n, DIM, device="cuda") / 2 for _ in range(n_layers)]
    passes = _seconds_on_gpu(lambda: guttman_transforms(positions, targets), repeats)
    source = torch.rand(1 << 28, device="cuda")
    into = torch.empty_like(source)
    copies = _seconds_on_gpu(lambda: into.copy_(source), repeats)
    read = 4 * n_layers * n * n / statistics.median(passes)
    copied = 2 * 4 * source.numel() / statistics.median(copies)
    share = 100 * read / copied
    note = f"{read / 1e12:.3g} of {copied / 1e12:.3g} TB/s"
    return Measurement(
        what, size, "%", aim, share, share >= 60, note, {"pass": passes, "copy": copies}
    )


def measure_matrix_rate(n: int, repeats: int) -> Measurement:
    """Operations of ρ's tiles per second, compared with a plain product of the same rows."""
    what, size, aim = "matrix-free form, of the matrix rate", f"N = {n:,}", "≥ 40"
    if not torch.cuda.is_available():
        return not_measured(what, size, "%", aim, "no GPU")
    n_tokens = n
    rows, _ = standardize(grouped_activations(n, n_tokens).cuda(), torch.float16)
    target = MatrixFree(rows)
    positions = torch.randn(n, DIM, device="cuda") / 2
    passes = _seconds_on_gpu(lambda: guttman_transform(positions, target), repeats)
    products = _seconds_on_gpu(lambda: rows @ rows.T, repeats)
    # By symmetry, only half the products are computed.
    rate = n * n * n_tokens / statistics.median(passes)
    most = 2 * n * n * n_tokens / statistics.median(products)
    share = 100 * rate / most
    note = f"{rate / 1e12:.3g} of {most / 1e12:.3g} TFLOP/s in float16, {n_tokens:,} tokens"
    return Measurement(
        what, size, "%", aim, share, share >= 40, note, {"pass": passes, "product": products}
    )


def measure(given: argparse.Namespace) -> list[Measurement]:
    """All rows; prints each when it is measured."""
    rows: list[Measurement] = []

    def add(row: Measurement) -> None:
        rows.append(row)
        value = "" if row.value is None else f" {row.value:,.4g} {row.unit};"
        print(f"  {row.what}, {row.size}:{value} {row.note}", file=sys.stderr, flush=True)

    quick = given.quick
    add(measure_growth(SIZES_OF_GROWTH[:3] if quick else SIZES_OF_GROWTH, given.repeats))
    for n in SIZES_OF_BASELINE[:1] if quick else SIZES_OF_BASELINE:
        add(measure_baseline(n, given.repeats))
    for n in SIZES_OF_BASELINE[:1] if quick else SIZES_OF_OTHERS:
        add(measure_other("pymde", place_by_pymde, n, 10, given.other_repeats))
        add(measure_other("scikit-learn", place_by_sklearn, n, 20, given.other_repeats))
    add(measure_bandwidth(4_864, 24, given.repeats))
    add(measure_bandwidth(18_944, 1, given.repeats))
    add(measure_matrix_rate(18_944, given.repeats))
    return rows


def table(rows: Sequence[Measurement]) -> str:
    """The table as Markdown."""
    lines = ["| what | size | measured | target | |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        value = "–" if row.value is None else f"{row.value:,.4g} {row.unit}".strip()
        mark = ", missed" if row.is_met is False else ""
        lines.append(
            f"| {row.what} | {row.size} | {value} | {row.target} {row.unit}{mark} | {row.note} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write everything as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.positions", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="Repetitions of each measurement.")
    parser.add_argument(
        "--other-repeats",
        type=int,
        default=5,
        help="Repetitions of other packages, which are slow.",
    )
    parser.add_argument("--quick", action="store_true", help="The smallest size only: minutes.")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/benchmarks/positions.json"),
        help="JSON file to write.",
    )
    given = parser.parse_args(arguments)
    machine = describe_machine()
    rows = measure(given)
    print(table(rows))
    write_results(given.out, machine, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
