"""The landing page."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.overview import flatten
from dashboard.state.naming import name_pole
from dashboard.state.shelf import shelf
from projector.projection.overview import STATISTICS_FILE
from projector.projection.projection import Projection
from projector.statistics.organisation import most_organised
from pruning.poles.files import save_poles
from pruning.poles.finding import find_poles
from pruning.poles.poles import Control, Controls, PoleSettings, counts_words
from tests.dashboard.conftest import DECODER, Open
from tests.dashboard.pages import GROUPING, decoded, errors, maps_of
from tests.pruning.test_preparing import fit

SETTINGS = PoleSettings("correlation", 2, None, "leaf", 0.0)


def grid_of(at: AppTest) -> dict[str, Any]:
    (found,) = maps_of(at)
    return found


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def test_every_map_is_shown_and_the_first_address_opens_it(root: Path, start: Open) -> None:
    at = start(root, "", projection=DECODER).run()
    assert errors(at) == []
    assert at.title[0].value == "Overview"
    grid = grid_of(at)
    projection = Projection.load(root / DECODER)
    assert grid["columns"] == [f"L{layer}" for layer in projection.layers]
    assert grid["rows"] == ["MLP neurons", "attention output"]
    every = zip(grid["maps"], grid["points"]["bytes"], projection.maps, strict=True)
    for each, sent, (layer, site) in every:
        assert (each["column"], grid["rows"][each["row"]]) == (
            layer,
            "MLP neurons" if site == "mlp_post" else "attention output",
        )
        flat = flatten(projection.positions(layer, site))
        points = decoded(sent, np.uint8, -1, 2)
        np.testing.assert_array_equal(points, flat.points)
        assert f"Layer {layer}" in each["title"]
    assert [each["first"] for each in grid["maps"]].count(True) == 1
    # One sentence says what is most organised.
    organised = {key: projection.organisation(*key) for key in projection.maps}
    sentence = most_organised({key: found for key, found in organised.items() if found})
    assert sentence is not None
    assert [unescaped(each.value) for each in at.markdown].count(sentence) == 1
    # What the browser has does not travel again.
    again = grid_of(at.run())
    assert again["points"] == {"id": grid["points"]["id"], "bytes": None}
    assert again["colors"] == {"id": grid["colors"]["id"], "bytes": None}


def test_poles_are_counted_beside_what_the_controls_give(
    copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER)
    projection = Projection.load(own / DECODER)
    controls = Controls(Control(5, 3.0, 0.4, 0.2), Control(5, 9.0, 1.8, 0.6))
    judged = []
    for layer in (0, 1):
        poles = find_poles(projection, layer, "mlp_post", SETTINGS)
        marked = tuple(
            replace(pole, distinct=k == 0, beyond_spectrum=k == 0 and layer == 1)
            for k, pole in enumerate(poles.poles)
        )
        judged.append(replace(poles, poles=marked, controls=controls))
    save_poles(own / DECODER, judged)
    at = start(own, "overview", projection=DECODER, grouping=GROUPING).run()
    assert errors(at) == []
    titles = [each["title"] for each in grid_of(at)["maps"]]
    for one in judged:
        assert sum(counts_words([one]) in title for title in titles) == 1
    said = [unescaped(each.value) for each in at.caption]
    # Distinct poles next to those of shuffled ρ, poles beyond the spectrum next to those of the
    # other control.
    (counted,) = [each for each in said if "beyond the spectrum" in each]
    assert re.findall(r"\d+(?:\.\d)?", counted.partition("In ")[2]) == ["2", "2", "0.8", "1", "1.2"]


def test_groups_are_coloured_and_named_once_they_are_known(
    copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER)
    params = {"projection": DECODER, "grouping": GROUPING}
    at = start(own, "overview", **params).run()
    assert all(set(decoded(m, np.uint8, -1)) == {0} for m in grid_of(at)["colors"]["bytes"])
    projection = Projection.load(own / DECODER)
    poles = find_poles(projection, 1, "mlp_post", SETTINGS)
    save_poles(own / DECODER, [poles])
    # Another program may have found them meanwhile.
    at.run()
    assert errors(at) == []
    colored = grid_of(at)["colors"]["bytes"][projection.maps.index((1, "mlp_post"))]
    assert (decoded(colored, np.uint8, -1) > 0).tolist() == (poles.labels >= 0).tolist()
    links = [each.proto for each in at.get("page_link") if "Pole 0" in each.proto.label]  # type: ignore[union-attr]
    assert 0 < len(links) <= 6
    assert "pole=0" in links[0].query_string
    assert "layer=1" in links[0].query_string
    # The user's own name counts.
    name_pole(own / DECODER, poles, 0, "mine *")
    at.run()
    assert errors(at) == []
    named = [each.proto for each in at.get("page_link") if "mine" in each.proto.label]  # type: ignore[union-attr]
    assert ["pole=0" in each.query_string for each in named] == [True]
    assert "**mine \\***" in named[0].label


@pytest.mark.parametrize("options", [("--dim", "1"), ("--dim", "2"), ("--objective", "linear")])
def test_maps_of_every_form_are_small_maps(
    options: tuple[str, ...], copied: Callable[..., Path], start: Open, text_file: Path
) -> None:
    own = copied("models")
    one = ("--sites", "mlp_post", "--layers", "0")
    fit(own / "models" / DECODER, text_file, own / DECODER, *one, *options)
    at = start(own, "overview", projection=DECODER).run()
    assert errors(at) == []
    (found,) = grid_of(at)["points"]["bytes"]
    assert len(decoded(found, np.uint8, -1, 2)) == 40


def test_without_statistics_the_page_says_what_is_missing(
    copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER)
    (own / DECODER / STATISTICS_FILE).unlink()
    shelf().forget("projection")
    at = start(own, "overview", projection=DECODER).run()
    assert errors(at) == []
    assert len(grid_of(at)["maps"]) == 4
    assert any("no statistics" in each.value for each in at.caption)
