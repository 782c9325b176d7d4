"""A prompt becomes token ids as it is: nothing of it is taken away in silence."""

from __future__ import annotations

from typing import Any

import pytest

from projector.errors import SettingError
from projector.model.loading import LoadedModel
from projector.model.prompting import beginning, encode
from tests.families import build


@pytest.fixture
def loaded(tokenizer: Any) -> LoadedModel:
    return LoadedModel(build("llama"), tokenizer, "tiny", "0" * 64)


@pytest.mark.parametrize(
    "typed", [" ", "\n\n", "a\r\nb", "a\x00b", "a \ue000 b", "a \U0001fae9 b", "\t", "a\u200db"]
)
def test_every_character_is_encoded(loaded: LoadedModel, typed: str) -> None:
    ids = encode(loaded, typed, is_causal=True)
    first = beginning(loaded.tokenizer)
    own = loaded.tokenizer(typed, verbose=False)["input_ids"]
    assert ids[-len(own) :] == list(own)
    assert ids[: len(first)] == first


@pytest.mark.parametrize(("typed", "shown"), [("", ""), ("a\ud83db", "a\\ud83db")])
def test_what_cannot_be_encoded_is_refused(loaded: LoadedModel, typed: str, shown: str) -> None:
    with pytest.raises(SettingError) as caught:
        encode(loaded, typed, is_causal=True)
    assert (caught.value.setting, caught.value.value) == ("prompt", shown)
    str(caught.value).encode("utf-8")
