"""The provenance of a fit: the subject of its projection, and the facts that identify its run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from projector.fitting.preparing import Job
from projector.fitting.settings import setting_names
from projector.model.loading import LoadedModel, input_device
from projector.projection.facts import CorpusFacts, Facts, MapFacts
from projector.projection.overview import Overview
from projector.projection.provenance import dtype_name, layout_settings, model_facts, versions
from projector.settings import compared
from projector.storage.resuming import told_difference


def projection_facts(job: Job, maps: Mapping[str, MapFacts]) -> Facts:
    """The facts of a projection; ``maps`` holds the facts of its maps."""
    corpus = job.corpus
    return Facts(
        model=model_facts(job.loaded, job.architecture),
        corpus=CorpusFacts(
            source=corpus.source,
            sha256=corpus.sha256,
            n_tokens=corpus.n_tokens,
            n_tokens_available=corpus.n_available,
            n_sequences=corpus.n_sequences,
            sequence_length=job.sequence_length,
            packed=job.packed,
            skip_first=corpus.skip_first,
            notes=tuple(corpus.notes),
        ),
        sites=tuple(job.sites),
        layers=tuple(job.layers),
        left_out_sites=dict(job.left_out),
        correlation=job.settings.correlation,
        maps=dict(maps),
        run=settings_facts(job),
        versions=versions(),
    )


def settings_facts(job: Job) -> dict[str, Any]:
    """The settings that identify a run on any machine, as JSON values.

    It includes every field of the settings and of the layouts, except those that may differ between
    equal runs. For settings that were left open, it has the chosen values.
    """
    facts = {
        "model": job.loaded.weights_sha256,
        "corpus": job.corpus.sha256,
        "dtype": dtype_name(job.trunk),
        **compared(job.settings),
        **{name: value for name, value in job.chosen.items() if name in compared(job.settings)},
        # Their order too: the first is the projection's first.
        "layouts": ",".join(layout.name for layout in job.layouts),
        "layout": {layout.name: compared(layout) for layout in job.layouts},
        # Another tokenizer, or another way to compute with the same weights, is another run.
        "tokenization": job.corpus.ids_sha256,
        "config": _config_sha256(job.loaded),
    }
    found: dict[str, Any] = json.loads(json.dumps(facts))
    return found


def run_facts(job: Job, n_processes: int) -> dict[str, Any]:
    """The facts that must match for one run to resume from another's checkpoint."""
    return {
        **settings_facts(job),
        "number_of_processes": n_processes,
        "device": input_device(job.trunk).type,
        "version": versions(),
    }


def fact_words(job: Job) -> dict[str, str]:
    """Words for the facts of a run that are hashes."""
    return {"model": job.loaded.identifier, "corpus": job.corpus.source}


def run_difference(
    theirs: Mapping[str, Any],
    ours: Mapping[str, Any],
    their_words: Mapping[str, str],
    our_words: Mapping[str, str],
) -> str | None:
    """Describe the first difference between two runs; None if they are the same run.

    Args:
        theirs, ours: see :func:`run_facts`.
        their_words, our_words: see :func:`fact_words`.
    """
    layouts = [facts.get("layout") for facts in (theirs, ours)]
    if all(isinstance(each, Mapping) and len(each) == 1 for each in layouts):
        # Of one layout, its settings are those that a person gave.
        theirs, ours = _with_layout_settings(theirs), _with_layout_settings(ours)
    return told_difference(
        theirs, ours, settings=setting_names(), their_words=their_words, our_words=our_words
    )


def _with_layout_settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in facts.items() if name not in ("layout", "layouts")}
    (settings,) = facts["layout"].values()
    return found | dict(settings)


def difference_from(job: Job, made: Overview) -> str | None:
    """Describe how a projection differs from this run's result; None if it holds all of it.

    Layouts that were added later are ignored.
    """
    facts = made.facts
    if facts.run is None:
        return "its projection doesn't record the settings that it was made with"
    corpus = "unknown" if facts.corpus is None else facts.corpus.source
    their_words = {"model": facts.model.id, "corpus": corpus}
    difference = run_difference(facts.run, settings_facts(job), their_words, fact_words(job))
    return difference or _layouts_difference(job, made)


def _layouts_difference(job: Job, made: Overview) -> str | None:
    """What became of the layouts since: they can be removed, and replaced by name."""
    for layout in job.layouts:
        if layout.name not in made.layouts:
            return f"it lacks layout '{layout.name}'"
        theirs = made.layouts[layout.name].settings.as_dict()
        ours: dict[str, Any] = json.loads(json.dumps(layout_settings(layout).as_dict()))
        difference = told_difference(theirs, ours, settings=setting_names())
        if difference is not None:
            return f"layout '{layout.name}' was replaced: {difference}"
    return None


def _config_sha256(loaded: LoadedModel) -> str | None:
    """Of a model's settings; None if it has none."""
    config: Any = getattr(loaded.model, "config", None)
    if not hasattr(config, "to_diff_dict"):
        return None
    # Where it was loaded from is not a setting, and what it computes in is told by itself.
    left_out = ("dtype", "torch_dtype", "transformers_version")
    settings = {
        key: value
        for key, value in config.to_diff_dict().items()
        if not key.startswith("_") and key not in left_out
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
