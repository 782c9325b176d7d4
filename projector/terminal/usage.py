"""Errors in the command line itself, shown like all other errors."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperGroup

from projector.errors import UserError
from projector.terminal.screen import Screen

# Typer brings a parser of its own, or takes Click's: its base class goes by no other public name.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
# Typer's own take several lines of the help.
_COMPLETION = {
    "install_completion": "Set up completion for this shell.",
    "show_completion": "Print the completion script.",
}
_KINDS = {"integer": "a whole number", "number": "a number", "float": "a number"}


class Commands(TyperGroup):
    """A program's commands; an invalid command line gives a one-line error and exit status 2.

    With ``--json``, the error is one JSON object. Typer itself would draw a box of several lines.
    """

    _program = ""

    def make_context(self, info_name: str | None, *given: Any, **options: Any) -> Any:
        """Like Typer's, but the program keeps the name that it was called by."""
        self._program = info_name or ""
        return super().make_context(info_name, *given, **options)

    def get_params(self, ctx: Any) -> Any:
        """Like Typer's, with short help texts of the options for completion."""
        found: Any = super().get_params(ctx)
        for each in found:
            if each.name in _COMPLETION:
                each.help = _COMPLETION[each.name]
        _hide_values(found)
        return found

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Like Typer's, but the help shows no value for a flag."""
        found: Any = super().get_command(ctx, cmd_name)
        if found is not None:
            _hide_values(found.get_params(ctx))
        return found

    def main(self, *given: Any, **options: Any) -> Any:
        """Parse the command line, and run the command."""
        if not options.get("standalone_mode", True):
            return super().main(*given, **options)
        arguments = given[0] if given else options.get("args")
        arguments = sys.argv[1:] if arguments is None else list(arguments)
        try:
            status = super().main(*given, **options | {"standalone_mode": False})
        except _UsageError as error:
            # Without any arguments the help was shown.
            if type(error).__name__ != "NoArgsIsHelpError":
                self._refuse(error, arguments)
            status = 2
        except typer.Abort:
            status = 1
        sys.exit(status)

    def _refuse(self, error: Any, arguments: Sequence[str]) -> None:
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        if error.ctx is not None:
            command = error.ctx.command_path
        else:
            command = " ".join([self._program, *[a for a in own if a in self.commands][:1]])
        try:
            with Screen("--json" in own).errors():
                raise UserError(f"{_reason(error, own)}; see `{command} --help`")
        except typer.Exit:
            pass


def _hide_values(parameters: Sequence[Any]) -> None:
    # Typer would show <bool> after the name of a flag.
    for each in parameters:
        if getattr(each, "is_flag", False):
            each.metavar = ""


def _reason(error: Any, arguments: Sequence[str]) -> str:
    """What the parser says, in our words where those say more."""
    flags = getattr(getattr(error, "param", None), "opts", ())
    wanted = re.search(r"valid (integer|number|float)", str(error))
    # What is given twice counts as given last.
    for argument, following in reversed([*zip(arguments, [*arguments[1:], ""], strict=True)]):
        name, equals, value = argument.partition("=")
        if wanted is not None and name in flags:
            given = (value if equals else following)[:80]
            return f"{name} '{given}' is not {_KINDS[wanted[1]]}: give {_KINDS[wanted[1]]}"
    near = getattr(error, "possibilities", None)
    if near:
        (nearest,) = get_close_matches(error.option_name, near, n=1, cutoff=0)
        return f"no such option: {error.option_name} (did you mean {nearest}?)"
    text = str(error.format_message()).strip().rstrip(".")
    return text[:1].lower() + text[1:]
