"""``pruning tasks``: benchmark tasks through lm-evaluation-harness."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass

from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.options import LoadingOptions
from projector.terminal.screen import Screen
from pruning.terminal.options import Model


@dataclass(frozen=True)
class TaskOptions:
    """The tasks, and the number of examples."""

    tasks: tuple[str, ...] = setting(
        help="Comma-separated names of lm-evaluation-harness tasks, for example hellaswag,arc_easy."
    )
    limit: int | None = setting(
        None, help="Maximum number of examples per task, for a quick trial."
    )
    batch_size: int = setting(8, help="Examples per batch.")


@command
def tasks(screen: Screen, model: Model, *, options: TaskOptions, loading: LoadingOptions) -> None:
    """Judge MODEL by benchmark tasks, through lm-evaluation-harness (an optional extra)."""
    from projector.model.loading import load_model
    from pruning.scoring.tasks import check_installed, check_tasks, run_tasks
    from pruning.terminal.tables import tasks_table

    check_tasks(options.tasks)
    check_installed()
    loaded = load_model(model, with_head=True, **vars(loading))
    # The harness draws its own progress, and some of its tasks print.
    with redirect_stdout(sys.stderr):
        found = run_tasks(
            loaded.model,
            loaded.tokenizer,
            list(options.tasks),
            limit=options.limit,
            batch_size=options.batch_size,
        )
    if screen.as_json:
        value = {
            "model": loaded.identifier,
            "weights_sha256": loaded.weights_sha256,
            "limit": options.limit,
            "results": [asdict(one) for one in found],
        }
        screen.result(value, "")
        return
    screen.out.print(tasks_table(found))
    if options.limit is not None:
        screen.say(
            f"[yellow]at most {options.limit:,} examples[/yellow] of each task: don't cite these "
            "results"
        )
