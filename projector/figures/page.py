"""A report as one offline HTML page with text, tables and figures."""

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
.scroll { overflow-x: auto; position: relative; left: 50%; transform: translateX(-50%);
  width: fit-content; min-width: 100%; max-width: calc(100vw - 3rem); }
table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .2rem .55rem; text-align: left; border-bottom: 1px solid #e4e7eb;
  white-space: pre; }
th { font-weight: 600; white-space: pre-wrap; vertical-align: bottom; }
td.number, th.number { text-align: right;
  font-variant-numeric: tabular-nums; }
.tokens { font: .95rem/2 ui-monospace, monospace; white-space: pre-wrap; }
@media (prefers-color-scheme: dark) {
  body { color: #e4e7eb; background: #14181d; } .note { color: #9aa5b1; }
  th, td { border-color: #323f4b; }
  .figure [style*="fill: rgb(31, 41, 51)"] { fill: #e4e7eb !important; }
  .figure [style*="stroke: rgb(31, 41, 51)"] { stroke: #e4e7eb !important; }
  .figure [style*="fill: rgb(82, 96, 109)"] { fill: #9aa5b1 !important; }
  .figure [style*="stroke: rgb(82, 96, 109)"] { stroke: #9aa5b1 !important; }
  .figure [style*="fill: rgb(203, 210, 217)"] { fill: #3e4c59 !important; } }
"""
# Figures are on the page's own ground: what a template gives is given again for a dark one, also
# when the scheme changes while the page is open.
_DARK_SCRIPT = """
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const ground = "#14181d", ink = "#e4e7eb", line = "#323f4b";
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line };
  const minor = { minor: { gridcolor: line } };
  const space = { ...axis, backgroundcolor: ground };
  const own = new Map();
  const darkened = (template) => {
    const made = structuredClone(template || {}), layout = made.layout || {};
    const add = (name, more) => { layout[name] = { ...layout[name], ...more }; };
    layout.paper_bgcolor = layout.plot_bgcolor = ground;
    add("font", { color: ink });
    for (const name of ["xaxis", "yaxis"]) add(name, { ...axis, ...minor });
    add("scene", { xaxis: space, yaxis: space, zaxis: space });
    made.layout = layout;
    for (const bars of (made.data || {}).bar || [])
      if (bars.marker && bars.marker.line) bars.marker.line.color = ground;
    return made;
  };
  const draw = () => {
    for (const figure of document.querySelectorAll(".js-plotly-plot")) {
      if (!own.has(figure)) own.set(figure, figure.layout.template);
      const template = own.get(figure);
      Plotly.relayout(figure, { template: dark.matches ? darkened(template) : template });
    }
  };
  if (dark.matches) draw();
  dark.addEventListener("change", draw);
})();
"""
# A number as a report writes it: +1.50, −3 %, 0.10 ± 0.02, 1.2e-07.
_NUMBER_TEXT = re.compile(r"[+−]?\d[\d,]*(\.\d+)?(e[-−+]?\d+)?( %)?( ± [\d.]+)?", re.ASCII)
_NOT_NAMED = re.compile(r"[^\w]+")


@dataclass(frozen=True)
class Table:
    """Columns and rows of text and numbers; a column of numbers is right-aligned, even if they are
    strings.

    Attributes:
        columns: titles of the columns.
        rows: rows with one cell per column. A number is shown in Python's format; give text for
            another format. None is shown as a dash.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]


@dataclass(frozen=True)
class Section:
    """A heading and its contents, in this order; empty parts are left out.

    Attributes:
        title: the heading.
        text: plain text; an empty line separates paragraphs.
        figure: a Plotly figure.
        table: see :class:`Table`.
        trusted_html: HTML with every text of a model or a user already escaped.
    """

    title: str
    text: str = ""
    figure: go.Figure | None = None
    table: Table | None = None
    trusted_html: str = ""


def page_html(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Create a page with a title, an introduction and sections. All text is escaped, except
    :attr:`Section.trusted_html`.
    """
    has_figures = any(each.figure is not None for each in sections)
    script = f"<script>{get_plotlyjs()}</script>" if has_figures else ""
    body = "\n".join(_section(each) for each in sections)
    if has_figures:
        body += f"\n<script>{_DARK_SCRIPT}</script>"
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
