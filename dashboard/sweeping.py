"""Start and resume sweeps in the background from orders of the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

from dashboard.jobs import NAME, Job, find, launch
from dashboard.orders import Grounds, Order, command_of
from projector.errors import UserError
from pruning.methods.plan import PLAN_FILE


def next_name(root: Path, like: str = "sweep-1") -> str:
    """A free name for a report below a root: ``like``, or the same with another number."""
    stem = re.sub(r"-\d+$", "", like)
    taken = {job.name for job in find(root)}
    name, n = like, 2
    while name in taken or (root / name).exists():
        name, n = f"{stem}-{n}", n + 1
    return name


def start(settings: Grounds, order: Order) -> Job:
    """Start ``pruning sweep`` in a separate process.

    Raises:
        UserError: for orders that the command would refuse.
    """
    root, name = settings.roots[0], order.name
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name[:80]!r} can't be a report's name: use letters, digits and dashes",
            setting="name",
            value=name[:80],
        )
    command = command_of(settings, order, resume=False)
    if (root / name).exists():
        raise UserError(
            f"there is a folder '{name}' already: give another name", setting="name", value=name
        )
    # The job exists before its folder.
    if any(job.name == name and job.state().is_running for job in find(root)):
        raise UserError(
            f"a sweep '{name}' is running already: give another name", setting="name", value=name
        )
    return launch(root, order, command)


def resume(settings: Grounds, job: Job) -> Job:
    """Resume a sweep that has ended early, from its finished models.

    Raises:
        UserError: if its order is unknown or no longer valid.
    """
    if job.order is None:
        raise UserError(
            f"can't resume '{job.name}': its settings can't be read; start another sweep",
            setting="name",
            value=job.name,
        )
    root = settings.roots[0]
    if any(each.name == job.name and each.state().is_running for each in find(root)):
        raise UserError(
            f"a sweep '{job.name}' is running already: wait until it ends",
            setting="name",
            value=job.name,
        )
    return launch(root, job.order, command_of(settings, job.order, resume=True))


def source_of(folder: Path) -> str | None:
    """Hash of the weights of the dense model that a pruned model is from."""
    try:
        values = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
        return str(values["model"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
