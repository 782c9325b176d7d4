"""``pruning sweep``: methods and refits compared at equal size."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from rich.markup import escape

from projector.settings import setting
from projector.terminal.commands import Given, command
from projector.terminal.options import LoadingOptions, parse_names
from projector.terminal.screen import Screen
from pruning.settings import PoleOptions
from pruning.sweep.settings import SweepRequest, SweepSettings
from pruning.terminal.experiments.reports import say_step, say_written
from pruning.terminal.options import (
    Model,
    ReportOptions,
    ResumeOptions,
    SeveralTexts,
    WithoutPoles,
    WithoutRest,
    calibration_of,
    evaluation_of,
    memory_words,
)


@dataclass(frozen=True)
class WorkerOptions:
    """How many processes share a sweep."""

    n_workers: int = setting(
        1,
        help="Number of processes, one thread each; at most the number of cores. More than 1 "
        "works only on a CPU.",
    )


@command
def sweep(
    screen: Screen,
    model: Model,
    *,
    report: ReportOptions,
    settings: Annotated[SweepSettings, WithoutPoles],
    poles: PoleOptions,
    texts: SeveralTexts,
    request: Annotated[Given[SweepRequest], WithoutRest],
    workers: WorkerOptions,
    loading: LoadingOptions,
    again: ResumeOptions,
) -> None:
    """Compare methods and refits at equal size: perplexity against what was removed."""
    asked = SweepRequest(
        model=model,
        settings=replace(settings, poles=poles),
        calibration=calibration_of(texts.calibration, model),
        evaluations=parse_names(
            evaluation_of(texts.evaluation, model, "evaluations"), "evaluations"
        )
        or (),
        **request.values,
        **vars(loading),
    )
    _run(screen, asked, report.out, **vars(again), n_workers=workers.n_workers)


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
            say_step(screen, step, "sweep", out)
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
    say_written(screen, step, out, figures[0].name)


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
