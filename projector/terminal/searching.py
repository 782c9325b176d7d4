"""``projector search``: neurons and poles that fire on a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from projector.errors import check_least
from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.options import SavedProjection
from projector.terminal.screen import Screen, legend

SearchedText = Annotated[
    str,
    typer.Argument(
        metavar="TEXT",
        help="A token, such as method (' self', with its space, matches only that token), or a "
        "neuron, such as L3 N345.",
    ),
]


@dataclass(frozen=True)
class SearchOptions:
    """Options of the search."""

    limit: int | None = setting(
        None, help="Show at most this many. By default 20, or all with [b]--json[/b]."
    )

    def __post_init__(self) -> None:
        check_least("limit", self.limit, 1)


_USUAL_LIMIT = 20


@command
def search(
    screen: Screen, projection_dir: SavedProjection, text: SearchedText, *, options: SearchOptions
) -> None:
    """List the neurons and poles of all layers that fire on a text, the strongest first."""
    from projector.naming.legend import signs_in
    from projector.naming.search import search as find
    from projector.projection.projection import Projection

    found = find(Projection.load(projection_dir), projection_dir, text)
    most = options.limit
    if most is None:
        most = len(found.results) if screen.as_json else _USUAL_LIMIT
    shown = found.results[:most]
    value = {
        "text": text,
        "n_found": len(found.results),
        "results": [each.as_dict() for each in shown],
        "message": found.message,
    }
    if screen.as_json or not shown:
        screen.result(value, escape(found.message or ""))
        return
    screen.out.print(_table(shown))
    if len(shown) < len(found.results):
        n_left = len(found.results) - len(shown)
        screen.say(f"and {n_left:,} more: add [b]--limit {len(found.results)}[/b] to see all")
    screen.out.print(legend(signs_in(each.label for each in shown)))


def _table(shown: tuple[Any, ...]) -> Table:
    from projector.corpus.pieces import readable
    from projector.naming.labels import LOWEST

    table = Table(box=SIMPLE_HEAD)
    table.add_column("layer", justify="right")
    table.add_column("site")
    table.add_column("", justify="right")
    table.add_column("fires on")
    table.add_column("examples", justify="right")
    table.add_column("strength", justify="right")
    for each in shown:
        name = f"N{each.neuron}" if each.pole is None else f"pole {each.pole}"
        end = "" if each.sign > 0 or each.label.endswith(LOWEST) else " (lowest)"
        known = each.strength is not None
        table.add_row(
            str(each.layer),
            escape(each.site),
            name,
            escape(readable(each.label)) + end,
            f"{each.n_agreeing} of {each.n_examples}" if known else "–",
            f"{each.strength:.2f}" if known else "–",
        )
    return table
