"""A search is done apart: what was found before is given at once, and what is new the next time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dashboard.state import naming
from dashboard.state.naming import found_at
from projector.naming.search import Results
from tests.dashboard.conftest import DECODER


def test_new_poles_do_not_delay_what_was_found_before(
    copied: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(DECODER) / DECODER
    released, asked = threading.Event(), []

    def search(_: object, path: Path, text: str) -> Results:
        asked.append(text)
        if len(asked) > 1:
            assert released.wait(30)
        return Results(text, (), f"search {len(asked)}")

    monkeypatch.setattr(naming, "search", search)
    assert found_at(folder, "kalo").message == "search 1"
    # Nothing has changed.
    assert found_at(folder, "kalo").message == "search 1"
    assert len(asked) == 1
    (folder / "poles").mkdir(exist_ok=True)
    (folder / "poles" / "other.json").write_text("{}", encoding="utf-8")
    # The older answer, while one new search is under way.
    assert found_at(folder, "kalo").message == "search 1"
    assert found_at(folder, "kalo").message == "search 1"
    assert len(asked) == 2
    released.set()
    for _ in range(300):
        if found_at(folder, "kalo").message == "search 2":
            break
    assert found_at(folder, "kalo").message == "search 2"
    assert len(asked) == 2
