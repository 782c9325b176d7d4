"""Estimate the time of a fit by timing parts of it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import torch

from projector.fitting.preparing import Job
from projector.fitting.running import make_gatherer, make_trainings
from projector.layouts.settings import Layout
from projector.memory import memory_errors
from projector.model.capture import evaluating
from projector.model.loading import input_device
from projector.statistics.cross_layer.plan import seconds_of_products

# The whole corpus and its two halves.
_FITS_PER_MAP = 3


@dataclass(frozen=True)
class Estimate:
    """The estimated work of a fit. ``seconds`` comes from a trial on this machine.

    Attributes:
        partner_seconds: the part of ``seconds`` for partners across layers; 0 if they aren't
            requested.
    """

    n_tokens: int
    seconds: float
    disk_bytes: int
    memory_bytes: int
    partner_seconds: float = 0.0


def estimate(job: Job) -> Estimate:
    """Estimate the time of a fit by timing a batch and a pass of the solver."""
    batch = next(job.corpus.batches(job.settings.batch_size))
    with memory_errors(*job.widest):
        gatherer = make_gatherer(job, job.plan.passes[0], make_trainings(job))
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
    # Of each size one is timed.
    alike = Counter((n, job.plan.samples.get(key)) for key, n in job.widths.items())
    for (n_neurons, n_drawn), n_maps in alike.items():
        one = sum(_seconds_to_place(each, n_neurons, n_drawn, device) for each in job.layouts)
        seconds += _FITS_PER_MAP * n_maps * one
    n_bytes, of_partners = job.plan.n_bytes, 0.0
    if job.cross_layer is not None:
        of_partners = seconds_of_partners(job)
        n_bytes = max(n_bytes, job.cross_layer.n_bytes)
    seconds += of_partners
    return Estimate(job.corpus.n_tokens, seconds, job.disk_bytes, n_bytes, of_partners)


def seconds_of_partners(job: Job) -> float:
    """Estimate the time for partners across layers by timing a batch and a product."""
    plan = job.cross_layer
    assert plan is not None
    batches = plan.corpus.batches(job.settings.batch_size)
    # A sequence first, as in a fit.
    trial = [next(plan.corpus.batches(1)), next(batches)]
    device = input_device(job.trunk)
    with memory_errors(*job.widest), torch.no_grad(), evaluating(job.trunk):
        for batch in trial:
            _wait(device)
            began = time.monotonic()
            job.trunk(
                input_ids=batch.input_ids.to(device),
                attention_mask=batch.attention_mask.to(device),
            )
            _wait(device)
        seconds = (time.monotonic() - began) * plan.corpus.n_tokens / max(batch.n_tokens, 1)
        return seconds + seconds_of_products(plan, device)


def _wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds_to_place(
    layout: Layout, n_neurons: int, n_drawn: int | None, device: torch.device
) -> float:
    """One map, from its matrix or from a sample of ``n_drawn`` tokens."""
    if n_drawn is None:
        return layout.how.seconds(n_neurons, layout, device)
    sampled = layout.how.seconds_sampled
    return 0.0 if sampled is None else sampled(n_neurons, n_drawn, device)
