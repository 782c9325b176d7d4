"""An experiment on reuse as one offline HTML page."""

from __future__ import annotations

from pathlib import Path

from projector.figures.page import Section, Table, page_html
from projector.storage.places import disk_errors
from projector.storage.replacing import replacing_file
from pruning.reuse.records import DENSE, METHODS_HELP, ReuseReport
from pruning.reuse.showing.figures import differences_figure, perplexity_figure
from pruning.reuse.showing.summaries import (
    counts_of,
    errors_apart,
    pair_name,
    summaries,
    verdict,
)
from pruning.reuse.showing.words import answer, error_words, percent, signed


def write_page(report: ReuseReport, path: Path) -> None:
    """Write the page in one step.

    Raises:
        UserError: if the file can't be written. An existing page is unchanged then.
    """
    text = reuse_page(report)
    with disk_errors(path), replacing_file(path) as new:
        new.write_text(text, encoding="utf-8")


def reuse_page(report: ReuseReport) -> str:
    """The whole page: the answer, both figures, and the numbers behind them.

    Raises:
        UserError: if the report has no rows.
    """
    sections = [
        Section(
            "Perplexity against operations saved",
            "Means over seeds; bars are one standard deviation. Every line begins at the dense "
            "model.",
            figure=perplexity_figure(report),
        ),
        Section("Methods", table=methods_table(report)),
    ]
    if report.comparisons:
        sections.append(
            Section(
                "Methods compared",
                "The first method minus the second in nats a token, paired over windows and seeds; "
                "bars are two standard errors. Above zero the first method is worse, below zero it "
                f"is better; a bar that crosses zero shows neither. {error_words(report)}",
                figure=differences_figure(report),
                table=comparisons_table(report),
            )
        )
    if report.flop_check:
        sections.append(
            Section(
                "Operations",
                "Multiply-adds per token of the MLPs' matrix products, as PyTorch counted them in "
                "the scored models, and by the formula.",
                table=_flop_table(report),
            )
        )
    if report.notes:
        sections.append(Section("Notes", "\n\n".join(report.notes)))
    return page_html(title_of(report), f"{answer(report)}\n\n{facts_text(report)}", sections)


def title_of(report: ReuseReport) -> str:
    """The title of the report."""
    text = report.settings["evaluation"]["source"]
    return f"{report.model['id']}: what reuse of neurons between layers costs on {text}"


def facts_text(report: ReuseReport) -> str:
    """The model, the texts and the seeds, in one sentence."""
    facts = report.settings
    calibration, evaluation = facts["calibration"], facts["evaluation"]
    n_seeds = facts["n_seeds"]
    return (
        f"{report.model['parameters']:,} parameters; {evaluation['windows']:,} windows of "
        f"{evaluation['source']}; calibrated on {facts['n_sequences']:,} sequences of "
        f"{calibration['source']}; {n_seeds:,} seed{'' if n_seeds == 1 else 's'}."
    )


def methods_table(report: ReuseReport) -> Table:
    """The table of methods, with a row for each method and share."""
    rows = []
    for each in summaries(report):
        is_dense = each.method == DENSE
        told = METHODS_HELP.get(each.method, "a pruning method, refitted by least squares")
        rows.append(
            (
                each.name,
                None if is_dense else percent(each.share),
                None if is_dense or each.saved is None else f"{100 * each.saved:.2f} %",
                None if is_dense else counts_of(each) or f"{each.n_changed:,.0f}",
                None if each.r2 is None else f"{each.r2:.3f}",
                each.text,
                each.reason or told,
            )
        )
    columns = ("method", "requested", "saved", "neurons changed", "explained", "perplexity")
    return Table((*columns, "what it does"), tuple(rows))


def comparisons_table(report: ReuseReport) -> Table:
    """The table of comparisons, with a row for each."""
    rows = []
    for each in report.comparisons:
        apart = errors_apart(each)
        error = each.standard_error
        rows.append(
            (
                percent(each.share),
                pair_name(each),
                verdict(each),
                signed(each.difference),
                None if error is None else f"{error:.4f}",
                None if apart is None else f"{apart:.1f}",
            )
        )
    return Table(
        ("share", "comparison", "outcome", "nats a token", "standard error", "in errors"),
        tuple(rows),
    )


def _flop_table(report: ReuseReport) -> Table:
    return Table(
        ("method", "counted", "formula"),
        tuple(
            (method, f"{each['counted']:,}", f"{each['formula']:,}")
            for method, each in report.flop_check.items()
        ),
    )
