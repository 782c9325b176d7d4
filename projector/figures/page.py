"""A report as one HTML page that needs no network: text, tables and figures, one below another."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem;
  padding: 0 1.5rem; color: #1f2933; background: #fff; }
h1 { font-size: 1.6rem; margin-bottom: .3rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.note { color: #52606d; font-size: .92rem; max-width: 50rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .2rem .7rem; text-align: left; border-bottom: 1px solid #e4e7eb;
  white-space: pre; }
th { font-weight: 600; } td.number, th.number { text-align: right;
  font-variant-numeric: tabular-nums; }
.tokens { font: .95rem/2 ui-monospace, monospace; white-space: pre-wrap; }
@media (prefers-color-scheme: dark) {
  .figure { background: #fff; padding: .6rem; border-radius: .5rem; }
  body { color: #e4e7eb; background: #14181d; } .note { color: #9aa5b1; }
  th, td { border-color: #323f4b; } }
"""
# A number as a report writes it: +1.50, −3 %, 0.10 ± 0.02, 1.2e-07.
_NUMBER_TEXT = re.compile(r"[+−]?\d[\d,]*(\.\d+)?(e[-−+]?\d+)?( %)?( ± [\d.]+)?", re.ASCII)
_NOT_NAMED = re.compile(r"[^\w]+")


@dataclass(frozen=True)
class Table:
    """Columns and rows of text and numbers; a column of numbers is set to the right, also where
    they are texts.

    Attributes:
        columns: titles.
        rows: each of as many cells. A number is shown as Python shows it: give text for another
            form. None is shown as a dash.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in this order; what is empty is left out.

    Attributes:
        title: the heading.
        text: plain text; an empty line parts paragraphs.
        figure: a Plotly figure.
        table: see :class:`Table`.
        trusted_html: HTML whose every text of a model or a user was escaped.
    """

    title: str
    text: str = ""
    figure: go.Figure | None = None
    table: Table | None = None
    trusted_html: str = ""


def page_html(title: str, lead: str, sections: Sequence[Section]) -> str:
    """A page: a title, a paragraph that says what it shows, and its sections. All text is escaped,
    but for :attr:`Section.trusted_html`."""
    has_figures = any(each.figure is not None for each in sections)
    script = f"<script>{get_plotlyjs()}</script>" if has_figures else ""
    body = "\n".join(_section(each) for each in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n{script}\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{_paragraphs(lead)}\n{body}\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>", _paragraphs(section.text)]
    if section.figure is not None:
        # What its menu saves is named after its section.
        name = _NOT_NAMED.sub("-", section.title.lower()).strip("-") or "figure"
        config = {"toImageButtonOptions": {"filename": name, "scale": 2}}
        drawn = section.figure.to_html(full_html=False, include_plotlyjs=False, config=config)
        parts.append(f'<div class="figure">{drawn}</div>')
    if section.table is not None:
        parts.append(_table(section.table))
    parts.append(section.trusted_html)
    return "\n".join(part for part in parts if part)


def _paragraphs(text: str) -> str:
    return "\n".join(
        f'<p class="note">{html.escape(part.strip())}</p>'
        for part in text.split("\n\n")
        if part.strip()
    )


def _table(table: Table) -> str:
    are_numbers = [_is_number([row[k] for row in table.rows]) for k in range(len(table.columns))]

    def cell(tag: str, value: str | int | float | None, is_number: bool) -> str:
        kind = ' class="number"' if is_number else ""
        text = "–" if value is None else str(value).replace("-", "−", 1) if is_number else value
        return f"<{tag}{kind}>{html.escape(str(text))}</{tag}>"

    def line(tag: str, values: Sequence[str | int | float | None]) -> str:
        cells = (cell(tag, v, n) for v, n in zip(values, are_numbers, strict=True))
        return f"<tr>{''.join(cells)}</tr>"

    rows = "\n".join(line("td", row) for row in table.rows)
    head = line("th", table.columns)
    return (
        f'<div class="scroll"><table><thead>{head}</thead><tbody>\n{rows}\n</tbody></table></div>'
    )


def _is_number(column: Sequence[str | int | float | None]) -> bool:
    """Whether a column is of numbers, or of texts of which each is one."""
    known = [value for value in column if value is not None]
    texts = [value for value in known if isinstance(value, str) and value != "–"]
    are_texts = bool(texts) and all(_NUMBER_TEXT.fullmatch(text) for text in texts)
    return are_texts or any(isinstance(value, int | float) for value in known)
