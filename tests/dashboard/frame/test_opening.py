"""What the app shows where there is no projection yet, or not the one that was asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dashboard.frame import opening
from dashboard.state.loading import forget_folders
from projector.fitting.preparing import prepare
from projector.fitting.settings import FitSettings
from projector.layouts.settings import DEFAULT_LAYOUTS, parse_layouts
from projector.projection.overview import FACTS_FILE
from projector.projection.projection import Projection
from tests.dashboard.conftest import DECODER, ENCODER, Open
from tests.dashboard.pages import (
    FAMILIES,
    NEURON,
    PAGES,
    SCRIPT,
    errors,
    link,
)


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_root_says_what_to_do(page: str, tmp_path: Path, start: Open) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    at = start(empty, page, layer=3, prompt="0" * 16).run()
    assert errors(at) == []
    assert at.title[0].value == "No projection yet"
    assert "projector fit" in at.code[0].value
    assert not at.button(key="fit now").disabled


def test_the_bundled_model_is_fitted_on_the_spot(
    tmp_path: Path, start: Open, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_TOKENS", 2000)

    def part(model: str, corpus: str, settings: FitSettings, *more: Any, **options: Any) -> Any:
        assert (model, corpus) == ("bundled", "stdlib")
        smaller = replace(settings, sites=("mlp_out",), layers=(0,))
        return prepare(model, str(text_file), smaller, *more, **options)

    monkeypatch.setattr(opening, "prepare", part)
    root = tmp_path / "empty"
    root.mkdir()
    at = start(root, "map").run()
    at.button(key="fit now").click().run()
    assert errors(at) == []
    assert "Layer 0" in at.title[0].value
    made = Projection.load(root / "demo")
    assert made.facts.corpus.n_tokens == 2000
    # The layouts that the command line makes too.
    assert list(made.layouts) == [each.name for each in parse_layouts(DEFAULT_LAYOUTS)]


def test_a_folder_that_is_no_projection_says_what_it_lacks(
    copied: Callable[..., Path], start: Open, tmp_path: Path
) -> None:
    own = copied(DECODER)
    (own / "nothing").mkdir()
    at = start(own, "map", "--projection", str(own / "nothing")).run()
    (error,) = errors(at)
    assert FACTS_FILE in error
    assert "projector fit" in error
    # Others beside it can be looked at.
    assert at.sidebar.selectbox(key="choose projection").value == DECODER
    shutil.rmtree(own / DECODER)
    # What is seen anyway, seconds later.
    forget_folders()
    at = start(own, "map", "--projection", str(own / "nothing")).run()
    (error,) = errors(at)
    assert FACTS_FILE in error


@pytest.mark.parametrize("page", PAGES)
def test_a_projection_that_is_not_there_is_said_and_another_shown(
    page: str, root: Path, start: Open, tmp_path: Path
) -> None:
    missing = tmp_path / "no" / "where"
    at = start(root, page, "--projection", str(missing)).run()
    (error,) = errors(at)
    assert f"projector fit MODEL --corpus SOURCE --out {missing}" in error
    assert at.sidebar.selectbox(key="choose projection").options == sorted(FAMILIES)
    # Where there is no other, one can be made.
    at = start(tmp_path, page, "--projection", str(missing)).run()
    (error,) = errors(at)
    assert str(missing) in error
    assert at.title[0].value == "No projection yet"
    assert at.button(key="fit now")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--root", "nowhere"], "--root 'nowhere'"),
        (["--colour"], "--colour"),
    ],
)
def test_a_mistake_at_the_start_is_said(
    arguments: list[str], says: str, tmp_path: Path, start: Open
) -> None:
    (error,) = errors(start(tmp_path, "map", *arguments).run())
    assert says in error


@pytest.mark.parametrize("page", PAGES)
def test_an_unknown_projection_is_said_and_another_shown(page: str, open_page: Open) -> None:
    at = open_page(page, projection=SCRIPT, neuron=NEURON)
    (error,) = errors(at)
    assert SCRIPT in error
    assert at.sidebar.selectbox(key="choose projection").value == ENCODER
    # And then it is not said any more.
    assert errors(at.run()) == []
    assert link(at)["projection"] == ENCODER
