"""``pruning reuse``: whether neurons can take their values from neurons of earlier layers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from projector.terminal.commands import Given, Without, command
from projector.terminal.options import LoadingOptions
from projector.terminal.screen import Screen, partners_words
from pruning.reuse.settings import ReuseRequest, ReuseSettings
from pruning.terminal.experiments.reports import say_step, say_written
from pruning.terminal.options import (
    Model,
    ReportOptions,
    ResumeOptions,
    TextOptions,
    WithoutRest,
    calibration_of,
    evaluation_of,
)

_LEGEND = (
    "[dim]perplexity at each share of the MLPs' operations saved: mean ± standard deviation over "
    "seeds, and below it the neurons that are reused and removed; –: not available[/dim]"
)
_COMPARISON_LEGEND = (
    "[dim]nats per token that the first method costs more than the second, paired over windows and "
    "seeds: difference ± standard error, and in brackets their ratio; below −2 the first wins, "
    "above 2 it loses[/dim]"
)


@command
def reuse(
    screen: Screen,
    model: Model,
    *,
    report: ReportOptions,
    settings: Annotated[ReuseSettings, Without(("pruning_method", "seed"))],
    texts: TextOptions,
    request: Annotated[Given[ReuseRequest], WithoutRest],
    loading: LoadingOptions,
    again: ResumeOptions,
) -> None:
    """Replace MLP neurons by neurons of earlier layers, and measure what that saves and costs."""
    asked = ReuseRequest(
        model=model,
        settings=settings,
        calibration=calibration_of(texts.calibration, model),
        evaluation=evaluation_of(texts.evaluation, model),
        **request.values,
        **vars(loading),
    )
    _run(screen, asked, report.out, **vars(again))


def _run(screen: Screen, request: Any, out: Path, *, resume: bool, force: bool) -> None:
    """Measure, draw, and show."""
    from projector.storage.resuming import Step
    from pruning.reporting.files import JSON_FILE
    from pruning.reporting.kinds import REUSE
    from pruning.reporting.places import check_report
    from pruning.reuse.job import prepare_reuse
    from pruning.reuse.running import PAGE_FILE, next_step, run_reuse
    from pruning.reuse.showing.page import write_page
    from pruning.reuse.showing.words import answer

    screen.can_resume = (out / JSON_FILE).exists
    check_report(out, REUSE, resume=resume, force=force)
    with screen.progress() as progress:
        job = prepare_reuse(request, progress)
        step = next_step(job, out, resume=resume, force=force)
        if resume:
            say_step(screen, step, "experiment", out)
        screen.say(f"[b]{escape(job.text.source)}[/b]: {escape(job.text.description)}")
        if step is not Step.LEAVE:
            _tell_needs(screen, job)
        report = run_reuse(job, out, resume=resume, force=force, progress=progress)
    if step is not Step.LEAVE or not (out / PAGE_FILE).exists():
        write_page(report, out / PAGE_FILE)
    if screen.as_json:
        screen.result(
            {
                "report": str(out / JSON_FILE),
                "page": str(out / PAGE_FILE),
                "comparisons": [asdict(each) for each in report.comparisons],
                "wins": report.wins,
                "answer": answer(report),
            },
            "",
        )
        return
    _show(screen, report)
    say_written(screen, step, out, PAGE_FILE)


def _tell_needs(screen: Screen, job: Any) -> None:
    """Show the memory and time that the experiment takes, before it begins."""
    from projector.memory import enough_text
    from projector.model.loading import input_device
    from projector.statistics.cross_layer.plan import seconds_of_products

    needs = job.needs().within(job.memory_budget)
    screen.say(
        f"Takes about {enough_text(needs.total)} of memory in addition to the model, one layer at "
        "a time"
    )
    plan = job.partners_plan()
    if plan is not None:
        seconds = seconds_of_products(plan, input_device(job.loaded.model))
        screen.say(partners_words(plan, seconds))


def _show(screen: Screen, report: Any) -> None:
    """Perplexities, paired differences, and the answer."""
    from pruning.reuse.showing.words import answer, error_words

    screen.out.print(_methods(report))
    screen.say(_LEGEND)
    if report.comparisons:
        screen.out.print(_comparisons(report))
        screen.say(_COMPARISON_LEGEND)
        screen.say(f"[dim]{error_words(report)}[/dim]")
    for note in report.notes:
        screen.say(f"[dim]{escape(note)}[/dim]")
    screen.say(escape(answer(report)))


def _methods(report: Any) -> Table:
    """A row a method, a column a share."""
    from pruning.reuse.records import DENSE
    from pruning.reuse.showing.summaries import dense_of, summaries
    from pruning.reuse.showing.words import percent

    found = summaries(report)
    shares = sorted({each.share for each in found if each.method != DENSE})
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("method")
    for share in shares:
        table.add_column(percent(share), justify="right", no_wrap=True)
    dense = dense_of(found)
    if dense is not None:
        table.add_row(DENSE, *[dense.text] * len(shares), style="dim")
    cells = {(each.name, each.share): _cell(each) for each in found}
    for name in dict.fromkeys(each.name for each in found if each.method != DENSE):
        table.add_row(escape(name), *(cells.get((name, share), "–") for share in shares))
    for reason in dict.fromkeys(each.reason for each in found if each.reason):
        table.caption = f"{table.caption}; {reason}" if table.caption else f"–: {reason}"
    return table


def _cell(summary: Any) -> str:
    """Perplexity, and in a line below it how many neurons are reused and removed."""
    from pruning.reuse.showing.summaries import counts_of

    counts = counts_of(summary) if summary.perplexity is not None else None
    return summary.text if counts is None else f"{summary.text}\n[dim]{counts}[/dim]"


def _comparisons(report: Any) -> Table:
    """A row for each pair of methods, a column a share."""
    from pruning.reuse.showing.summaries import errors_apart, pair_name
    from pruning.reuse.showing.words import percent, signed

    shares = sorted({each.share for each in report.comparisons})
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("first against second")
    for share in shares:
        table.add_column(percent(share), justify="right", no_wrap=True)
    for name in dict.fromkeys(pair_name(each) for each in report.comparisons):
        cells = dict.fromkeys(shares, "–")
        for each in report.comparisons:
            if pair_name(each) == name:
                apart = errors_apart(each)
                cells[each.share] = signed(each.difference)
                if each.standard_error is not None:
                    cells[each.share] += f" ± {each.standard_error:.4f}"
                if apart is not None:
                    cells[each.share] += f" ({signed(apart if each.difference > 0 else -apart, 1)})"
        table.add_row(escape(name), *cells.values())
    return table
