"""``pruning bench``: the speed and the memory of two models, measured in one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.markup import escape

from projector.settings import setting
from projector.terminal.commands import Without, command
from projector.terminal.options import LoadingOptions
from projector.terminal.screen import Screen


@dataclass(frozen=True)
class SpeedOptions:
    """How speed is measured."""

    batch_size: int = setting(4, help="Sequences per batch.")
    sequence_length: int | None = setting(
        None,
        help="Tokens per sequence. By default 256, or the models' maximum if that is less.",
    )
    repeats: int = setting(21, help="Number of timed passes of each model, 7 or more.")


@command
def bench(
    screen: Screen,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="The dense model: [b]bundled[/b], a local folder, a .gguf file, or a hub id.",
        ),
    ],
    pruned: Annotated[
        str, typer.Argument(metavar="PRUNED", help="The pruned model, named in the same way.")
    ],
    *,
    options: SpeedOptions,
    loading: Annotated[LoadingOptions, Without(("revision",))],
) -> None:
    """Measure tokens per second and memory of two models, dense and pruned, in one run."""
    from projector.model.loading import load_model
    from pruning.scoring.speed import compare_speed
    from pruning.terminal.tables import bench_table

    with screen.progress() as progress:
        progress.begin("Loading the models", None, "")
        loaded = [load_model(name, with_head=True, **vars(loading)) for name in (model, pruned)]
        found = compare_speed(
            loaded[0].model,
            loaded[1].model,
            names=(loaded[0].identifier, loaded[1].identifier),
            batch_size=options.batch_size,
            sequence_length=options.sequence_length,
            n_repeats=options.repeats,
            progress=progress,
        )
    if screen.as_json:
        screen.result(found.figures(), "")
        return
    screen.out.print(bench_table(found))
    low, high = found.time_ratio_range
    screen.say(
        f"a pass takes {found.time_ratio:.3f} times as long as the dense model's (middle half of "
        f"{found.n_repeats} pairs: {low:.3f} to {high:.3f}) and computes "
        f"{found.operations_ratio:.3f} of its operations: {abs(found.excess):.1%} "
        f"{'slower' if found.excess > 0 else 'faster'} than operations alone suggest"
    )
    screen.say(
        f"[dim]passes over {found.batch_size} × {found.sequence_length:,} tokens on "
        f"{found.device} ({found.n_threads} threads), {found.dtype}; peak: {found.memory}[/dim]"
    )
    for note in found.notes:
        screen.say(f"[yellow]not comparable[/yellow]: {escape(note)}")
    if high - low > 0.1 * found.time_ratio:
        screen.say(
            "[yellow]unsteady[/yellow]: the machine is busy with other work; run the command again"
        )
