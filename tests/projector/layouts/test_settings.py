"""The settings of a layout: what is refused, and names that tell them all."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest

from projector.errors import SettingError
from projector.layouts.objective import DEFAULT_SOLVER
from projector.layouts.registry import OBJECTIVES
from projector.layouts.settings import (
    STARTS,
    Layout,
    layout_name,
    parse_layout,
    parse_layouts,
)
from projector.layouts.solving import place
from projector.projection.facts import LayoutSettings
from tests.projector.layouts.test_solving import factor_correlation
from tests.refused import refused


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "stress-3d"),
        ({"absolute": True}, "stress-3d-absolute"),
        ({"seed": 1}, "stress-3d-seed1"),
        ({"solver": "adamw"}, "stress-3d-adamw"),
        ({"dim": 2, "start": "single-point", "absolute": True}, "stress-2d-single-point-absolute"),
        ({"objective": "linear"}, "linear-1d"),
        ({"objective": "neighbours", "dim": 2, "seed": 7}, "neighbours-2d-seed7"),
        (
            {"solver": "adamw", "p": 1.5, "lr": 1e-05, "accumulate": 4},
            "stress-3d-adamw-p1.5-lr1e-05-accumulate4",
        ),
    ],
)
def test_a_name_tells_what_differs_from_the_default(settings: dict[str, Any], name: str) -> None:
    layout = Layout(**settings)
    assert layout.name == name
    assert parse_layout(name) == layout


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        # Positions that were trained elsewhere, and an objective that is not known here.
        ({"solver": "imported", "seed": None}, "stress-3d-imported"),
        ({"objective": "later", "solver": "spin", "seed": 2, "p": 4.0}, "later-3d-spin-seed2"),
        # Settings without effect were once accepted.
        ({"objective": "linear", "dim": 1, "p": 3.0, "start": "normal"}, "linear-1d"),
        ({"solver": "adamw", "p": 3.0, "more": "x"}, "stress-3d-adamw-p3.0"),
    ],
)
def test_settings_that_no_solver_takes_have_a_name(settings: dict[str, Any], name: str) -> None:
    full = {"objective": "stress", "solver": DEFAULT_SOLVER, "method": "", "dim": 3, **settings}
    assert layout_name(full) == name
    assert LayoutSettings.from_dict({"absolute": False, **full}).name == name


def test_every_name_is_read_back_to_its_settings() -> None:
    choices: dict[str, list[Any]] = {
        "objective": list(OBJECTIVES),
        "solver": ["smacof", "adamw"],
        "dim": [None, 1, 2, 48],
        "seed": [0, 2**32 - 1],
        "start": list(STARTS),
        "p": [2.0, 1, 1.25, 1e30],
        "lr": [3e-3, 1e-7, 12.5],
        "accumulate": [1, 12],
        "absolute": [False, True],
    }
    names: dict[str, Layout] = {}
    for values in product(*choices.values()):
        try:
            layout = Layout(**dict(zip(choices, values, strict=True)))
        except SettingError:
            continue
        read = parse_layout(layout.name)
        assert read == layout
        assert read.name == layout.name
        # Names stand in paths, on every system.
        assert re.fullmatch(r"[a-z0-9.+-]+", layout.name)
        assert names.setdefault(layout.name, layout) == layout
    assert len(names) > 500


def test_names_are_read_in_any_order_and_without_the_usual_dimension() -> None:
    assert parse_layout("linear") == Layout(objective="linear")
    assert parse_layout(" stress-2d-seed1-absolute ") == parse_layout("stress-2d-absolute-seed1")
    assert parse_layouts("stress-3d, neighbours-2d") == (
        Layout(),
        Layout(objective="neighbours", dim=2),
    )


@pytest.mark.parametrize(
    "text",
    ["", "strain-3d", "stress3d", "stress-3d-", "stress-3d-blue", "stress-d", "stress-3d-seed"],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_layout(text)
    assert caught.value.setting == "layouts"
    assert caught.value.value == text


def test_a_layout_named_twice_is_refused() -> None:
    with refused("layouts", "stress-3d,stress-3d", "stress-3d "):
        parse_layouts("stress,stress-3d")


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"objective": "strain"}, "objective"),
        ({"solver": "sgd"}, "solver"),
        ({"objective": "neighbours", "solver": "adamw"}, "solver"),
        ({"start": "middle"}, "start"),
        ({"dim": 0}, "dim"),
        ({"objective": "linear", "dim": 2}, "dim"),
        ({"p": 0.5, "solver": "adamw"}, "p"),
        ({"p": float("nan"), "solver": "adamw"}, "p"),
        ({"lr": 0.0, "solver": "adamw"}, "lr"),
        ({"accumulate": 0, "solver": "adamw"}, "accumulate"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
    ],
    ids=str,
)
def test_values_that_can_not_be_are_refused(settings: dict[str, Any], setting: str) -> None:
    with pytest.raises(SettingError) as caught:
        Layout(**settings)
    assert caught.value.setting == setting
    assert caught.value.value == settings[setting] or settings[setting] != settings[setting]


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"p": 3.0}, "p"),
        ({"lr": 0.1}, "lr"),
        ({"accumulate": 2}, "accumulate"),
        ({"objective": "linear", "start": "normal"}, "start"),
        ({"objective": "linear", "lr": 0.1}, "lr"),
        ({"objective": "linear", "solver": "adamw", "p": 3.0}, "p"),
        ({"objective": "neighbours", "solver": "umap", "start": "normal"}, "start"),
        ({"objective": "neighbours", "p": 3.0}, "p"),
        ({"objective": "neighbours", "accumulate": 2}, "accumulate"),
    ],
    ids=str,
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], setting: str) -> None:
    with refused(setting, settings[setting]):
        Layout(**settings)


def test_an_error_names_the_solver_that_reads_the_setting() -> None:
    with pytest.raises(SettingError) as caught:
        Layout(p=3.0)
    assert "solver='adamw'" in str(caught.value)
    with pytest.raises(SettingError) as caught:
        Layout(objective="neighbours", p=3.0)
    assert "solver=" not in str(caught.value)


def test_defaults_are_never_refused() -> None:
    for record in OBJECTIVES.values():
        for solver in record.methods:
            layout = Layout(record.name, solver, None, 0, "classical", 2.0, 3e-3, 1, False)  # type: ignore[arg-type]
            assert layout.dim == record.dim


def test_a_matrix_is_placed_in_the_dimension_of_the_objective_or_refused_as_a_fit_is() -> None:
    rho = factor_correlation(12)
    assert place(rho, objective="linear").shape == (12, 1)
    assert place(rho).shape == (12, 3)
    with pytest.raises(SettingError) as caught:
        place(rho, dim=3, objective="linear")
    assert (caught.value.setting, caught.value.value) == ("dim", 3)
