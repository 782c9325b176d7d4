"""A report of `pruning reuse` on the Pruning page: its answer, figures and tables."""

from __future__ import annotations

import streamlit as st

from dashboard.frame.exports import offer_figure
from dashboard.state import session
from projector.figures.page import Table
from pruning.reuse.records import ReuseReport
from pruning.reuse.showing.figures import differences_figure, perplexity_figure
from pruning.reuse.showing.page import comparisons_table, facts_text, methods_table, title_of
from pruning.reuse.showing.words import answer, error_words


def show_reuse(report: ReuseReport, name: str) -> None:
    """Draw a report of an experiment on reuse.

    Args:
        name: name of its folder.
    """
    st.caption(session.plain(f"{title_of(report)}. {facts_text(report)}"))
    if not report.rows:
        st.info("This experiment has no rows yet.")
        return
    st.write(session.plain(answer(report)))
    stem = name.replace("/", "-")
    figure = perplexity_figure(report)
    st.plotly_chart(figure, key=f"reuse figure {name}")
    offer_figure(figure, f"{stem}-reuse-perplexity")
    _show_table(methods_table(report), f"reuse methods {name}")
    if report.comparisons:
        st.caption(
            "The first method minus the second in nats per token, paired over windows and seeds. "
            "Bars are two standard errors. Above zero, the first method is worse. "
            f"{error_words(report)}"
        )
        figure = differences_figure(report)
        st.plotly_chart(figure, key=f"reuse differences {name}")
        offer_figure(figure, f"{stem}-reuse-differences")
        _show_table(comparisons_table(report), f"reuse comparisons {name}")


def _show_table(table: Table, key: str) -> None:
    rows = [
        {
            title: "–" if value is None else str(value)
            for title, value in zip(table.columns, row, strict=True)
        }
        for row in table.rows
    ]
    st.dataframe(rows, hide_index=True, key=key)
