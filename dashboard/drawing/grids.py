"""Tables of coloured cells, and signed bars, for the browser to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: its text.
        fill: its background, ``#rrggbbaa`` or other CSS; empty for none.
        tip: lines of text under the pointer; text after a tab is aligned to the right.
    """

    text: str
    fill: str = ""
    tip: str = ""


@dataclass(frozen=True, eq=False)
class CellGrid:
    """Rows of cells, each with a name, below the names of columns.

    Attributes:
        rows, columns: names of rows and columns.
        cells: a list for each row, a cell for each column.
        selected: row and column with a frame; a row of None marks the whole column.
        label: name of the table for screen readers.
        column_width: width in pixels.
        most_height: height in pixels above which the rows scroll.
        ink: colour of texts in cells, ``#rrggbb``; empty for the page's.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[Cell]]
    selected: tuple[int | None, int | None] = (None, None)
    label: str = ""
    column_width: int = 78
    most_height: int = 560
    ink: str = ""

    def data(self) -> dict[str, Any]:
        """The data for the browser. Repeated texts and tips are sent once."""
        words: dict[str, int] = {}

        def index(text: str) -> int:
            return words.setdefault(text, len(words))

        rows = [
            [[index(cell.text), index(cell.fill), index(cell.tip)] for cell in row]
            for row in self.cells
        ]
        return {
            "rows": list(self.rows),
            "columns": list(self.columns),
            "cells": rows,
            "words": list(words),
            "selected": list(self.selected),
            "label": self.label,
            "width": self.column_width,
            "height": self.most_height,
            "ink": self.ink,
        }


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        name: text before it.
        share: its length, from −1 to 1.
        value: its value as text.
        tip: text under the pointer.
        can_pick: whether it can be clicked.
        is_selected: whether it has a frame.
        control: ends of the control's range, on the scale of ``share``; empty if unknown.
    """

    name: str
    share: float
    value: str
    tip: str = ""
    can_pick: bool = False
    is_selected: bool = False
    control: tuple[float, ...] = ()
