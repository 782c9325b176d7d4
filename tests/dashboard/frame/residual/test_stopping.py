"""Work that can be stopped: what is done is kept before its bar goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from dashboard.frame.residual import stopping
from dashboard.frame.residual.stopping import Begin, unless_stopped
from dashboard.state import scene as scene_module
from dashboard.state.scene import Scene


class StopAsked(BaseException):
    pass


def test_what_is_done_is_kept_though_the_page_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    @contextmanager
    def working(title: str, on_stop: object) -> Iterator[None]:
        happened.append("bar")
        try:
            yield
        finally:
            # Taking the bar away draws, and there a page that is left ends.
            happened.append("bar gone")
            raise StopAsked

    def find(begin: Begin) -> int:
        with begin():
            happened.append("made")
        happened.append("kept")
        return 1

    monkeypatch.setattr(stopping, "working", working)
    monkeypatch.setattr(stopping, "st", SimpleNamespace(session_state={}))
    with pytest.raises(StopAsked):
        unless_stopped("work", 1, "Work", find)
    assert happened == ["bar", "made", "kept", "bar gone"]


def test_giving_a_model_back_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    note = SimpleNamespace(empty=lambda: drawn.append("empty"), info=lambda *_, **__: None)

    @contextmanager
    def use(*_: object) -> Iterator[str]:
        yield "guest"

    room = SimpleNamespace(name="model", use=use)
    settings = SimpleNamespace(check_model=lambda name: None)
    scene = SimpleNamespace(room=room, settings=settings, model_name="model", sha256="0")
    monkeypatch.setattr(scene_module, "st", SimpleNamespace(empty=lambda: note))
    with Scene.model(scene):  # type: ignore[arg-type]
        before = len(drawn)
    assert len(drawn) == before
