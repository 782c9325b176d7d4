"""Draws user-facing messages at random, to be read aloud: ``python -m tests.tools.messages``.

Messages are the texts of errors, help of settings and options, what pages and commands say, first
lines of public docstrings, and sentences of the documentation.
"""

from __future__ import annotations

import argparse
import ast
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("dashboard", "projector", "pruning")
# Calls whose texts a user reads, by the last part of the called name.
_ERRORS = {"UserError", "SettingError", "UnreadableFile", "NotApplicable"}
_HELP = {"setting", "Option", "Argument"}
_SHOWN = {
    "caption", "markdown", "info", "warning", "error", "success", "write", "button", "checkbox",
    "selectbox", "slider", "toggle", "radio", "subheader", "title", "text_input", "expander",
    "metric", "say", "say_aside", "paragraph", "note",
}  # fmt: skip
_LEAST_WORDS = 2


@dataclass(frozen=True)
class Message:
    """A text that a user reads; ``{…}`` stands where a value is put in."""

    kind: str
    place: str
    text: str


def all_messages() -> list[Message]:
    """Every message that is found, in the order of files."""
    found: list[Message] = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            found += _of_module(path)
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        found += _of_page(page)
    return found


def draw(n: int, seed: int) -> list[Message]:
    """``n`` messages, as many of each kind as there is room for, in the order that a seed gives."""
    by_kind: dict[str, list[Message]] = {}
    for each in all_messages():
        by_kind.setdefault(each.kind, []).append(each)
    dice = random.Random(seed)
    for texts in by_kind.values():
        dice.shuffle(texts)
    drawn: list[Message] = []
    while len(drawn) < n and any(by_kind.values()):
        drawn += [texts.pop() for texts in by_kind.values() if texts]
    dice.shuffle(drawn)
    return drawn[:n]


def _of_module(path: Path) -> Iterator[Message]:
    name = str(path.relative_to(ROOT))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            text = ast.get_docstring(node)
            if text:
                yield Message("docstring", f"{name}:{node.lineno}", _first_paragraph(text))
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else _name(node.func)
        kind = "error" if called in _ERRORS else "help" if called in _HELP else "shown"
        if kind == "shown" and called not in _SHOWN:
            continue
        values = [each.value for each in node.keywords if each.arg == "help"]
        values += node.args if kind != "help" else []
        for value in values:
            text = _text_of(value)
            if text and len(text.split()) >= _LEAST_WORDS:
                yield Message(kind, f"{name}:{value.lineno}", text)


def _of_page(path: Path) -> Iterator[Message]:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    name = str(path.relative_to(ROOT))
    for block in re.split(r"\n\s*\n", text):
        if re.match(r"\s*(#|\||!\[|- \[)", block):
            continue
        for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z`])", " ".join(block.split())):
            if len(sentence.split()) > _LEAST_WORDS:
                yield Message("page", name, sentence)


def _text_of(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(each.value) if isinstance(each, ast.Constant) else "{…}" for each in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text_of(node.left) + _text_of(node.right)
    return ""


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _first_paragraph(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw user-facing messages, to be read aloud.")
    parser.add_argument("-n", type=int, default=50, help="How many.")
    parser.add_argument("--seed", type=int, default=0, help="Another seed draws others.")
    given = parser.parse_args()
    for each in draw(given.n, given.seed):
        print(f"[{each.kind}] {each.place}\n    {each.text}\n")


if __name__ == "__main__":
    main()
