"""Tables of coloured cells and signed bars, as the browser draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what stands in it.
        fill: its background, ``#rrggbbaa`` or other CSS; empty for none.
        tip: what is shown when it is pointed at, lines below one another; what stands behind a tab
            is set at the right.
    """

    text: str
    fill: str = ""
    tip: str = ""


@dataclass(frozen=True, eq=False)
class CellGrid:
    """Rows of cells, each with its name, below the names of columns.

    Attributes:
        rows, columns: names.
        cells: a list for each row, a cell for each column.
        selected: row and column that have a frame; a row of None marks the column alone.
        label: what a screen reader calls the table.
        column_width: pixels.
        most_height: pixels, beyond which the rows scroll.
        ink: of texts in cells, ``#rrggbb``; empty for the page's.
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
        """What the browser needs. Texts and tips that come again travel once."""
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
        name: what stands before it.
        share: its length, from −1 to 1.
        value: its value in words.
        tip: what is shown when it is pointed at.
        can_pick: whether it can be clicked.
        is_selected: whether it has a frame.
        control: ends of what it adds where there is nothing to find, on the scale of ``share``;
            empty where that is not known.
    """

    name: str
    share: float
    value: str
    tip: str = ""
    can_pick: bool = False
    is_selected: bool = False
    control: tuple[float, ...] = ()
