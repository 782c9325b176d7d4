"""All heads of a model with their scores, kept as JSON and drawn as a table of cells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboard.drawing.grids import Cell, CellGrid
from dashboard.drawing.text import number, tints
from projector.errors import UserError
from projector.figures.residual.kinds import INK, background_of, letters_of
from projector.residual.heads.kinds import KINDS

# Version of the files on disk; raise it when scores change.
VERSION = 2
KIND = "kind"
# The page's ways to colour heads, with their names.
COLORS = {KIND: "Kind", **{kind.name: kind.title[:1].upper() + kind.title[1:] for kind in KINDS}}
_COLUMN_WIDTH = 56


@dataclass(frozen=True)
class HeadTable:
    """All heads for the page.

    Attributes:
        rows: one per head; see :class:`projector.residual.heads.kinds.HeadRow`, as JSON holds it.
        kinds: for each kind, the number of heads, the number by chance, and more.
        reasons: why something is missing, for people.
        left_out: for each layer by its number, what shapes attention besides W_QK.
        n_random: number of random heads that each head is compared with.
    """

    rows: tuple[Mapping[str, Any], ...]
    kinds: Mapping[str, Mapping[str, Any]]
    reasons: tuple[str, ...] = ()
    left_out: Mapping[str, tuple[str, ...]] | None = None
    n_random: int = 0

    @classmethod
    def of_dict(cls, found: Mapping[str, Any]) -> HeadTable:
        """Read the result of :meth:`projector.residual.heads.kinds.Heads.as_dict`."""
        return cls(
            rows=tuple(found["rows"]),
            kinds=found["kinds"],
            reasons=tuple(found["reasons"]),
            left_out={str(k): tuple(v) for k, v in found["left_out_of_qk"].items()},
            n_random=int(found["n_random"]),
        )

    @classmethod
    def without_scores(cls, n_heads: Sequence[int], reason: str) -> HeadTable:
        """A table of heads without scores.

        Args:
            n_heads: number of heads of each layer.
        """
        rows: tuple[Mapping[str, Any], ...] = tuple(
            {"layer": layer, "head": head, "kv_group": None, "kinds": []}
            for layer, n in enumerate(n_heads)
            for head in range(n)
        )
        return cls(rows, {}, (reason,))

    @property
    def layers(self) -> list[int]:
        """The layers that have heads, ascending."""
        return sorted({row["layer"] for row in self.rows})

    def n_heads(self, layer: int) -> int:
        """The number of heads of one layer."""
        return sum(row["layer"] == layer for row in self.rows)

    def row(self, layer: int, head: int) -> Mapping[str, Any] | None:
        """The row of one head; None if there is no such head."""
        found = (row for row in self.rows if (row["layer"], row["head"]) == (layer, head))
        return next(found, None)


def heads_text(found: Mapping[str, Any]) -> str:
    """The text on disk for :meth:`projector.residual.heads.kinds.Heads.as_dict`."""
    return json.dumps({"version": VERSION, "heads": found}, allow_nan=False)


def read_heads(text: str) -> HeadTable | None:
    """Read the result of :func:`heads_text`; None if it can't be read or has another version."""
    try:
        values = json.loads(text)
        if values["version"] != VERSION:
            return None
        table = HeadTable.of_dict(values["heads"])
        head_grid(table, KIND, None)
        return table
    except (ValueError, KeyError, TypeError, AttributeError, UserError):
        return None


def head_grid(table: HeadTable, color: str, selected: tuple[int, int] | None) -> CellGrid:
    """A grid with a row per layer, the last on top, and a column per head.

    Args:
        color: a name in :data:`COLORS`.
        selected: layer and head.
    """
    layers = table.layers[::-1]
    if not layers:
        raise UserError("the attention heads of this model can't be identified")
    n_columns = 1 + max(row["head"] for row in table.rows)
    cells = []
    for layer in layers:
        found = [table.row(layer, head) for head in range(n_columns)]
        cells.append([Cell("") if row is None else _cell(row, color) for row in found])
    place = (None, None) if selected is None else (_index(layers, selected[0]), selected[1])
    return CellGrid(
        rows=[f"layer {layer}" for layer in layers],
        columns=[f"H{head}" for head in range(n_columns)],
        cells=cells,
        selected=place if place[0] is not None else (None, None),
        label="All attention heads",
        column_width=_COLUMN_WIDTH,
        ink=INK if color == KIND else "",
        most_height=420,
    )


def layer_of(table: HeadTable, row: int) -> int:
    """The layer of a row of :func:`head_grid`."""
    return table.layers[::-1][row]


def _index(layers: Sequence[int], layer: int) -> int | None:
    return layers.index(layer) if layer in layers else None


def _cell(row: Mapping[str, Any], color: str) -> Cell:
    tip = _tip(row)
    if color != KIND:
        value = row.get(color)
        if value is None:
            return Cell("–", "", tip)
        return Cell(number(value, ".2f"), tints(np.array([value]))[0], tip)
    return Cell(letters_of(row["kinds"]), background_of(row["kinds"]), tip)


def _tip(row: Mapping[str, Any]) -> str:
    name = f"L{row['layer']} H{row['head']}"
    group = row["kv_group"]
    lines = [name if group is None else f"{name}, with the keys and values of group {group}"]
    titles = [kind.title for kind in KINDS if kind.name in row["kinds"]]
    if titles:
        lines.append("is of the kind: " + ", ".join(titles))
    for kind in KINDS:
        value = row.get(kind.name)
        if value is not None:
            lines.append(f"{kind.title}\t{score_words(row, kind.name)}")
    return "\n".join(lines)


def score_words(row: Mapping[str, Any], name: str) -> str:
    """A score with its percentile, such as ``0.62, above 100 % of random heads``."""
    value, share = row.get(name), row.get(f"{name}_percentile")
    if value is None:
        return "–"
    words = number(value, ".2f")
    return words if share is None else f"{words}, above {number(share, '.0f')} % of random"


def found_words(table: HeadTable) -> str:
    """The number of heads of each kind, with the number by chance, in one sentence."""
    parts = []
    for kind in KINDS:
        found = table.kinds.get(kind.name)
        if found is None:
            continue
        by_chance = found["n_expected_by_chance"]
        chance = "" if by_chance is None else f" ({number(by_chance, '.1f')} expected by chance)"
        parts.append(f"{kind.title} {found['n_found']:,}{chance}")
    return "; ".join(parts)


def left_out_words(table: HeadTable) -> list[str]:
    """What shapes attention besides the weights, with one line for layers with equal text."""
    layers: dict[tuple[str, ...], list[str]] = {}
    for layer, names in (table.left_out or {}).items():
        if names:
            layers.setdefault(names, []).append(layer)
    n_layers = len(table.layers)
    return [
        "What shapes attention besides W_QK"
        + ("" if len(own) == n_layers else f" in layers {', '.join(own)}")
        + f": {', '.join(names)}."
        for names, own in layers.items()
    ]
