"""``pruning sweep``: methods and refits compared at equal size."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from projector.terminal.options import parse_size
from projector.terminal.screen import Screen
from pruning.terminal.options import (
    Allocation,
    Calibration,
    Device,
    Dtype,
    Force,
    Json,
    MemoryBudget,
    Model,
    PoleSelection,
    PoleSize,
    PoleSpace,
    ProjectionDir,
    Resume,
    Revision,
    RoundTo,
    Seeds,
    SequenceLength,
    Sequences,
    Steps,
    TrustRemoteCode,
    Windows,
    calibration_of,
    evaluation_of,
    memory_words,
    names,
    numbers,
)

Out = Annotated[Path, typer.Option("--out", help="Folder for the report.", show_default=False)]
Methods = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated. All by default: {method_names}; `pruning prune --help` describes "
        "each.",
        show_default=False,
    ),
]
Sparsities = Annotated[str, typer.Option(help="Comma-separated.")]
Refits = Annotated[
    str | None,
    typer.Option(help="Comma-separated. All by default: {refit_names}.", show_default=False),
]
Evaluation = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated texts to score on. By default, for the bundled model, "
        "{usual_evaluation}.",
        show_default=False,
    ),
]
Winners = Annotated[
    bool,
    typer.Option(
        "--winners/--no-winners",
        help="Score the best combination at each sparsity again on all windows.",
    ),
]
NWorkers = Annotated[
    int,
    typer.Option(
        help="Number of processes, one thread each; at most the number of cores. More than 1 "
        "works only on a CPU."
    ),
]


# What is said of a sweep with --resume, by the name of the step.
_STEPS = {
    "START": "[b]{out}[/b] holds nothing of this sweep: it starts from the beginning",
    "GO_ON": "Resuming the sweep in [b]{out}[/b]",
    "LEAVE": "The sweep in [b]{out}[/b] is finished: nothing is left to do",
}


def sweep(
    model: Model,
    out: Out = ...,  # type: ignore[assignment]
    methods: Methods = None,
    sparsities: Sparsities = "0.1,0.2,0.3,0.5",
    refits: Refits = None,
    seeds: Seeds = 3,
    projection: ProjectionDir = None,
    space: PoleSpace = None,
    min_cluster_size: PoleSize = None,
    selection: PoleSelection = None,
    calibration: Calibration = None,
    evaluation: Evaluation = None,
    windows: Windows = 64,
    winners: Winners = True,
    sequences: Sequences = 256,
    sequence_length: SequenceLength = None,
    steps: Steps = 200,
    allocation: Allocation = "uniform",
    round_to: RoundTo = 1,
    workers: NWorkers = 1,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    memory_budget: MemoryBudget = None,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compare methods and refits at equal size: perplexity against what was removed."""
    screen = Screen(as_json)
    with screen.errors():
        from pruning.preparing import PoleOptions
        from pruning.sweep.settings import SweepRequest, SweepSettings

        chosen = {"methods": methods, "refits": refits}
        settings = SweepSettings(
            **{name: names(text) for name, text in chosen.items() if text is not None},
            sparsities=numbers("sparsities", sparsities),
            n_seeds=seeds,
            n_sequences=sequences,
            n_steps=steps,
            allocation=allocation,
            round_to=round_to,
            poles=PoleOptions(space, min_cluster_size, selection),
        )
        request = SweepRequest(
            model=model,
            settings=settings,
            calibration=calibration_of(calibration, model),
            evaluations=names(evaluation_of(evaluation, model, "evaluations")),
            projection=projection,
            n_windows=windows,
            with_winners=winners,
            sequence_length=sequence_length,
            revision=revision,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            memory_budget=parse_size(memory_budget),
        )
        _run(screen, request, out, resume=resume, force=force, n_workers=workers)


def _run(
    screen: Screen, request: Any, out: Path, *, resume: bool, force: bool, n_workers: int
) -> None:
    """Sweep, draw, and show."""
    from projector.storage.resuming import Step
    from pruning.reporting.files import JSON_FILE
    from pruning.reporting.kinds import SWEEP
    from pruning.reporting.places import check_report
    from pruning.sweep.figure import write_figures
    from pruning.sweep.job import prepare_sweep
    from pruning.sweep.running import next_step, run_sweep
    from pruning.sweep.workers import check_workers

    screen.can_resume = (out / JSON_FILE).exists
    check_report(out, SWEEP, resume=resume, force=force)
    check_workers(n_workers)
    with screen.progress() as progress:
        job = prepare_sweep(request, progress)
        step = next_step(job, out, resume=resume, force=force)
        if resume:
            screen.say(_STEPS[step.name].format(out=escape(str(out))))
        for text in (*job.samples, *job.wholes):
            screen.say(f"[b]{escape(text.source)}[/b]: {escape(text.description)}")
        report = run_sweep(
            job,
            out,
            resume=resume,
            force=force,
            n_workers=n_workers,
            progress=progress,
            tell=lambda needs: screen.say(memory_words(needs)),
        )
    figures = write_figures(report, out, only_missing=step is Step.LEAVE)
    if screen.as_json:
        screen.result(
            {
                "report": str(out / JSON_FILE),
                "figures": [str(path) for path in figures],
                "summaries": [
                    asdict(each) for each in report.summaries() + report.summaries("all")
                ],
            },
            "",
        )
        return
    _show(screen, report, [text.source for text in job.samples])
    wrote = "The report is in" if step is Step.LEAVE else "Wrote"
    screen.say(f"{wrote} [b]{escape(str(out))}[/b]: open {figures[0].name} there in a browser")


def _show(screen: Screen, report: Any, evaluations: list[str]) -> None:
    """A table of each text, and the winners on all windows."""
    from pruning.terminal.tables import REPORT_LEGEND, report_table

    for evaluation in evaluations:
        screen.say(f"[b]{escape(evaluation)}[/b]")
        screen.out.print(report_table(report, evaluation, screen.out.width))
    screen.say(REPORT_LEGEND)
    for each in report.summaries("all"):
        screen.say(
            f"on all windows of {escape(each.evaluation)}: {each.sparsity:.0%} {each.method}, "
            f"{each.refit}: {each.text}"
        )
