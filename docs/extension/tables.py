"""Tables whose columns are code, except the last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from docutils import nodes
from rich.text import Text

Row = tuple[str, ...]


def plain(marked: str) -> str:
    """A help text as it is read, without Rich's marks."""
    return " ".join(Text.from_markup(marked).plain.split())


def table(head: Row, rows: Sequence[Row], widths: Sequence[int] = (28, 12, 60)) -> nodes.table:
    """A table of texts, with columns of these widths; no text is read as markup."""
    group = nodes.tgroup("", cols=len(head))
    group += [nodes.colspec("", colwidth=each) for each in widths]
    group += nodes.thead("", *_rows([head], is_head=True))
    group += nodes.tbody("", *_rows(rows, is_head=False))
    return nodes.table("", group)


def _rows(rows: Sequence[Row], *, is_head: bool) -> Iterator[nodes.row]:
    for row in rows:
        entries = []
        for column, text in enumerate(row):
            is_code = column < len(row) - 1 and text and not is_head
            content = nodes.literal("", text) if is_code else nodes.Text(text)
            entries.append(nodes.entry("", nodes.paragraph("", "", content)))
        yield nodes.row("", *entries)
