"""What an error says of itself: tests hold it to its setting, value and names, not to its words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from projector.errors import UserError

_ANY: Any = object()


@contextmanager
def refused(
    setting: str, value: Any = _ANY, *names: object
) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a UserError about this setting, in one line.

    Args:
        value: what the setting was set to.
        names: what the message names too: a limit, a path, another setting, a class.
    """
    with refused_naming(*names) as caught:
        yield caught
    assert caught.value.setting == setting, caught.value
    if value is not _ANY:
        # Not a number is unlike itself.
        assert repr(caught.value.value) == repr(value)
    assert "--" not in str(caught.value)


@contextmanager
def refused_naming(*names: object) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a UserError, in one line, that names these: paths, numbers, layers, classes, options.

    Prose among the names would have to change with the message's words.
    """
    with pytest.raises(UserError) as caught:
        yield caught
    message = str(caught.value)
    assert lacking(message, *names) == [], message
    assert "\n" not in message


@contextmanager
def refused_by_the_disk(code: int, *names: object) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a UserError that names these, because the system refused with an errno."""
    with refused_naming(*names) as caught:
        yield caught
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == code


def lacking(text: str, *names: object) -> list[str]:
    """Which of these names a text lacks, such as the line that a command was refused with."""
    return [str(name) for name in names if str(name) not in text]
