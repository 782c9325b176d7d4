"""The pipeline: model + corpus → ``Projection``."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from projector.architecture import Architecture
from projector.budget import check_disk, memory_errors
from projector.checkpoint import (
    check_unfinished,
    checkpoint_path,
    load_checkpoint,
    save_checkpoint,
)
from projector.corpus import Batch
from projector.errors import UserError
from projector.faithfulness import Faithfulness, measure
from projector.gathering import Gatherer, HalfStatistics, gather
from projector.interrupt import DeferredInterrupt
from projector.models import BUNDLED, LoadedModel
from projector.preparing import Job, prepare, split_options
from projector.progress import Progress, Silent
from projector.projection import (
    FORMAT,
    FORMAT_VERSION,
    Projection,
    check_out,
    disk_errors,
    map_name,
)
from projector.solvers import Layout, OnlineTrainer, Placement, finish_trained, solve, solve_all
from projector.sources import Document

_CHECKPOINT_EVERY_S = 60.0
# Of a shorter pass no checkpoint is left for one who stops while neurons are placed.
_WORTH_KEEPING_S = 10.0
_VERSIONS_OF = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "numpy",
    "scipy",
    "scikit-learn",
    "umap-learn",
)


def fit(
    model: str | nn.Module | LoadedModel = BUNDLED,
    corpus: str | Iterable[Document] = "stdlib",
    *,
    out: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    tokenizer: Any = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Projection:
    """Fit neuron positions: everything from a model and a corpus to a ``Projection``.

    Args:
        model: ``bundled``, a local folder, a hub id; or a model in memory, with its ``tokenizer``.
        corpus: see :func:`projector.sources.read_documents`, or the documents themselves.
        out: folder to save the projection to; with it, a long fit leaves checkpoints beside it.
        force: replace a projection that is there.
        resume: go on from the checkpoint that a stopped fit left.
        **options: fields of :class:`projector.preparing.FitSettings` and of
            :class:`projector.solvers.Layout`, by name: ``sites``, ``layers``, ``dim``,
            ``objective``, ``solver``, ``seed``, ``max_tokens`` …

    Raises:
        UserError: for anything that can't be fitted.
    """
    settings, layout = split_options(options)
    if out is not None:
        check_out(Path(out), force=force)
        check_unfinished(Path(out), force=force, resume=resume)
    job = prepare(
        model,
        corpus,
        settings,
        layout,
        tokenizer=tokenizer,
        revision=revision,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
    return run(job, out=out, force=force, resume=resume, progress=progress)


def run(
    job: Job,
    *,
    out: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    log_with: str | None = None,
    log_dir: Path | None = None,
) -> Projection:
    """Gather statistics, find positions, measure them, and save where ``out`` is given.

    Args:
        log_with: tracker of the online solver, with ``log_dir`` for its files.

    Raises:
        UserError: if memory or disk do not suffice.
    """
    progress = progress or Silent()
    folder = None if out is None else Path(out)
    if folder is not None:
        check_out(folder, force=force)
        check_unfinished(folder, force=force, resume=resume)
        check_disk(job.disk_bytes, folder)
    with memory_errors(*job.widest):
        gatherer = make_gatherer(job, log_with, log_dir)
        _gather(job, gatherer, folder, resume, progress)
        projection = _finish(job, gatherer, progress)
    if folder is not None:
        projection.save(folder, force=force)
        checkpoint_path(folder).unlink(missing_ok=True)
    return projection


def make_gatherer(job: Job, log_with: str | None = None, log_dir: Path | None = None) -> Gatherer:
    """The gatherer of a job, with a trainer where its positions are trained online."""
    layout = job.layout
    trainer = None
    if layout.method == "adamw":
        trainer = OnlineTrainer(
            layout.dim,
            objective=layout.objective,
            start=layout.start,
            lr=layout.lr,
            p=layout.p,
            accumulate=layout.accumulate,
            seed=layout.seed,
            device=next(job.trunk.parameters()).device,
            log_with=log_with,
            log_dir=log_dir,
        )
    return Gatherer(
        job.trunk,
        job.architecture.taps(job.sites, job.layers),
        job.widths,
        job.corpus.n_sequences,
        correlation=job.settings.correlation,
        trainer=trainer,
        absolute=layout.absolute,
    )


def _gather(
    job: Job, gatherer: Gatherer, folder: Path | None, resume: bool, progress: Progress
) -> None:
    n_done = 0
    path = None if folder is None else checkpoint_path(folder)
    run_facts = _run_facts(job)
    if resume:
        if path is None:
            raise UserError("there is nothing to resume without an output folder")
        checkpoint = load_checkpoint(path, run_facts)
        gatherer.load_state(checkpoint.tensors)
        n_done = checkpoint.n_batches
    began = saved_at = time.monotonic()

    def save(n_batches: int) -> None:
        nonlocal saved_at
        if path is not None:
            with disk_errors(path):
                save_checkpoint(path, gatherer.state(), run_facts, n_batches)
            saved_at = time.monotonic()

    def after_batch(n_batches: int, batch: Batch) -> None:
        progress.advance(batch.n_tokens)
        if interrupt.is_asked or time.monotonic() - saved_at >= _CHECKPOINT_EVERY_S:
            save(n_batches)
        if interrupt.is_asked:
            raise KeyboardInterrupt

    progress.begin("Running the model", job.corpus.n_tokens, "tokens")
    n_before = sum(
        batch.n_tokens
        for number, batch in enumerate(job.corpus.batches(job.settings.batch_size))
        if number < n_done
    )
    progress.advance(n_before)
    # Between two batches, not within one: half a batch counted in can't be gone on from.
    with DeferredInterrupt() as interrupt:
        gather(
            gatherer, job.corpus, job.settings.batch_size, n_done=n_done, after_batch=after_batch
        )
    if time.monotonic() - began >= _WORTH_KEEPING_S:
        save(math.ceil(job.corpus.n_sequences / job.settings.batch_size))
    progress.end()
    if gatherer.trainer is not None:
        gatherer.trainer.close()


def _run_facts(job: Job) -> dict[str, Any]:
    """What two runs must share for one to go on from the other's checkpoint."""
    return {
        "model": job.loaded.weights_sha256,
        "corpus": job.corpus.sha256,
        "tokens": job.corpus.n_tokens,
        "sites": job.sites,
        "layers": job.layers,
        "sequence_length": job.sequence_length,
        "packed": job.packed,
        "skip_first": job.corpus.skip_first,
        "batch_size": job.settings.batch_size,
        "correlation": job.settings.correlation,
        "layout": asdict(job.layout),
        "dtype": str(next(job.trunk.parameters()).dtype).removeprefix("torch."),
        "device": next(job.trunk.parameters()).device.type,
        "threads": torch.get_num_threads(),
    }


@dataclass
class _Result:
    positions: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)
    maps: dict[str, dict[str, Any]] = field(default_factory=dict)


def _finish(job: Job, gatherer: Gatherer, progress: Progress) -> Projection:
    """Positions and figures of every map, one map after another."""
    trained = gatherer.trainer.positions() if gatherer.trainer is not None else {}
    result = _Result()
    progress.begin("Placing neurons", len(gatherer.halves), "maps")
    for key in list(gatherer.halves):
        first, second = gatherer.halves.pop(key)
        name = map_name(*key)
        parts = (first.correlation().float(), second.correlation().float())
        first.merge(second)
        whole = first
        correlation = whole.correlation().float()
        if gatherer.trainer is None:
            placement, *of_halves = solve_all([correlation, *parts], job.layout)
            half_positions = (of_halves[0].positions, of_halves[1].positions)
            faithfulness = measure(
                placement.positions, correlation, job.layout, parts, half_positions
            )
        else:
            placement = _placement_of(trained[name], correlation, job.layout)
            faithfulness = measure(
                placement.positions,
                correlation,
                job.layout,
                parts,
                no_halves="adamw trains one map, over the whole corpus",
            )
        result.positions[name] = placement.positions.cpu()
        result.maps[name] = _map_facts(whole, correlation, placement, faithfulness)
        if job.settings.keep_statistics:
            result.statistics[f"{name}.mean"] = whole.covariance.mean.float().cpu()
            result.statistics[f"{name}.covariance"] = whole.covariance.covariance().float().cpu()
            if job.settings.correlation == "per-sequence":
                result.statistics[f"{name}.correlation"] = correlation.cpu()
        progress.advance(1)
    progress.end()
    return Projection(_facts(job, result.maps), result.positions, result.statistics)


def _placement_of(points: Tensor, correlation: Tensor, layout: Layout) -> Placement:
    alive = correlation.diagonal().isfinite()
    positions = torch.full_like(points, torch.nan)
    positions[alive] = finish_trained(points[alive], layout)
    return Placement(positions)


def _map_facts(
    statistics: HalfStatistics,
    correlation: Tensor,
    placement: Placement,
    faithfulness: Faithfulness,
) -> dict[str, Any]:
    covariance = statistics.covariance
    broken = covariance.is_broken.nonzero()[:, 0].tolist()
    # Without variance; where correlations are per-sequence, without any within a sequence.
    dead = ~correlation.diagonal().isfinite() & ~covariance.is_broken
    facts: dict[str, Any] = {
        "n_neurons": covariance.n_neurons,
        "n_tokens": covariance.n_tokens,
        "dead_neurons": dead.nonzero()[:, 0].tolist(),
        # JSON has string keys only: neuron → how often it was NaN or infinite.
        "nonfinite_neurons": {str(i): int(covariance.n_nonfinite[i]) for i in broken},
        "n_tokens_left_out": covariance.n_left_out,
        **faithfulness.as_dict(),
    }
    return facts | _arrangement_facts(placement)


def _arrangement_facts(placement: Placement) -> dict[str, Any]:
    found = placement.arrangement
    if found is None:
        return {}
    return {
        "arrangement_cost": {
            "spectral": found.spectral_cost,
            "leaf": found.leaf_cost,
            "final": found.cost,
            "random": found.random_cost,
        }
    }


def _facts(job: Job, maps: dict[str, dict[str, Any]]) -> dict[str, Any]:
    corpus = job.corpus
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": model_facts(job.loaded, job.architecture),
        "corpus": {
            "source": corpus.source,
            "sha256": corpus.sha256,
            "n_tokens": corpus.n_tokens,
            "n_tokens_available": corpus.n_available,
            "n_sequences": corpus.n_sequences,
            "sequence_length": job.sequence_length,
            "packed": job.packed,
            "skip_first": corpus.skip_first,
            "notes": list(corpus.notes),
        },
        "sites": job.sites,
        "layers": job.layers,
        "left_out_sites": job.left_out,
        "correlation": job.settings.correlation,
        "layout": {**asdict(job.layout), "method": job.layout.method},
        "maps": maps,
        "versions": versions(),
    }


def model_facts(loaded: LoadedModel, architecture: Architecture) -> dict[str, Any]:
    """What a projection says of its model."""
    return {
        "id": loaded.identifier,
        "sha256": loaded.weights_sha256,
        "dtype": str(next(loaded.model.parameters()).dtype).removeprefix("torch."),
        "is_causal": architecture.is_causal,
        "n_layers": len(architecture.blocks),
    }


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    return {
        "python": platform.python_version(),
        "transformer-projector": importlib.metadata.version("transformer-projector"),
        **{name: importlib.metadata.version(name) for name in _VERSIONS_OF},
    }


def relayout(
    projection: Projection, layout: Layout, *, progress: Progress | None = None
) -> Projection:
    """New positions from a projection's saved correlations, without the model.

    The stability of the new map is unknown: the halves of the corpus were not kept.

    Raises:
        UserError: if the projection was saved without statistics.
    """
    progress = progress or Silent()
    positions: dict[str, Tensor] = {}
    maps: dict[str, dict[str, Any]] = {}
    keep = ("n_neurons", "n_tokens", "dead_neurons", "nonfinite_neurons", "n_tokens_left_out")
    progress.begin("Placing neurons", len(projection.maps), "maps")
    for layer, site in projection.maps:
        name = map_name(layer, site)
        correlation = projection.correlation(layer, site)
        with memory_errors(layer, site, correlation.shape[0]):
            placement = solve(correlation, layout)
            faithfulness = measure(
                placement.positions,
                correlation,
                layout,
                no_halves="the halves of the corpus were not kept",
            )
        positions[name] = placement.positions
        old = projection.figures(layer, site)
        kept = {k: old[k] for k in keep}
        maps[name] = kept | faithfulness.as_dict() | _arrangement_facts(placement)
        progress.advance(1)
    progress.end()
    facts = projection.facts | {
        "layout": {**asdict(layout), "method": layout.method},
        "maps": maps,
        "versions": versions(),
    }
    return Projection(facts, positions, projection.statistics)
