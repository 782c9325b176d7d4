"""Where something may be written, by one at a time, and what a disk that refuses is turned into."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from projector.errors import UserError, named


def check_place(out: Path, setting: str = "out") -> None:
    """Raise a UserError if no folder can be written at ``out``, whatever it is to hold.

    Args:
        setting: the setting or argument that the folder was given by.
    """
    existing = out.absolute()
    while not existing.exists():
        existing = existing.parent
    if out.is_symlink() and not out.exists():
        problem = f"'{out}' is a link to nothing"
    elif out.exists() and not out.is_dir():
        problem = f"'{out}' is a file"
    elif not existing.is_dir():
        problem = f"'{existing}' is a file, and no folder can be made in it"
    elif not os.access(existing, os.W_OK | os.X_OK):
        problem = f"'{existing}' can't be written to"
    else:
        return
    raise UserError(
        f"{problem}: give another folder for {named(setting)}", setting=setting, value=str(out)
    )


def check_replaceable(out: Path, mark: str, kind: str, *, force: bool) -> None:
    """Raise a UserError if a folder of some kind may not be written at ``out``.

    What is there is replaced only where it is of the same kind, and ``force`` is given.

    Args:
        mark: the file that every folder of the kind has.
        kind: what the folder is, for a person: ``a report``.
    """
    check_place(out)
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / mark).is_file():
        raise UserError(
            f"'{out}' holds other files: give another folder for {named('out')}",
            setting="out",
            value=str(out),
        )
    if not force:
        raise UserError(
            f"'{out}' already holds {kind}: add {named('force', True)} to replace it, or give "
            f"another folder for {named('out')}",
            setting="force",
            value=False,
        )


@contextmanager
def disk_errors(out: Path, advice: str = "") -> Iterator[None]:
    """Turn what a full or forbidden disk raises into one line for the user.

    Args:
        advice: what would take less.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = getattr(error, "errno", None)
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(
            sign in str(error) for sign in ("No space left", "File too large", "quota")
        ):
            raise UserError(f"no space left to write '{out}': free some{advice}") from error
        text = " ".join(str(error).split())
        raise UserError(f"'{out}' can't be written: {text}") from error


@contextmanager
def alone(path: Path, *, patience_s: float, told: str) -> Iterator[None]:
    """While open, nobody else has the lock, in this process or another.

    Args:
        path: the file, in a folder that exists.
        patience_s: how long to wait for somebody else, in seconds.
        told: what a person is told where that was too short.

    Raises:
        UserError: if somebody else has it for that long.
        OSError: if the file can't be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=patience_s)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(told) from None
    try:
        yield
    finally:
        # Before it is let go of: whoever waits for it sees that, and makes one of its own.
        with suppress(OSError):
            path.unlink(missing_ok=True)
        lock.release()
