"""Methods × refits × sparsities × seeds → a ``PruningReport``, every row at equal size."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from projector.architecture import Architecture
from projector.architecture.widths import can_have_bias
from projector.errors import UserError
from projector.fitting import versions
from projector.models import LoadedModel
from projector.progress import Progress, Silent
from projector.sources import read_documents
from pruning.calibration import (
    DEFAULT_SEQUENCES,
    CalibrationText,
    calibrate,
    check_enough,
    mlps_of,
    read_calibration,
)
from pruning.perplexity import Score, check_scorable, find_context, score
from pruning.plan import PruningPlan
from pruning.planning import METHODS, NEEDS_REGULAR_MOMENTS, Planner, check_options
from pruning.preparing import fingerprint, load_prunable, read_proposals
from pruning.reconstruction import DEFAULT_STEPS
from pruning.refit import REFITS, NotApplicable, check_refit, refit
from pruning.report import DENSE, NOT_APPLICABLE, PruningReport, Row
from pruning.standins import Proposals
from pruning.windows import EvaluationText, check_disjoint, prepare

SAMPLE, ALL = "sample", "all"


@dataclass(frozen=True)
class SweepSettings:
    """What to compare.

    Attributes:
        n_seeds: seeds 0 … n − 1; each draws its own calibration sequences.
        n_sequences: calibration sequences a seed.
        n_steps: of ``reconstruct``, in each layer.
    """

    methods: tuple[str, ...] = METHODS
    sparsities: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    refits: tuple[str, ...] = REFITS
    n_seeds: int = 3
    n_sequences: int = DEFAULT_SEQUENCES
    n_steps: int = DEFAULT_STEPS
    allocation: str = "uniform"
    round_to: int = 1

    def __post_init__(self) -> None:
        for method in self.methods:
            for sparsity in self.sparsities:
                check_options(method, sparsity, self.allocation, self.round_to)
        for kind in self.refits:
            check_refit(kind)
        for flag, value in (
            ("--methods", self.methods),
            ("--sparsities", self.sparsities),
            ("--refits", self.refits),
        ):
            if not value:
                raise UserError(f"{flag} names none: give at least one")
            if len(set(value)) < len(value):
                raise UserError(f"{flag} names one twice: give each once")
        for flag, count in (
            ("--seeds", self.n_seeds),
            ("--sequences", self.n_sequences),
            ("--steps", self.n_steps),
        ):
            if count < 1:
                raise UserError(f"{flag} {count} is too small: give 1 or more")
        if self.n_sequences < 5:
            raise UserError(
                f"--sequences {self.n_sequences} is too small: give 5 or more, for every fifth is "
                "held out"
            )

    @property
    def n_combinations(self) -> int:
        """Pruned models that are made."""
        return self.n_seeds * sum(
            len(self.methods) * len(self.refits) for s in self.sparsities if s > 0
        )


@dataclass(frozen=True)
class SweepJob:
    """A sweep that is ready to run.

    Attributes:
        samples: of each evaluation text, the windows that every row is scored on.
        wholes: of each, all windows, which the winners are scored on again; empty for not at all.
    """

    loaded: LoadedModel
    architecture: Architecture
    calibration: CalibrationText
    samples: tuple[EvaluationText, ...]
    wholes: tuple[EvaluationText, ...]
    proposals: tuple[Proposals, ...] | None
    settings: SweepSettings
    projection_sha256: str | None = None

    def check(self) -> None:
        """Raise a UserError for what would only be noticed late."""
        if "poles" in self.settings.methods and self.proposals is None:
            raise UserError("method poles needs the model's projection: give --projection DIR")
        for text in (*self.samples, *self.wholes):
            check_scorable(self.loaded.model, text)
            check_disjoint(
                self.calibration.document_hashes,
                text.document_hashes,
                self.calibration.source,
                text.source,
            )

    def facts(self) -> dict[str, Any]:
        """Everything that decides the rows; a sweep goes on only from rows of the same."""
        texts = (*self.samples, *self.wholes)
        return {
            **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.settings).items()},
            "calibration": {
                "source": self.calibration.source,
                "sha256": self.calibration.corpus.sha256,
            },
            "evaluations": [
                {
                    "source": text.source,
                    "sha256": text.sha256,
                    "description": text.description,
                    "windows": text.n_windows,
                }
                for text in texts
            ],
            "projection": self.projection_sha256,
            "versions": versions(),
        }

    def model_facts(self) -> dict[str, Any]:
        """Which model, and how large."""
        model = self.loaded.model
        return {
            "id": self.loaded.identifier,
            "sha256": self.loaded.weights_sha256,
            "architecture": type(model).__name__,
            "parameters": count_parameters(model),
            "mlp_neurons": [mlp.n_neurons for mlp in mlps_of(self.architecture)],
        }


def prepare_sweep(
    model: str,
    settings: SweepSettings,
    *,
    calibration: str,
    evaluations: Sequence[str],
    projection: Path | None = None,
    n_windows: int = 64,
    with_winners: bool = True,
    sequence_length: int | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> SweepJob:
    """Load the model, read its poles, and tokenize all texts.

    Args:
        calibration, evaluations: see :func:`projector.sources.read_documents`.
        projection: the model's, for the method ``poles``.
        n_windows: windows of each evaluation text that every row is scored on, drawn evenly.
        with_winners: score the winners on all windows too.

    Raises:
        UserError: for anything that can't be, before any work is done.
    """
    progress = progress or Silent()
    for source in (calibration, *evaluations):
        read_documents(source)
    if not evaluations:
        raise UserError("--evaluation names no text: give at least one")
    if calibration in evaluations:
        raise UserError(f"calibration and evaluation are the same text, '{calibration}': give two")
    if projection is None and "poles" in settings.methods:
        raise UserError("method poles needs the model's projection: give --projection DIR")
    progress.begin("Loading the model", None, "")
    loaded, architecture = load_prunable(
        model,
        revision=revision,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )
    progress.begin("Finding poles", None, "")
    proposals = None
    if projection is not None and "poles" in settings.methods:
        proposals = read_proposals(projection, loaded, architecture)
    context = find_context(loaded.model, loaded.tokenizer)
    samples: list[EvaluationText] = []
    wholes: list[EvaluationText] = []
    for source in evaluations:
        for most, texts in ((n_windows, samples), (None, wholes)):
            if most is not None or with_winners:
                texts.append(
                    prepare(source, loaded.tokenizer, context, max_windows=most, progress=progress)
                )
    job = SweepJob(
        loaded=loaded,
        architecture=architecture,
        calibration=read_calibration(
            calibration,
            loaded,
            architecture,
            sequence_length=sequence_length,
            n_sequences=settings.n_sequences,
            progress=progress,
        ),
        samples=tuple(samples),
        wholes=tuple(wholes),
        proposals=proposals,
        settings=settings,
        projection_sha256=None if projection is None else fingerprint(projection),
    )
    job.check()
    return job


def count_parameters(model: nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def begin_report(job: SweepJob, out: Path, *, resume: bool, force: bool) -> PruningReport:
    """The report to go on with: a new one, or the one that ``out`` holds.

    Raises:
        UserError: if ``out`` is in use, or holds rows of other settings.
    """
    facts, model = job.facts(), job.model_facts()
    if out.exists() and not out.is_dir():
        raise UserError(f"'{out}' is a file: give a folder for --out")
    if not out.exists() or not any(out.iterdir()):
        return PruningReport(facts, model)
    if not (out / "report.json").exists():
        raise UserError(
            f"folder '{out}' holds other files and no report: give another folder for --out"
        )
    if force:
        PruningReport.load(out)  # raises where the file is not ours to replace
        return PruningReport(facts, model)
    if not resume:
        raise UserError(
            f"folder '{out}' holds a report already: add --resume to go on with it, --force to "
            "replace it, or give another folder"
        )
    report = PruningReport.load(out)
    for name, ours, theirs in (
        *((k, v, report.settings.get(k)) for k, v in facts.items()),
        *((f"model {k}", v, report.model.get(k)) for k, v in model.items()),
    ):
        if ours != theirs:
            raise UserError(
                f"the report in '{out}' can't be gone on with, its {name} differs: "
                f"{_short(theirs)} there, {_short(ours)} here"
            )
    return report


def run_sweep(
    job: SweepJob,
    out: Path,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> PruningReport:
    """Plan, prune, refit and score every combination; write the report after each.

    The dense model is the row of sparsity 0. A combination that can't be is
    ``not_applicable``, with the reason. At the end the winner of each sparsity is scored again on all windows.
    """
    progress = progress or Silent()
    job.check()
    report = begin_report(job, out, resume=resume, force=force)
    report.save(out)
    settings = job.settings
    combinations = list(_combinations(settings))
    wanted = [c for c in combinations if not report.has(c)]
    dense_rows = 0 if report.has((DENSE, "none", 0.0, 0)) else 1
    progress.begin("Sweeping", len(combinations) + 1, "models")
    progress.advance(len(combinations) - len(wanted) + 1 - dense_rows)
    if dense_rows:
        _add(report, job, (DENSE, "none", 0.0, 0), job.loaded.model, 0.0, job.samples, SAMPLE)
        report.save(out)
        progress.advance(1)
    bench = _Bench(job)
    for combination in wanted:
        _run_one(report, job, bench, combination, job.samples, SAMPLE)
        report.save(out)
        progress.advance(1)
    if job.wholes:
        _score_winners(report, job, bench, out, progress)
    progress.end()
    return report


def _score_winners(
    report: PruningReport, job: SweepJob, bench: _Bench, out: Path, progress: Progress
) -> None:
    seeds = range(job.settings.n_seeds)
    chosen = dict.fromkeys(
        (winner.method, winner.refit, winner.sparsity, seed)
        for text in job.samples
        for seed in seeds
        for winner in report.winners(text.source)
    )
    # Seed by seed, for each has its calibration in memory.
    left = [c for c in sorted(chosen, key=lambda c: c[3]) if not report.has(c, ALL)]
    progress.begin("Scoring winners on all windows", len(left) + 1, "models")
    dense = (DENSE, "none", 0.0, 0)
    if not report.has(dense, ALL):
        _add(report, job, dense, job.loaded.model, 0.0, job.wholes, ALL)
        report.save(out)
    progress.advance(1)
    for combination in left:
        _run_one(report, job, bench, combination, job.wholes, ALL)
        report.save(out)
        progress.advance(1)


def _combinations(settings: SweepSettings) -> Iterator[tuple[str, str, float, int]]:
    """Seed by seed; most sparse first, for removals are nested and found once."""
    for seed in range(settings.n_seeds):
        for sparsity in sorted((s for s in settings.sparsities if s > 0), reverse=True):
            for method in settings.methods:
                for kind in settings.refits:
                    yield method, kind, sparsity, seed


class _Bench:
    """The planner of the seed that is being worked on; its calibration is made when first used."""

    def __init__(self, job: SweepJob) -> None:
        self._job = job
        self._seed: int | None = None
        self._planner: Planner | None = None

    def planner(self, seed: int) -> Planner:
        if self._planner is None or self._seed != seed:
            job = self._job
            calibration = calibrate(
                job.loaded,
                job.architecture,
                job.calibration,
                n_sequences=job.settings.n_sequences,
                seed=seed,
            )
            if set(job.settings.methods) & set(NEEDS_REGULAR_MOMENTS) or (
                set(job.settings.refits) & {"least-squares", "reconstruct"}
            ):
                check_enough(calibration, [mlp.n_neurons for mlp in mlps_of(job.architecture)])
            self._planner = Planner(
                job.loaded.model, job.architecture, calibration, job.proposals, seed
            )
            self._seed = seed
        return self._planner


def _run_one(
    report: PruningReport,
    job: SweepJob,
    bench: _Bench,
    combination: tuple[str, str, float, int],
    texts: Sequence[EvaluationText],
    windows: str,
) -> None:
    method, kind, sparsity, seed = combination
    settings = job.settings
    planner = bench.planner(seed)
    began = time.perf_counter()
    try:
        plan = make_plan(planner, method, kind, sparsity, settings.allocation, settings.round_to)
        pruned = refit(
            job.loaded.model,
            job.architecture,
            plan,
            kind,
            planner.calibration,
            n_steps=settings.n_steps,
            seed=seed,
        )
    except NotApplicable as error:
        for text in texts:
            report.rows.append(_missing(job, combination, text, windows, str(error)))
        return
    _add(report, job, combination, pruned, time.perf_counter() - began, texts, windows)


def make_plan(
    planner: Planner, method: str, kind: str, sparsity: float, allocation: str, round_to: int
) -> PruningPlan:
    """The plan for a refit: about the mean where a bias will absorb it, else about zero."""
    centred = kind != "none" and can_have_bias(planner.model, planner.architecture)
    return planner.plan(method, sparsity, allocation=allocation, round_to=round_to, centred=centred)


def _add(
    report: PruningReport,
    job: SweepJob,
    combination: tuple[str, str, float, int],
    model: nn.Module,
    seconds: float,
    texts: Sequence[EvaluationText],
    windows: str,
) -> None:
    method, kind, sparsity, seed = combination
    n_dense, n_left = count_parameters(job.loaded.model), count_parameters(model)
    for text in texts:
        found: Score = score(model, text)
        problem = found.problem
        report.rows.append(
            Row(
                method=method,
                refit=kind,
                sparsity=sparsity,
                seed=seed,
                evaluation=text.source,
                windows=windows,
                perplexity=None if problem else found.perplexity,
                bits_per_byte=None if problem else found.bits_per_byte,
                n_tokens=found.n_tokens,
                parameters=n_left,
                removed_share=1 - n_left / n_dense,
                seconds=round(seconds, 3),
                reason=problem or "",
            )
        )


def _missing(
    job: SweepJob,
    combination: tuple[str, str, float, int],
    text: EvaluationText,
    windows: str,
    reason: str,
) -> Row:
    method, kind, sparsity, seed = combination
    return Row(
        method=method,
        refit=kind,
        sparsity=sparsity,
        seed=seed,
        evaluation=text.source,
        windows=windows,
        perplexity=None,
        bits_per_byte=None,
        n_tokens=0,
        parameters=count_parameters(job.loaded.model),
        removed_share=0.0,
        seconds=0.0,
        status=NOT_APPLICABLE,
        reason=reason,
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
