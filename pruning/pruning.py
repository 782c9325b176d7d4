"""Make one pruned model, from a name to a checkpoint on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from projector.corpus.batches import Corpus
from projector.corpus.sources import read_documents
from projector.errors import check_least
from projector.memory import give_back
from projector.model.architecture.records import Architecture
from projector.model.hashing import hash_checkpoint
from projector.model.loading import LoadedModel
from projector.progress import Progress, Silent
from projector.storage.resuming import Step, Work, decide, told_difference
from pruning.calibration.budget import pruning_memory
from pruning.calibration.text import CalibrationText, read_calibration
from pruning.layerwise.budget import Needs, check_disk, needs_of, within
from pruning.layerwise.cutting import cut_model
from pruning.layerwise.files import LayerFiles
from pruning.layerwise.recipes import Recipe
from pruning.methods.method import Proposals
from pruning.methods.plan import PLAN_FILE
from pruning.methods.planning import check_projection, reads_projection
from pruning.poles.poles import PoleSettings
from pruning.preparing import (
    calibration_facts,
    check_possible,
    load_own,
    load_prunable,
    origin_of,
    pruning_versions,
    read_proposals,
)
from pruning.refit.reconstruction import products_in
from pruning.refit.registry import REFITS
from pruning.saving import Saved, check_out, load_facts, load_plan, save_pruned
from pruning.settings import PruneSettings
from pruning.surgery import count_parameters, round_weights

# Facts that a user sets, by the names of arguments.
_SETTINGS = ("device", "dtype", *(each.name for each in fields(PruneSettings)))


@dataclass(frozen=True)
class Pruned:
    """The result of pruning a model."""

    saved: Saved
    settings: PruneSettings
    n_parameters_before: int
    n_parameters: int
    widths: list[int]

    @property
    def removed_share(self) -> float:
        """Share of all parameters that were removed."""
        return 1 - self.n_parameters / self.n_parameters_before

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = {
            "model": str(self.saved.folder),
            "weights_sha256": self.saved.weights_sha256,
            **asdict(self.settings),
            "parameters_before": self.n_parameters_before,
            "parameters": self.n_parameters,
            "removed_share": self.removed_share,
            "widths": self.widths,
            "greatest_difference": self.saved.greatest_difference,
            "tokenizer_differs": self.saved.tokenizer_differs,
        }
        # A finished run isn't compared again.
        unknown = ("greatest_difference", "tokenizer_differs")
        return {k: v for k, v in found.items() if v is not None or k not in unknown}


@dataclass
class _Job:
    """One run, prepared: all that can be refused has been looked at."""

    loaded: LoadedModel
    architecture: Architecture
    corpus: Corpus
    settings: PruneSettings
    recipe: Recipe
    proposals: tuple[Proposals, ...] | None
    facts: dict[str, Any]
    progress: Progress


def prune_model(
    model: str,
    settings: PruneSettings,
    out: Path,
    *,
    calibration: str,
    projection: Path | None = None,
    sequence_length: int | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    memory_budget: int | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    tell: Callable[[Needs | Step], None] | None = None,
) -> Pruned:
    """Load, calibrate, plan, prune, refit, save, load again and compare.

    Each layer is planned and refitted while its moments are in memory, and kept next to ``out``
    until all layers are done. Weights are cut in place, and saved in the dtype of the loaded
    checkpoint.

    Args:
        model: ``bundled``, a local folder, a ``.gguf`` file, or a hub id.
        settings: the method, the share of neurons to remove, and the refit.
        out: folder for the pruned checkpoint.
        calibration: the text to measure activations on; see
            :func:`projector.corpus.sources.read_documents`.
        projection: folder of the model's projection, for methods that read one.
        sequence_length: tokens per calibration sequence; None for 256, or the model's maximum if
            that is less.
        revision: branch, tag or commit of a hub model.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        dtype: dtype that the model computes in: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        trust_remote_code: run the code that comes with the model.
        memory_budget: bytes it may take in addition to the loaded model; None for all free memory,
            minus a margin.
        resume, force: see :func:`projector.storage.resuming.decide`.
        progress: receives progress reports; None for none.
        tell: called before the work begins, with the next step and the memory that it needs.

    Raises:
        UserError: for any invalid setting or input. Nothing is left half-written.
    """
    progress = progress or Silent()
    read_documents(calibration)
    check_projection((settings.method,), is_given=projection is not None)
    check_least("memory_budget", memory_budget, 1)
    check_out(out, force=force or resume)
    progress.begin("Loading the model", None, "")
    loaded, architecture = load_prunable(
        model,
        revision=revision,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )
    job = _prepare(
        loaded, architecture, settings, calibration, projection, sequence_length, progress
    )
    files = _files(job, out)
    step = _next_step(job, files, out, resume=resume, force=force)
    if tell is not None:
        tell(step)
    if step is Step.LEAVE:
        return _finished(job, out)
    needs = within(needs_of(loaded.model, architecture, job.corpus, [job.recipe]), memory_budget)
    if tell is not None:
        tell(needs)
    check_disk(needs, files.folder)
    replaces = force or step is Step.GO_ON
    with files.alone():
        if step is Step.START:
            files.remove()
        files.begin()
        return _work(job, files, needs, out, force=replaces, trust_remote_code=trust_remote_code)


def _work(
    job: _Job, files: LayerFiles, needs: Needs, out: Path, *, force: bool, trust_remote_code: bool
) -> Pruned:
    """Plan, cut, refit, save, load again and compare."""
    loaded, settings = job.loaded, job.settings
    n_before = count_parameters(loaded.model)
    with pruning_memory(job.architecture):
        plan, pruned = cut_model(
            loaded.model,
            job.architecture,
            job.corpus,
            job.recipe,
            files,
            n_steps=settings.n_steps,
            seed=settings.seed,
            proposals=job.proposals,
            spilled=needs.spilled,
            progress=job.progress,
        )
    give_back()
    job.progress.begin("Saving, and loading again", None, "")
    round_weights(pruned, loaded.stored_dtype)
    n_after = count_parameters(pruned)
    saved = save_pruned(
        pruned,
        loaded.tokenizer,
        plan,
        {**job.facts, "parameters_before": n_before, "parameters": n_after},
        out,
        dtype=loaded.stored_dtype,
        force=force,
        trust_remote_code=trust_remote_code,
    )
    files.remove()
    job.progress.end()
    return Pruned(saved, settings, n_before, n_after, plan.widths)


def layers_path(out: Path) -> Path:
    """The folder next to ``out`` that keeps layers until the pruned model is written."""
    whole = out.resolve()
    return whole.with_name(f"{whole.name}.layers")


def _prepare(
    loaded: LoadedModel,
    architecture: Architecture,
    settings: PruneSettings,
    calibration: str,
    projection: Path | None,
    sequence_length: int | None,
    progress: Progress,
) -> _Job:
    check_possible(
        loaded, architecture, settings.allocation, method=settings.method, refit=settings.refit
    )
    proposals, poles = _read_projection(projection, settings, loaded, architecture, progress)
    text = read_calibration(
        calibration,
        loaded,
        architecture,
        sequence_length=sequence_length,
        n_sequences=settings.n_sequences,
        progress=progress,
    )
    corpus = text.draw(settings.n_sequences, settings.seed)
    recipe = Recipe(
        settings.method,
        settings.refit,
        settings.sparsity,
        settings.allocation,
        settings.round_to,
    )
    recipe.check(loaded.model, architecture, corpus, has_proposals=proposals is not None)
    facts = _facts(loaded, text, corpus, settings, projection, poles)
    # Free the many small allocations of reading before layers take memory.
    del text
    give_back()
    return _Job(loaded, architecture, corpus, settings, recipe, proposals, facts, progress)


def _files(job: _Job, out: Path) -> LayerFiles:
    first = next(job.loaded.model.parameters())
    computed = {"device": first.device.type, "dtype": str(first.dtype).removeprefix("torch.")}
    facts = {**_compared(job.facts), **computed}
    files = LayerFiles(layers_path(out), facts, [job.recipe], settings=_SETTINGS)
    files.check_place()
    return files


def _compared(facts: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has them, settings by their own names."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(facts)))
    settings = plain.pop("settings", {})
    # What came of a setting stands under its name too.
    came = {f"{name} used" if name in settings else name: each for name, each in plain.items()}
    return {**settings, **came}


def _next_step(job: _Job, files: LayerFiles, out: Path, *, resume: bool, force: bool) -> Step:
    """The next step, from what the folder holds: see :func:`projector.storage.resuming.decide`."""
    unfinished = finished = None
    if files.is_begun:
        unfinished = Work(str(files.folder), files.difference())
    if resume and (out / PLAN_FILE).exists():
        theirs = {k: v for k, v in load_facts(out).items() if k in job.facts}
        difference = told_difference(_compared(theirs), _compared(job.facts), settings=_SETTINGS)
        finished = Work(str(out), difference)
    return decide(unfinished, finished, resume=resume, force=force, what="run")


def _finished(job: _Job, out: Path) -> Pruned:
    """The pruned model that ``out`` holds already."""
    facts, plan = load_facts(out), load_plan(out)
    saved = Saved(out.resolve(), hash_checkpoint(out), None, None)
    n_before, n_after = (int(facts[name]) for name in ("parameters_before", "parameters"))
    return Pruned(saved, job.settings, n_before, n_after, plan.widths)


def _read_projection(
    projection: Path | None,
    settings: PruneSettings,
    loaded: LoadedModel,
    architecture: Architecture,
    progress: Progress,
) -> tuple[tuple[Proposals, ...] | None, PoleSettings | None]:
    """Candidates for stand-ins, and how poles were found; None if no method needs them."""
    if projection is None:
        return None, None
    if not reads_projection((settings.method,)):
        # A projection of another model is refused also if no method needs it.
        load_own(projection, loaded)
        return None, None
    progress.begin("Finding poles", None, "")
    return read_proposals(projection, loaded, architecture, settings.poles)


def _facts(
    loaded: LoadedModel,
    text: CalibrationText,
    corpus: Corpus,
    settings: PruneSettings,
    projection: Path | None,
    poles: PoleSettings | None,
) -> dict[str, Any]:
    """A plan's origin: every field of the settings, and what the fields refer to."""
    training = {
        "n_steps": settings.n_steps,
        "products_in": products_in(next(loaded.model.parameters()).device),
    }
    origin: dict[str, Any] = {"projection": None}
    if poles is not None and projection is not None:
        origin = origin_of(projection).facts()
    return {
        "settings": asdict(settings),
        "refit": {"kind": settings.refit, **(training if REFITS[settings.refit].trains else {})},
        "model": {"id": loaded.identifier, "sha256": loaded.weights_sha256},
        "calibration": {
            **calibration_facts(text),
            "n_sequences": corpus.n_sequences,
            "n_tokens": corpus.n_tokens,
        },
        **origin,
        "poles": None if poles is None else asdict(poles),
        "versions": pruning_versions(),
    }
