"""Errors: what they carry, and how each face words them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from projector.errors import SettingError, UserError, check_choice, check_least, named, python_words
from projector.terminal import options
from projector.terminal.options import option_words
from tests.refused import lacking, refused


def test_each_face_words_a_setting_in_its_own_terms() -> None:
    error = UserError(
        f"lower {named('batch_size')}, add {named('force', True)}, or {named('solver', 'adamw')}"
    )
    assert str(error) == "lower batch_size, add force=True, or solver='adamw'"
    assert error.worded(option_words) == "lower --batch-size, add --force, or --solver adamw"


def test_a_switch_is_named_for_what_it_does() -> None:
    error = UserError(named("keep_statistics", False))
    assert error.worded(option_words) == "--no-statistics"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("keep_statistics", "no --no-statistics, --no-statistics"),
        ("packed", "--pack, --no-pack"),
        ("absolute", "--absolute, no --absolute"),
    ],
)
def test_a_switch_that_is_not_set_has_words_too(setting: str, words: str) -> None:
    error = UserError(f"{named(setting, True)}, {named(setting, False)}")
    assert error.worded(option_words) == words


def test_each_package_names_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    import pruning.terminal.options  # noqa: F401  names those of pruning

    assert option_words("p", (3,)) == "--lp 3"
    assert option_words("n_workers", ()) == "--workers"
    own = Path(options.__file__).read_text(encoding="utf-8")
    assert not [name for name in ("n_workers", "n_windows", "evaluations") if name in own]
    monkeypatch.setattr(options, "_OPTIONS", {})
    assert option_words("n_things", ()) == "--n-things"
    options.name_options(n_things="--things")
    assert option_words("n_things", (2,)) == "--things 2"


def test_what_a_command_line_spells_wrongly_is_told_by_its_setting() -> None:
    with pytest.raises(SettingError) as caught:
        options.parse_layers("0-", "layer")
    assert (caught.value.setting, caught.value.value) == ("layer", "0-")


def test_a_setting_error_carries_name_value_and_what_would_be_right() -> None:
    error = SettingError("dim", 1500, "is too much", "give less than 768")
    assert (error.setting, error.value, error.expected) == ("dim", 1500, "give less than 768")
    assert lacking(error.worded(option_words), "--dim 1,500 ", str(error.expected)) == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3.0, "3"),
        (1500.0, "1,500"),
        (0.003, "0.003"),
        (1e-07, "1e-07"),
        (1e30, "1e+30"),
        (-2, "-2"),
    ],
)
def test_numbers_are_told_as_they_are_given(value: float, shown: str) -> None:
    assert str(SettingError("p", value, "is wrong", "leave it out")).startswith(f"p {shown} is")
    with refused("p", value - 1e31, f" {shown} "):
        check_least("p", value - 1e31, value)


@pytest.mark.parametrize(
    "error", [UserError("x", setting="a", value=1), SettingError("a", 1, "b", "c")]
)
def test_it_comes_back_whole_from_another_process(error: UserError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert (back.setting, back.value) == ("a", 1)


def test_checks() -> None:
    check_choice("solver", "adamw", ("smacof", "adamw"))
    check_least("dim", None, 1)
    check_least("dim", 1, 1)
    with pytest.raises(SettingError) as caught:
        check_choice("solver", "magic", ("smacof", "adamw"))
    assert (caught.value.setting, caught.value.value) == ("solver", "magic")
    for value in (0, float("nan")):
        with pytest.raises(SettingError):
            check_least("lr", value, 1)


@pytest.mark.parametrize(
    "error",
    [
        UserError("plain"),
        UserError(f"lower {named('batch_size')}, or add {named('force', True)}"),
        UserError(named("a") + named("b", 'a "quoted" – text')),
        SettingError("dim", 1500, "is too much", "give less than 768"),
    ],
)
def test_a_program_that_reads_json_words_it_in_its_own_terms(error: UserError) -> None:
    record = json.loads(json.dumps(error.to_record()))
    back = UserError.of_record(record)
    for face in (python_words, option_words):
        assert back.worded(face) == error.worded(face)
    assert (back.setting, back.value, back.expected) == (
        error.setting,
        error.value,
        error.expected,
    )
    assert not any("\ue000" in str(part) for part in record["parts"])


@pytest.mark.parametrize(
    "record", [{}, {"parts": 3}, {"parts": [3]}, {"parts": [], "setting": 3}, {"parts": [[]]}]
)
def test_what_is_of_no_error_is_refused(record: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        UserError.of_record(record)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_has_no_word_for_is_told_as_text(value: float) -> None:
    record = SettingError("scale", value, "is no number", "give a number").to_record()
    assert json.loads(json.dumps(record, allow_nan=False))["value"] == str(value)
