"""How a run treats existing results: the common meaning of ``resume`` and ``force``.

A run's output folder may be empty, or hold unfinished or finished work. This work may belong to the
same run or to another one, with other settings, another model or another corpus. ``resume`` is for
a queue that repeats the same command line: it starts new runs, resumes stopped runs, and leaves
finished runs alone. ``force`` allows the run to replace the work of another run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from projector.errors import UserError, named

_SHA256 = re.compile(r"[0-9a-f]{64}")

RESUME_HELP = (
    "Resume this run if it was stopped, start it if it has not begun, and do nothing if it is "
    "finished. The results of another run are refused."
)
FORCE_HELP = "Replace existing results; when resuming, only the results of another run."


class Step(Enum):
    """What a run does next."""

    START = "start from the beginning, and replace existing results"
    GO_ON = "resume the unfinished work"
    LEAVE = "do nothing: the same run is finished"


@dataclass(frozen=True)
class Work:
    """Existing work of a run.

    Attributes:
        where: the path, for messages.
        difference: how its settings differ from this run's, in the words of
            :func:`told_difference`; None if it is the same run.
        may_replace: whether unfinished work was started with ``force``, and so may replace the
            finished work of another run.
    """

    where: str
    difference: str | None = None
    may_replace: bool = False


def decide(
    unfinished: Work | None, finished: Work | None, *, resume: bool, force: bool, what: str = "run"
) -> Step:
    """Decide what to do with existing work.

    ==================== ============== ====================== ======= ====================
    existing work        neither        resume                 force   both
    ==================== ============== ====================== ======= ====================
    nothing              start          start                  start   start
    own, unfinished      refuse         resume                 start   resume
    own, finished        refuse         leave                  start   leave
    another run's        refuse         refuse, naming the     start   start
                                        difference
    ==================== ============== ====================== ======= ====================

    If there is both, the unfinished work decides. Own unfinished work next to the finished work of
    another run is resumed only with ``force``, given now or when it was started.

    Args:
        what: name of the kind of run, such as ``fit`` or ``sweep``.

    Raises:
        UserError: on ``resume`` or ``force``, if the table says "refuse".
    """
    if force and not resume:
        return Step.START
    if not resume:
        if unfinished is not None:
            raise UserError(
                f"'{unfinished.where}' holds a stopped {what}: add {named('resume', True)} to "
                f"resume it, or {named('force', True)} to start over",
                setting="resume",
                value=False,
            )
        if finished is not None:
            raise UserError(
                f"'{finished.where}' holds the result of a {what} already: add "
                f"{named('force', True)} to replace it, or give another place",
                setting="force",
                value=False,
            )
        return Step.START
    if unfinished is not None:
        if unfinished.difference is not None:
            _check_own(unfinished, force, what)
            return Step.START
        if finished is not None:
            _check_own(finished, force or unfinished.may_replace, what)
        return Step.GO_ON
    if finished is not None:
        _check_own(finished, force, what)
        return Step.LEAVE if finished.difference is None else Step.START
    return Step.START


def _check_own(found: Work, may_replace: bool, what: str) -> None:
    """Raise a UserError for what another run left, unless it may be replaced."""
    if found.difference is not None and not may_replace:
        raise UserError(
            f"'{found.where}' belongs to another {what}: {found.difference}; give that {what}'s "
            f"settings, add {named('force', True)} to replace it, or give another place",
            setting="resume",
            value=True,
        )


def told_difference(
    theirs: Mapping[str, Any],
    ours: Mapping[str, Any],
    *,
    settings: Iterable[str] = (),
    their_words: Mapping[str, str] | None = None,
    our_words: Mapping[str, str] | None = None,
) -> str | None:
    """Describe the first difference between two runs; None if they are the same run.

    Args:
        theirs, ours: the facts that identify each run, by name, as JSON values and mappings. A fact
            that only one run has is a difference.
        settings: names of the facts that are settings.
        their_words, our_words: name → words for a fact that is a hash.
    """
    one, other = _flat(theirs), _flat(ours)
    users = set(settings)
    for name in [*other, *(name for name in one if name not in other)]:
        if name not in one or name not in other or one[name] != other[name]:
            values = one.get(name), other.get(name)
            if name in users and all(isinstance(value, bool) for value in values):
                # Switches have no value to be told: a face says which of them it would be.
                its, own = (named(name, value) for value in values)
                return f"it has {its}, and this one {own}"
            called = named(name) if name in users else name.replace("_", " ").replace(".", " ")
            its = _told(one, name, their_words or {})
            own = _told(other, name, our_words or {})
            told = f"its {called} is {its}, and this one's {own}"
            if name in users and isinstance(one.get(name), int | float | str):
                told += f" (give {named(name, one[name])} to resume it)"
            return told
    return None


def _flat(facts: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Facts within facts by their names, so that a difference is told by itself."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[f"{before}{name}"] = value
    return flat


def _told(facts: Mapping[str, Any], name: str, words: Mapping[str, str]) -> str:
    """A fact for a person: a hash is shown as its name and its first digits."""
    if name not in facts:
        return "not known"
    value = facts[name]
    if isinstance(value, str) and _SHA256.fullmatch(value):
        return f"'{words[name]}' ({value[:12]}…)" if name in words else f"{value[:12]}…"
    return repr(value)
