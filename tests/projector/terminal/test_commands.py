"""Commands made of settings: a field is an option, and nothing else knows of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from projector.errors import SettingError, UserError, named
from projector.settings import Template, help_of, setting
from projector.terminal import options
from projector.terminal.commands import Given, Without, command
from projector.terminal.screen import Screen

words = {"first": "Of a test."}


@dataclass(frozen=True)
class Settings:
    """Every kind of field."""

    out: Path = setting(help="Where to.")
    first: str = setting("one", help=lambda: words["first"])
    count: int | None = setting(None)
    rate: float = setting(0.5)
    names: tuple[str, ...] | None = setting(None)
    layers: tuple[int, ...] | None = setting(None)
    room: int | None = setting(None, unit="bytes")
    is_on: bool = setting(False)
    keep_statistics: bool = setting(True)
    packed: bool | None = setting(None)

    def __post_init__(self) -> None:
        if self.first == "bad":
            raise SettingError("first", "bad", "is not known", "give another")


def app_of(made: list[Any], annotation: Any) -> typer.Typer:
    def work(screen: Screen, folder: str = "here", *, settings: Any) -> None:
        """A command of the test."""
        if folder == "nowhere":
            raise UserError(f"{named('keep_statistics', False)} and {named('is_on', True)}")
        made.append(settings)

    work.__annotations__ |= {
        "screen": Screen,
        "folder": Annotated[str, typer.Argument()],
        "settings": annotation,
    }
    app = typer.Typer()
    app.command()(command(work))
    return app


def run(annotation: Any, *args: str) -> tuple[Result, list[Any]]:
    made: list[Any] = []
    return CliRunner().invoke(app_of(made, annotation), list(args)), made


def test_every_kind_of_field_is_read() -> None:
    result, made = run(
        Settings, "--out", "a/b", "--first", "two", "--count", "3", "--rate", "2",
        "--names", "x, y", "--layers", "0,2-3", "--room", "2kB", "--is-on",
        "--no-statistics", "--no-pack",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert made == [
        Settings(
            Path("a/b"), "two", 3, 2.0, ("x", "y"), (0, 2, 3), 2000, True, False, False
        )
    ]  # fmt: skip
    assert run(Settings, "--out", "a")[1] == [Settings(Path("a"))]
    assert run(Settings, "--out", "a", "--pack")[1] == [Settings(Path("a"), packed=True)]


def test_lists_have_defaults_and_templates_are_filled_in_on_request() -> None:
    loaded: list[str] = []

    def words_of_kinds() -> dict[str, str]:
        loaded.append("kinds")
        return {"kinds": "a, b"}

    @dataclass(frozen=True)
    class Lists:
        shares: tuple[float, ...] = setting((0.5, 1.0), help="Shares.")
        kinds: tuple[str, ...] = setting(
            factory=lambda: ("a", "b"), help=Template("{kinds}", words_of_kinds)
        )

    assert run(Lists)[1] == [Lists((0.5, 1.0), ("a", "b"))]
    assert run(Lists, "--shares", "0.1, 2", "--kinds", "b, c,")[1] == [
        Lists((0.1, 2.0), ("b", "c"))
    ]
    assert "--shares" in run(Lists, "--shares", "a")[0].output
    assert "0.5,1.0" in run(Lists, "--help")[0].output
    assert not loaded
    assert help_of(fields(Lists)[1]) == "a, b"


def test_a_switch_may_have_an_option_for_each_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "_SWITCHES", dict(options._SWITCHES))
    options.name_options(is_kept="--kept/--not-kept", is_seen="/--unseen")

    @dataclass(frozen=True)
    class Switches:
        is_kept: bool = setting(True)
        is_seen: bool = setting(True)

    assert run(Switches, "--kept")[1] == [Switches(True, True)]
    assert run(Switches, "--not-kept", "--unseen")[1] == [Switches(False, False)]
    assert options.option_words("is_kept", (False,)) == "--not-kept"


def test_what_is_not_given_is_not_among_what_is() -> None:
    _, (given,) = run(Given[Settings], "--out", "a", "--first", "one")
    assert given.values == {"out": Path("a"), "first": "one"}
    assert given.make() == Settings(Path("a"))


def test_help_is_the_fields_own_and_asked_for_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Of a test." in run(Settings, "--help")[0].output
    monkeypatch.setitem(words, "first", "Registered since.")
    assert "Registered since." in run(Settings, "--help")[0].output


def test_an_added_field_is_an_option_without_another_line() -> None:
    @dataclass(frozen=True)
    class More(Settings):
        added: int = setting(7, help="Added.")

    assert run(More, "--out", "a", "--added", "8")[1] == [More(Path("a"), added=8)]
    assert "Added." in run(More, "--help")[0].output


def test_a_field_that_is_left_out_has_no_option() -> None:
    annotation = Annotated[Settings, Without(("rate",))]
    assert run(annotation, "--out", "a")[1] == [Settings(Path("a"))]
    assert run(annotation, "--out", "a", "--rate", "2")[0].exit_code == 2


def test_errors_name_options_in_one_line() -> None:
    result, made = run(Settings, "--out", "a", "--first", "bad")
    assert (result.exit_code, made) == (2, [])
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: --first 'bad' ")
    result, _ = run(Settings, "nowhere", "--out", "a", "--json")
    assert json.loads(result.stdout)["error"] == "--no-statistics and --is-on"
