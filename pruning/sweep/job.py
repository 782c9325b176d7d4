"""Methods × refits × sparsities × seeds → a ``PruningReport``, every row at equal size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from projector.corpus.sources import read_documents
from projector.errors import UserError
from projector.model.architecture.records import Architecture
from projector.model.context import find_context
from projector.model.loading import LoadedModel
from projector.progress import Progress, Silent
from projector.storage.places import check_place
from pruning.calibration import (
    DEFAULT_SEQUENCES,
    CalibrationText,
    check_draw,
    mlps_of,
    read_calibration,
)
from pruning.methods.planning import METHODS, NEEDS_REGULAR_MOMENTS, check_options
from pruning.methods.standins import Proposals
from pruning.poles.poles import PoleSettings
from pruning.preparing import (
    PoleOptions,
    check_possible,
    check_unseen,
    fingerprint,
    load_prunable,
    pruning_versions,
    read_proposals,
)
from pruning.refit.reconstruction import DEFAULT_STEPS, products_in
from pruning.refit.refits import REFITS, check_refit
from pruning.scoring.perplexity import check_scorable
from pruning.scoring.windows import EvaluationText, check_disjoint, prepare
from pruning.sweep.report import ALL, DENSE, JSON_FILE, SAMPLE, PruningReport
from pruning.sweep.workers import Task, Workers, count_parameters

_DENSE_TASK = Task(DENSE, 0.0, 0, ("none",), SAMPLE)


@dataclass(frozen=True)
class SweepSettings:
    """What to compare.

    Attributes:
        n_seeds: seeds 0 … n − 1; each draws its own calibration sequences.
        n_sequences: calibration sequences a seed.
        n_steps: of ``reconstruct``, in each layer.
        poles: of method ``poles``, see :func:`pruning.preparing.read_proposals`.
    """

    methods: tuple[str, ...] = METHODS
    sparsities: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    refits: tuple[str, ...] = REFITS
    n_seeds: int = 3
    n_sequences: int = DEFAULT_SEQUENCES
    n_steps: int = DEFAULT_STEPS
    allocation: str = "uniform"
    round_to: int = 1
    poles: PoleOptions | None = None

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
        if not any(self.sparsities):
            raise UserError("--sparsities 0 removes nothing: give one above 0")
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
    def needs_regular_moments(self) -> bool:
        """Whether a method or a refit inverts the neurons' moments."""
        refits = set(self.refits) & {"least-squares", "reconstruct"}
        return bool(refits or set(self.methods) & set(NEEDS_REGULAR_MOMENTS))


@dataclass(frozen=True)
class SweepJob:
    """A sweep that is ready to run.

    Attributes:
        samples: of each evaluation text, the windows that every row is scored on.
        wholes: of each, all windows, which the winners are scored on again; empty for not at all.
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
    projection_sha256: str | None = None
    request: SweepRequest | None = None

    def check(self) -> None:
        """Raise a UserError for what would only be noticed late."""
        if "poles" in self.settings.methods and self.proposals is None:
            raise UserError("method poles needs the model's projection: give --projection DIR")
        settings = self.settings
        own = [mlp.n_neurons for mlp in mlps_of(self.architecture)]
        widths = own if settings.needs_regular_moments else [0]
        for seed in range(settings.n_seeds):
            check_draw(self.calibration, settings.n_sequences, seed, widths)
        names = [text.source for text in self.samples]
        if len(set(names)) < len(names):
            raise UserError(
                f"two evaluation texts are named alike, {', '.join(names)}: rename one, for rows "
                "are told apart by it"
            )
        # Of methods and refits that can't be, the report says so; of an allocation, this does.
        check_possible(self.loaded, self.architecture, "", "", settings.allocation)
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
        device = next(self.loaded.model.parameters()).device
        return {
            **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.settings).items()},
            "calibration": {
                "source": self.calibration.source,
                "sha256": self.calibration.corpus.sha256,
                "sequence_length": self.calibration.sequence_length,
            },
            "device": device.type,
            "reconstruct_products_in": products_in(device),
            "dtype": str(next(self.loaded.model.parameters()).dtype).removeprefix("torch."),
            "evaluations": [
                {
                    "source": text.source,
                    "sha256": text.sha256,
                    "description": text.description,
                    "windows": text.n_windows,
                }
                for text in self.samples
            ],
            "projection": self.projection_sha256,
            "stored_dtype": str(self.loaded.stored_dtype).removeprefix("torch."),
            "poles": None if self.poles is None else asdict(self.poles),
            "versions": pruning_versions(),
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


@dataclass(frozen=True)
class SweepRequest:
    """What a sweep is asked to do, by names alone: a process can be told it.

    Attributes:
        model: ``bundled``, a local folder, or a hub id.
        calibration, evaluations: see :func:`projector.corpus.sources.read_documents`.
        projection: the model's, for the method ``poles``.
        n_windows: windows of each evaluation text that every row is scored on, drawn evenly.
        with_winners: score the winners on all windows too.
    """

    model: str
    settings: SweepSettings
    calibration: str
    evaluations: tuple[str, ...]
    projection: Path | None = None
    n_windows: int = 64
    with_winners: bool = True
    sequence_length: int | None = None
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False

    def check(self) -> None:
        """Raise a UserError for what is wrong before anything is loaded."""
        for source in (self.calibration, *self.evaluations):
            read_documents(source)
        if not self.evaluations:
            raise UserError("--evaluation names no text: give at least one")
        if self.calibration in self.evaluations:
            raise UserError(
                f"calibration and evaluation are the same text, '{self.calibration}': give two"
            )
        if self.n_windows < 1:
            raise UserError(f"--windows {self.n_windows} is too small: give 1 or more")
        if self.projection is None and "poles" in self.settings.methods:
            raise UserError("method poles needs the model's projection: give --projection DIR")


def prepare_sweep(request: SweepRequest, progress: Progress | None = None) -> SweepJob:
    """Load the model, read its poles, and tokenize all texts.

    Raises:
        UserError: for anything that can't be, before any work is done.
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
    if request.projection is not None and "poles" in settings.methods:
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
        projection_sha256=None if request.projection is None else fingerprint(request.projection),
        request=request,
    )
    job.check()
    return job


def begin_report(job: SweepJob, out: Path, *, resume: bool, force: bool) -> PruningReport:
    """The report to go on with: a new one, or the one that ``out`` holds.

    Raises:
        UserError: if ``out`` is in use, or holds rows of other settings.
    """
    facts, model = job.facts(), job.model_facts()
    if not check_report(out, resume=resume, force=force):
        return PruningReport(facts, model)
    report = PruningReport.load(out)
    if force:
        return PruningReport(facts, model)
    for name, ours, theirs in (
        *((k, v, report.settings.get(k)) for k, v in facts.items()),
        *((f"model {k}", v, report.model.get(k)) for k, v in model.items()),
    ):
        if ours != theirs:
            raise UserError(
                f"the report in '{out}' can't be gone on with, its {name} differs: "
                f"{_short(theirs)} there, {_short(ours)} here"
            )
    known = {c for task in tasks_of(job.settings) for c in task.combinations}
    texts = {text.source for text in job.samples}
    for row in report.rows:
        if row.combination not in known or row.evaluation not in texts:
            raise UserError(f"the report in '{out}' is damaged: it holds a row of another sweep")
    return report


def check_report(out: Path, *, resume: bool, force: bool) -> bool:
    """Whether ``out`` holds a report.

    Raises:
        UserError: if nothing may be written there.
    """
    if force and resume:
        raise UserError("--force replaces a report and --resume goes on with it: give one of them")
    check_place(out)
    if not out.exists() or not any(out.iterdir()):
        return False
    if not (out / JSON_FILE).exists():
        raise UserError(
            f"folder '{out}' holds other files and no report: give another folder for --out"
        )
    if not (force or resume):
        raise UserError(
            f"folder '{out}' holds a report already: add --resume to go on with it, --force to "
            "replace it, or give another folder"
        )
    return True


def run_sweep(
    job: SweepJob,
    out: Path,
    *,
    resume: bool = False,
    force: bool = False,
    n_workers: int = 1,
    progress: Progress | None = None,
) -> PruningReport:
    """Plan, prune, refit and score every combination; write the report after each plan's rows.

    The dense model is the row of sparsity 0. A combination that can't be is ``not_applicable``,
    with the reason. At the end the winner of each sparsity is scored again on all windows.

    Args:
        n_workers: processes that share the combinations, each computing with one thread; 1 for
            this one alone. Several need a job from :func:`prepare_sweep`.
    """
    progress = progress or Silent()
    job.check()
    report = begin_report(job, out, resume=resume, force=force)
    seeds = range(job.settings.n_seeds)
    tasks = tasks_of(job.settings)
    with Workers(job, n_workers) as workers:
        report.save(out)
        _run(report, tasks, job, workers, out, progress, "Sweeping")
        if job.wholes:
            chosen = dict.fromkeys(
                Task(winner.method, winner.sparsity, seed, (winner.refit,), ALL)
                # Seed by seed, for each has its calibration in memory.
                for seed in seeds
                for text in job.samples
                for winner in report.winners(text.source)
            )
            again = [replace(_DENSE_TASK, windows=ALL), *chosen]
            _run(report, again, job, workers, out, progress, "Scoring winners on all windows")
    return report


def _run(
    report: PruningReport,
    tasks: Sequence[Task],
    job: SweepJob,
    workers: Workers,
    out: Path,
    progress: Progress,
    stage: str,
) -> None:
    """Do what the report lacks, and keep its rows in the order of the tasks."""
    place = {c: i for i, c in enumerate(c for task in tasks for c in task.combinations)}
    texts = {text.source: i for i, text in enumerate(job.samples)}
    missing = [left for task in tasks if (left := _without(task, report)) is not None]
    n_models = sum(len(task.refits) for task in tasks)
    progress.begin(stage, n_models, "models")
    progress.advance(n_models - sum(len(task.refits) for task in missing))
    for rows in workers.run(missing):
        windows = rows[0].windows
        others = [row for row in report.rows if row.windows != windows]
        own = [row for row in report.rows if row.windows == windows] + list(rows)
        own.sort(key=lambda row: (place[row.combination], texts[row.evaluation]))
        report.rows = own + others if windows == SAMPLE else others + own
        report.save(out)
        progress.advance(len({row.combination for row in rows}))
    progress.end()


def _without(task: Task, report: PruningReport) -> Task | None:
    """What of a task the report does not have; None for nothing."""
    left = tuple(
        combination[1]
        for combination in task.combinations
        if not report.has(combination, task.windows)
    )
    return replace(task, refits=left) if left else None


def tasks_of(settings: SweepSettings) -> list[Task]:
    """Every plan of a sweep and the refits of each, in the order in which they are done."""
    return [_DENSE_TASK, *_tasks(settings)]


def _tasks(settings: SweepSettings) -> Iterator[Task]:
    """Seed by seed; most sparse first, for removals are nested and found once."""
    for seed in range(settings.n_seeds):
        for sparsity in sorted((s for s in settings.sparsities if s > 0), reverse=True):
            for method in settings.methods:
                yield Task(method, sparsity, seed, settings.refits, SAMPLE)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
