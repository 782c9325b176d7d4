"""How the house is kept: what every module of the packages holds to, read from their source.

Each table of exceptions tells why.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("projector", "pruning", "dashboard")
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_MODULES = 400, 80, 10

# Each: what, and why it may be.
OWN_COMMAND_LINE = "the dashboard's own options, as the app is started with them"
# A door leads into a room, and is none of its modules.
DOORS = {"__init__.py", "__main__.py", "streamlit_app.py"}
LARGE_ROOMS: dict[str, str] = {}
LONG_MODULES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
ROOMS_WITH_CODE_IN_INIT = {
    "projector": "the names of the library, loaded when they are used",
    "pruning": "the names of the library, loaded when they are used",
    "dashboard": "prepares the environment before Streamlit loads PyTorch",
    "benchmarks": "prepares the environment before anything loads PyTorch",
    "projector/layouts/kernels": "the one operation; which kernel takes it is decided here",
}
FLAGS_IN_MESSAGES = {
    "dashboard/frame/neuron_text.py": OWN_COMMAND_LINE,
    "dashboard/frame/sidebar.py": OWN_COMMAND_LINE,
    "dashboard/prompts.py": OWN_COMMAND_LINE,
    "dashboard/roots.py": OWN_COMMAND_LINE,
    "dashboard/state/model_room.py": OWN_COMMAND_LINE,
    "dashboard/state/settings.py": OWN_COMMAND_LINE,
    "projector/bundled/train.py": "a program of its own, with options of its own",
}
KNOWS_FORMS_APART: dict[str, str] = {}
WRITES_BY_HAND = {
    "projector/bundled/train.py": "a program of its own, which keeps its state between two starts",
}
# Modules that a distribution brings under another name, and what comes with another or is optional.
MODULE_OF = {
    "lm-eval": "lm_eval",
    "markdown-it-py": "markdown_it",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "umap-learn": "umap",
}
COMES_WITH_ANOTHER = {
    "triton": "PyTorch brings it where it knows CUDA",
    "pymde": "installed without its dependencies: benchmarks/README.md",
}

# The forms that correlations come in: who asks which one it has knows them apart.
FORMS = {"Correlations", "Distances", "MatrixFree", "TokenSample", "HalfStatistics"}
# Not a variable of a style sheet, as --st-font.
FLAG = re.compile(r"(?<![\w-])--(?!st-)[a-z][a-z-]+")
# Plain words one after the other: prose, and no name of a setting, a layer or a figure. Three of an
# error, where a name or a cue of two says which one it is; four of a page, which has titles too.
_WORD = r"[a-z]+(?:'[a-z]+)?"
PROSE_OF_ERRORS, PROSE = (
    re.compile(rf"(?<![\w'./`=-])[A-Z]?{_WORD}(?:,? {_WORD}){{{n}}}(?![\w'./`=-])") for n in (2, 3)
)
# What tests hold an error to, and the text of a page: all arguments of these.
HOLD_ERRORS = {"lacking", "refused", "refused_by_the_disk", "refused_naming"}
HOLD_PAGES = {"count", "endswith", "startswith"}
# The first argument of these, of the module re.
HOLD_BY_PATTERNS = {"fullmatch", "match", "search"}
# A command that is named in full.
COMMAND = re.compile(r"(projector|pruning|streamlit|pip|python) [^\n]*--[a-z]")


@cache
def modules(*folders: str) -> tuple[Path, ...]:
    return tuple(sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def check(found: dict[str, str], allowed: dict[str, str]) -> None:
    """Fail with what was found and isn't allowed, and with what is allowed and wasn't found."""
    told = [f"{where}: {what}" for where, what in sorted(found.items()) if where not in allowed]
    told += [f"{where}: needs no exception any more" for where in sorted(allowed.keys() - found)]
    assert not told, "\n" + "\n".join(told)


def test_no_module_is_too_long() -> None:
    found = {}
    for path in modules(*PACKAGES, "benchmarks"):
        n_lines = len(path.read_text(encoding="utf-8").splitlines())
        if n_lines > MOST_LINES:
            found[name_of(path)] = f"{n_lines} lines"
    check(found, LONG_MODULES)


def test_no_function_is_too_long() -> None:
    found = {}
    for path in modules(*PACKAGES, "benchmarks"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno is not None
                n_lines = node.end_lineno - node.lineno + 1
                if n_lines > MOST_LINES_OF_A_FUNCTION:
                    found[f"{name_of(path)}:{node.name}"] = f"{n_lines} lines"
    check(found, LONG_FUNCTIONS)


def test_every_module_says_what_it_is() -> None:
    silent = [
        name_of(path)
        for path in modules(*PACKAGES, "benchmarks", "tests")
        if parsed(path).body and ast.get_docstring(parsed(path)) is None
    ]
    assert silent == []


def test_what_functions_return_is_a_section_of_their_docstrings() -> None:
    """Text on the line of ``Returns:`` would be shown as a heading in the reference."""
    found = [
        f"{name_of(path)}:{n}"
        for path in modules(*PACKAGES)
        for n, line in enumerate(path.read_text().splitlines(), 1)
        if re.match(r" +Returns: +\S", line)
    ]
    assert found == []


def test_rooms_are_small_and_named() -> None:
    found = {}
    for folder in {path.parent for path in modules(*PACKAGES)}:
        names = {path.name for path in folder.glob("*.py")} - DOORS
        if len(names) > MOST_MODULES:
            found[name_of(folder)] = f"{len(names)} modules"
        assert "utils.py" not in names, name_of(folder)
        assert (folder / "__init__.py").exists(), name_of(folder)
    check(found, LARGE_ROOMS)


def test_importing_a_room_loads_nothing() -> None:
    found = {
        name_of(path.parent): "__init__.py holds more than a docstring"
        for path in modules(*PACKAGES, "benchmarks")
        if path.name == "__init__.py" and len(parsed(path).body) > 1
    }
    check(found, ROOMS_WITH_CODE_IN_INIT)


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Its strings with their lines, but for docstrings, items of lists (arguments of a process),
    and what a parser of arguments is told; of an f-string the whole, with … for what is put in."""
    left_out: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            left_out.add(id(node.value))
        elif isinstance(node, ast.List):
            left_out |= {id(item) for item in node.elts if _is_flag(item)}
        elif isinstance(node, ast.Call) and _called(node) == "add_argument":
            left_out |= {id(item) for item in ast.walk(node)}
        elif isinstance(node, ast.JoinedStr):
            left_out |= {id(item) for item in node.values}
            parts = [item.value if isinstance(item, ast.Constant) else "…" for item in node.values]
            yield node.lineno, "".join(str(part) for part in parts)
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in left_out:
            yield node.lineno, node.value


def flags_in(tree: ast.Module) -> list[str]:
    """Where its messages speak of flags, unless as part of a command that is named in full."""
    return [
        f"line {line}, {FLAG.findall(text)[0]}"
        for line, text in texts(tree)
        if FLAG.search(text) and not COMMAND.search(text)
    ]


def _is_flag(node: ast.expr) -> bool:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return False
    return FLAG.match(node.value) is not None and " " not in node.value


def _called(node: ast.Call) -> str:
    """The last name of what is called: ``replace`` of ``path.replace(…)``."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def test_what_is_no_module_is_installed_too() -> None:
    """Pages of an installed package need their scripts, style sheets, model and report."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    installed: set[Path] = set()
    for package, patterns in settings["tool"]["setuptools"]["package-data"].items():
        folder = ROOT / package.replace(".", "/")
        for pattern in patterns:
            found = {path for path in folder.glob(pattern) if path.is_file()}
            if pattern != "*.jinja":
                assert found, f"{package}: {pattern} finds nothing"
            installed |= found
    there = {
        path
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert sorted(map(name_of, there - installed)) == []
    assert (ROOT / "dashboard/shipped/report.json") in installed


def test_only_the_terminal_speaks_of_flags() -> None:
    found = {}
    for path in modules(*PACKAGES):
        if "terminal" in path.parts:
            continue
        if flags := flags_in(parsed(path)):
            found[name_of(path)] = "; ".join(flags)
    check(found, FLAGS_IN_MESSAGES)


def _form_asked(node: ast.AST) -> str:
    """Which forms of correlations are told apart here by something else than ``has_matrix``."""
    if isinstance(node, ast.Call) and _called(node) == "isinstance":
        names = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
        names |= {n.attr for n in ast.walk(node.args[1]) if isinstance(n, ast.Attribute)}
        return ", ".join(sorted(names & FORMS))
    if isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute):
        is_none = any(isinstance(c, ast.Constant) and c.value is None for c in node.comparators)
        return "stored" if is_none and node.left.attr == "stored" else ""
    return ""


def test_only_their_room_tells_forms_of_correlations_apart() -> None:
    found = {}
    for path in modules(*PACKAGES):
        for node in ast.walk(parsed(path)):
            if asked := _form_asked(node):
                found[name_of(path)] = f"line {node.lineno} asks for {asked}"
    check(
        {where: what for where, what in found.items() if "projector/statistics/" not in where},
        KNOWS_FORMS_APART,
    )


def test_only_the_shelf_of_the_dashboard_caches() -> None:
    for path in modules(*PACKAGES):
        if path == ROOT / "dashboard" / "state" / "shelf.py":
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("cache_data", "cache_resource"), name_of(path)


def test_only_the_storage_room_replaces_files() -> None:
    found = {}
    for path in modules(*PACKAGES):
        if path.is_relative_to(ROOT / "projector" / "storage"):
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and _moves_a_file(node):
                found[name_of(path)] = f"line {node.lineno} renames a file by hand"
    check(found, WRITES_BY_HAND)


def _moves_a_file(node: ast.Call) -> bool:
    if not isinstance(node.func, ast.Attribute):
        return False
    owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
    if node.func.attr in ("replace", "rename") and owner in ("os", "shutil"):
        return True
    # A path's takes one argument; that of text takes two, those of records take names.
    takes_one = len(node.args) == 1 and not node.keywords
    return takes_one and node.func.attr in ("replace", "rename")


def _declared(*extras: str) -> set[str]:
    """Modules of what ``pyproject.toml`` asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = list(project["dependencies"])
    for extra in extras:
        asked += project["optional-dependencies"][extra]
    names = [re.split(r"[<>=\[;]", line)[0].strip() for line in asked]
    return {MODULE_OF.get(name, name.replace("-", "_")) for name in names}


@pytest.mark.parametrize(
    ("folders", "extras"),
    [
        (PACKAGES, ("tasks", "video")),
        (("benchmarks",), ("benchmarks", "dev")),
        (("tests",), ("dev", "gguf", "tensorboard")),
    ],
    ids=["packages", "benchmarks", "tests"],
)
def test_what_is_imported_is_declared(folders: tuple[str, ...], extras: tuple[str, ...]) -> None:
    known = _declared(*extras) | set(COMES_WITH_ANOTHER) | set(sys.stdlib_module_names)
    known |= {*PACKAGES, "benchmarks", "tests"}
    found = {
        name: name_of(path)
        for path in modules(*folders)
        for name in _imported(parsed(path))
        if name not in known
    }
    assert found == {}


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def prose_in(tree: ast.Module) -> list[str]:
    """Where a test holds a message to its prose, so that its words can't be mended alone."""
    held = list(_held(tree))
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.decorator_list:
            held += _held_by_parameters(function)
    found = {
        f"line {part.lineno}, {part.value!r}"
        for prose, each in held
        for part in ast.walk(each)
        if isinstance(part, ast.Constant)
        and isinstance(part.value, str)
        and prose.search(part.value)
    }
    return sorted(found)


def _held(tree: ast.AST) -> Iterator[tuple[re.Pattern[str], ast.expr]]:
    """What texts are compared with here, and what counts as prose there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "match":
            yield PROSE_OF_ERRORS, node.value
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(isinstance(each, ast.In | ast.NotIn) for each in node.ops):
                yield PROSE, node.left
            elif any(_is_a_message(side) for side in sides):
                yield from ((PROSE_OF_ERRORS, side) for side in sides)
        elif isinstance(node, ast.Call) and _called(node) in HOLD_ERRORS:
            yield from ((PROSE_OF_ERRORS, each) for each in node.args)
        elif isinstance(node, ast.Call) and _called(node) in HOLD_PAGES:
            yield from ((PROSE, each) for each in node.args)
        elif isinstance(node, ast.Call) and _called(node) in HOLD_BY_PATTERNS and node.args:
            yield PROSE, node.args[0]


def _is_a_message(node: ast.expr) -> bool:
    """``str(error)`` or ``result.stderr``."""
    if isinstance(node, ast.Attribute):
        return node.attr == "stderr"
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str"


def _held_by_parameters(
    function: ast.FunctionDef,
) -> Iterator[tuple[re.Pattern[str], ast.expr]]:
    """The same of the cells of ``parametrize`` that it compares texts with."""
    uses = {
        node.id: prose
        for prose, each in _held(function)
        for node in ast.walk(each)
        if isinstance(node, ast.Name)
    }
    for marked in function.decorator_list:
        if not isinstance(marked, ast.Call) or _called(marked) != "parametrize":
            continue
        named, rows = marked.args[:2]
        names = [node.value for node in ast.walk(named) if isinstance(node, ast.Constant)]
        for row in rows.elts if isinstance(rows, ast.List) else []:
            cells = row.elts if len(names) > 1 and isinstance(row, ast.Tuple) else [row]
            yield from (
                (uses[name], cell) for name, cell in zip(names, cells, strict=False) if name in uses
            )


def test_tests_hold_messages_to_names_and_numbers_not_to_prose() -> None:
    found = {}
    for path in modules("tests"):
        if path != Path(__file__) and (prose := prose_in(parsed(path))):
            found[name_of(path)] = "; ".join(prose)
    assert found == {}


# The rules themselves: each on a module that breaks it, and on one that doesn't.
@pytest.mark.parametrize(
    ("holds", "source", "is_found"),
    [
        ("flags", 'raise ValueError("give --force")', True),
        ("flags", 'raise ValueError(f"give --force {x}")', True),
        ("flags", 'for flag in ("--dim", 3): pass', True),
        ("flags", 'run(["fit", "--force"])', False),
        ("flags", '"""Text of --force."""', False),
        ("flags", 'raise ValueError(f"run projector fit {model} --force")', False),
        ("flags", 'style = "var(--st-font)"', False),
        ("forms", "isinstance(form, MatrixFree)", True),
        ("forms", "isinstance(form, correlations.MatrixFree)", True),
        ("forms", "isinstance(form, (Tensor, kernels.Distances))", True),
        ("forms", "isinstance(form, Tensor)", False),
        ("forms", "if target.stored is None: pass", True),
        ("forms", "if target.has_matrix: pass", False),
        ("prose", 'raises(UserError, match="this is too small")', True),
        ("prose", 'raises(UserError, match=f"{x} can\'t be read here")', True),
        ("prose", 'assert "holds no such layer" in text', True),
        ("prose", 'assert lacking(text, "holds no such layer") == []', True),
        ("prose", 'assert text.startswith("holds no such layer")', True),
        ("prose", 'raises(UserError, match="layer 3 mlp_post.*12 tokens")', False),
        ("prose", 'assert "memory budget of 12 GB" in text', False),
        ("prose", 'raises(UserError, match="is too small")', True),
        ("prose", 'raises(UserError, match="too small")', False),
        ("prose", 'assert str(error) == "It is too small"', True),
        ("prose", 'assert result.stderr == "it is too small"', True),
        ("prose", 'assert re.search("holds no such layer", text)', True),
        ("prose", 'assert text.count("holds no such layer") == 1', True),
        ("prose", '@parametrize("says", ["is too small"])\ndef f(says): refused("a", says)', True),
        ("prose", '@parametrize("a", ["is too small"])\ndef f(a): refused("a", 3)', False),
        (
            "prose",
            '@parametrize(("a", "b"), [(1, "is too small")])\ndef f(a, b): lacking(a, *b)',
            True,
        ),
        ("prose", 'assert title == "holds no such layer"', False),
        ("moves", "partial.replace(path)", True),
        ("moves", "os.replace(partial, path)", True),
        ("moves", 'name.replace("a", "b")', False),
        ("moves", "replace(job, plan=plan)", False),
    ],
)
def test_the_rules_find_what_they_are_for(holds: str, source: str, is_found: bool) -> None:
    tree = ast.parse(source)
    if holds == "flags":
        assert bool(flags_in(tree)) is is_found
    elif holds == "prose":
        assert bool(prose_in(tree)) is is_found
    elif holds == "forms":
        assert any(bool(_form_asked(node)) for node in ast.walk(tree)) is is_found
    else:
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert any(_moves_a_file(call) for call in calls) is is_found
