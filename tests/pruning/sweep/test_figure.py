"""The figure and the table of a sweep."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from projector.errors import UserError
from projector.figures.html import write_figure
from pruning.sweep.figure import report_figure
from pruning.sweep.report import DENSE, NOT_APPLICABLE, PruningReport
from pruning.terminal.tables import report_table
from tests.pruning.sweep.test_report import NAME, full, made, row
from tests.refused import lacking, refused_naming

EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def test_a_line_a_method_and_refit_with_bars_of_the_spread() -> None:
    report = full()
    report.rows.append(row("poles", "reconstruct", 0.2, 0, 8.0, removed_share=0.07))
    figure = report_figure(report)
    names = [trace.name for trace in figure.data]
    assert names == ["obs, none", "poles, none", "poles, reconstruct"]
    summaries = {
        (s.method, s.refit, s.sparsity): s for s in report.summaries() if s.evaluation == "text"
    }
    for trace in figure.data:
        method, refit = trace.name.split(", ")
        sparsities = [data[0] for data in trace.customdata]
        # From the dense model on, to ever fewer parameters.
        assert (trace.x[0], trace.y[0]) == (0.0, 7.0)
        assert list(trace.x) == sorted(trace.x)
        for sparsity, y, spread in zip(
            sparsities[1:], trace.y[1:], trace.error_y.array[1:], strict=True
        ):
            one = summaries[method, refit, sparsity]
            assert (y, spread) == (one.perplexity, one.spread or 0.0)
        assert len(trace.error_y.array) == len(trace.y)
    assert max(figure.data[0].error_y.array) > 0
    # One colour a method, one dash a refit.
    first, second, third = figure.data
    assert first.line.color != second.line.color == third.line.color
    assert first.line.dash == second.line.dash != third.line.dash
    assert "perplexity" in figure.layout.yaxis.title.text
    assert "parameters" in figure.layout.xaxis.title.text
    (note,) = figure.layout.annotations
    assert note.text == "dense 7.00"
    # At its line: on a logarithmic axis a note stands at the logarithm.
    assert 10**note.y == pytest.approx(7.0)
    (line,) = figure.layout.shapes
    assert line.y0 == line.y1 == 7.0


@pytest.mark.parametrize(
    ("dense", "others"),
    [
        (7.535, (7.56, 31.4)),
        (7.535, (7.54, 7.6)),
        (15.2, (16.0, 4e5)),
        (99.0, (130.0, 1e3)),
        (2.5e4, (2.6e4, 9e4)),
        (1.01, (1.02, 40.0)),
        (None, (7.0, 9.0)),
        # Better than the dense model.
        (10.0, (6.0, 30.0)),
    ],
)
def test_the_perplexity_axis_names_whole_numbers(
    dense: float | None, others: tuple[float, float]
) -> None:
    rows = [row(sparsity=0.1, perplexity=others[0]), row(sparsity=0.2, perplexity=others[1])]
    if dense is not None:
        rows.append(row(DENSE, sparsity=0.0, perplexity=dense, removed_share=0.0))
    axis = report_figure(made(*rows)).layout.yaxis
    assert axis.type == "log"
    low, high = (10**end for end in axis.range)
    least = min(others[0], dense or others[0])
    assert low < least < high
    assert high <= max(4 * (dense or least), least * 1.05) * 1.001
    shown = [tick for tick in axis.tickvals if low <= tick <= high]
    assert 3 <= len(shown) <= 12
    assert list(axis.tickvals) == sorted(set(axis.tickvals))
    # Zoomed out there are some too, up to the worst.
    above = [tick for tick in axis.tickvals if tick > high]
    assert bool(above) == (others[1] > 1.4 * high)
    # In full, and as they are: 20,000 and not the 2 of it.
    assert [float(text.replace(",", "")) for text in axis.ticktext] == list(axis.tickvals)
    assert not any("e" in text for text in axis.ticktext)


def test_a_point_tells_what_it_is() -> None:
    report = full()
    report.rows.append(row("flap", "none", 0.125, 0, 8.0, removed_share=0.07))
    told = {
        trace.name: [data[1] for data in trace.customdata] for trace in report_figure(report).data
    }
    assert told["flap, none"][0] == "<b>dense model</b><br>perplexity 7.000"
    names = ("<b>flap</b>, refit none<br>", "<br>7.0% ", "<br>perplexity 8.000 (1 seed)")
    assert lacking(told["flap, none"][1], *names, "<br>12.5% of the MLP neurons") == []
    # 12 + (0, 0.2, 0.8).
    assert any(t.endswith("<br>perplexity 12.333 ± 0.416 (3 seeds)") for t in told["obs, none"])


def test_the_title_counts_its_seeds() -> None:
    assert "3 seeds" in report_figure(full()).layout.title.text
    alone = made(row(DENSE, sparsity=0.0, perplexity=7.0), row())
    assert report_figure(alone).layout.title.text.endswith("; 1 seed</sup>")


def test_a_menu_shows_a_refit_s_name_as_it_is() -> None:
    report = full()
    report.rows.append(row("obs", "<b>half</b>", 0.2, 0, 8.0))
    (menu,) = report_figure(report).layout.updatemenus
    assert "&lt;b&gt;half&lt;/b&gt;" in [button.label for button in menu.buttons]


def test_a_menu_chooses_the_refit() -> None:
    report = full()
    report.rows.append(row("poles", "reconstruct", 0.2, 0, 8.0))
    figure = report_figure(report)
    (menu,) = figure.layout.updatemenus
    shown = {button.label: button.args[0]["visible"] for button in menu.buttons}
    assert list(shown) == ["all refits", "none", "reconstruct"]
    refits = [trace.name.split(", ")[1] for trace in figure.data]
    assert list(shown["all refits"]) == [True] * 3
    assert list(shown["none"]) == [refit == "none" for refit in refits]
    assert list(shown["reconstruct"]) == [refit == "reconstruct" for refit in refits]
    assert not report_figure(full()).layout.updatemenus


def test_another_text_is_another_figure() -> None:
    report = full()
    figure = report_figure(report, NAME)
    assert [trace.name for trace in figure.data] == ["obs, none"]
    # No dense row of this text: no line, and curves begin at their first point.
    assert list(figure.data[0].y) == [55.0]
    assert not figure.layout.shapes
    with pytest.raises(UserError, match="'other'"):
        report_figure(report, "other")
    with refused_naming("`pruning sweep`"):
        report_figure(made())


def test_a_report_of_the_dense_model_alone_has_a_figure(tmp_path: Path) -> None:
    report = made(row(DENSE, sparsity=0.0, perplexity=7.0))
    figure = report_figure(report)
    assert not figure.data
    write_figure(figure, tmp_path / "a.html")


def test_html_needs_no_network_and_escapes_names(tmp_path: Path) -> None:
    report = full()
    report.rows = [replace(each, evaluation=EVIL) for each in report.rows]
    report.model["id"] = EVIL
    report.settings["calibration"] = {"source": EVIL}
    figure = report_figure(report)
    write_figure(figure, tmp_path / "deep" / "report.html")
    page = (tmp_path / "deep" / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(2)" not in page
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)
    assert "<img" not in figure.layout.title.text
    assert "&lt;img" in figure.layout.title.text


def shown(report: PruningReport, evaluation: str = "text") -> str:
    console = Console(width=100, force_terminal=True, color_system="standard", highlight=False)
    with console.capture() as captured:
        console.print(report_table(report, evaluation))
    return captured.get()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_the_table_has_a_row_a_combination_and_a_column_a_sparsity() -> None:
    report = full()
    lines = [line.split() for line in plain(shown(report)).splitlines() if line.strip()]
    assert lines[0] == ["method", "refit", "20%", "50%"]
    assert ["dense", "7.000", "7.000"] in lines
    # 12 + (0, 0.2, 0.8) and 15 + (0, 0.5, 2).
    assert ["obs", "none", "12.333", "±", "0.416", "15.833", "±", "1.041"] in lines
    assert ["obs", "bias", "–", "–"] in lines


def test_on_a_narrow_screen_the_spread_is_left_out_and_no_number_is_cut() -> None:
    report = full()
    console = Console(width=50)
    with console.capture() as captured:
        console.print(report_table(report, "text", console.width))
    found = captured.get()
    assert "12.333" in found
    assert "15.833" in found
    assert "±" not in found
    assert "…" not in found


def test_the_least_of_a_column_is_bold() -> None:
    bold = re.findall(r"\x1b\[1m\s*(\d+\.\d+ ± \d+\.\d+)", shown(full()))
    assert bold == ["11.333 ± 0.416", "14.833 ± 1.041"]


def test_a_dense_model_without_a_perplexity_is_broken() -> None:
    reason = "the model's output is not finite in 4 of 4 windows"
    rows = [row(DENSE, sparsity=0.0, perplexity=None, reason=reason), row()]
    rows.append(row(refit="bias", perplexity=None, status=NOT_APPLICABLE, reason="none"))
    lines = [line.split() for line in plain(shown(made(*rows))).splitlines()]
    assert ["dense", "broken"] in lines
    assert report_figure(made(*rows)).data


def test_names_are_no_markup() -> None:
    text = plain(shown(made(row("[red]obs[/red]"), row(DENSE, sparsity=0.0))))
    assert "[red]obs[/red]" in text
