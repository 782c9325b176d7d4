"""``.. settings:: module.Class``: the fields of frozen settings, of which commands make options."""

from __future__ import annotations

from dataclasses import MISSING, fields
from importlib import import_module
from typing import get_type_hints

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from tables import plain, table

from projector.settings import help_of


class Settings(SphinxDirective):
    """A table with a row a field: its name, its default, and what it does."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        kind = getattr(import_module(module), name)
        get_type_hints(kind)
        rows = []
        for each in fields(kind):
            told = plain(help_of(each))
            if not told:
                raise self.error(f"{name}.{each.name} has no help text")
            default = "" if each.default in (MISSING, None) else repr(each.default)
            rows.append((each.name, default, told))
        return [table(("Setting", "Default", "What it does"), rows)]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("settings", Settings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
