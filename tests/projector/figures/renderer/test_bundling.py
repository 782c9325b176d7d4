"""Modules of JavaScript become one: in order, without imports, and never with a clash of names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from projector.figures.renderer.bundling import bundle


def write(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        (folder / f"{name}.js").write_text(text, encoding="utf-8")
    return folder


def test_each_module_stands_once_after_those_that_it_imports(tmp_path: Path) -> None:
    write(
        tmp_path,
        entry='import { two } from "./two.js";\nimport {\n  one,\n} from "./one.js";\n'
        "export function mount() {}\nexport default 1;\n",
        two='import { one } from "./one.js";\nexport const two = one + 1;\n',
        one="export const one = 1;\n",
        unused="export const three = 3;\n",
    )
    # The entry alone exports.
    assert bundle(tmp_path, "entry.js") == (
        "// one.js\nconst one = 1;\n\n"
        "// two.js\nconst two = one + 1;\n\n"
        "// entry.js\nexport function mount() {}\nexport default 1;\n"
    )


@pytest.mark.parametrize(
    ("modules", "named"),
    [
        (
            {"entry": 'import { a } from "./a.js";\n', "a": 'import { b } from "./entry.js";\n'},
            "entry.js → a.js → entry.js",
        ),
        ({"entry": 'import * as all from "./a.js";\n'}, "import * as all"),
        ({"entry": 'import all from "./a.js";\n'}, "import all"),
        (
            {
                "entry": 'import { a } from "./a.js";\nclass same {}\n',
                "a": "export const a = 1;\nexport async function same() {}\n",
            },
            "same",
        ),
    ],
)
def test_what_can_not_be_one_module_is_refused(
    tmp_path: Path, modules: dict[str, str], named: str
) -> None:
    write(tmp_path, **modules)
    with pytest.raises(ValueError, match=re.escape(named)):
        bundle(tmp_path, "entry.js")
