"""One pruned model, from a name to a checkpoint on disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from projector.corpus.sources import read_documents
from projector.errors import UserError
from projector.progress import Progress, Silent
from pruning.calibration import DEFAULT_SEQUENCES, calibrate, read_calibration
from pruning.methods.planning import Planner, check_options
from pruning.preparing import (
    PoleOptions,
    check_possible,
    fingerprint,
    load_own,
    load_prunable,
    pruning_versions,
    read_proposals,
)
from pruning.refit.reconstruction import DEFAULT_STEPS, products_in
from pruning.refit.refits import check_refit, refit
from pruning.saving import Saved, check_out, save_pruned
from pruning.surgery import round_weights
from pruning.sweep.workers import count_parameters, make_plan, pruning_memory

# What every generator of random numbers takes, with a layer's number added.
MOST_SEEDS = 2**31


@dataclass(frozen=True)
class PruneSettings:
    """What to remove, and what to do about it.

    Attributes:
        poles: of method ``poles``, see :func:`pruning.preparing.read_proposals`.
    """

    method: str = "poles"
    sparsity: float = 0.3
    refit: str = "reconstruct"
    n_sequences: int = DEFAULT_SEQUENCES
    n_steps: int = DEFAULT_STEPS
    allocation: str = "uniform"
    round_to: int = 1
    seed: int = 0
    poles: PoleOptions | None = None

    def __post_init__(self) -> None:
        check_options(self.method, self.sparsity, self.allocation, self.round_to)
        check_refit(self.refit)
        for flag, value, least in (
            ("--sequences", self.n_sequences, 5),
            ("--steps", self.n_steps, 1),
            ("--seed", self.seed, 0),
        ):
            if value < least:
                raise UserError(f"{flag} {value} is too small: give {least} or more")
        if self.seed >= MOST_SEEDS:
            raise UserError(f"--seed {self.seed} is too large: give less than {MOST_SEEDS:,}")


@dataclass(frozen=True)
class Pruned:
    """What became of a model."""

    saved: Saved
    settings: PruneSettings
    n_parameters_before: int
    n_parameters: int
    widths: list[int]

    @property
    def removed_share(self) -> float:
        """Share of all parameters that is gone."""
        return 1 - self.n_parameters / self.n_parameters_before

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
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
    force: bool = False,
    progress: Progress | None = None,
) -> Pruned:
    """Load, calibrate, plan, prune, refit, save, load again and compare.

    Weights are saved as the type they were loaded from.

    Raises:
        UserError: for anything that can't be. Nothing is left half-written.
    """
    progress = progress or Silent()
    read_documents(calibration)
    if settings.method == "poles" and projection is None:
        raise UserError("method poles needs the model's projection: give --projection DIR")
    check_out(out, force=force)
    progress.begin("Loading the model", None, "")
    loaded, architecture = load_prunable(
        model,
        revision=revision,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )
    check_possible(loaded, architecture, settings.method, settings.refit, settings.allocation)
    proposals, poles = None, None
    if projection is not None and settings.method != "poles":
        # No other method reads it; given by mistake, it is refused nevertheless.
        load_own(projection, loaded)
    elif projection is not None:
        progress.begin("Finding poles", None, "")
        proposals, poles = read_proposals(projection, loaded, architecture, settings.poles)
    text = read_calibration(
        calibration,
        loaded,
        architecture,
        sequence_length=sequence_length,
        n_sequences=settings.n_sequences,
        progress=progress,
    )
    with pruning_memory(architecture):
        drawn = calibrate(
            loaded,
            architecture,
            text,
            n_sequences=settings.n_sequences,
            seed=settings.seed,
            progress=progress,
        )
        planner = Planner(loaded.model, architecture, drawn, proposals, settings.seed)
        progress.begin("Planning", None, "")
        plan = make_plan(
            planner,
            settings.method,
            settings.refit,
            settings.sparsity,
            settings.allocation,
            settings.round_to,
        )
        if settings.refit == "reconstruct" and not plan.changes_nothing:
            progress.begin("Refitting", len(plan.layers) * settings.n_steps, "steps")
        elif settings.refit != "none" and not plan.changes_nothing:
            progress.begin("Refitting", None, "")
        pruned = refit(
            loaded.model,
            architecture,
            plan,
            settings.refit,
            drawn,
            n_steps=settings.n_steps,
            seed=settings.seed,
            progress=progress,
        )
        progress.begin("Saving, and loading again", None, "")
        training = {
            "n_steps": settings.n_steps,
            "products_in": products_in(next(loaded.model.parameters()).device),
        }
    round_weights(pruned, loaded.stored_dtype)
    facts = {
        "refit": {"kind": settings.refit, **(training if settings.refit == "reconstruct" else {})},
        "model": {"id": loaded.identifier, "sha256": loaded.weights_sha256},
        "calibration": {
            "source": text.source,
            "sha256": text.corpus.sha256,
            "sequence_length": text.sequence_length,
            "n_sequences": drawn.corpus.n_sequences,
            "n_tokens": drawn.corpus.n_tokens,
        },
        "projection": None if poles is None or projection is None else fingerprint(projection),
        "poles": None if poles is None else asdict(poles),
        "versions": pruning_versions(),
    }
    saved = save_pruned(
        pruned,
        loaded.tokenizer,
        plan,
        facts,
        out,
        dtype=loaded.stored_dtype,
        force=force,
        trust_remote_code=trust_remote_code,
    )
    progress.end()
    return Pruned(
        saved,
        settings,
        count_parameters(loaded.model),
        count_parameters(pruned),
        plan.widths,
    )
