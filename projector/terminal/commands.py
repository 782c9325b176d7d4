"""Turn a function of settings into a command, with options from the fields and one-line errors."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from projector.settings import HELP, HELP_OFF, UNIT, Template, help_of
from projector.terminal.options import (
    option_words,
    parse_layers,
    parse_names,
    parse_numbers,
    parse_sites,
    parse_size,
)
from projector.terminal.screen import Screen

Kind = TypeVar("Kind")
_CONTEXT, _AS_JSON = "context", "as_json"
_BY_DEFAULT = "By default"


@dataclass(frozen=True)
class Given(Generic[Kind]):
    """The settings fields that a command line sets; other fields are left out."""

    kind: type[Kind]
    values: dict[str, Any]

    def make(self) -> Kind:
        """Create the settings.

        Raises:
            UserError: if their dataclass raises it.
        """
        return self.kind(**self.values)


@dataclass(frozen=True)
class Without:
    """Annotation for fields that this command has no option for."""

    names: tuple[str, ...]


class Command:
    """A function in the form that Typer accepts.

    A parameter that is annotated with a frozen dataclass becomes one option for each field, with
    the help of :func:`projector.settings.setting`; so does ``Given[Dataclass]``, which is passed
    without creating the dataclass. The :class:`Screen` becomes ``--json``, and shows errors; a
    function without it has no ``--json``. All other parameters are passed to Typer.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self.__module__ = function.__module__

    # Both are computed at each use: a help text may have changed since.
    @property
    def __signature__(self) -> inspect.Signature:
        parameters = [
            inspect.Parameter(_CONTEXT, inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        ]
        for name, parameter, annotation in self._parameters():
            kind, left_out = _settings_kind(annotation)
            if annotation is Screen:
                continue
            if kind is None:
                parameters.append(
                    parameter.replace(
                        name=name, annotation=annotation, kind=inspect.Parameter.KEYWORD_ONLY
                    )
                )
                continue
            hints = get_type_hints(kind)
            parameters += [
                _option(each, hints[each.name])
                for each in fields(kind)
                if each.init and each.name not in left_out
            ]
        if any(annotation is Screen for _, _, annotation in self._parameters()):
            parameters.append(_as_json())
        return inspect.Signature(parameters)

    @property
    def __annotations__(self) -> dict[str, Any]:  # type: ignore[override]
        return {name: each.annotation for name, each in self.__signature__.parameters.items()}

    def __call__(self, **values: Any) -> None:
        context, screen = values.pop(_CONTEXT), Screen(values.pop(_AS_JSON, False))
        with screen.errors():
            arguments: dict[str, Any] = {}
            for name, _, annotation in self._parameters():
                kind, left_out = _settings_kind(annotation)
                if annotation is Screen:
                    arguments[name] = screen
                elif kind is None:
                    arguments[name] = values[name]
                else:
                    given = _given(kind, left_out, values, context)
                    unmade = get_origin(_bare(annotation)) is Given
                    arguments[name] = given if unmade else given.make()
            self._function(**arguments)

    def _parameters(self) -> list[tuple[str, inspect.Parameter, Any]]:
        hints = get_type_hints(self._function, include_extras=True)
        found = inspect.signature(self._function).parameters
        return [(name, parameter, hints[name]) for name, parameter in found.items()]


def command(function: Callable[..., None]) -> Command:
    """See :class:`Command`."""
    return Command(function)


def _as_json() -> inspect.Parameter:
    option = typer.Option("--json", help="Print one JSON object on standard output, for scripts.")
    return inspect.Parameter(
        _AS_JSON,
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, option],
    )


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _settings_kind(annotation: Any) -> tuple[Any, tuple[str, ...]]:
    """The dataclass whose fields are options, if it is one; and those of them that are not."""
    bare = _bare(annotation)
    kind = get_args(bare)[0] if get_origin(bare) is Given else bare
    left_out = [
        name for each in get_args(annotation) if isinstance(each, Without) for name in each.names
    ]
    return (kind if is_dataclass(kind) else None), tuple(left_out)


def _reader(each: Field[Any], annotation: Any) -> Callable[[str | None, str], Any] | None:
    """What reads the text of an option; None if Typer reads it."""
    if each.metadata.get(UNIT) == "bytes":
        return parse_size
    # Where None means all, an empty list must not.
    texts = parse_sites if type(None) in _alternatives(annotation) else parse_names
    kinds = {get_args(part)[0] for part in _alternatives(annotation) if get_origin(part) is tuple}
    readers: dict[type, Callable[[str | None, str], Any]] = {
        int: parse_layers,
        float: parse_numbers,
        str: texts,
    }
    return next((read for kind, read in readers.items() if kind in kinds), None)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return get_args(annotation) if is_union else (annotation,)


def option_names(each: Field[Any], annotation: Any) -> tuple[str, ...]:
    """The names of a field's option; of a switch, the name that turns it on and the one for off.

    The first is empty if nothing turns the switch on, because it is on by default.
    """
    flag = option_words(each.name, ())
    if bool not in _alternatives(annotation):
        return (flag,)
    no = option_words(each.name, (False,))
    if each.default is None:
        return flag, no
    if not each.default:
        return (flag,)
    yes = option_words(each.name, (True,))
    return (yes if yes.startswith("--") else "", no)


def _option(each: Field[Any], annotation: Any) -> inspect.Parameter:
    """A field as an option."""
    names = option_names(each, annotation)
    default = None if each.default_factory is not MISSING else each.default
    if _reader(each, annotation) is not None:
        annotation = str | None
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
    elif default is None:
        # Also of a field that is given a value when its settings are made.
        annotation = annotation | None
    is_needed = default is MISSING
    told = each.metadata.get(HELP)
    text = told.text if isinstance(told, Template) else help_of(each)
    # A help text that describes the default is not followed by its name.
    shows = not (is_needed or default is None or isinstance(default, bool) or _BY_DEFAULT in text)
    if not names[0]:
        text = each.metadata.get(HELP_OFF) or text
    flag = "/".join(name or " " for name in names)
    option = typer.Option(flag, help=text, show_default=shows)
    return inspect.Parameter(
        each.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=... if is_needed else default,
        annotation=Annotated[annotation, option],
    )


def _given(
    kind: Any, left_out: tuple[str, ...], values: dict[str, Any], context: typer.Context
) -> Given[Any]:
    """What the command line sets of the fields of ``kind``."""
    hints = get_type_hints(kind)
    found = {}
    for each in fields(kind):
        if not each.init or each.name in left_out:
            continue
        source = context.get_parameter_source(each.name)
        if source is None or source.name.startswith("DEFAULT"):
            continue
        read = _reader(each, hints[each.name])
        value = values[each.name]
        found[each.name] = value if read is None else read(value, each.name)
    return Given(kind, found)
