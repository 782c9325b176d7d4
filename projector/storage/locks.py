"""One at a time: a lock that is a file, which is there only while somebody holds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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

    from projector.errors import UserError

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
