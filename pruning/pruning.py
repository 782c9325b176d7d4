"""One pruned model, from a name to a checkpoint on disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from projector.corpus.sources import read_documents
from projector.errors import SettingError, check_least
from projector.model.architecture.records import Architecture
from projector.model.loading import LoadedModel
from projector.progress import Progress, Silent
from pruning.calibration.budget import pruning_memory
from pruning.calibration.gathering import Calibration, calibrate
from pruning.calibration.text import (
    DEFAULT_SEQUENCES,
    LEAST_SEQUENCES,
    CalibrationText,
    read_calibration,
)
from pruning.methods.method import Proposals
from pruning.methods.plan import PruningPlan
from pruning.methods.planning import Planner, check_options, check_projection, reads_projection
from pruning.poles.poles import PoleSettings
from pruning.preparing import (
    PoleOptions,
    check_possible,
    load_own,
    load_prunable,
    origin_of,
    pruning_versions,
    read_proposals,
)
from pruning.refit.reconstruction import DEFAULT_STEPS, products_in
from pruning.refit.refits import make_plan, refit
from pruning.refit.registry import REFITS, refit_named
from pruning.saving import Saved, check_out, save_pruned
from pruning.surgery import count_parameters, round_weights

# What every generator of random numbers takes, with a layer's number added.
MOST_SEEDS = 2**31


@dataclass(frozen=True)
class PruneSettings:
    """What to remove, and what to do about it.

    Attributes:
        poles: for methods that read a projection, see :func:`pruning.preparing.read_proposals`.
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
        refit_named(self.refit)
        check_least("n_sequences", self.n_sequences, LEAST_SEQUENCES)
        check_least("n_steps", self.n_steps, 1)
        check_least("seed", self.seed, 0)
        if self.seed >= MOST_SEEDS:
            raise SettingError("seed", self.seed, "is too large", f"give less than {MOST_SEEDS:,}")


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
    check_projection((settings.method,), is_given=projection is not None)
    check_out(out, force=force)
    progress.begin("Loading the model", None, "")
    loaded, architecture = load_prunable(
        model,
        revision=revision,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )
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
    with pruning_memory(architecture):
        drawn = calibrate(
            loaded,
            architecture,
            text,
            n_sequences=settings.n_sequences,
            seed=settings.seed,
            progress=progress,
        )
        plan, pruned = _plan_and_refit(loaded, architecture, drawn, proposals, settings, progress)
    progress.begin("Saving, and loading again", None, "")
    round_weights(pruned, loaded.stored_dtype)
    saved = save_pruned(
        pruned,
        loaded.tokenizer,
        plan,
        _facts(loaded, text, drawn, settings, projection, poles),
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


def _read_projection(
    projection: Path | None,
    settings: PruneSettings,
    loaded: LoadedModel,
    architecture: Architecture,
    progress: Progress,
) -> tuple[tuple[Proposals, ...] | None, PoleSettings | None]:
    """Who may stand in for whom, and how the poles were found; None where no method asks."""
    if projection is None:
        return None, None
    if not reads_projection((settings.method,)):
        # Given by mistake, another model's is refused nevertheless.
        load_own(projection, loaded)
        return None, None
    progress.begin("Finding poles", None, "")
    return read_proposals(projection, loaded, architecture, settings.poles)


def _plan_and_refit(
    loaded: LoadedModel,
    architecture: Architecture,
    drawn: Calibration,
    proposals: tuple[Proposals, ...] | None,
    settings: PruneSettings,
    progress: Progress,
) -> tuple[PruningPlan, nn.Module]:
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
    record = REFITS[settings.refit]
    if record.trains and not plan.changes_nothing:
        progress.begin("Refitting", len(plan.layers) * settings.n_steps, "steps")
    elif record.changes_weights and not plan.changes_nothing:
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
    return plan, pruned


def _facts(
    loaded: LoadedModel,
    text: CalibrationText,
    drawn: Calibration,
    settings: PruneSettings,
    projection: Path | None,
    poles: PoleSettings | None,
) -> dict[str, Any]:
    """Where a plan is from: every field of the settings, and what came of what they name."""
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
            "source": text.source,
            "sha256": text.corpus.sha256,
            "sequence_length": text.sequence_length,
            "n_sequences": drawn.corpus.n_sequences,
            "n_tokens": drawn.corpus.n_tokens,
        },
        **origin,
        "poles": None if poles is None else asdict(poles),
        "versions": pruning_versions(),
    }
