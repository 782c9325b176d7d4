"""What takes a while is made once, though the page is left before it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dashboard.state import loading, naming
from dashboard.state.loading import order_at, poles_at
from dashboard.state.naming import found_at
from dashboard.state.shelf import shelf
from projector.projection.projection import Projection
from pruning.poles.poles import PoleSettings
from tests.dashboard.conftest import DECODER

LAYOUT = "stress-3d"


class LeftError(Exception):
    """The user clicked away."""


@contextmanager
def spinner_of_a_page_that_is_left(text: str) -> Iterator[None]:
    yield
    raise LeftError(text)


@pytest.mark.parametrize(
    ("room", "name", "ask"),
    [
        (Projection, "order", lambda path: order_at(path, 1, "mlp_post", "leaf", LAYOUT)),
        (
            loading,
            "find_poles",
            lambda path: poles_at(
                path, 1, "mlp_post", LAYOUT, PoleSettings("correlation", 4, None, "eom", 0.37)
            ),
        ),
        (naming, "search", lambda path: found_at(path, "of")),
    ],
)
def test_what_was_made_is_kept_though_the_page_was_left(
    room: Any,
    name: str,
    ask: Callable[[Path], object],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n_made = 0
    make = getattr(room, name)

    def counted(*args: Any) -> object:
        nonlocal n_made
        n_made += 1
        return make(*args)

    shelf.clear()
    monkeypatch.setattr(room, name, counted)
    with monkeypatch.context() as patch:
        patch.setattr("streamlit.spinner", spinner_of_a_page_that_is_left)
        with pytest.raises(LeftError):
            ask(root / DECODER)
    assert n_made == 1
    assert ask(root / DECODER) is not None
    assert n_made == 1
