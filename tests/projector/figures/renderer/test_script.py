"""The scripts as a page and a saved page take them; the browser's tests run them."""

from __future__ import annotations

import re

from projector.figures.renderer.script import WEB, script

MODULE = re.compile(r"^// (\w+\.js)$", re.MULTILINE)
# Classes that an entry takes; alone they draw nothing.
PARTS = ("moving.js", "player.js")


def entries() -> list[str]:
    texts = {path.name: path.read_text(encoding="utf-8") for path in WEB.glob("*.js")}
    return sorted(name for name, text in texts.items() if "export default" in text)


def test_each_script_is_one_module_without_imports_and_each_module_is_in_one() -> None:
    found: set[str] = set()
    assert "map.js" in entries()
    for entry in entries():
        text = script(entry)
        assert not re.findall(r"^import ", text, re.MULTILINE)
        # Pages rely on this form: a saved one makes a constant of it.
        assert re.findall(r"^export .*", text, re.MULTILINE) == [
            "export default function (component) {"
        ]
        found |= set(MODULE.findall(text))
    for part in PARTS:
        found |= set(MODULE.findall(script(part)))
    assert {path.name for path in WEB.glob("*.js")} == found
