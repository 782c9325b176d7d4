"""The documentation names only what exists: files, commands and options, modules, functions."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

from dashboard.state.settings import parse_settings
from projector.terminal.cli import app as projector_app
from pruning.terminal.cli import app as pruning_app
from tests.tools import modules

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "projector/bundled/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]
COMMANDS = {
    "projector": typer.main.get_command(projector_app),
    "pruning": typer.main.get_command(pruning_app),
}
# Options that the prose names by themselves, of other programs: the dashboard, benchmarks, and
# Accelerate's launcher.
OTHER_OPTIONS = {
    "--root",
    "--no-poles",
    "--quick",
    "--minutes",
    "--only",
    "--toy",
    "--cpu",
    "--machine_rank",
}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The page's fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)


def spans(page: str) -> list[str]:
    """What stands between backticks in the page's prose and tables."""
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def shell_lines(page: str) -> Iterator[list[str]]:
    """The words of each command in the page's shell blocks."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def own_command(words: list[str]) -> list[str] | None:
    """A command line from our program's name on; None where it is another program's."""
    if words[0] == "accelerate":
        return words[words.index("-m") + 1 :]
    return words if words[0] in COMMANDS else None


@cache
def options_of(program: str, name: str) -> frozenset[str]:
    command = COMMANDS[program].commands[name]  # type: ignore[attr-defined]
    found = {"--help"}
    for parameter in command.params:
        found |= {*parameter.opts, *parameter.secondary_opts}
    return frozenset(option for option in found if option.startswith("-"))


@cache
def own_options(program: str) -> frozenset[str]:
    """Options of a program itself, before any command."""
    return frozenset(option for each in COMMANDS[program].params for option in each.opts)


def test_the_readme_stays_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 160


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), target


def test_every_page_and_picture_is_linked() -> None:
    linked = {
        (ROOT / page).parent.joinpath(target.partition("#")[0]).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s:]+)\)", text_of(page))
    }
    # The site is built strict: a page that no table of contents has fails it.
    pages_of_sections = {ROOT / "docs/index.md", *(ROOT / "docs").glob("*/*.md")}
    there = {path for kind in ("md", "png", "gif") for path in (ROOT / "docs").rglob(f"*.{kind}")}
    assert there - linked - pages_of_sections - {ROOT / "docs/benchmarks.md"} == set()


@pytest.mark.parametrize("page", PAGES)
def test_shown_commands_can_be_read(page: str) -> None:
    for words in shell_lines(page):
        command = own_command(words)
        if command is not None:
            program, name, *arguments = command
            group: Any = COMMANDS[program]
            if name.startswith("-"):
                assert name in own_options(program), command
                continue
            # Reads the whole line, values and what is required too, and runs nothing.
            group.commands[name].make_context(name, arguments)
        elif words[0] == "streamlit":
            assert (ROOT / words[2] / "streamlit_app.py").exists()
            parse_settings(words[words.index("--") + 1 :] if "--" in words else [])


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_commands_and_options_in_the_prose_exist(page: str) -> None:
    known = {
        option
        for program, group in COMMANDS.items()
        for name in group.commands  # type: ignore[attr-defined]
        for option in options_of(program, name)
    } | OTHER_OPTIONS
    for span in spans(page):
        program, *rest = span.split()
        if program in COMMANDS and rest and rest[0].startswith("-"):
            assert rest[0] in own_options(program), span
        elif program in COMMANDS and rest and rest[0] != "…":
            assert rest[0] in COMMANDS[program].commands, span  # type: ignore[attr-defined]
            given = {word for word in rest if word.startswith("--")}
            assert given <= options_of(program, rest[0]), span
        elif program.startswith("--"):
            assert program in known, span


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_and_modules_that_are_run_exist(page: str) -> None:
    lines = [*spans(page), *(" ".join(words) for words in shell_lines(page))]
    targets = re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE)
    for line in lines:
        if found := re.match(r"make ([a-z]+)", line):
            assert found[1] in targets, line
        if found := re.search(r"python -m ([\w.]+)", line):
            assert is_module(found[1]), line


def is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("page", PAGES)
def test_shown_python_imports_and_calls_what_exists(page: str) -> None:
    for block in blocks(page, "python"):
        names: dict[str, Any] = {}
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                for one in node.names:
                    names[one.name] = importlib.import_module(one.name)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                for one in node.names:
                    names[one.name] = getattr(module, one.name)
                    if re.match(r"(projector|pruning)\.", node.module or ""):
                        # A package's own names all have entries: the site lists ``__all__``.
                        assert f"{node.module}.{one.name}" in reference(), one.name
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call):
                function = named(node.func, names)
                if function is not None:
                    keywords = {k.arg: None for k in node.keywords if k.arg is not None}
                    inspect.signature(function).bind_partial(*([None] * len(node.args)), **keywords)
            elif isinstance(node, ast.Attribute):
                named(node, names)


@cache
def reference() -> frozenset[str]:
    """Names that a page of the reference has an entry for."""
    pages = (ROOT / "docs/reference").glob("*.md")
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    return frozenset(re.findall(r"^(?:\.\. auto\w+:: |   )([\w.]+)$", text, re.MULTILINE))


def named(node: ast.expr, names: dict[str, Any]) -> Any:
    """What an expression such as ``projector.Projection.load`` names; None for another."""
    if isinstance(node, ast.Name):
        found = names.get(node.id)
        return None if node.id in vars(builtins) else found
    if isinstance(node, ast.Attribute):
        owner = named(node.value, names)
        return None if owner is None else getattr(owner, node.attr)
    return None


@pytest.mark.parametrize("page", PAGES)
def test_named_files_and_modules_exist(page: str) -> None:
    text = text_of(page)
    if page == "CHANGELOG.md":
        # Old paths are named there, beside the new ones.
        text = "\n".join(re.findall(r"^\|[^|]*\|([^|]*)\|$", text, re.MULTILINE))
    for span in re.findall(r"`([^`\n]+)`", text):
        if re.fullmatch(r"(projector|pruning|dashboard|benchmarks|tests|docs)/[\w./]*", span):
            assert (ROOT / span).exists(), span
        elif re.fullmatch(r"(projector|pruning|dashboard|benchmarks)(\.(?!json$)\w+)+", span):
            assert leads_to(span), span


def leads_to(dotted: str) -> bool:
    """Whether ``package.module.name`` can be imported, a name in a module included."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        if is_module(".".join(parts[:n])):
            value: Any = importlib.import_module(".".join(parts[:n]))
            for part in parts[n:]:
                if not hasattr(value, part):
                    return False
                value = getattr(value, part)
            return True
    return False


@pytest.mark.parametrize("package", ["projector", "pruning", "dashboard"])
def test_the_map_of_the_house_names_every_room(package: str) -> None:
    rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    told = text_of("docs/architecture.md").partition("## The rooms")[2].partition("\n## ")[0]
    assert {room for room in rooms if f"`{room}/`" not in told} == set()


def test_the_tables_of_modules_are_what_their_docstrings_say() -> None:
    page = modules.PAGE.read_text(encoding="utf-8")
    assert modules.modules_without_row(page) == []
    # `python -m tests.tools.modules` writes them again.
    assert modules.brought_up_to_date(page) == page
