"""The page Change of basis: what each part sends to be drawn, and one line where it can't be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.components.plane import _matrix
from dashboard.guest import Guest
from dashboard.prompts import Prompt, read_prompt, store
from dashboard.state.store import stored_prompts
from projector.residual.basis.attention import view_attention
from projector.residual.basis.maps import NAMES, read_map
from projector.residual.basis.planes import read_points, view_map
from projector.residual.basis.skip import view_skip
from tests.dashboard.conftest import DECODER, ENCODER, GPT2, Open
from tests.dashboard.pages import FAMILIES, errors, link, parts_of
from tests.refused import lacking

Guests = Callable[[str], Guest]
PROMPT = Prompt("kalo mi tenra so", 0)


@pytest.fixture
def prompt(start: Open) -> str:
    return store(PROMPT, stored_prompts())


def _to(at: AppTest, part: str) -> AppTest:
    return at.segmented_control(key="basis part").set_value(part).run()


def _plane(at: AppTest, kind: str) -> dict[str, Any]:
    (found,) = [each for each in parts_of(at, "singular_values") if each["kind"] == kind]
    return found


@pytest.mark.parametrize("family", [DECODER, GPT2])
def test_every_part_draws_what_the_model_does(
    family: str, open_page: Open, prompt: str, guest: Guests
) -> None:
    at = open_page("basis", projection=family, prompt=prompt, head=1, token=2)
    assert errors(at) == []
    toy = _plane(at, "toy")
    assert toy["singular_values"] == pytest.approx(np.linalg.svd(toy["matrix"])[1])
    found = guest(family)
    ids = read_prompt(found, PROMPT).ids
    at.selectbox(key="basis map").set_value("W_OV").run()
    assert errors(at) == []
    shown = _plane(at, "map")
    ov = read_map(found.subject, 1, "W_OV", 1)
    own = view_map(ov, read_points(found.subject, ov, ids)[0])
    assert shown["singular_values"] == pytest.approx(own.singular_values, rel=1e-4)
    assert len(shown["labels"]) == len(shown["points_before"]) == len(ids) - 1
    np.testing.assert_allclose(shown["points_after"], own.points_after, atol=1e-3)
    at.toggle(key="basis same plane").set_value(True).run()
    assert _plane(at, "map")["is_same_plane"] is True
    _to(at, "attention")
    assert errors(at) == []
    mixed, given = _plane(at, "attention"), view_attention(found.subject, ids, 1, 1)
    assert mixed["selected"] == 2
    assert mixed["weights"] == pytest.approx(given.pattern[2], abs=1e-5)
    # What the weights say of the points before is where the point is after.
    mixture = np.array(mixed["weights"]) @ np.array(mixed["points_before"])
    np.testing.assert_allclose(mixture, mixed["points_after"][2], atol=1e-4)
    at.selectbox(key="basis token").set_value(1).run()
    assert link(at)["token"] == "1"
    _to(at, "skip")
    assert errors(at) == []
    arrows = _plane(at, "skip")["arrows"]
    wanted = view_skip(found.subject, ids, 1, 1, head=1).plane.arrows
    assert [each["length"] for each in arrows] == pytest.approx([w.length for w in wanted])
    at.selectbox(key="basis head").set_value(-1).run()
    assert "head" not in link(at)
    assert _plane(at, "skip")["arrows"][1]["name"] == "added by attention"
    _to(at, "relu")
    assert errors(at) == []
    assert _plane(at, "toy")["relu"] is True
    assert _plane(at, "neurons")["title"].startswith("layer 1")
    (grid,) = parts_of(at, "cells")
    assert len(grid["rows"]) == len(found.architecture.blocks)
    assert "not ReLU" in " ".join(each.value for each in at.markdown)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_a_map_is_drawn_or_said_to_be_missing(family: str, name: str, open_page: Open) -> None:
    at = open_page("basis", projection=family)
    at.selectbox(key="basis map").set_value(name).run()
    if family != DECODER and name == "MLP gate":
        (said,) = errors(at)
        assert "MLP gate" in said
        return
    assert errors(at) == []
    # A matrix needs no prompt: nobody is asked for one.
    assert at.info.values == []
    assert _plane(at, "map")["points_before"] == []


def test_an_encoder_mixes_too(open_page: Open, prompt: str) -> None:
    at = open_page("basis", projection=ENCODER, prompt=prompt)
    for part in ("attention", "skip"):
        _to(at, part)
        assert errors(at) == []
    assert len(_plane(at, "skip")["arrows"]) == 3


def test_a_head_that_is_not_there_is_told(open_page: Open, prompt: str) -> None:
    at = open_page("basis", head=99, prompt=prompt)
    # The matrix to drag has no heads.
    assert at.warning.values == []
    _to(at, "attention")
    assert "head 99" in at.warning[0].value.replace("\\", "")
    assert "head" not in link(at)


def test_a_link_brings_the_part_the_matrix_and_the_plane_back(open_page: Open, prompt: str) -> None:
    at = open_page("basis", prompt=prompt, head=1)
    assert not {"part", "map", "plane"} & set(link(at))
    at.selectbox(key="basis map").set_value("W_OV").run()
    at.toggle(key="basis same plane").set_value(True).run()
    assert {"map": "W_OV", "plane": "same"}.items() <= link(at).items()
    again = open_page("basis", **link(at))
    assert errors(again) == []
    assert _plane(again, "map") == _plane(at, "map")
    assert _plane(again, "map")["is_same_plane"] is True
    _to(at, "skip")
    # The matrix is there when its part is looked at again, and another layer changes neither.
    assert {"part": "skip", "map": "W_OV", "layer": link(at)["layer"]}.items() <= link(at).items()
    assert _plane(open_page("basis", **link(at)), "skip") == _plane(at, "skip")
    _to(at, "matrix")
    assert _plane(at, "map")["is_same_plane"] is True
    assert "part" not in link(at)
    at.toggle(key="basis same plane").set_value(False).run()
    assert "plane" not in link(at)


def test_a_link_to_what_the_page_lacks_is_told(open_page: Open) -> None:
    at = open_page("basis", part="moon", map="W_X")
    said = at.warning[0].value.replace("\\", "")
    assert lacking(said, "'moon'", "'W_X'") == []
    assert not {"part", "map"} & set(link(at))
    assert _plane(at, "toy")


def test_only_a_matrix_is_taken_from_the_browser() -> None:
    assert _matrix([[1, 2], [3, 4.5]]) == ((1, 2), (3, 4.5))
    for wrong in (None, 3, [[1, 2]], [[1, 2], [3, "x"]], [[1, 2], [3, float("nan")]], "ab"):
        assert _matrix(wrong) is None
