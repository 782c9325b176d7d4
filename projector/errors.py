"""Errors that are meant for the user.

A message refers to settings with :func:`named`. The displayed name of a setting depends on where
the user set it: ``--dim`` on the command line, ``dim`` in Python, a label on a page. A message
therefore holds the setting's internal name, and each interface translates it
(:meth:`UserError.worded`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from math import isfinite
from typing import Any

# Private-use characters: no text of a user or a model holds them.
_BEGIN, _BETWEEN, _END = "\ue000", "\ue001", "\ue002"
_NAMED = re.compile(f"{_BEGIN}([^{_BETWEEN}]*){_BETWEEN}([^{_END}]*){_END}")
_UNSET: Any = object()
# The largest seed: NumPy's older generators take 32 bits.
MOST_SEED = 2**32 - 1

# How a face calls a setting: its name, and whether it is to have a value (a tuple of one) or not.
Face = Callable[[str, tuple[Any, ...]], str]


def named(setting: str, value: Any = _UNSET) -> str:
    """Refer to a setting in a message, by the name of its field or argument.

    Args:
        value: its actual or suggested value, if the message mentions it: a string, a number or a
            boolean.
    """
    shown = "" if value is _UNSET else json.dumps([value], ensure_ascii=False)
    return f"{_BEGIN}{setting}{_BETWEEN}{shown}{_END}"


def python_words(setting: str, value: tuple[Any, ...]) -> str:
    """The Python form of a setting: ``dim``, ``force=True``."""
    return f"{setting}={value[0]!r}" if value else setting


class UserError(Exception):
    """An error that the user can fix: the message is one line with the problem and the fix.

    The command line prints it without a traceback and exits with status 2.

    Args:
        message: one line, with settings in the form of :func:`named`.

    Attributes:
        setting: the name of the field or argument that was wrong; None if there is none.
        value: the value of the setting.
        expected: a description of valid values.
    """

    def __init__(
        self,
        message: str,
        *,
        setting: str | None = None,
        value: Any = None,
        expected: str | None = None,
    ) -> None:
        super().__init__(message)
        self.setting, self.value, self.expected = setting, value, expected

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors of worker processes come back pickled by multiprocessing.
        return _remade, (type(self), self.args[0], self.setting, self.value, self.expected)

    def worded(self, face: Face) -> str:
        """The message with every setting in the form of ``face``."""

        def word(found: re.Match[str]) -> str:
            return face(found[1], tuple(json.loads(found[2])) if found[2] else ())

        return _NAMED.sub(word, str(self.args[0]))

    def __str__(self) -> str:
        """The message in Python's words."""
        return self.worded(python_words)

    def to_record(self) -> dict[str, Any]:
        """The error as JSON values, for a program with its own names of settings.

        ``parts`` is the message: strings, and settings as ``[name]`` or ``[name, value]``.
        """
        parts: list[str | list[Any]] = []
        end = 0
        for found in _NAMED.finditer(self.args[0]):
            parts += [self.args[0][end : found.start()]] if found.start() > end else []
            parts.append([found[1], *(json.loads(found[2]) if found[2] else ())])
            end = found.end()
        parts += [self.args[0][end:]] if self.args[0][end:] else []
        is_plain = self.value is None or isinstance(self.value, (str, int, float, bool))
        # JSON has no word for NaN and infinity.
        is_plain = is_plain and not (isinstance(self.value, float) and not isfinite(self.value))
        return {
            "setting": self.setting,
            "value": self.value if is_plain else str(self.value),
            "expected": self.expected,
            "parts": parts,
        }

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> UserError:
        """Restore the error from the result of :meth:`to_record`.

        A command's output also has the whole message as ``error``, which is used if there are no
        ``parts``.

        Raises:
            KeyError, TypeError, ValueError: if the record isn't an error.
        """
        given = record["parts"] if "parts" in record else [record["error"]]
        parts = [part if isinstance(part, str) else named(*part) for part in given]
        setting, expected = record.get("setting"), record.get("expected")
        if not isinstance(setting, str | None) or not isinstance(expected, str | None):
            raise TypeError("setting and expected are texts")
        return UserError(
            "".join(parts), setting=setting, value=record.get("value"), expected=expected
        )


class SettingError(UserError):
    """A setting has an invalid value: ``--dim 0 is too small: give 1 or more``.

    Args:
        setting: the name of the setting.
        value: the value of the setting.
        problem: what is wrong with the value, starting with a verb.
        expected: valid values, or what to do; ends the message.
    """

    def __init__(self, setting: str, value: Any, problem: str, expected: str) -> None:
        shown = f"'{value}'" if isinstance(value, str) else value
        if is_number(value):
            shown = number_text(value)
        # A switch is called by what it is set to.
        is_switch = isinstance(value, bool)
        subject = named(setting, value) if is_switch else f"{named(setting)} {shown}"
        super().__init__(
            f"{subject} {problem}: {expected}",
            setting=setting,
            value=value,
            expected=expected,
        )


def _remade(
    kind: type[UserError], message: str, setting: str | None, value: Any, expected: str | None
) -> UserError:
    error = kind.__new__(kind, message)
    UserError.__init__(error, message, setting=setting, value=value, expected=expected)
    return error


def is_number(value: Any) -> bool:
    """Whether this is a number; False for booleans."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number_text(value: float) -> str:
    """Format a number for messages: ``1,500``, ``0.003``; 3.0 becomes 3."""
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return f"{int(value) if is_whole else value:,}"


def check_choice(setting: str, value: Any, choices: Any) -> None:
    """Raise a SettingError unless the value is one of the choices."""
    if value not in choices:
        raise SettingError(setting, value, "is not known", f"choose from {', '.join(choices)}")


def check_least(setting: str, value: Any, least: float) -> None:
    """Raise a SettingError if a number is below ``least``; None (an unset setting) is accepted."""
    if value is not None and not value >= least:
        raise SettingError(setting, value, "is too small", f"give {number_text(least)} or more")


def check_seed(setting: str, value: Any) -> None:
    """Raise a SettingError unless every random number generator accepts the seed."""
    check_least(setting, value, 0)
    if value > MOST_SEED:
        raise SettingError(setting, value, "is too large", f"give {number_text(MOST_SEED)} or less")


def check_text(setting: str, text: str | None) -> None:
    """Raise a SettingError if a text is empty or can't be tokenized; None is accepted."""
    if text is None:
        return
    if not text:
        raise SettingError(setting, text, "is empty", "give some text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = text.encode("utf-8", "backslashreplace").decode("utf-8")
        raise SettingError(
            setting,
            shown,
            f"can't be written as UTF-8 because of its character {error.start + 1}",
            "remove that character",
        ) from error
