"""``projector plot``: draw a projection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from projector.errors import SettingError, UserError, check_choice, named
from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.options import SavedProjection
from projector.terminal.screen import Screen

KINDS = ("map", "heatmap", "trust")


@dataclass(frozen=True)
class PlotOptions:
    """Options for the picture and its file."""

    out: Path = setting(help="The HTML file to write.")
    kind: str = setting(
        "map",
        help="[b]map[/b], [b]heatmap[/b] (correlations before and after ordering, with the poles "
        "that [b]pruning poles[/b] saved), or [b]trust[/b] (stress and neighbours kept, over "
        "layers).",
        choices=KINDS,
    )
    layer: int | None = setting(
        None, help="Layer to draw. Without it, a map has a slider over all layers."
    )
    site: str | None = setting(None, help="Site to draw. By default the projection's first.")
    layout: str | None = setting(
        None,
        help="Layout to draw, by name. By default the projection's first, and all of them for "
        "[b]trust[/b].",
    )
    order: str = setting(
        "leaf",
        help="Order of a heatmap's neurons: [b]leaf[/b] (groups as blocks), [b]linear[/b], "
        "[b]spectral[/b] or [b]index[/b].",
    )

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        if self.out.suffix.lower() not in (".html", ".htm"):
            raise SettingError(
                "out",
                str(self.out),
                "does not end in .html",
                "give a name that ends in .html",
            )


@command
def plot(screen: Screen, projection_dir: SavedProjection, *, options: PlotOptions) -> None:
    """Draw a projection as one HTML file that needs no network."""
    from projector.figures.html import write_figure
    from projector.naming.names import read_names
    from projector.naming.poles import saved_poles
    from projector.projection.projection import Projection

    projection = Projection.load(projection_dir)
    names = read_names(projection_dir)
    poles = tuple(saved_poles(projection_dir)) if options.kind == "heatmap" else ()
    write_figure(_figure(projection, names, poles, options), options.out)
    screen.result(
        {"picture": str(options.out)},
        f"Wrote [b]{escape(str(options.out))}[/b]: open it in a browser.",
    )


def _figure(projection: Any, names: Any, poles: Any, options: PlotOptions) -> Any:
    from projector.figures.heatmap import heatmap_figure
    from projector.figures.map import map_figure
    from projector.figures.trust import stress_figure

    site, layer = options.site or projection.sites[0], options.layer
    if options.kind == "map":
        layers = None if layer is None else [layer]
        return map_figure(projection, site, layers, options.layout, names)
    if options.kind == "trust":
        return stress_figure(projection, options.layout)
    if layer is None:
        known = ", ".join(str(n) for n in projection.layers)
        raise UserError(
            f"a heatmap shows one layer: add {named('layer')}, one of {known}", setting="layer"
        )
    return heatmap_figure(projection, layer, site, options.order, options.layout, names, poles)
