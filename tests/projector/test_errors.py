"""Errors: what they carry, and how each face words them."""

from __future__ import annotations

import pickle

import pytest

from projector.errors import SettingError, UserError, check_choice, check_least, named
from projector.terminal.options import option_words


def test_each_face_words_a_setting_in_its_own_terms() -> None:
    error = UserError(
        f"lower {named('batch_size')}, add {named('force', True)}, or {named('solver', 'adamw')}"
    )
    assert str(error) == "lower batch_size, add force=True, or solver='adamw'"
    assert error.worded(option_words) == "lower --batch-size, add --force, or --solver adamw"


def test_a_switch_is_named_for_what_it_does() -> None:
    error = UserError(named("keep_statistics", False))
    assert error.worded(option_words) == "--no-statistics"


def test_a_setting_error_carries_name_value_and_what_would_be_right() -> None:
    error = SettingError("dim", 1500, "is too much", "give less than 768")
    assert (error.setting, error.value, error.expected) == ("dim", 1500, "give less than 768")
    assert error.worded(option_words) == "--dim 1,500 is too much: give less than 768"


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
