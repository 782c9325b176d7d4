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

# Written by hand, so that a change of a setting doesn't change it too. An option has None here
# if its default is made later.
LOADING = {
    "--device": "auto",
    "--dtype": "auto",
    "--revision": None,
    "--trust-remote-code": False,
    "--json": False,
}
RESUMING = {"--resume": False, "--force": False}
TEXTS = {"--calibration": None, "--evaluation": None}
POLES = {"--space": None, "--min-cluster-size": None, "--selection": None}
OPTIONS: dict[str, dict[str, Any]] = {
    "poles": {
        "--layer": None,
        "--site": None,
        "--layout": None,
        "--no-controls": True,
        "--force": False,
        "--space": "correlation",
        "--min-cluster-size": 3,
        "--min-samples": None,
        "--selection": "leaf",
        "--epsilon": 0.0,
        "--json": False,
    },
    "perplexity": {
        "--corpus": "needed",
        "--protocol": "windows",
        "--stride": None,
        "--max-windows": None,
        "--detokenize": False,
        "--batch-size": None,
        **LOADING,
    },
    "bench": {
        "--batch-size": 4,
        "--sequence-length": None,
        "--repeats": 21,
        "--device": "auto",
        "--dtype": "auto",
        "--trust-remote-code": False,
        "--json": False,
    },
    "prune": {
        "--out": "needed",
        "--projection": None,
        "--calibration": None,
        "--sequence-length": None,
        "--memory-budget": None,
        "--method": "poles",
        "--sparsity": 0.3,
        "--refit": "reconstruct",
        "--sequences": 256,
        "--steps": 200,
        "--allocation": "uniform",
        "--round-to": 1,
        "--seed": 0,
        **POLES,
        **LOADING,
        **RESUMING,
    },
    "sweep": {
        "--out": "needed",
        "--methods": None,
        "--sparsities": "0.1,0.2,0.3,0.5",
        "--refits": None,
        "--seeds": 3,
        "--sequences": 256,
        "--steps": 200,
        "--allocation": "uniform",
        "--round-to": 1,
        "--projection": None,
        "--windows": 64,
        "--winners/--no-winners": True,
        "--sequence-length": None,
        "--memory-budget": None,
        "--workers": 1,
        **POLES,
        **TEXTS,
        **LOADING,
        **RESUMING,
    },
    "reuse": {
        "--out": "needed",
        "--shares": "0.05,0.1,0.2",
        "--seeds": 3,
        "--sequences": 256,
        "--windows": 64,
        "--partners": 1,
        "--sequence-length": None,
        "--projection": None,
        "--memory-budget": None,
        **TEXTS,
        **LOADING,
        **RESUMING,
    },
    "tasks": {"--tasks": "needed", "--limit": None, "--batch-size": 8, **LOADING},
}


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


def test_a_command_line_of_today_runs_tomorrow_with_the_same_defaults() -> None:
    found = {
        name: {
            "/".join([*each.opts, *each.secondary_opts]): "needed"
            if each.required
            else each.default
            for each in command.params
            if each.param_type_name == "option"
        }
        for name, command in COMMANDS.commands.items()
    }
    assert found == OPTIONS
