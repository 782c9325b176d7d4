"""An experiment on reuse that is ready to run: model, partners, and both texts as tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from projector.model.architecture.records import Architecture
from projector.model.context import find_context
from projector.model.loading import LoadedModel
from projector.progress import Progress, Silent
from projector.projection.overview import read_saved
from projector.projection.partners.files import none_found, read_partners, tensors_metadata
from projector.statistics.cross_layer.plan import CrossLayerPlan
from pruning.calibration.mlps import mlps_of
from pruning.calibration.text import CalibrationText, check_draw, read_calibration
from pruning.preparing import (
    Origin,
    calibration_facts,
    check_unseen,
    evaluation_facts,
    load_own,
    load_prunable,
    model_facts,
    origin_of,
    pruning_versions,
    settings_facts,
)
from pruning.reuse.budget import ReuseNeeds, check_needs, needs_of_reuse
from pruning.reuse.experiment import check_reusable, most_share
from pruning.reuse.partners import DEFAULT_TOKENS, LayerPartners, partners_from, plan_partners
from pruning.reuse.settings import ReuseRequest, ReuseSettings, check_shares
from pruning.scoring.disjoint import check_disjoint
from pruning.scoring.perplexity import check_scorable
from pruning.scoring.windows import EvaluationText, prepare

_ANY_BYTES = 1 << 62
# Of how rows are made: those of another version are of another experiment.
ROWS_VERSION = 2


@dataclass(frozen=True)
class ReuseJob:
    """An experiment that is ready to run.

    Attributes:
        text: the windows that every row is scored on.
        partners: those that the projection holds; None to find them in the calibration text.
        origin: the projection that was given; ``partners_sha256``: of its partners.
        request: what it was prepared from, where it was.
    """

    loaded: LoadedModel
    architecture: Architecture
    calibration: CalibrationText
    text: EvaluationText
    settings: ReuseSettings
    partners: LayerPartners | None = None
    origin: Origin | None = None
    partners_sha256: str | None = None
    request: ReuseRequest | None = None

    def check(self) -> None:
        """Raise a UserError for what would only be noticed late."""
        settings = self.settings
        widths = [mlp.n_neurons for mlp in mlps_of(self.architecture)]
        check_reusable(self.architecture)
        check_shares(settings.shares, most_share(self.architecture))
        for seed in settings.seeds:
            check_draw(self.calibration, settings.n_sequences, seed, widths)
        if self.partners is not None:
            self.partners.check(widths)
        check_scorable(self.loaded.model, self.text)
        check_needs(self.needs(), self.memory_budget)
        check_disjoint(
            self.calibration.document_hashes,
            self.text.document_hashes,
            self.calibration.source,
            self.text.source,
        )

    @property
    def memory_budget(self) -> int | None:
        """Bytes it may take in addition to the loaded model; None for all free memory, minus a
        margin.
        """
        return None if self.request is None else self.request.memory_budget

    def needs(self) -> ReuseNeeds:
        """The least memory that it takes."""
        # As if memory had no end: what tiles need that are as small as may be.
        plan = self._partners_plan(_ANY_BYTES)
        return needs_of_reuse(
            self.loaded.model,
            self.architecture,
            self.calibration.draw(self.settings.n_sequences, self.settings.seed),
            self.text,
            self.settings,
            partners=0 if plan is None else plan.least_bytes,
        )

    def partners_plan(self) -> CrossLayerPlan | None:
        """What finding partners in the calibration text takes; None where a projection has them.

        Raises:
            UserError: if memory is short.
        """
        return self._partners_plan(self.memory_budget)

    def _partners_plan(self, memory_budget: int | None) -> CrossLayerPlan | None:
        if self.partners is not None:
            return None
        return plan_partners(
            self.loaded,
            self.architecture,
            self.calibration.corpus,
            memory_budget=memory_budget,
        )

    def facts(self) -> dict[str, Any]:
        """Everything that decides the rows; an experiment goes on only from rows of the same."""
        first = next(self.loaded.model.parameters())
        found = None if self.origin is None else self.origin.sha256
        return {
            **settings_facts(self.settings, self.request),
            "calibration": calibration_facts(self.calibration),
            "evaluation": evaluation_facts(self.text),
            "device": first.device.type,
            "dtype": str(first.dtype).removeprefix("torch."),
            "stored_dtype": str(self.loaded.stored_dtype).removeprefix("torch."),
            "projection": found,
            "partners": self.partners_sha256
            or {"calibration_tokens": min(DEFAULT_TOKENS, self.calibration.corpus.n_tokens)},
            "versions": pruning_versions(),
            "rows_version": ROWS_VERSION,
        }

    def model_facts(self) -> dict[str, Any]:
        """Which model, and how large."""
        return model_facts(self.loaded, self.architecture)


def prepare_reuse(request: ReuseRequest, progress: Progress | None = None) -> ReuseJob:
    """Load the model, read its partners where a projection holds them, and tokenize both texts.

    Raises:
        UserError: if the request can't be carried out; no work has been done yet.
    """
    progress = progress or Silent()
    request.check()
    settings, folder = request.settings, request.projection
    origin, sha256 = None, None
    if folder is not None:
        saved = read_saved(folder)
        if read_partners(saved) is None:
            raise none_found()
        origin, sha256 = origin_of(folder), tensors_metadata(saved)["partners"]
        check_unseen(folder, [request.evaluation])
    progress.begin("Loading the model", None, "")
    loaded, architecture = load_prunable(
        request.model,
        revision=request.revision,
        device=request.device,
        dtype=request.dtype,
        trust_remote_code=request.trust_remote_code,
    )
    check_reusable(architecture)
    check_shares(settings.shares, most_share(architecture))
    partners = None
    if folder is not None:
        load_own(folder, loaded)
        partners = partners_from(folder)
    context = find_context(loaded.model, loaded.tokenizer)
    job = ReuseJob(
        loaded=loaded,
        architecture=architecture,
        calibration=read_calibration(
            request.calibration,
            loaded,
            architecture,
            sequence_length=settings.sequence_length,
            n_sequences=settings.n_sequences,
            progress=progress,
        ),
        text=prepare(
            request.evaluation,
            loaded.tokenizer,
            context,
            max_windows=settings.n_windows,
            progress=progress,
        ),
        settings=settings,
        partners=partners,
        origin=origin,
        partners_sha256=sha256,
        request=request,
    )
    job.check()
    return job
