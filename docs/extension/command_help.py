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
    """A section a command: what it does, its arguments and its options."""

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
        usage = " ".join([title, *command.collect_usage_pieces(context)])
        section += nodes.literal_block(usage, usage, language="text")
        rows = [each for each in command.params if not getattr(each, "hidden", False)]
        if rows:
            section += table(("Option", "Default", "What it does"), [_row(each) for each in rows])
        return section


def _row(parameter: click.Parameter) -> tuple[str, str, str]:
    """Its names, what it takes unless it is set, and what it does."""
    if isinstance(parameter, click.Argument):
        return parameter.make_metavar(click.Context(click.Command(""))), "", _help(parameter)
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    default = parameter.default
    is_told = default not in (None, False, "", ()) and not callable(default)
    return names, str(default) if is_told else "", _help(parameter)


def _help(parameter: click.Parameter) -> str:
    return plain(filled(str(getattr(parameter, "help", "") or "")))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
