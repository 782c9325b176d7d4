"""``pruning bench``: the speed and the memory of two models, measured in one run."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from projector.terminal.screen import Screen
from pruning.terminal.options import Device, Dtype, Json, TrustRemoteCode


def bench(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="The dense model: [b]bundled[/b], a local folder, a .gguf file, or a hub id.",
        ),
    ],
    pruned: Annotated[
        str, typer.Argument(metavar="PRUNED", help="The pruned model: the same kinds of names.")
    ],
    batch_size: Annotated[int, typer.Option(help="Sequences at once.")] = 4,
    sequence_length: Annotated[
        int | None,
        typer.Option(
            help="Tokens per sequence. By default 256, or as many as the models take.",
            show_default=False,
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Timed passes of each model, 7 or more.")] = 21,
    device: Device = "auto",
    dtype: Dtype = "auto",
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Measure tokens per second and memory of two models, dense and pruned, in one run."""
    screen = Screen(as_json)
    with screen.errors():
        from projector.model.loading import load_model
        from pruning.scoring.speed import compare_speed
        from pruning.terminal.tables import bench_table

        with screen.progress() as progress:
            progress.begin("Loading the models", None, "")
            loaded = [
                load_model(
                    name,
                    device=device,
                    dtype=dtype,
                    trust_remote_code=trust_remote_code,
                    with_head=True,
                )
                for name in (model, pruned)
            ]
            found = compare_speed(
                loaded[0].model,
                loaded[1].model,
                names=(loaded[0].identifier, loaded[1].identifier),
                batch_size=batch_size,
                sequence_length=sequence_length,
                n_repeats=repeats,
                progress=progress,
            )
        if as_json:
            screen.result(found.figures(), "")
            return
        screen.out.print(bench_table(found))
        low, high = found.time_ratio_range
        screen.say(
            f"time took {found.time_ratio:.3f} of the dense model's (middle half of "
            f"{found.n_repeats} pairs {low:.3f} to {high:.3f}), operations "
            f"{found.operations_ratio:.3f}: {abs(found.excess):.1%} "
            f"{'slower' if found.excess > 0 else 'faster'} than operations alone would make it"
        )
        screen.say(
            f"[dim]passes over {found.batch_size} × {found.sequence_length:,} tokens on "
            f"{found.device} ({found.n_threads} threads), {found.dtype}; peak: {found.memory}[/dim]"
        )
        for note in found.notes:
            screen.say(f"[yellow]not comparable[/yellow]: {escape(note)}")
        if high - low > 0.1 * found.time_ratio:
            screen.say(
                "[yellow]unsteady[/yellow]: the machine is busy with other work; run the command "
                "again"
            )
