"""Add partners across layers to a projection."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from projector.errors import SettingError, UserError, named
from projector.fitting.budget import check_disk
from projector.fitting.checkpoint import beside, has_checkpoint
from projector.fitting.cross_layer.finding import Finding, Found, has_begun
from projector.fitting.preparing import Job
from projector.fitting.provenance import run_facts
from projector.interrupt import DeferredInterrupt
from projector.memory import out_of_memory, size_text
from projector.progress import Progress
from projector.projection.overview import read_saved
from projector.projection.partners.files import read_partners, write_partners
from projector.projection.projection import Projection
from projector.statistics.cross_layer.records import SITE
from projector.storage.additions import adding
from projector.storage.places import disk_errors
from projector.storage.replacing import remove_folder


def partners_path(out: Path) -> Path:
    """The folder for activations while partners across layers are found, next to ``out``."""
    return beside(out, "cross-layer")


def can_resume(out: Path) -> bool:
    """Whether a stopped fit into the folder ``out`` can be resumed."""
    return has_checkpoint(out) or has_begun(partners_path(out))


def half_found_words(out: Path) -> str | None:
    """Describe unfinished partners across layers next to ``out``, and how to resume; None if there
    are none.
    """
    scratch = partners_path(out)
    if not has_begun(scratch):
        return None
    n_bytes = sum(each.stat().st_size for each in scratch.iterdir())
    return (
        f"partners across layers are unfinished ({size_text(n_bytes)} in '{scratch}'): add "
        f"{named('cross_layer', True)} and {named('resume', True)} to resume, or delete that "
        "folder"
    )


def lacks_partners(job: Job, out: Path, *, force: bool) -> bool:
    """Whether partners across layers are requested but missing in the projection at ``out``.

    Raises:
        UserError: on ``cross_layer_tokens``, if the existing partners were found with other tokens,
            and ``force`` is False.
    """
    if job.cross_layer is None:
        return False
    try:
        known = read_partners(read_saved(out))
    except UserError as error:
        if error.setting != "cross_layer":
            raise
        # They are damaged, and found again.
        return True
    asked = job.cross_layer.corpus
    is_same = known is not None and known.tokens_sha256 == asked.ids_sha256
    if known is None or (is_same and not known.has_controls) or (force and not is_same):
        return True
    if not is_same:
        raise UserError(
            f"'{out}' holds partners across layers from {known.n_tokens:,} other tokens, not from "
            f"these {asked.n_tokens:,}: give that fit's {named('cross_layer_tokens')}, or add "
            f"{named('force', True)} to replace them",
            setting="cross_layer_tokens",
            value=job.settings.cross_layer_tokens,
        )
    return False


def check_one_process(job: Job, n_processes: int) -> None:
    """Raise a SettingError if partners across layers are requested with several processes."""
    if n_processes > 1 and job.cross_layer is not None:
        raise SettingError(
            "cross_layer",
            True,
            "works with one process only",
            "leave it out, and add partners afterwards without a launcher, with "
            f"{named('resume', True)}",
        )


def _find_partners(job: Job, scratch: Path, progress: Progress) -> Found:
    """Run the model over the tokens of the plan, and correlate its layers."""
    plan = job.cross_layer
    assert plan is not None
    taps = job.architecture.taps(job.sites, job.layers)
    facts = run_facts(job, 1)
    advice = f": lower {named('memory_budget')}"
    with out_of_memory(f" while partners across layers were found{advice}"), disk_errors(scratch):
        return Finding(
            job.trunk,
            {layer: taps[layer, SITE] for layer in plan.layers},
            plan,
            scratch,
            batch_size=job.settings.batch_size,
            run={name: facts[name] for name in ("model", "config", "dtype", "device", "version")},
            progress=progress,
        ).find()


def add_partners(job: Job, folder: Path, progress: Progress) -> Projection:
    """Add partners across layers to an existing projection."""
    assert job.cross_layer is not None
    scratch, saved = partners_path(folder), read_saved(folder)
    check_disk(job.cross_layer.kept_bytes, folder, beside=job.cross_layer.disk_bytes)
    found = _find_partners(job, scratch, progress)
    with DeferredInterrupt():
        with adding(folder, belongs_to=saved.fingerprint) as addition:
            write_partners(
                lambda name: addition.path(name, force=True),
                found.facts,
                found.tensors,
                saved.fingerprint,
            )
        with disk_errors(scratch):
            remove_folder(scratch)
    return Projection.load(folder)


def with_partners(job: Job, made: Projection, progress: Progress) -> Projection:
    """A projection in memory with the partners across layers that the job requests.

    Raises:
        UserError: on ``cross_layer``, if the activations don't fit in the system's folder for
            temporary files.
    """
    assert job.cross_layer is not None
    place, needed = tempfile.gettempdir(), job.cross_layer.disk_bytes
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"partners across layers need {size_text(needed)} for temporary files, but '{place}' "
            f"has {size_text(free)} free: give {named('out')} on another disk, lower "
            f"{named('cross_layer_tokens')}, or set TMPDIR",
            setting="cross_layer",
            value=True,
        )
    with tempfile.TemporaryDirectory(prefix="projector-") as scratch:
        found = _find_partners(job, Path(scratch) / "cross-layer", progress)
    return replace(made, cross_layer=found.facts, partner_tensors=found.tensors)
