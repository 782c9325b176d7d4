"""Code against prose about it: functions of the standard library, and their docstrings.

Both prompts of a couple come from one function, so that both sets are about the same things. The
first is the function's source, from ``def`` to its last line, without its docstring. Functions with
a comment are skipped, so the code set has no prose except names and strings. The second is the
first paragraph of the docstring on one line, if it is prose: letters and punctuation, no call, no
operator, no example. Its final full stop is removed; otherwise nearly every docstring would end
with the same token, and there would be no variance at the embedding.

Sources are read as text and parsed; nothing is imported. Tests and generated tables of the library
are left out. Functions of one module form one group, and no module gives more than eight.

The sets don't control for the tokens themselves: code has brackets and line ends, and prose has
none. A probe therefore separates the sets already at the embedding, and code is about twice as
long.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from random import Random

from projector.corpus.readers.stdlib import SPLITS, stdlib_modules
from projector.residual.contrast.pairs.pair import Couple, Pair

_MOST_OF_A_MODULE = 8
_MOST_CHARACTERS, _FEWEST_CHARACTERS = 300, 40
_FEWEST_WORDS = 7
_PROSE = re.compile(r"[A-Z][A-Za-z ,.;:'-]*")
_LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "pydoc_data", "encodings", "turtledemo"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _couples(random: Random) -> Iterator[Couple]:
    modules = [each for split in SPLITS for each in stdlib_modules(split)]
    # The order must not depend on how many modules each split has.
    modules = sorted(each for each in modules if not _LEFT_OUT & set(each[0].split("/")))
    random.shuffle(modules)
    seen: set[str] = set()
    for path, text in modules:
        found = [each for each in _functions(path, text) if each.negative not in seen]
        random.shuffle(found)
        # Getters and setters share a docstring.
        kept = {each.negative: each for each in found}
        kept = {each.positive: each for each in kept.values() if each.positive not in seen}
        for each in list(kept.values())[:_MOST_OF_A_MODULE]:
            seen |= {each.positive, each.negative}
            yield each


def _functions(path: str, text: str) -> Iterator[Couple]:
    """A couple for each function of a module that has prose and code of the right length."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    lines = text.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, Function):
            code, prose = _code(lines, node), _prose(node)
            if code is not None and prose is not None:
                yield Couple(code, prose, path)


def _code(lines: list[str], node: Function) -> str | None:
    """The function's source without its docstring; None if that is empty, long or commented."""
    docstring, rest = node.body[0], node.body[1:]
    assert node.end_lineno is not None
    assert docstring.end_lineno is not None
    # One statement a line: what begins on the docstring's line can't be cut apart.
    if not rest or docstring.lineno <= node.lineno or rest[0].lineno <= docstring.end_lineno:
        return None
    kept = lines[node.lineno - 1 : docstring.lineno - 1]
    kept += lines[docstring.end_lineno : node.end_lineno]
    code = textwrap.dedent("\n".join(line.rstrip() for line in kept if line.strip()))
    if "#" in code or '"""' in code or not code.startswith(("def ", "async def ")):
        return None
    return code if _FEWEST_CHARACTERS <= len(code) <= _MOST_CHARACTERS else None


def _prose(node: Function) -> str | None:
    """The docstring's first paragraph on one line; None if it is not prose, short or long."""
    paragraph = (ast.get_docstring(node) or "").split("\n\n")[0]
    prose = " ".join(paragraph.split()).removesuffix(".")
    if _PROSE.fullmatch(prose) is None or len(prose.split()) < _FEWEST_WORDS:
        return None
    return prose if _FEWEST_CHARACTERS <= len(prose) <= _MOST_CHARACTERS else None


CODE_DOCSTRINGS = Pair(
    name="code-docstrings",
    positive_name="code",
    negative_name="docstrings",
    holds="functions of Python's standard library without their docstrings, against those "
    "docstrings",
    couples=_couples,
)
