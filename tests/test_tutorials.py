"""Code of the README and of the tutorials runs as it stands, on the bundled model.

Each page has a temporary folder and a namespace of its own, and its blocks run in their order.
Shell blocks run through the command line, in process. A block under ``<!-- not run: REASON -->``
needs the hub, a GPU or files of the reader's own, and is left out.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from projector.terminal.cli import app as projector_app
from pruning.terminal.cli import app as pruning_app

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs/tutorials"
PAGES = [
    ROOT / "README.md",
    *sorted(TUTORIALS.glob("*.md")),
    ROOT / "docs/how-to/own-corpus.md",
    ROOT / "docs/how-to/import.md",
]
APPS: dict[str, typer.Typer] = {"projector": projector_app, "pruning": pruning_app}
# They set up a place to work in, and show it.
OTHER_PROGRAMS = {"git", "cd", "python3", "source", "pip", "make"}
# Ends only when it is interrupted.
SERVER = ["projector", "dashboard"]
# Slow, and they read no file here: what they made is copied to the next page that calls them so.
SHARED = {("projector", "fit"), ("projector", "contrast")}
BLOCK = re.compile(
    r"^(?P<mark><!-- not run: [^\n]+ -->\n+)?```(?P<language>sh|python)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture(scope="module")
def made() -> dict[tuple[str, ...], Path]:
    """Command without its ``--out`` → a copy of the folder that it wrote."""
    return {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_of_the_page_runs(
    page: Path,
    made: dict[tuple[str, ...], Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "tutorial"}
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["mark"]:
            continue
        if block["language"] == "python":
            exec(compile(block["code"], str(page), "exec"), namespace)
            continue
        for line in block["code"].replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words or words[0] in OTHER_PROGRAMS or words[:2] == SERVER:
                continue
            run_or_copy(words, made, tmp_path_factory)


def run_or_copy(
    words: list[str],
    made: dict[tuple[str, ...], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """One command of ours; another program's is an error."""
    assert words[0] in APPS, f"mark it as not run: {words}"
    if tuple(words[:2]) not in SHARED or "--out" not in words:
        run(words)
        return
    at = words.index("--out")
    out, key = Path(words[at + 1]), (*words[:at], *words[at + 2 :])
    if key in made:
        shutil.copytree(made[key], out)
        return
    run(words)
    if not any(Path(word).exists() for word in key):
        made[key] = tmp_path_factory.mktemp("made") / "out"
        shutil.copytree(out, made[key])


def run(words: list[str]) -> None:
    result = CliRunner().invoke(APPS[words[0]], words[1:], env={"COLUMNS": "100"})
    assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads((TUTORIALS / "first-maps.ipynb").read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "notebook"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells
    for cell in cells:
        assert cell["outputs"] == []
        exec(compile("".join(cell["source"]), "first-maps.ipynb", "exec"), namespace)
    # What the text around the cells promises.
    assert namespace["poles"].n_distinct > namespace["poles"].controls.shuffled.n_distinct
