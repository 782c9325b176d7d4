"""``.. public-names:: PACKAGE``: an entry for each name that a package gives to its users.

Classes of the package that these names take and return get entries too, in a section of their own,
and so do the classes that the content names. A name without a docstring fails the build.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_OF_CLASSES = (
    "   :members:",
    "   :inherited-members: object, tuple, Exception",
    "   :exclude-members: __init__, __new__",
)
_CODE = re.compile(r"(``[^`]*``|`[^`]*`)")


class PublicNames(SphinxDirective):
    """Functions and classes of ``PACKAGE.__all__``, from their docstrings."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        package = import_module(name)
        public = {each: getattr(package, each) for each in package.__all__}
        lines = []
        for each in sorted(public, key=str.lower):
            if not inspect.getdoc(public[each]):
                raise self.error(f"{name}.{each} has no docstring")
            lines += _entry(f"{name}.{each}", inspect.isclass(public[each]))
        found = self.parse_text_to_nodes("\n".join(lines))
        named = {each.strip() for each in self.content if each.strip()}
        documented = {f"{each.__module__}.{each.__qualname__}" for each in _public_classes()}
        more = sorted(
            ({f"{each.__module__}.{each.__qualname__}" for each in _met(public, name)} | named)
            - documented,
            key=lambda each: each.rpartition(".")[2].lower(),
        )
        lines = [line for each in more for line in _entry(each, True)]
        section = nodes.section(ids=[f"{name}-classes"], names=[f"{name} classes"])
        section += nodes.title("", "Classes that they take and return")
        section += self.parse_text_to_nodes("\n".join(lines))
        return [*found, section] if more else found


def _entry(name: str, is_class: bool) -> list[str]:
    kind = "autoclass" if is_class else "autofunction"
    return [f".. {kind}:: {name}", *(_OF_CLASSES if is_class else []), ""]


def _public_classes() -> Iterator[type]:
    for name in ("projector", "pruning"):
        package = import_module(name)
        yield from filter(inspect.isclass, (getattr(package, each) for each in package.__all__))


def _met(public: dict[str, Any], package: str) -> Iterator[type]:
    """Classes of the package that the annotations of functions and of public methods name."""
    for found in public.values():
        members = inspect.getmembers_static(found) if inspect.isclass(found) else [("", found)]
        for name, member in members:
            function = member.fget if isinstance(member, property) else member
            function = getattr(function, "__func__", function)
            if name.startswith("_") or not inspect.isfunction(function):
                continue
            scope = vars(sys.modules[function.__module__])
            # Word by word: what is imported for type checkers alone can't be evaluated.
            for word in re.findall(r"\w+", " ".join(map(str, function.__annotations__.values()))):
                each = scope.get(word)
                if inspect.isclass(each) and each.__module__.startswith(f"{package}."):
                    yield each


def _escape_bars(
    app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]
) -> None:
    """|ρ| is an absolute value, and no substitution."""
    for n, line in enumerate(lines):
        parts = _CODE.split(line)
        parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
        lines[n] = "".join(parts)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _escape_bars)
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
