"""How long a fit will take, found by trying a piece of it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import torch

from projector.fitting.pipeline import make_gatherer
from projector.fitting.preparing import Job
from projector.layouts.kernels import Correlations, MatrixFree, guttman_transform
from projector.layouts.solving import Layout
from projector.memory import memory_errors

# Passes that smacof takes on maps of trained models, about.
_USUAL_PASSES = 50
# The whole corpus and its two halves.
_FITS_PER_MAP = 3


@dataclass(frozen=True)
class Estimate:
    """How much work a fit is. ``seconds`` comes from a trial on this machine."""

    n_tokens: int
    seconds: float
    disk_bytes: int
    memory_bytes: int


def estimate(job: Job) -> Estimate:
    """Time a batch and a pass of the solver, and reckon the whole from them."""
    batch = next(job.corpus.batches(job.settings.batch_size))
    with memory_errors(*job.widest):
        gatherer = make_gatherer(job, job.plan.passes[0])
        # The first run is slower: it allocates, and on a GPU loads kernels. A sequence will do.
        gatherer.run(next(job.corpus.batches(1)), 0)
        device = gatherer.device
        _wait(device)
        began = time.monotonic()
        gatherer.run(batch, 0)
        _wait(device)
    seconds = (time.monotonic() - began) * job.corpus.n_tokens / batch.n_tokens
    seconds *= len(job.plan.passes)
    del gatherer
    if job.layout.method != "adamw":
        # Of each size one is timed.
        alike = Counter((n, job.plan.samples.get(key)) for key, n in job.widths.items())
        for (n_neurons, n_drawn), n_maps in alike.items():
            one = (
                _seconds_per_fit(n_neurons, job.layout, device)
                if n_drawn is None
                else _seconds_without_matrix(n_neurons, n_drawn, device)
            )
            seconds += _FITS_PER_MAP * n_maps * one
    return Estimate(job.corpus.n_tokens, seconds, job.disk_bytes, job.plan.n_bytes)


def _wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds_per_fit(n: int, layout: Layout, device: torch.device) -> float:
    """One map of n neurons: timed where a pass is cheap, else scaled from 768 on two cores."""
    if layout.method == "umap":
        return 6 * (n / 768) ** 1.2
    if layout.method == "moves":
        return 1.5 * (n / 768) ** 2.3
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(n, layout.dim, generator=generator).to(device)
    target = Correlations(torch.rand(n, n, generator=generator).to(device))
    guttman_transform(points, target)
    began = time.monotonic()
    guttman_transform(points, target)
    return _USUAL_PASSES * (time.monotonic() - began)


def _seconds_without_matrix(n: int, n_tokens: int, device: torch.device) -> float:
    """The same where correlations are computed from a sample, which is most of the work.

    One block of rows is timed, on fewer tokens. A pass uses symmetry, and halves have half the
    tokens: three fits are two of this.
    """
    n_trial, n_rows = min(n_tokens, 1024), min(n, 256)
    target = MatrixFree(torch.zeros(n, n_trial, dtype=torch.float16, device=device))
    target.correlation(slice(0, n_rows), slice(0, n))
    _wait(device)
    began = time.monotonic()
    target.correlation(slice(0, n_rows), slice(0, n))
    _wait(device)
    one = (time.monotonic() - began) * (n / n_rows) * (n_tokens / n_trial) / 2
    return _USUAL_PASSES * one * 2 / 3
