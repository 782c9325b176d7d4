"""Every option of a setting has the name, the default and the help that the setting has."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import click
import pytest
from typer.main import get_command

from projector.settings import help_of
from projector.terminal.options import option_words
from pruning.poles.poles import PoleSettings
from pruning.reuse.settings import ReuseRequest, ReuseSettings
from pruning.settings import PoleOptions, PruneSettings
from pruning.sweep.settings import SweepRequest, SweepSettings
from pruning.terminal.cli import app
from pruning.terminal.told import filled

COMMANDS: Any = get_command(app)
# Fields that other options give, or that no command sets.
GIVEN = {"model", "settings", "calibration", "evaluation", "evaluations"}
UNSET = {"poles", "pruning_method"}


def options_of(command: str) -> dict[str, click.Parameter]:
    return {each.name: each for each in COMMANDS.commands[command].params}


@pytest.mark.parametrize(
    ("command", "kind", "left_out"),
    [
        ("poles", PoleSettings, set()),
        ("prune", PruneSettings, UNSET),
        ("prune", PoleOptions, set()),
        ("sweep", SweepSettings, UNSET),
        ("sweep", PoleOptions, set()),
        ("sweep", SweepRequest, GIVEN),
        ("reuse", ReuseSettings, UNSET | {"seed"}),
        ("reuse", ReuseRequest, GIVEN),
    ],
)
def test_options_are_made_of_settings(command: str, kind: Any, left_out: set[str]) -> None:
    options = options_of(command)
    for each in fields(kind):
        if each.name in left_out:
            assert each.name not in options or each.name in GIVEN
            continue
        option: Any = options[each.name]
        if each.name != "with_winners":
            assert option.opts == [option_words(each.name, ())]
        default = None if each.default is MISSING else each.default
        text = ",".join(map(str, default)) if isinstance(default, tuple) else default
        assert option.default == text
        if help_of(each):
            assert filled(option.help) == help_of(each)


def test_names_and_switches_of_options() -> None:
    """A command line of today runs tomorrow."""
    words = {word for each in options_of("sweep").values() for word in each.opts}
    assert {"--sequences", "--seeds", "--steps", "--windows", "--workers"} <= words
    assert {"--evaluation", "--min-cluster-size", "--round-to", "--winners"} <= words
    assert options_of("sweep")["with_winners"].secondary_opts == ["--no-winners"]
    assert options_of("poles")["with_controls"].secondary_opts == ["--no-controls"]
    assert {"layer", "site"} <= options_of("poles").keys()
    assert options_of("reuse")["n_partners"].opts == ["--partners"]
