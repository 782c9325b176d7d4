"""``.. public-names:: PACKAGE``: an entry for each name that a package gives to its users."""

from __future__ import annotations

import inspect
from importlib import import_module

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class PublicNames(SphinxDirective):
    """Functions and classes of ``PACKAGE.__all__``, from their docstrings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        package = import_module(name)
        lines: list[str] = []
        for each in sorted(package.__all__, key=str.lower):
            found = getattr(package, each)
            kind = "autoclass" if inspect.isclass(found) else "autofunction"
            lines += [f".. {kind}:: {name}.{each}"]
            if inspect.isclass(found):
                lines += ["   :members:"]
            lines += [""]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
