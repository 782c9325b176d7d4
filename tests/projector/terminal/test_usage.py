"""Command lines that can't be read: one line, status 2, and where to look."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import projector.terminal.cli
import pruning.terminal.cli
from tests.refused import lacking

APPS = {"projector": projector.terminal.cli.app, "pruning": pruning.terminal.cli.app}


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("pruning --bogus", "--bogus & `pruning --help`"),
        ("pruning nowhere", "'nowhere' & `pruning --help`"),
        ("pruning sweep", "'MODEL' & `pruning sweep --help`"),
        ("pruning sweep bundled", "'--out' & `pruning sweep --help`"),
        (
            "pruning sweep --windos 3",
            "--windos & --windows & `pruning sweep --help`",
        ),
        # The parser itself does not say of which command.
        (
            "pruning sweep bundled --out",
            "'--out' & argument & `pruning sweep --help`",
        ),
        (
            "pruning sweep bundled --out x --seeds three",
            "--seeds 'three' & whole number & `pruning sweep --help`",
        ),
        (
            "pruning prune bundled --out x --sparsity=a-third",
            "--sparsity 'a-third' & number & `pruning prune --help`",
        ),
        (
            "projector fit --out x --dim 2.5",
            "--dim '2.5' & whole number & `projector fit --help`",
        ),
        # What is given twice counts as given last.
        (
            "projector fit --out x --dim 2 --dim=x",
            "--dim 'x' & whole number & `projector fit --help`",
        ),
        ("projector info", "'DIR' & `projector info --help`"),
        ("projector plot [b]x[/b] [b]y[/b] --out z", "extra argument"),
    ],
)
def test_what_can_not_be_read_is_one_line(command: str, names: str) -> None:
    program, *arguments = command.split()
    result = CliRunner().invoke(APPS[program], arguments, prog_name=program)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert lacking(line, *names.split(" & ")) == []
    result = CliRunner().invoke(APPS[program], [*arguments[:1], "--json", *arguments[1:]])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"] in result.stderr


def test_a_model_of_an_option_s_name_asks_for_no_json() -> None:
    result = CliRunner().invoke(pruning.terminal.cli.app, ["sweep", "--seeds", "x", "--", "--json"])
    assert result.exit_code == 2
    assert result.stdout == ""


@pytest.mark.parametrize("program", APPS)
def test_help_is_shown_as_ever(program: str) -> None:
    for arguments, status in (([], 2), (["--help"], 0)):
        result = CliRunner().invoke(APPS[program], arguments)
        assert result.exit_code == status
        assert "Usage" in result.stdout
        assert result.stderr == ""


def test_help_shows_a_value_for_options_that_take_one() -> None:
    shown = " ".join(CliRunner().invoke(APPS["projector"], ["layout", "--help"]).output.split())
    for flag in ("--force", "--json", "--help"):
        assert f"{flag} <" not in shown
    assert "--seed <int>" in shown
    # The help text of a solver describes its default.
    assert "[default: smacof]" not in shown
    assert "[default: 0]" in shown


@pytest.mark.parametrize("program", APPS)
def test_the_programs_themselves_refuse_so(program: str) -> None:
    """As a shell starts them, and not as a test calls them."""
    for arguments in (["--bogus"], ["nowhere", "--json"]):
        result = subprocess.run(
            [sys.executable, "-m", program, *arguments], capture_output=True, text=True
        )
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert line.endswith(f"; see `python -m {program} --help`")
        if "--json" in arguments:
            assert json.loads(result.stdout)["error"] == line.removeprefix("error: ")


def test_what_a_command_ends_with_is_the_status() -> None:
    from projector.terminal.usage import Commands

    app = typer.Typer(cls=Commands)

    @app.command()
    def end(status: int) -> None:
        raise typer.Exit(status)

    @app.command()
    def leave() -> None:
        raise typer.Abort

    for arguments, expected in ((["end", "0"], 0), (["end", "3"], 3), (["leave"], 1)):
        assert CliRunner().invoke(app, arguments).exit_code == expected


@pytest.mark.parametrize("program", APPS)
def test_completion_scripts_are_printed_and_complete_commands(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for shell, marks in {"bash": "complete -o default -F", "zsh": f"#compdef {program}"}.items():
        found = (shell, f"/bin/{shell}")
        monkeypatch.setattr("shellingham.detect_shell", lambda found=found: found)
        shown = CliRunner().invoke(APPS[program], ["--show-completion"], prog_name=program)
        assert shown.exit_code == 0
        assert marks in shown.output
    # What the script asks the program when Tab is pressed.
    asked = {f"_{program.upper()}_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    asked["COMP_WORDS"] = f"{program} p"
    answer = CliRunner().invoke(APPS[program], [], prog_name=program, env=asked)
    names = {"projector": {"plot"}, "pruning": {"perplexity", "poles", "prune"}}
    assert set(answer.output.split()) == names[program]
    # Nothing is written unless it is asked for, and each option takes one line of the help.
    assert not any(tmp_path.iterdir())
    lines = CliRunner().invoke(APPS[program], ["--help"], prog_name=program).output.splitlines()
    first = next(n for n, line in enumerate(lines) if "--install-completion" in line)
    assert "--show-completion" in lines[first + 1]
    assert "--help" in lines[first + 2]
