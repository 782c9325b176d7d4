"""Which model belongs to a projection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dashboard.state.scene import usual_model
from dashboard.state.settings import Settings
from projector.projection.projection import Projection
from tests.dashboard.conftest import DECODER, GPT2


@pytest.fixture
def projection_of(root: Path) -> Callable[[str], Projection]:
    """``projection_of(id)``: the decoder's projection, its model going by that name."""

    def make(identifier: str) -> Projection:
        loaded = Projection.load(root / DECODER)
        model = replace(loaded.facts.model, id=identifier)
        return replace(loaded, facts=replace(loaded.facts, model=model))

    return make


@pytest.mark.parametrize(
    ("identifier", "given", "expected"),
    [
        # Without --model, as the projection says.
        ("owner/name", None, "owner/name"),
        # The one that was named, where it is the projection's.
        ("owner/name", "owner/name", "owner/name"),
        (DECODER, "{models}/decoder", "{models}/decoder"),
        # A local copy of a hub's model is known by its weights.
        ("owner/name", "{models}/decoder", "{models}/decoder"),
        ("owner/name", "{models}/gpt2", "owner/name"),
        # Another projection keeps its own model.
        ("bundled", "{models}/decoder", "bundled"),
        (DECODER, "{models}/gpt2", "below/decoder"),
        ("owner/name", "owner/other", "owner/name"),
        # Where there is no other way to find it, it is what was named.
        ("mine", "{models}/gpt2", "{models}/gpt2"),
    ],
)
def test_a_named_model_is_of_the_projection_that_it_fits(
    identifier: str,
    given: str | None,
    expected: str,
    root: Path,
    projection_of: Callable[[str], Projection],
) -> None:
    names = {"decoder": DECODER, "gpt2": GPT2}

    def filled(text: str) -> str:
        for short, name in names.items():
            text = text.replace(f"/{short}", f"/{name}")
        return text.format(models=root / "models")

    settings = Settings((root,), model=None if given is None else filled(given))
    folders = {f"below/{DECODER}": root / "models" / DECODER}
    assert usual_model(settings, projection_of(identifier), folders) == filled(expected)
