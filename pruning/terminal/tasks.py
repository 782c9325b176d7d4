"""``pruning tasks``: benchmark tasks through lm-evaluation-harness."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from projector.terminal.screen import Screen
from pruning.terminal.options import Device, Dtype, Json, Model, Revision, TrustRemoteCode


def tasks(
    model: Model,
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks",
            help="Comma-separated names of lm-evaluation-harness, for example hellaswag,arc_easy.",
            show_default=False,
        ),
    ] = ...,  # type: ignore[assignment]
    limit: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of examples per task, to try it out.", show_default=False
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Examples judged at once.")] = 8,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Judge MODEL by benchmark tasks, through lm-evaluation-harness (an optional extra)."""
    screen = Screen(as_json)
    with screen.errors():
        from dataclasses import asdict

        from projector.model.loading import load_model
        from pruning.scoring.tasks import check_installed, run_tasks
        from pruning.terminal.tables import tasks_table

        names = [name.strip() for name in tasks.split(",") if name.strip()]
        check_installed()
        loaded = load_model(
            model,
            revision=revision,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            with_head=True,
        )
        # The harness draws its own progress, and some of its tasks print.
        with redirect_stdout(sys.stderr):
            found = run_tasks(
                loaded.model, loaded.tokenizer, names, limit=limit, batch_size=batch_size
            )
        if as_json:
            value = {
                "model": loaded.identifier,
                "weights_sha256": loaded.weights_sha256,
                "limit": limit,
                "results": [asdict(one) for one in found],
            }
            screen.result(value, "")
            return
        screen.out.print(tasks_table(found))
        if limit is not None:
            screen.say(
                f"[yellow]at most {limit:,} examples[/yellow] of each task: don't cite these "
                "results"
            )
