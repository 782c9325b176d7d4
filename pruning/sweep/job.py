"""A sweep that is ready to run: the model, its poles, and all texts as tokens."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from projector.errors import UserError
from projector.model.architecture.records import Architecture
from projector.model.context import find_context
from projector.model.loading import LoadedModel
from projector.progress import Progress, Silent
from pruning.calibration.mlps import mlps_of
from pruning.calibration.text import CalibrationText, check_draw, read_calibration
from pruning.methods.method import Proposals
from pruning.methods.planning import check_projection
from pruning.poles.poles import PoleSettings
from pruning.preparing import (
    Origin,
    calibration_facts,
    check_possible,
    check_unseen,
    evaluation_facts,
    load_prunable,
    model_facts,
    origin_of,
    pruning_versions,
    read_proposals,
    settings_facts,
)
from pruning.refit.reconstruction import products_in
from pruning.scoring.disjoint import check_disjoint
from pruning.scoring.perplexity import check_scorable
from pruning.scoring.windows import EvaluationText, prepare
from pruning.sweep.settings import SweepRequest, SweepSettings


@dataclass(frozen=True)
class SweepJob:
    """A sweep that is ready to run.

    Attributes:
        samples: of each evaluation text, the windows that every row is scored on.
        wholes: of each, all windows, which the winners are scored on again; empty for not at all.
        origin: the projection that was given.
        request: what it was prepared from, where it was.
    """

    loaded: LoadedModel
    architecture: Architecture
    calibration: CalibrationText
    samples: tuple[EvaluationText, ...]
    wholes: tuple[EvaluationText, ...]
    proposals: tuple[Proposals, ...] | None
    settings: SweepSettings
    poles: PoleSettings | None = None
    origin: Origin | None = None
    request: SweepRequest | None = None

    def check(self) -> None:
        """Raise a UserError for mistakes that would otherwise show late."""
        settings = self.settings
        check_projection(settings.methods, is_given=self.proposals is not None)
        own = [mlp.n_neurons for mlp in mlps_of(self.architecture)]
        widths = own if settings.needs_regular_moments else [0]
        for seed in range(settings.n_seeds):
            check_draw(self.calibration, settings.n_sequences, seed, widths)
        names = [text.source for text in self.samples]
        if len(set(names)) < len(names):
            raise UserError(
                f"two evaluation texts have the same name, {', '.join(names)}: rename one, "
                "because rows are identified by it"
            )
        # Of methods and refits that can't be, the report says so; of an allocation, this does.
        check_possible(self.loaded, self.architecture, settings.allocation)
        for text in (*self.samples, *self.wholes):
            check_scorable(self.loaded.model, text)
            check_disjoint(
                self.calibration.document_hashes,
                text.document_hashes,
                self.calibration.source,
                text.source,
            )

    def facts(self) -> dict[str, Any]:
        """Everything that decides the rows; a sweep resumes only if all of it is equal. Every field
        of the settings is here, and every field of the request in which two runs may not differ:
        its result where the field names one, otherwise its value.
        """
        device = next(self.loaded.model.parameters()).device
        return {
            **settings_facts(self.settings, self.request),
            "calibration": calibration_facts(self.calibration),
            "device": device.type,
            "reconstruct_products_in": products_in(device),
            "dtype": str(next(self.loaded.model.parameters()).dtype).removeprefix("torch."),
            "evaluations": [evaluation_facts(text) for text in self.samples],
            **({"projection": None} if self.origin is None else self.origin.facts()),
            "stored_dtype": str(self.loaded.stored_dtype).removeprefix("torch."),
            "poles": None if self.poles is None else asdict(self.poles),
            "versions": pruning_versions(),
        }

    def model_facts(self) -> dict[str, Any]:
        """Which model, and how large."""
        return model_facts(self.loaded, self.architecture)


def prepare_sweep(request: SweepRequest, progress: Progress | None = None) -> SweepJob:
    """Load the model, read its poles, and tokenize all texts.

    Args:
        request: the model, its texts and the settings, by name.
        progress: receives progress reports; None for none.

    Raises:
        UserError: if the request can't be carried out; no work has been done yet.
    """
    progress = progress or Silent()
    request.check()
    settings = request.settings
    if request.projection is not None:
        check_unseen(request.projection, request.evaluations)
    progress.begin("Loading the model", None, "")
    loaded, architecture = load_prunable(
        request.model,
        revision=request.revision,
        device=request.device,
        dtype=request.dtype,
        trust_remote_code=request.trust_remote_code,
    )
    proposals, poles = None, None
    if request.projection is not None and settings.reads_projection:
        progress.begin("Finding poles", None, "")
        proposals, poles = read_proposals(request.projection, loaded, architecture, settings.poles)
    context = find_context(loaded.model, loaded.tokenizer)
    samples: list[EvaluationText] = []
    wholes: list[EvaluationText] = []
    for source in request.evaluations:
        for most, texts in ((request.n_windows, samples), (None, wholes)):
            if most is not None or request.with_winners:
                texts.append(
                    prepare(source, loaded.tokenizer, context, max_windows=most, progress=progress)
                )
    job = SweepJob(
        loaded=loaded,
        architecture=architecture,
        calibration=read_calibration(
            request.calibration,
            loaded,
            architecture,
            sequence_length=request.sequence_length,
            n_sequences=settings.n_sequences,
            progress=progress,
        ),
        samples=tuple(samples),
        wholes=tuple(wholes),
        proposals=proposals,
        settings=settings,
        poles=poles,
        origin=None if request.projection is None else origin_of(request.projection),
        request=request,
    )
    job.check()
    return job
