"""The page of poles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from dashboard.prompts import Prompt, store
from dashboard.state import loading
from dashboard.state.store import stored_prompts
from projector.naming.names import read_names
from projector.projection.projection import Projection
from pruning.poles.files import save_poles
from pruning.poles.finding import find_poles
from pruning.poles.poles import (
    Control,
    Controls,
    Poles,
    PoleSettings,
    counts_words,
    finding_words,
)
from tests.dashboard.conftest import DECODER, ENCODER, Open
from tests.dashboard.pages import (
    GROUPING,
    decoded,
    errors,
    link,
    maps_of,
)
from tests.refused import lacking

CONTINUATION = "continuation of the prompt"
ON_THE_MAP = "positions,2,leaf,0"


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
    # These are the usual ones.
    assert "grouping" not in link(at)
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
    (info,) = at.info
    assert "Smallest pole" in info.value


def test_a_pole_is_taken_away(open_page: Open, root: Path) -> None:
    prompt = store(Prompt("kalo mi", 3), stored_prompts())
    at = open_page("poles", grouping=GROUPING, pole=0, prompt=prompt)
    at.text_input(key="ablation text").set_value("unseen.txt")
    at.button(key="ablate").click().run()
    assert errors(at) == []
    table = at.dataframe[-1].value
    assert len(table) == 5
    assert table["perplexity"].notna().all()
    assert table["perplexity"].nunique() == 5
    assert table["change"][0] == "+0.00%"
    assert (table[CONTINUATION].str.len() > 2).all()
    poles = find_poles(
        Projection.load(root / DECODER), 1, "mlp_post", PoleSettings("correlation", 2, None, "leaf")
    )
    assert f"{poles.sizes[0]} random neurons" in table["model"][2]
    # Another prompt was not continued by these models.
    other = store(Prompt("raso ten", 3), stored_prompts())
    at.query_params["prompt"] = other
    at.run()
    assert errors(at) == []
    assert not any(CONTINUATION in each.value for each in at.dataframe)
    # Without a prompt there is no such column, and a word on how to get one.
    del at.query_params["prompt"]
    at.run()
    at.button(key="ablate").click().run()
    assert errors(at) == []
    assert list(at.dataframe[-1].value.columns) == ["model", "perplexity", "change"]
    assert any("adds tokens" in each.value for each in at.caption)


@pytest.mark.parametrize("family", [ENCODER, DECODER])
def test_an_ablation_of_nothing_says_what_is_lacking(family: str, open_page: Open) -> None:
    at = open_page("poles", projection=family, grouping=GROUPING, pole=0)
    at.text_input(key="ablation text").set_value("unseen.txt" if family == ENCODER else " ")
    at.button(key="ablate").click().run()
    (error,) = errors(at)
    assert ("encoder" in error) == (family == ENCODER)


def test_an_ablation_on_text_above_the_roots_is_refused(open_page: Open) -> None:
    at = open_page("poles", grouping=GROUPING, pole=0)
    at.text_input(key="ablation text").set_value("../../etc/passwd")
    at.button(key="ablate").click().run()
    (error,) = errors(at)
    assert "../../etc/passwd" in error


@pytest.fixture
def layouts(copied: Callable[..., Path]) -> tuple[Path, str, str]:
    """A root whose projection has two layouts, and their names: in each, neurons lie elsewhere."""
    own = copied(DECODER, "models", "unseen.txt", "seen.txt")
    loaded = Projection.load(own / DECODER)
    first = loaded.layout_name()
    placed = loaded.layouts[first]
    positions = {}
    for name, each in placed.positions.items():
        order = torch.randperm(len(each), generator=torch.Generator().manual_seed(3))
        positions[name] = each[order]
    other = replace(placed, settings=replace(placed.settings, absolute=True), positions=positions)
    replace(loaded, layouts={first: placed, other.settings.name: other}).save(
        own / DECODER, force=True
    )
    return own, first, other.settings.name


def _members(at: AppTest) -> str:
    """The neurons of the pole that is chosen, as the page lists them."""
    (text,) = [each.value for each in at.caption if each.value.startswith("Neurons, marked on")]
    return str(text)


def test_what_a_layout_tells_of_a_pole_is_not_told_of_another_s(
    layouts: tuple[Path, str, str], start: Open
) -> None:
    own, first, second = layouts
    chosen = {"projection": DECODER, "layer": 1, "site": "mlp_post", "grouping": ON_THE_MAP}
    at = start(own, "poles", **chosen, pole=0, layout=first).run()
    first_of = {first: _members(at)}
    at.text_input(key="ablation text").set_value("unseen.txt")
    at.button(key="ablate").click().run()
    assert errors(at) == []
    assert "perplexity" in at.dataframe[-1].value
    # The same number is another pole there, and nobody has taken it away yet.
    at.query_params["layout"], at.query_params["pole"] = second, "0"
    at.run()
    assert errors(at) == []
    assert any(each.value.startswith("Pole 0") for each in at.subheader)
    first_of[second] = _members(at)
    assert first_of[first] != first_of[second]
    assert len(at.dataframe) == 1
    # Back there it is known still, to every session.
    at = start(own, "poles", **chosen, pole=0, layout=first).run()
    at.text_input(key="ablation text").set_value("unseen.txt").run()
    assert "perplexity" in at.dataframe[-1].value


def test_tables_of_two_layouts_have_rows_of_their_own(
    layouts: tuple[Path, str, str], start: Open
) -> None:
    """A row that was clicked in one is not the same pole in the other."""
    own, first, second = layouts
    found = set()
    for layout in (first, second):
        chosen = {"projection": DECODER, "layer": 1, "site": "mlp_post", "grouping": GROUPING}
        at = start(own, "poles", **chosen, layout=layout).run()
        found.add(at.dataframe[0].proto.id)
    assert len(found) == 2


def test_a_table_says_what_poles_fire_on_and_how_they_were_judged(
    copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER, "models")
    chosen = {"projection": DECODER, "layer": 1, "site": "mlp_post", "grouping": GROUPING}
    at = start(own, "poles", **chosen).run()
    assert errors(at) == []
    table = at.dataframe[0].value
    assert list(table.columns[:3]) == ["pole", "fires on", "neurons"]
    assert (table["fires on"].str.len() > 0).all()
    assert set(table["distinct"]) == {"–"}
    assert any("not computed" in each.value for each in at.markdown)
    # Kept poles that were judged: distinct ones come first, the others are called weak.
    projection = Projection.load(own / DECODER)
    settings = PoleSettings("correlation", 2, None, "leaf", 0.0)
    found = find_poles(projection, 1, "mlp_post", settings)
    last = len(found.poles) - 1
    poles = [replace(pole, distinct=False, beyond_spectrum=False) for pole in found.poles]
    poles[last] = replace(
        poles[last], distinct=True, beyond_spectrum=True, axis=0, label="mine <b>"
    )
    controls = Controls(Control(5, 3.2, 0.2, 0.0), Control(5, 4.0, 1.4, 0.0))
    save_poles(own / DECODER, [replace(found, poles=tuple(poles), controls=controls)])
    at = start(own, "poles", **chosen, pole=last).run()
    assert errors(at) == []
    table = at.dataframe[0].value
    assert list(table["pole"][:2]) == [last, 0]
    assert table["fires on"][0] == "mine <b>"
    assert list(table["distinct"]) == ["yes"] + ["weak"] * last
    assert list(table["beyond"]) == ["yes"] + ["no"] * last
    assert table["axis"][0] == "with 0"
    text = " ".join(each.value.replace("\\", "") for each in at.markdown)
    judged = replace(found, poles=tuple(poles), controls=controls)
    assert lacking(text, counts_words([judged]), finding_words(judged)) == []
    assert "1.4" not in text


def test_a_pole_is_given_a_name(copied: Callable[..., Path], start: Open) -> None:
    own = copied(DECODER, "models")
    chosen = {"projection": DECODER, "layer": 1, "site": "mlp_post", "grouping": GROUPING}
    at = start(own, "poles", **chosen, pole=1).run()
    (field,) = [each for each in at.text_input if each.label == "Your name for it"]
    field.set_value("  my group ").run()
    assert errors(at) == []
    assert at.dataframe[0].value["fires on"][1] == "my group"
    assert any("my group" in each.value for each in at.subheader)
    (name,) = read_names(own / DECODER).poles.values()
    assert name == "my group"
    (field,) = [each for each in at.text_input if each.label == "Your name for it"]
    field.set_value("").run()
    assert errors(at) == []
    assert at.dataframe[0].value["fires on"][1] != "my group"
    assert not read_names(own / DECODER).poles


def test_poles_of_a_wide_map_are_found_apart_for_any_layout(
    layouts: tuple[Path, str, str], start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the server nobody else could draw anything meanwhile."""
    own, *names = layouts
    asked: list[str] = []

    def find(
        folder: Path, layer: int, site: str, layout: str, settings: PoleSettings, _: object
    ) -> Poles:
        asked.append(layout)
        return find_poles(Projection.load(folder), layer, site, settings, layout)

    monkeypatch.setattr(loading, "MOST_AT_ONCE", 0)
    monkeypatch.setattr(loading, "find_apart", find)
    for name in names:
        params = {"projection": DECODER, "layer": 1, "site": "mlp_post", "layout": name}
        assert errors(start(own, "poles", **params, grouping=ON_THE_MAP).run()) == []
    assert asked == names
