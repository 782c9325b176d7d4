"""Bundle JavaScript modules in a folder to one script for a page.

A saved page has no server to load further modules from, and there is no build step.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w.]+)";\n', re.MULTILINE)
_OTHER_IMPORT = re.compile(r"^import\b.*", re.MULTILINE)
_EXPORT = re.compile(r"^export (?!default)", re.MULTILINE)
_NAME = re.compile(r"^(?:export )?(?:const|let|var|class|(?:async )?function) (\w+)", re.MULTILINE)


def bundle(folder: Path, entry: str) -> str:
    """Bundle all modules that an entry needs, each after its imports, to one module.

    It has the exports of the entry. Modules import each other by name, as in ``import { a, b } from
    "./other.js";``, and share one scope after bundling, so their top-level names must be unique.

    Args:
        entry: name of the entry file in ``folder``.

    Raises:
        ValueError: if there is a circular import, an import in another form, or a name that two
            modules define.
        OSError: if a file can't be read.
    """
    texts: dict[str, str] = {}

    def add(name: str, path: tuple[str, ...] = ()) -> None:
        if name in path:
            raise ValueError(f"{folder}: modules import each other: {' → '.join((*path, name))}")
        if name in texts:
            return
        text = (folder / name).read_text(encoding="utf-8")
        for needed in _IMPORT.findall(text):
            add(needed, (*path, name))
        texts[name] = _IMPORT.sub("", text)

    add(entry)
    names: Counter[str] = Counter()
    for name, text in texts.items():
        if other := _OTHER_IMPORT.search(text):
            raise ValueError(f"{folder / name}: this import can't be bundled: {other[0]}")
        names.update(_NAME.findall(text))
    if twice := sorted(name for name, n in names.items() if n > 1):
        raise ValueError(f"{folder}: several modules define {', '.join(twice)}")
    return "\n".join(
        f"// {name}\n{text if name == entry else _EXPORT.sub('', text)}"
        for name, text in texts.items()
    )
