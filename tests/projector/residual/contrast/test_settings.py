"""Settings of a contrast: what is wrong is refused before a model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from projector.errors import SettingError
from projector.residual.contrast.settings import ContrastSettings, check_models

A, B = Path("a.txt"), Path("b.txt")


@pytest.mark.parametrize(
    ("given", "setting", "value"),
    [
        ({"positive": A}, "positive", "a.txt"),
        ({"negative": B}, "negative", "b.txt"),
        ({"positive": A, "negative": B, "pair": "negation"}, "pair", "negation"),
        ({"negative": B, "pair": "negation"}, "pair", "negation"),
        ({"pair": "nothing"}, "pair", "nothing"),
        ({"at": "first"}, "at", "first"),
        ({"n_draws": 19}, "n_draws", 19),
        ({"seed": -1}, "seed", -1),
        ({"layers": ()}, "layers", "()"),
    ],
)
def test_what_can_not_be_is_refused(given: dict[str, Any], setting: str, value: Any) -> None:
    with pytest.raises(SettingError) as caught:
        ContrastSettings(**given)
    assert (caught.value.setting, caught.value.value) == (setting, value)


def test_a_model_is_named_once() -> None:
    check_models(["a", "b"])
    for names in ([], ["a", "b", "a"]):
        with pytest.raises(SettingError) as caught:
            check_models(names)
        assert caught.value.setting == "models"
