"""Metadata of settings fields, used by commands, provenance and the resume check.

A setting is a field of a frozen dataclass. Commands turn each field into an option, and two runs
are different if a field differs, unless the field is declared with ``may_differ``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from numbers import Integral
from pathlib import Path
from typing import Any, get_args, get_type_hints

from projector.errors import SettingError

HELP, MAY_DIFFER, CHOICES, UNIT, BY_SOME = "help", "may_differ", "choices", "unit", "by_some"
TOLD_BY, HELP_OFF = "told_by", "help_off"


@dataclass(frozen=True)
class Template:
    """A help text with ``{names}``, whose words take long to load.

    A command line keeps the text as it is until a person asks for help.

    Attributes:
        words: name → what replaces it.
    """

    text: str
    words: Callable[[], Mapping[str, str]]

    def __call__(self) -> str:
        """The whole text."""
        return self.text.format(**self.words())


def setting(
    default: Any = MISSING,
    *,
    factory: Any = MISSING,
    help: str | Callable[[], str] = "",
    help_off: str = "",
    may_differ: bool = False,
    choices: Iterable[str] = (),
    unit: str = "",
    by_some: bool = False,
    told_by: str = "",
) -> Any:
    """Declare a settings field: ``dataclasses.field`` with metadata for interfaces and checks.

    Args:
        default: the default value; without it, the setting is required.
        factory: gives the default instead, if it depends on registered parts.
        help: one or two sentences of help; a function if the text depends on registered parts.
        help_off: help of the option that turns a switch off, if no option turns it on.
        may_differ: whether two runs count as the same run even if they differ in this field.
        choices: the valid values, for interfaces that list them.
        unit: ``bytes`` if an interface may accept a size such as ``8GiB``.
        by_some: whether only some methods read it, each of which declares it; for every other
            method it must keep its default.
        told_by: the fact of a run that records the field's outcome and is compared in its place,
            because a name may refer to a different text later, and "auto" to another device.
    """
    metadata = {
        HELP: help,
        HELP_OFF: help_off,
        MAY_DIFFER: may_differ,
        CHOICES: tuple(choices),
        UNIT: unit,
        BY_SOME: by_some,
        TOLD_BY: told_by,
    }
    if factory is not MISSING:
        return field(default_factory=factory, metadata=metadata)
    return (
        field(metadata=metadata)
        if default is MISSING
        else field(default=default, metadata=metadata)
    )


def help_of(each: Field[Any]) -> str:
    """The help text of a field."""
    text = each.metadata.get(HELP, "")
    return str(text() if callable(text) else text)


def compared(settings: Any) -> dict[str, Any]:
    """Name → value of every field that must be equal for two runs to be the same run.

    Fields that another fact replaces (``told_by``) are left out.
    """
    return {
        each.name: getattr(settings, each.name)
        for each in fields(settings)
        if not each.metadata.get(MAY_DIFFER, False) and not each.metadata.get(TOLD_BY)
    }


def check_types(settings: Any) -> None:
    """Raise a SettingError if a field's value doesn't have its declared type.

    Integers, booleans, strings, paths and sequences of integers are checked; a path may be a
    string.
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
    int: (_is_whole, "is not a whole number", "give a whole number"),
    bool: (lambda value: isinstance(value, bool), "is not a truth value", "give true or false"),
    str: (lambda value: isinstance(value, str), "is not text", "give text"),
    Path: (lambda value: isinstance(value, str | Path), "is not a path", "give a path"),
    tuple[int, ...]: (_are_whole, "is not a list of whole numbers", "give one, such as [2, 4, 5]"),
}
