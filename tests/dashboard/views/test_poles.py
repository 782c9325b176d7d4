"""The page of poles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dashboard.prompts import Prompt, store
from dashboard.state.store import stored
from projector.projection.projection import Projection
from pruning.poles.finding import find_poles
from pruning.poles.poles import PoleSettings
from tests.dashboard.conftest import DECODER, ENCODER, Open
from tests.dashboard.pages import (
    GROUPING,
    decoded,
    errors,
    link,
    maps_of,
)


def test_poles_are_those_of_the_settings(open_page: Open, root: Path) -> None:
    at = open_page("poles", grouping=GROUPING)
    at.slider(key="pole size").set_value(3).run()
    assert errors(at) == []
    assert at.slider(key="pole size").value == 3
    projection = Projection.load(root / DECODER)
    expected = find_poles(
        projection, 1, "mlp_post", PoleSettings("correlation", 3, None, "leaf", 0.0)
    )
    assert at.metric[0].value == str(len(expected.poles))
    assert link(at)["grouping"] == "correlation,3,leaf,0"
    at.segmented_control(key="pole selection").set_value("eom").run()
    assert link(at)["grouping"] == "correlation,3,eom,0"
    at.segmented_control(key="pole selection").set_value("leaf").run()
    at.selectbox(key="pole space").select("positions").run()
    assert errors(at) == []
    expected = find_poles(
        projection, 1, "mlp_post", PoleSettings("positions", 3, None, "leaf", 0.0)
    )
    assert at.metric[0].value == str(len(expected.poles))
    # Another page, opened by the link, has the same.
    values = maps_of(open_page("map", **link(at)))[0]["panels"][0]["values"]
    n_groups = len(set(decoded(values, np.uint8, 40).tolist()))
    assert n_groups == len(expected.poles) + bool((expected.labels < 0).any())


def test_settings_without_a_pole_say_what_to_do(open_page: Open) -> None:
    at = open_page("poles", grouping="correlation,50,eom,0")
    assert errors(at) == []
    assert "No pole with these settings" in at.info[0].value


def test_a_pole_is_taken_away(open_page: Open, root: Path) -> None:
    prompt = store(Prompt("kalo mi", 3), stored())
    at = open_page("poles", grouping=GROUPING, pole=0, prompt=prompt)
    at.text_input(key="ablation text").set_value("unseen.txt")
    at.button(key="ablate").click().run()
    assert errors(at) == []
    table = at.dataframe[-1].value
    assert len(table) == 5
    assert table["perplexity"].notna().all()
    assert table["perplexity"].nunique() == 5
    assert table["change"][0] == "+0.00%"
    assert (table["the prompt goes on with"].str.len() > 2).all()
    poles = find_poles(
        Projection.load(root / DECODER), 1, "mlp_post", PoleSettings("correlation", 2, None, "leaf")
    )
    assert f"{poles.sizes[0]} random ones" in table["model"][2]
    # Another prompt was not continued by these models.
    other = store(Prompt("raso ten", 3), stored())
    at.query_params["prompt"] = other
    at.run()
    assert errors(at) == []
    assert not any("the prompt goes on with" in each.value for each in at.dataframe)
    # Without a prompt there is no such column, and a word on how to get one.
    del at.query_params["prompt"]
    at.run()
    at.button(key="ablate").click().run()
    assert errors(at) == []
    assert list(at.dataframe[-1].value.columns) == ["model", "perplexity", "change"]
    assert any("Run a prompt that adds tokens" in each.value for each in at.caption)


@pytest.mark.parametrize("family", [ENCODER, DECODER])
def test_an_ablation_of_nothing_says_what_is_lacking(family: str, open_page: Open) -> None:
    at = open_page("poles", projection=family, grouping=GROUPING, pole=0)
    at.text_input(key="ablation text").set_value("unseen.txt" if family == ENCODER else " ")
    at.button(key="ablate").click().run()
    (error,) = errors(at)
    says = "An encoder has no perplexity" if family == ENCODER else "There is nothing to compare"
    assert says in error


def test_an_ablation_on_text_above_the_roots_is_refused(open_page: Open) -> None:
    at = open_page("poles", grouping=GROUPING, pole=0)
    at.text_input(key="ablation text").set_value("../../etc/passwd")
    at.button(key="ablate").click().run()
    (error,) = errors(at)
    assert "There is no text" in error
