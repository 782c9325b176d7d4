"""Tables of a projection's poles with controls, as Markdown: ``python -m benchmarks.poles DIR``.

Reads what ``pruning poles DIR`` kept, and finds what is missing. One row per layer and site; every
count of the controls is the mean over their draws.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from projector.errors import UserError
from pruning.poles.finding_all import PoleRequest, find_all
from pruning.poles.poles import Poles, finding_words

HEADER = (
    "| layer | site | poles | distinct | beyond the spectrum | largest | finding |\n"
    "| ---: | --- | ---: | ---: | ---: | ---: | --- |"
)


def row_of(one: Poles) -> str:
    """A map's row: counts, with those of the shuffled control or of both controls."""
    controls = one.controls
    largest = max(one.poles, key=lambda pole: pole.size, default=None)
    is_absolute = one.settings.space == "abs-correlation"
    size = "–"
    if largest is not None:
        within = largest.within_absolute_rho if is_absolute else largest.within_rho
        size = f"{largest.size:,}" + ("" if within is None else f" ({_signed(within)})")
    cells = [str(one.layer), one.site]
    if controls is None:
        cells += [f"{len(one.poles):,}", "–", "–"]
    else:
        both = controls.shuffled, controls.same_spectrum
        cells += [
            _beside(len(one.poles), *(each.n_poles for each in both)),
            _beside(one.n_distinct, *(each.n_distinct for each in both)),
            _beside(one.n_beyond_spectrum, *(each.n_beyond_spectrum for each in both)),
        ]
    cells += [size, finding_words(one) or "–"]
    return "| " + " | ".join(cells) + " |"


def sums_of(found: Sequence[Poles]) -> str:
    """A closing sentence with sums over all maps, and the shuffled control's mean per map."""
    judged = [
        (one, one.controls)
        for one in found
        if one.controls is not None and one.n_distinct is not None
    ]
    if not judged:
        return ""
    distinct = sum(one.n_distinct or 0 for one, _ in judged)
    beyond = sum(one.n_beyond_spectrum or 0 for one, _ in judged)
    chance = [controls.shuffled.n_distinct or 0.0 for _, controls in judged]
    subject = "The map has" if len(judged) == 1 else f"The {len(judged)} maps have"
    return (
        f"{subject} {distinct:,} distinct poles, {beyond:,} of them beyond the "
        f"spectrum. A shuffled draw has {sum(chance) / len(chance):.2f} distinct poles per map on "
        f"average, and at most {max(chance):.1f}."
    )


def _beside(count: int | None, *controls: float | None) -> str:
    if count is None:
        return "–"
    known = ", ".join("–" if each is None else f"{each:.1f}" for each in controls)
    return f"{count:,} ({known})"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="a saved projection")
    parser.add_argument("--space", default=None, help="correlation or abs-correlation")
    given = parser.parse_args(arguments)
    try:
        found = find_all(given.folder, PoleRequest(space=given.space)).poles
    except UserError as error:
        sys.exit(f"error: {error}")
    print(HEADER)
    for one in found:
        print(row_of(one))
    print()
    print(sums_of(found))


if __name__ == "__main__":
    main()
