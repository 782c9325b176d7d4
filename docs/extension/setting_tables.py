"""``.. settings:: module.Class``: the fields of frozen settings, and the options made from them."""

from __future__ import annotations

from dataclasses import MISSING, fields
from importlib import import_module
from typing import get_type_hints

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from tables import plain, table

import pruning.terminal.cli  # noqa: F401  It names the options of its commands.
from projector.settings import help_of
from projector.terminal.commands import option_names


class Settings(SphinxDirective):
    """A table with one row per field: its name, option, default, and effect."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        kind = getattr(import_module(module), name)
        hints = get_type_hints(kind)
        rows = []
        for each in fields(kind):
            told = plain(help_of(each))
            if not told:
                raise self.error(f"{name}.{each.name} has no help text")
            default = "" if each.default in (MISSING, None) else repr(each.default)
            options = ", ".join(filter(None, option_names(each, hints[each.name])))
            rows.append((each.name, options, default, told))
        return [table(("Setting", "Option", "Default", "Description"), rows, (20, 20, 12, 48))]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("settings", Settings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
