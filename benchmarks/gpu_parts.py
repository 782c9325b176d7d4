"""The parts of ``python -m benchmarks.gpu``, with their plans and measurements.

Each runs in a separate process and reports a figure as soon as it is measured, so that a part that
fails or takes too long loses only later figures.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.fit import MOST_RATIO, fit_seconds, forward_seconds, qwen_shaped
from benchmarks.gpu_rows import TOY, Part, Row, Sizes, Unmeasurable
from benchmarks.made_up import made_up_texts
from projector.statistics.correlations import Correlations, MatrixFree

ROOT = Path(__file__).parents[1]
DIM = 3
# Shares of copy bandwidth and of the matrix rate that the kernels should reach.
LEAST_OF_BANDWIDTH, LEAST_OF_RATE = 0.6, 0.4
# Stages of a fit that take less are not reported.
_LEAST_TOLD_S = 0.005
INTERPRETED = "tests/projector/layouts/kernels/interpreted_triton.py"


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the device, by its clock."""
    if device.type != "cuda":
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def _side_by_side(
    runs: Sequence[Callable[[], Any]], repeats: int, device: torch.device
) -> list[list[float]]:
    """Seconds of each, in turns, so that all run under the same load; first turns don't count."""
    found: list[list[float]] = [[] for _ in runs]
    for i in range(repeats + 2):
        for values, run in zip(found, runs, strict=True):
            seconds = _seconds(run, device)
            if i >= 2:
                values.append(seconds)
    return found


def _triton_forms() -> Any:
    """The module of the kernels.

    Raises:
        Unmeasurable: if there is neither a GPU nor Triton's interpreter.
    """
    if find_spec("triton") is None:
        raise Unmeasurable("no Triton here")
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        raise Unmeasurable("no GPU, and TRITON_INTERPRET=1 is not set")
    from projector.layouts.kernels import triton_forms

    return triton_forms


def _plan_kernels(sizes: Sizes) -> list[Row]:
    rows = [
        Row("kernels", "copy bandwidth", f"{4 * sizes.n_copied:,} bytes", "TB/s"),
        Row("kernels", "matrix rate in float16", f"N = {sizes.n_matrix:,}", "TFLOP/s"),
    ]
    for n, n_maps in sizes.stored:
        size = f"N = {n:,} × {n_maps}"
        rows.append(Row("kernels", "stored correlations, a pass", size, "ms"))
        what = "stored correlations, of copy bandwidth"
        rows.append(Row("kernels", what, size, "×", target=LEAST_OF_BANDWIDTH))
    size = f"N = T = {sizes.n_free:,}"
    rows.append(Row("kernels", "matrix-free, a pass", size, "ms"))
    rows.append(Row("kernels", "matrix-free, of the matrix rate", size, "×", target=LEAST_OF_RATE))
    return rows


def _measure_kernels(sizes: Sizes, until: float) -> Iterator[Row]:
    device = _device()
    source = torch.rand(sizes.n_copied, device=device)
    into = torch.empty_like(source)
    half = torch.rand(sizes.n_matrix, sizes.n_matrix, device=device).half()

    def copy() -> Any:
        return into.copy_(source)

    def product() -> Any:
        return half @ half

    copies, products = _side_by_side([copy, product], sizes.repeats, device)
    plan = iter(_plan_kernels(sizes))
    n_bytes, n_operations = 8 * sizes.n_copied, 2 * sizes.n_matrix**3
    yield next(plan).measured([n_bytes / s / 1e12 for s in copies])
    yield next(plan).measured([n_operations / s / 1e12 for s in products])
    kernels = _triton_forms()
    for n, n_maps in sizes.stored:
        matrices = [torch.rand(n, n, device=device) for _ in range(n_maps)]
        points = [torch.randn(n, DIM, device=device) / 2 for _ in range(n_maps)]
        targets = [Correlations(matrix) for matrix in matrices]

        def stored(points: Any = points, targets: Any = targets) -> Any:
            return kernels.transform_stored(points, targets)

        passes, copies = _side_by_side([stored, copy], sizes.repeats, device)
        yield next(plan).measured([1e3 * s for s in passes])
        read = 4 * n_maps * n * n
        pairs = zip(passes, copies, strict=True)
        yield next(plan).measured([read / a / (n_bytes / b) for a, b in pairs])
        del matrices, targets, stored
    n = sizes.n_free
    rows = torch.randn(n, n, device=device)
    rows = (rows - rows.mean(dim=1, keepdim=True)) / rows.std(dim=1, correction=0, keepdim=True)
    sample, point = MatrixFree(rows.half()), torch.randn(n, DIM, device=device) / 2
    free = [lambda: kernels.transform_matrix_free(point, sample), product]
    passes, products = _side_by_side(free, sizes.repeats, device)
    yield next(plan).measured([1e3 * s for s in passes])
    # By symmetry half the products are computed.
    pairs = zip(passes, products, strict=True)
    yield next(plan).measured([n**3 / a / (n_operations / b) for a, b in pairs])


def _plan_tests(sizes: Sizes) -> list[Row]:
    return [
        Row("tests", "tests marked gpu that fail", "", "tests", target=0, is_least=False),
        Row("tests", "tests marked gpu that pass", "", "tests", target=1),
    ]


def _measure_tests(sizes: Sizes, until: float) -> Iterator[Row]:
    """Those marked ``gpu``; at toy sizes without a GPU, those of the interpreted kernels."""
    if torch.cuda.is_available():
        # Of all files, those alone: the others would only be imported.
        paths = (ROOT / "tests").rglob("test_*.py")
        chosen = [str(p) for p in paths if "mark.gpu" in p.read_text(encoding="utf-8")]
        chosen += ["-m", "gpu"]
    elif sizes is TOY:
        _triton_forms()
        chosen = [str(ROOT / INTERPRETED), "-k", "7"]
    else:
        raise Unmeasurable("no GPU")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += [f"--junitxml={report}", *chosen]
        # What it says is for people who watch.
        subprocess.run(
            command,
            cwd=ROOT,
            stdout=sys.stderr,
            timeout=max(1.0, until - time.monotonic()),
            check=False,
        )
        if not report.exists():
            raise Unmeasurable("pytest wrote no report")
        n_passed, failed, n_skipped = count_tests(report.read_text(encoding="utf-8"))
    plan = _plan_tests(sizes)
    note = f"{n_skipped} skipped" if n_skipped else ""
    yield plan[0].measured([len(failed)], ", ".join(failed))
    yield plan[1].measured([n_passed], note)


def count_tests(report: str) -> tuple[int, list[str], int]:
    """The numbers of passed and skipped tests, and the failed tests, from pytest's XML."""
    n_passed, failed, n_skipped = 0, [], 0
    for case in ET.fromstring(report).iter("testcase"):
        children = {child.tag for child in case}
        if children & {"failure", "error"}:
            failed.append(case.attrib["name"])
        elif "skipped" in children:
            n_skipped += 1
        else:
            n_passed += 1
    return n_passed, failed, n_skipped


def _plan_fit(sizes: Sizes) -> list[Row]:
    size = f"{sizes.layers} layers × {sizes.neurons:,}, {sizes.n_tokens:,} tokens"
    return [
        Row("fit", "bare forward passes", size, "s"),
        Row("fit", "whole fit", size, "s"),
        Row("fit", "whole fit, of the forward passes", size, "×", (), MOST_RATIO, False),
        Row("fit", "memory of the device at most", size, "GB"),
    ]


def _measure_fit(sizes: Sizes, until: float) -> Iterator[Row]:
    """Between two runs of the bare forward passes each; the first fit compiles and doesn't count.

    It ends when another would not be done in time.
    """
    device = _device()
    loaded = qwen_shaped(sizes, device)
    texts = made_up_texts(sizes.n_tokens)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        job, _ = fit_seconds(lambda: loaded, sizes.n_tokens, texts)
    # Such as that Triton's kernels can't be used here.
    note = "; ".join(str(one.message) for one in told if "Triton" in str(one.message))
    before = forward_seconds(job)
    bare: list[float] = []
    whole: list[float] = []
    stages: dict[str, list[float]] = {}
    plan = _plan_fit(sizes)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(sizes.fits):
        began = time.monotonic()
        job, seconds = fit_seconds(lambda: loaded, sizes.n_tokens, texts)
        after = forward_seconds(job)
        bare.append((before + after) / 2)
        before = after
        whole.append(sum(seconds.values()))
        for stage, value in seconds.items():
            if value >= _LEAST_TOLD_S:
                stages.setdefault(stage, []).append(value)
        # A later row with the same name replaces the earlier one.
        yield plan[0].measured(bare)
        where = ", ".join(f"{stage} {statistics.median(s):.2f}" for stage, s in stages.items())
        yield plan[1].measured(whole, where)
        yield plan[2].measured([a / b for a, b in zip(whole, bare, strict=True)], note)
        if device.type == "cuda":
            yield plan[3].measured([torch.cuda.max_memory_allocated() / 1e9])
        if time.monotonic() + 1.3 * (time.monotonic() - began) > until:
            break
    if device.type != "cuda":
        raise Unmeasurable("no GPU")


PARTS = (
    Part("kernels", 60.0, _plan_kernels, _measure_kernels),
    Part("tests", 60.0, _plan_tests, _measure_tests),
    Part("fit", 90.0, _plan_fit, _measure_fit),
)
