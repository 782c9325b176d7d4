"""Check and lock the folder in which a report is made row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from projector.errors import UserError, named
from projector.storage.additions import LOCK
from projector.storage.places import alone, check_place, disk_errors
from projector.storage.replacing import is_unfinished, make_folder
from projector.storage.resuming import Step, Work, decide
from pruning.reporting.files import JSON_FILE, check_own
from pruning.reporting.kinds import ReportKind


def check_report(out: Path, kind: ReportKind, *, resume: bool, force: bool) -> bool:
    """Whether ``out`` holds a report of this kind, of any version.

    Raises:
        UserError: if nothing may be written there.
    """
    check_place(out)
    # Files of a run that was killed before its first report may be replaced.
    if not out.exists() or all(
        path.name == LOCK or is_unfinished(path.name) for path in out.iterdir()
    ):
        return False
    if not (out / JSON_FILE).exists():
        raise UserError(
            f"folder '{out}' holds other files but no report: give another folder",
            setting="out",
        )
    if not (force or resume):
        raise UserError(
            f"folder '{out}' holds a report already: add {named('resume', True)} to resume it, "
            f"{named('force', True)} to replace it, or give another folder",
            setting="out",
        )
    check_own(out, kind)
    return True


def step_of(
    out: Path,
    kind: ReportKind,
    compare: Callable[[], tuple[str | None, bool]],
    *,
    resume: bool,
    force: bool,
) -> Step:
    """The next step of a run, from what ``out`` holds: see :mod:`projector.storage.resuming`.

    Args:
        compare: reads the existing report. It returns how that run differs from this one, as worded
            by :func:`projector.storage.resuming.told_difference`, and whether it is finished.

    Raises:
        UserError: if ``out`` holds rows of other settings and may not be replaced.
    """
    if not check_report(out, kind, resume=resume, force=force) or not resume:
        return Step.START
    try:
        difference, is_done = compare()
    except UserError:
        # Of another version, or damaged.
        if not force:
            raise
        return Step.START
    work = Work(str(out), difference)
    is_done = is_done and difference is None
    unfinished, finished = (None, work) if is_done else (work, None)
    return decide(unfinished, finished, resume=resume, force=force, what=kind.what)


@contextmanager
def alone_in(out: Path, kind: ReportKind) -> Iterator[None]:
    """Context manager: no other run uses the folder.

    The folder is made, and removed if left empty.
    """
    is_new = not out.exists()
    with disk_errors(out):
        make_folder(out)
    try:
        told = (
            f"another {kind.what} is running in '{out}': wait until it ends, or give another "
            f"folder for {named('out')}"
        )
        with alone(out / LOCK, patience_s=0, told=told):
            yield
    finally:
        # A folder that holds a report stays.
        if is_new:
            with suppress(OSError):
                out.rmdir()
