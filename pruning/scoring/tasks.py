"""Benchmark tasks through lm-evaluation-harness, an optional extra."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from projector.errors import UserError, check_least, named

INSTALL = "pip install 'transformer-projector[tasks]'"
# Bootstrap samples for the standard errors of metrics without a formula; the harness's 100,000 take
# minutes.
_N_BOOTSTRAPS = 1000


def check_tasks(tasks: Sequence[Any]) -> None:
    """Raise a UserError if there is no task."""
    if not tasks:
        raise UserError(
            f"no task is given: set {named('tasks')}, for example "
            f"{named('tasks', 'hellaswag,arc_easy')}",
            setting="tasks",
        )


@dataclass(frozen=True)
class TaskResult:
    """One metric of one task.

    Attributes:
        task: its name in the harness.
        metric: such as ``acc`` or ``word_perplexity``.
        filter: the harness's filter of answers; ``none`` for no filter.
        value: None if the harness gave no finite number.
        standard_error: of ``value``; None if the harness gives none.
        n_samples: number of judged examples; None if the harness doesn't report it.
    """

    task: str
    metric: str
    filter: str
    value: float | None
    standard_error: float | None
    n_samples: int | None


def run_tasks(
    model: nn.Module,
    tokenizer: Any,
    tasks: Sequence[Any],
    *,
    limit: int | None = None,
    batch_size: int = 1,
) -> tuple[TaskResult, ...]:
    """Evaluate a causal model on tasks of lm-evaluation-harness.

    Args:
        model: a Hugging Face model with its head, in evaluation mode.
        tokenizer: its tokenizer.
        tasks: names that the harness knows, or other descriptions of tasks that it takes.
        limit: maximum number of examples per task, to try it out; don't cite such figures.
        batch_size: examples at once.

    Raises:
        UserError: if the harness is not installed, doesn't know a task, or can't run it.
    """
    check_tasks(tasks)
    check_least("limit", limit, 1)
    check_least("batch_size", batch_size, 1)
    check_installed()
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    try:
        judged = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        found = simple_evaluate(
            model=judged,
            tasks=list(tasks),
            limit=limit,
            log_samples=False,
            bootstrap_iters=_N_BOOTSTRAPS,
        )
    except Exception as error:
        # Errors of any kind: tasks bring their own code, data sets and connections.
        text = " ".join(str(error).split())[:240]
        shown = ", ".join(map(str, tasks))
        raise UserError(
            f"lm-evaluation-harness can't run {shown}: {type(error).__name__}: {text}"
        ) from error
    return _read_results(found or {})


def check_installed() -> None:
    """If lm-evaluation-harness is missing, raise a UserError with the command that installs it."""
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise UserError(f"tasks need lm-evaluation-harness: {INSTALL}") from error


def _read_results(found: Mapping[str, Any]) -> tuple[TaskResult, ...]:
    """The harness's keys are ``metric,filter``, and ``metric_stderr,filter`` beside it."""

    def number(value: Any) -> float | None:
        is_number = isinstance(value, (int, float)) and math.isfinite(value)
        return float(value) if is_number else None

    rows: list[TaskResult] = []
    for task, values in found.get("results", {}).items():
        n_samples = found.get("n-samples", {}).get(task, {}).get("effective")
        for key, value in values.items():
            metric, comma, name = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            rows.append(
                TaskResult(
                    task=task,
                    metric=metric,
                    filter=name,
                    value=number(value),
                    standard_error=number(values.get(f"{metric}_stderr,{name}")),
                    n_samples=n_samples,
                )
            )
    if not rows:
        raise UserError("lm-evaluation-harness returned no result")
    return tuple(rows)
