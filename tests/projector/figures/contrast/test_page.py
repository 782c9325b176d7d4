"""The page of a contrast and its figures: drawn of a report alone, nulls beside every curve."""

from __future__ import annotations

import json
import re
from typing import Any

import plotly.graph_objects as go
import pytest

from projector.errors import UserError
from projector.figures.contrast.effects import effects_figure, effects_words
from projector.figures.contrast.growth import growth_figure
from projector.figures.contrast.page import contrast_page
from projector.figures.contrast.panels import panels
from projector.figures.contrast.series import facts_of, read_models
from projector.figures.contrast.sharing import sharing_figure
from projector.figures.contrast.untangling import untangling_figure
from projector.figures.contrast.words import cosine_words, growth_words, variance_words
from tests.projector.figures.contrast.made import made
from tests.refused import lacking

ATTACK = "<script>alert('x')</script>"


def _traces(figure: go.Figure, name: str) -> list[Any]:
    return [each for each in figure.data if each.name == name and each.fill is None]


def test_a_report_that_was_saved_is_drawn_again() -> None:
    saved = json.loads(json.dumps(made("one", "two")))
    page = contrast_page(saved)
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="http', page)
    for words in ("one", "two", "Shared directions: two"):
        assert words in page
    # In the order of the stream, each place once.
    (first, _) = read_models(facts_of(saved))
    assert [place.depth for place in first.places] == [k / 2 for k in range(9)]


def test_names_of_sets_and_models_are_text() -> None:
    page = contrast_page(made(ATTACK, "two", positive=ATTACK))
    assert ATTACK not in page
    figures = [panels(made(ATTACK, "b", positive=ATTACK)), growth_figure(made(ATTACK, "b"))]
    assert not any("<script" in figure.to_json() for figure in figures)


@pytest.mark.parametrize("has_mid", [True, False])
def test_the_panels_hold_every_place_and_the_nulls(has_mid: bool) -> None:
    found = made(has_mid=has_mid)
    figure = panels(found, layer=2)
    n_inside = 8 if has_mid else 4
    for name in ("cosine of the two sets’ means", "random halves of one set", "permuted labels"):
        embedding, inside = _traces(figure, name)
        assert (len(embedding.x), len(inside.x)) == (1, n_inside)
        assert embedding.x == (0.0,)
        # A band each, apart for the embedding.
        bands = [each for each in figure.data if each.name == name and each.fill is not None]
        assert [len(each.x) for each in bands] == [2, 2 * n_inside]
    # No variance at the embedding has no place on a logarithmic axis, and is told in words.
    assert re.search(r"variance is 0\b", contrast_page(found))
    assert [len(each.x) for each in _traces(figure, "code")] == [n_inside, n_inside]
    assert [len(each.x) for each in _traces(figure, "docstrings")] == [1, n_inside, 1, n_inside]
    assert {shape.x0 for shape in figure.layout.shapes} == {2}
    assert [figure.layout[f"yaxis{k}"].type for k in (2, 3)] == ["log", "log"]
    assert len(panels(made("a", "b", "c")).layout.annotations) == 3


def test_captions_say_whether_the_sets_part_by_more_than_chance() -> None:
    found = made()
    (model,) = read_models(found)
    apart = cosine_words(model)
    assert lacking(apart, "0.900", "0.340", "layer 0’s attention", "layer 3") == []
    for row in found["rows"]:
        row["cosine_high"] = 0.99
    (model,) = read_models(found)
    assert "chance" in cosine_words(model)
    assert "chance" not in apart
    # Nothing is known: said, and drawn without.
    for row in found["rows"]:
        row.update({name: None for name in row if name.startswith(("cos", "var", "growth"))})
    (model,) = read_models(found)
    assert not re.search(r"\d\.\d", cosine_words(model))
    assert "not known" in growth_words(found, model)
    assert contrast_page(found)


def test_bars_of_growth_are_the_shares_and_sum_to_one() -> None:
    figure = growth_figure(made())
    for column in ("x", "x2"):
        bars = [each for each in figure.data if each.type == "bar" and each.xaxis == column]
        assert len(bars) == (3 if column == "x" else 6)
        for layer in range(4):
            assert sum(bar.y[layer] for bar in bars) == pytest.approx(1)
    (band,) = [each for each in figure.data if each.type == "scatter" and each.fill]
    assert set(band.y) == {0.018, -0.018}
    # A family whose attention and MLP can't be split has no bars of them.
    whole = growth_figure(made(has_mid=False))
    assert len([each for each in whole.data if each.type == "bar"]) == 3


def test_every_figure_of_sharing_has_random_rotations_beside_it() -> None:
    found = made()
    figure = sharing_figure(found, "tiny")
    assert figure is not None
    shown = [each for each in figure.data if each.mode == "lines+markers"]
    nulls = [each for each in figure.data if each.line.dash in ("dash", "dot")]
    assert len(shown) == len(nulls) == 7
    assert len([each for each in figure.data if each.fill == "toself"]) == 5
    (cosine,) = _traces(figure, "updates")
    assert cosine.y == pytest.approx((-0.1, 0.0, 0.1))
    assert sharing_figure(found, "another") is None
    assert found["sharing"][0]["sentence"] in contrast_page(found)


def test_untangling_stands_beside_permuted_labels_and_the_embedding_alone() -> None:
    found = made()
    figure = untangling_figure(found, "tiny", layer=1)
    assert figure is not None
    assert len(_traces(figure, "permuted labels")) == 6
    assert len([each for each in figure.data if each.name == "permuted labels" and each.fill]) == 4
    (alone,) = _traces(figure, "probe of the embedding alone")
    assert set(alone.y) == {0.7}
    # What is null has no curve.
    assert not _traces(figure, "pairs’ difference on one direction")
    page = contrast_page(found)
    assert lacking(page, "97 %", "70 %") == []
    del found["untangling"]
    assert untangling_figure(found, "tiny") is None
    assert lacking(contrast_page(found), "97 %", "70 %") == ["97 %", "70 %"]


def test_effects_stand_beside_random_directions() -> None:
    found = made()
    figure = effects_figure(found, "tiny", layer=2)
    assert figure is not None
    random = _traces(figure, "random directions of the same norm")
    own = _traces(figure, "difference of means, with its bootstrap spread")
    assert [len(each.x) for each in random] == [18, 18, 18]
    assert [len(each.x) for each in own] == [6, 6, 6]
    assert own[0].y == pytest.approx((0.4, -0.4, 0.2) * 2)
    assert own[0].error_y.arrayminus == pytest.approx((0.1,) * 6)
    assert "towards docstrings" in figure.layout.xaxis.ticktext
    assert "steers" in contrast_page(found)
    for each in found["directions"]:
        each["random"] = [-1, 1]
    assert "steers" not in contrast_page(found)
    _check_continuations(found)
    found["directions"] = [{"model": "tiny", "reason": "reason 7"}]
    assert effects_figure(found, "tiny") is None
    assert "reason 7" in contrast_page(found)


@pytest.mark.parametrize("wrong", [{}, {"rows": []}, {"rows": [{"model": 1}]}, {"rows": "x"}])
def test_another_report_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        contrast_page(wrong)


def _check_continuations(found: dict[str, Any]) -> None:
    """Each of many has panels of its own."""
    texts = [f" <b>{i}" for i in range(5)]
    own = [each for each in found["directions"] if each["set"] != "difference"]
    changed = {**found}
    changed["directions"] = [
        {**each, "measure": "log-probability", "continuation": text}
        for text in texts
        for each in own
    ]
    figure = effects_figure(changed, "tiny")
    assert figure is not None
    titles = [each.text for each in figure.layout.annotations]
    assert all(any(f"‘␣&lt;b&gt;{i}’" in title for title in titles) for i in range(5))
    assert len(_traces(figure, "random directions of the same norm")) == 2 * len(texts)
    page = contrast_page(changed)
    assert "continuation" in page


def _one(which: str, scale: float | None, effect: float, **more: Any) -> dict[str, Any]:
    facts = {"measure": "log-perplexity", "layer": 1, "random": [0.1, -0.2, 0.3]}
    return {**facts, "set": which, "scale": scale, "effect": effect, **more}


def test_what_a_direction_does_is_told_by_measure_and_way() -> None:
    names = ("code", "prose")
    effects = [
        *(_one("difference", 1.0, value) for value in (0.4, 0.25)),
        *(_one("difference", -1.0, value) for value in (-0.25, 0.9)),
        *(_one("positive", 1.0, value) for value in (0.5, -0.1)),
        *(_one("negative", None, value) for value in (-0.4, -0.35)),
    ]
    text = effects_words(effects, names)
    # 0.4 is above 0.3, 0.25 is not; −0.25 is below −0.2, 0.9 goes the other way.
    for claim in (
        r"steers[^.]* code[^.]* 1 of 2 layers[^.]* prose[^.]* 1 of 2 layers",
        r"[Cc]hance[^.]* 1 of 4\.",
        r"log-perplexity of code rises[^.]* 1 [^.]*falls[^.]* 1 of 2 layers",
        r"rojected out[^.]* log-perplexity of prose falls[^.]* 2 of 2 layers",
    ):
        assert re.search(claim, text), claim
    # Labels that were permuted do as much: nothing is left.
    for each in effects:
        each["permuted"] = [-2.0, 2.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    text = effects_words(effects, names)
    assert "steers" not in text
    assert lacking(text, "0.5 of 4") == []
    assert text.count(" none") == 2
    assert "random directions" in effects_words([_one("positive", 1.0, 1, random=[])], names)


def test_a_direction_that_harms_either_way_is_told() -> None:
    effects = [_one(s, k, 0.5) for s in ("positive", "negative") for k in (1.0, -1.0)]
    text = effects_words(effects, ("a", "b"))
    assert "both sets" in text
    effects[0]["effect"] = -0.5
    assert "both sets" not in effects_words(effects, ("a", "b"))


def test_cosines_near_one_have_a_fourth_decimal_and_an_axis_of_their_own() -> None:
    found = made()
    for row in found["rows"]:
        row.update(dict.fromkeys((k for k in row if k.startswith("cosine")), 0.9931))
    (model,) = read_models(found)
    assert "from 0.9931 after" in cosine_words(model)
    low, high = panels(found).layout.yaxis.range
    assert 0.99 < low < 0.9931
    assert 1 < high < 1.01
    for row in found["rows"]:
        row["cosine"] = 0.0
    (model,) = read_models(found)
    assert "from 0 after" in cosine_words(model) or "from 0.000 after" in cosine_words(model)


def test_growth_of_variance_is_told_with_and_without_the_first_block() -> None:
    (model,) = read_models(made())
    # Variances are 3 to the power of the depth: from 0.5 to 4, and from 1 to 4.
    text = variance_words(model, ("code", "docstrings"))
    assert re.search(r"47-fold for both sets.*layer 0.*layer 3.*27-fold for both sets", text)


def test_each_panel_has_a_legend_of_its_own() -> None:
    for figure in (
        sharing_figure(made(), "tiny"),
        untangling_figure(made(), "tiny"),
        growth_figure(made()),
    ):
        assert figure is not None
        by_axis: dict[str, set[str]] = {}
        for trace in figure.data:
            by_axis.setdefault(trace.yaxis, set()).add(trace.legend)
        legends = [name for names in by_axis.values() for name in names]
        assert len(set(legends)) == len(legends) == len(by_axis)


def test_permuted_labels_are_drawn_where_a_report_holds_them() -> None:
    found = made()
    assert "permuted labels" not in str(effects_figure(found, "tiny"))
    for each in found["directions"]:
        each["permuted"] = [0.5, -9.0]
    figure = effects_figure(found, "tiny")
    assert figure is not None
    drawn = _traces(figure, "directions of permuted labels")
    assert [len(each.x) for each in drawn] == [12, 12, 12]
    assert figure.layout.yaxis.range[0] < -9


def test_titles_of_two_models_have_room_for_both_their_lines() -> None:
    one, two = growth_figure(made()), growth_figure(made("a", "b"))
    assert two.layout.margin.t >= one.layout.margin.t + 15
    highest = max(title.yshift for title in two.layout.annotations[:3])
    assert two.layout.margin.t - highest >= 40
