"""``pruning …``: the command line. Commands parse, call, and show; nothing is computed here."""

from __future__ import annotations

import typer

from projector.environment import prepare_environment
from projector.terminal.usage import Commands
from pruning.terminal.bench import bench
from pruning.terminal.experiments.reuse import reuse
from pruning.terminal.experiments.sweep import sweep
from pruning.terminal.perplexity import perplexity
from pruning.terminal.poles import poles
from pruning.terminal.prune import prune
from pruning.terminal.tasks import tasks
from pruning.terminal.told import Told

app = typer.Typer(
    name="pruning",
    help="Find redundant neurons of a transformer, remove them, and measure what it costs.",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=True,
)

for _command in (poles, perplexity, bench, prune, sweep, reuse, tasks):
    app.command(cls=Told)(_command)


def main() -> None:
    """Entry point: settings of libraries, then the command."""
    prepare_environment()
    app()


if __name__ == "__main__":
    main()
