"""Check output folders, lock them, and turn disk errors into user errors."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from projector.errors import UserError, named


def check_place(out: Path, setting: str = "out") -> None:
    """Raise a UserError if no folder can be written at ``out``.

    Args:
        setting: the setting or argument that names the folder.
    """
    existing = _existing(out)
    # Unlike those of a path, these take a name that is too long for one that does not exist.
    if os.path.islink(out) and not os.path.exists(out):  # noqa: PTH110, PTH114
        problem = f"'{out}' is a broken link"
    elif existing == out.absolute() and not out.is_dir():
        problem = f"'{out}' is a file"
    elif not existing.is_dir():
        problem = f"'{existing}' is a file, so no folder can be made in it"
    elif not os.access(existing, os.W_OK | os.X_OK):
        problem = f"'{existing}' can't be written to"
    else:
        why = _why_refused(existing, [] if existing == out.absolute() else [out.name])
        if why is None:
            return
        problem = f"'{out}' can't be written: {why}"
    raise UserError(
        f"{problem}: give another folder for {named(setting)}", setting=setting, value=str(out)
    )


def _existing(out: Path) -> Path:
    """The folder itself, or the nearest one above it that there is."""
    existing = out.absolute()
    while not os.path.exists(existing):  # noqa: PTH110
        existing = existing.parent
    return existing


def _why_refused(folder: Path, names: Sequence[str]) -> str | None:
    """Why no folder of these names can be made in a folder; None if it can, as a try shows.

    A system may refuse where rights allow it: on a medium that is read only, or under ``/proc``.
    """
    try:
        trial = Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=folder))
    except OSError as error:
        return f"no folder can be made in '{folder}' ({reason_of(error)})"
    try:
        for name in names:
            # As long as the longest of the names that stand beside a folder while it is written.
            (trial / f".{name}.replaced").mkdir()
    except OSError as error:
        return reason_of(error)
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    return None


def reason_of(error: OSError) -> str:
    """The system's error message, without the names of temporary files."""
    return error.strerror or " ".join(str(error).split())


def check_replaceable(out: Path, mark: str, kind: str, *, force: bool) -> None:
    """Raise a UserError if a folder of some kind must not be written at ``out``.

    An existing folder is replaced only if it is of the same kind and ``force`` is True.

    Args:
        mark: the file that identifies folders of this kind.
        kind: description of the kind for messages, such as ``a report``.
    """
    check_place(out)
    if out.exists() and any(out.iterdir()):
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
    check_beside(out)


def check_beside(out: Path) -> None:
    """Raise a UserError if an existing folder can't be replaced by renaming."""
    own = out.absolute()
    if not own.exists():
        return
    if own.is_mount():
        problem: str | None = "it is a mount point, which can't be moved"
    else:
        problem = _why_refused(own.parent, [own.name])
    if problem is not None:
        raise UserError(
            f"'{out}' can't be replaced: {problem}: give another folder for {named('out')}",
            setting="out",
            value=str(out),
        )


@contextmanager
def disk_errors(out: Path, advice: str = "") -> Iterator[None]:
    """Turn the errors of a full or read-only disk into one line for the user.

    Args:
        advice: how to use less space; ends the message.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = getattr(error, "errno", None)
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(
            sign in str(error) for sign in ("No space left", "File too large", "quota")
        ):
            raise UserError(f"no space left to write '{out}': free some{advice}") from error
        text = reason_of(error) if isinstance(error, OSError) else " ".join(str(error).split())
        raise UserError(f"'{out}' can't be written: {text}") from error


@contextmanager
def alone(path: Path, *, patience_s: float, told: str) -> Iterator[None]:
    """Hold a lock in this context, against other threads and processes.

    Args:
        path: the lock file, in an existing folder.
        patience_s: how long to wait for the lock, in seconds.
        told: the error message if the wait was too short.

    Raises:
        UserError: if another thread or process holds the lock for that long.
        OSError: if the lock file can't be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=patience_s)
    try:
        lock.acquire()
    except Timeout:
        # Where the system refuses to make the file, the lock waits too, and for nobody.
        if not path.exists():
            tempfile.NamedTemporaryFile(prefix=".", dir=path.parent).close()
        raise UserError(told) from None
    try:
        yield
    finally:
        # Before it is let go of: whoever waits for it sees that, and makes one of its own.
        with suppress(OSError):
            path.unlink(missing_ok=True)
        lock.release()
