"""Tables of how organised maps are and what layouts keep: ``python -m benchmarks.maps DIR``.

Prints Markdown, with a row per layer and site, and every figure next to its value by chance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from projector.errors import UserError
from projector.projection.faithfulness import FIGURES
from projector.projection.projection import Projection


def header_of(projection: Projection) -> list[str]:
    """The two header lines of the table."""
    titles = ["layer", "site", "neurons", "effective dimension", "leading axis", "with a partner"]
    titles += [f"kept, `{name}`" for name in projection.layouts]
    rule = ["---:", "---", *["---:"] * (len(titles) - 2)]
    return [_line(titles), _line(rule)]


def row_of(projection: Projection, layer: int, site: str) -> str:
    """A map's row, with the values of independent neurons or random positions in brackets."""
    figures = projection.figures(layer, site)
    cells = [str(layer), site, f"{figures.n_neurons:,}"]
    organisation = projection.organisation(layer, site)
    if organisation is None:
        cells += ["–", "–", "–"]
    else:
        cells += [
            f"{organisation.effective_dimension:.0f} "
            f"({organisation.effective_dimension_by_chance:.0f})",
            f"{organisation.leading_share:.1%} ({organisation.leading_share_by_chance:.1%})",
            f"{organisation.partnered_share:.0%} ({organisation.partnered_share_by_chance:.0%})",
        ]
    for name in projection.layouts:
        of_layout = projection.figures(layer, site, name)
        kept = FIGURES["neighbour_overlap"].number(of_layout)
        chance = FIGURES["chance_overlap"].number(of_layout)
        cells.append("–" if kept is None or chance is None else f"{kept:.1f} ({chance:.1f})")
    return _line(cells)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="a saved projection")
    given = parser.parse_args(arguments)
    try:
        projection = Projection.load(given.folder)
    except UserError as error:
        sys.exit(f"error: {error}")
    rows = [row_of(projection, layer, site) for layer, site in projection.maps]
    print("\n".join([*header_of(projection), *rows]))


if __name__ == "__main__":
    main()
