"""``projector …``: the command line, assembled from its commands."""

from __future__ import annotations

import typer

from projector.environment import prepare_environment
from projector.terminal.fit import fit
from projector.terminal.projections import import_, info, layout, relayout
from projector.terminal.residual.attribute import attribute
from projector.terminal.residual.contrast import contrast
from projector.terminal.residual.heads import heads
from projector.terminal.residual.layer_time import layer_time
from projector.terminal.residual.layers.layer_image import layer_image
from projector.terminal.residual.lens import lens
from projector.terminal.residual.neuron import neuron
from projector.terminal.residual.steer import steer
from projector.terminal.residual.stream import stream
from projector.terminal.residual.tune_lens import tune_lens
from projector.terminal.searching import search
from projector.terminal.showing.dashboard import dashboard
from projector.terminal.showing.plot import plot
from projector.terminal.usage import Commands

app = typer.Typer(
    name="projector",
    help="Place a transformer's neurons so that neurons that fire together are placed together.",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=True,
)
app.command()(fit)
app.command()(layout)
app.command()(relayout)
app.command()(info)
app.command()(plot)
app.command()(search)
app.command()(dashboard)
app.command()(attribute)
app.command()(contrast)
app.command()(heads)
app.command("import")(import_)
app.command("layer-image")(layer_image)
app.command("layer-time")(layer_time)
app.command()(lens)
app.command()(neuron)
app.command()(steer)
app.command()(stream)
app.command("tune-lens")(tune_lens)


def main() -> None:
    """Entry point: set up libraries, then run the command."""
    prepare_environment()
    app()


if __name__ == "__main__":
    main()
