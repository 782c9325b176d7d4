"""``.. command-help:: projector``: every command of a program, its options read from the code."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click
import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from tables import plain, table

from pruning.terminal.told import filled


class CommandHelp(SphinxDirective):
    """One section per command: its help, its arguments and its options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        program = self.arguments[0]
        app = import_module(f"{program}.terminal.cli").app
        group: Any = typer.main.get_command(app)
        return [self._section(program, name, each) for name, each in sorted(group.commands.items())]

    def _section(self, program: str, name: str, command: click.Command) -> nodes.section:
        title = f"{program} {name}"
        section = nodes.section(ids=[title.replace(" ", "-")], names=[title])
        self.state.document.note_explicit_target(section)
        section += nodes.title("", "", nodes.literal("", title))
        for paragraph in (command.help or "").split("\n\n"):
            section += nodes.paragraph("", plain(paragraph))
        context = click.Context(command, info_name=title)
        # Typer writes {MODEL} for an argument that is required.
        pieces = [each.strip("{}") for each in command.collect_usage_pieces(context)]
        usage = " ".join([title, *pieces])
        section += nodes.literal_block(usage, usage, language="text")
        rows = [each for each in command.params if not getattr(each, "hidden", False)]
        if rows:
            head = ("Option", "Default", "Description")
            section += table(head, [_row(each, context) for each in rows])
        return section


def _row(parameter: Any, context: click.Context) -> tuple[str, str, str]:
    """The names and the kind of value of a parameter, its default or "required", and its help."""
    default = parameter.default
    is_shown = getattr(parameter, "show_default", False) and not isinstance(default, bool)
    is_shown = is_shown and default not in (None, "", ()) and not callable(default)
    usual = str(default) if is_shown else ""
    if parameter.required:
        usual = "required"
    if parameter.param_type_name == "argument":
        return parameter.metavar or parameter.name.upper(), usual, _help(parameter)
    names = ", ".join(filter(str.strip, [*parameter.opts, *parameter.secondary_opts]))
    kind = "" if parameter.is_flag else parameter.display_type(context)
    return f"{names} {kind}".strip(), usual, _help(parameter)


def _help(parameter: click.Parameter) -> str:
    return plain(filled(str(getattr(parameter, "help", "") or "")))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
