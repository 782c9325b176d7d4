"""What a field of frozen settings tells of itself, for commands, provenance and the resume check.

A setting is a field of a frozen dataclass, and nothing else knows it by name: commands make an
option of it, and two runs are told apart by it, unless the field says that they may differ in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, Field, field, fields
from numbers import Integral
from pathlib import Path
from typing import Any, get_args, get_type_hints

from projector.errors import SettingError

HELP, MAY_DIFFER, CHOICES, UNIT, BY_SOME = "help", "may_differ", "choices", "unit", "by_some"
TOLD_BY = "told_by"


def setting(
    default: Any = MISSING,
    *,
    help: str | Callable[[], str] = "",
    may_differ: bool = False,
    choices: Iterable[str] = (),
    unit: str = "",
    by_some: bool = False,
    told_by: str = "",
) -> Any:
    """A field of settings: ``dataclasses.field`` with what faces and checks read of it.

    Args:
        default: what it is unless it is set; where it is left out, it must be set.
        help: one or two sentences for a help text; a function where registered parts have a say.
        may_differ: whether two runs that differ in it are the same run all the same.
        choices: the values it may have, for faces that offer them.
        unit: ``bytes`` where a face may take ``8GiB`` for the number.
        by_some: whether only some methods read it, each of which says so; with any other it has to
            keep its default.
        told_by: the fact of a run that tells what came of the field, and tells runs apart in its
            place: a name may lead to other text another day, and "auto" to another device.
    """
    metadata = {
        HELP: help,
        MAY_DIFFER: may_differ,
        CHOICES: tuple(choices),
        UNIT: unit,
        BY_SOME: by_some,
        TOLD_BY: told_by,
    }
    return (
        field(metadata=metadata)
        if default is MISSING
        else field(default=default, metadata=metadata)
    )


def help_of(each: Field[Any]) -> str:
    """What a field says of itself to a person."""
    text = each.metadata.get(HELP, "")
    return str(text() if callable(text) else text)


def compared(settings: Any) -> dict[str, Any]:
    """Name → value of every field of a dataclass that two runs must share to be the same run.

    Fields that another fact tells of, are left out.
    """
    return {
        each.name: getattr(settings, each.name)
        for each in fields(settings)
        if not each.metadata.get(MAY_DIFFER, False) and not each.metadata.get(TOLD_BY)
    }


def check_types(settings: Any) -> None:
    """Raise a SettingError on a field whose value is not of the type that it is declared with.

    Whole numbers, truth values, texts, paths and sequences of whole numbers are checked; a path may
    be a text.
    """
    hints = get_type_hints(type(settings))
    for each in fields(settings):
        value, hint = getattr(settings, each.name), hints[each.name]
        kinds = get_args(hint) if type(None) in get_args(hint) else (hint,)
        if value is None and type(None) in kinds:
            continue
        for kind, (is_right, wrong, expected) in _TYPES.items():
            if kind in kinds and not is_right(value):
                shown = value if isinstance(value, (bool, int, float, str)) else repr(value)
                raise SettingError(each.name, shown, wrong, expected)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _are_whole(value: Any) -> bool:
    return isinstance(value, Sequence) and all(map(_is_whole, value))


_TYPES: dict[Any, tuple[Callable[[Any], bool], str, str]] = {
    int: (_is_whole, "is not a whole number", "give one"),
    bool: (lambda value: isinstance(value, bool), "is neither true nor false", "give one of them"),
    str: (lambda value: isinstance(value, str), "is not a text", "give one"),
    Path: (lambda value: isinstance(value, str | Path), "is not a path", "give one"),
    tuple[int, ...]: (_are_whole, "is not a list of whole numbers", "give one, such as [2, 4, 5]"),
}
