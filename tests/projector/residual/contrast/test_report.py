"""Everything in one call: sets part where they were made to, and what is missing says why."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

import projector
from projector.errors import SettingError
from projector.model.loading import LoadedModel
from projector.residual.contrast.growth import average_growth, measure_growth
from projector.residual.contrast.measures import Draws, measure_means
from projector.residual.contrast.prompts import PromptSets
from projector.residual.contrast.records import Point
from projector.residual.contrast.report import Contrast, contrast
from projector.residual.contrast.untangling.measuring import measure_point
from projector.residual.subject import Subject
from tests.families import build

# All end in the same token.
POSITIVE = tuple(f"ka {a} {b} so" for a in ("lo", "mi", "ten", "ra") for b in ("ka", "vel", "du"))
NEGATIVE = tuple(f"vel {a} {b} so" for a in ("du", "lo", "ra", "mi") for b in ("lo", "so", "ten"))
COLUMNS = [
    "model",
    "layer",
    "stream",
    "cosine",
    "cosine_low",
    "cosine_high",
    "cosine_split_half",
    "cosine_permuted",
    "variance_mean_positive",
    "variance_mean_negative",
    "variance_max_positive",
    "variance_max_negative",
    "growth_pre",
    "growth_update",
    "growth_covariance",
    "probe_accuracy",
    "probe_permuted",
]


def sets() -> PromptSets:
    n = len(POSITIVE)
    groups = tuple(range(n)), tuple(range(n, 2 * n))
    return PromptSets("made", POSITIVE, NEGATIVE, "one", "other", *groups, ("A note.",), "00")


def subject_of(family: str, tokenizer: Any, name: str | None = None) -> Subject:
    return Subject(LoadedModel(build(family), tokenizer, name or family, "0" * 64))


def measured(*subjects: Subject, **options: Any) -> Contrast:
    return contrast(list(subjects), sets=sets(), n_draws=20, n_prompts=4, **options)


def check_reasons(row: dict[str, Any]) -> None:
    """Every figure is a plain number, or null with its own reason; nothing else has a reason."""
    figures = {k: v for k, v in row.items() if k not in ("model", "layer", "stream", "reasons")}
    assert {name for name, value in figures.items() if value is None} == set(row["reasons"])
    assert all(type(value) is float for value in figures.values() if value is not None)
    assert all(isinstance(why, str) and len(why) > 20 for why in row["reasons"].values())


def test_every_null_figure_of_a_row_has_its_reason(tokenizer: Any) -> None:
    subject = subject_of("llama", tokenizer)
    found = measured(subject).models[0]
    point = Point(1, "resid_post")
    check_reasons(found.row(point))
    n, width = len(POSITIVE), 4
    ones, others = range(n), range(n, 2 * n)
    random = torch.randn(2, n, width, generator=torch.Generator().manual_seed(0))
    broken = random.clone()
    broken[0, 0, 0] = torch.nan
    zero = torch.zeros(n, width)
    still = average_growth([measure_growth(zero, None, None, zero)])
    alike = Draws([0] * n, [1] * n)
    for (a, b), draws in (
        (random, alike),
        ((zero, zero), Draws(ones, others)),
        (broken, Draws(ones, others)),
    ):
        measures, untangling = measure_means(a, b, draws), measure_point(a, b, ones, others)
        changed = replace(
            found,
            measures={point: measures},
            untangling={point: untangling, Point(0, "resid_pre"): untangling},
            block_growth={1: (still, still, still)},
        )
        check_reasons(changed.row(point))
        assert changed.row(point)["reasons"]


def test_draws_reach_every_null(tokenizer: Any) -> None:
    found = contrast(subject_of("gpt2", tokenizer), sets=sets(), n_draws=23, n_prompts=4)
    content = found.as_dict()
    assert {each["n_permutations"] for each in content["untangling"]} == {23}
    assert {each["n_draws"] for each in content["sharing"]} == {23}
    assert content["n_draws"] == 23


def test_sets_part_at_the_layer_where_they_were_made_to(tokenizer: Any) -> None:
    subject = subject_of("llama", tokenizer)
    first = subject.model.model.layers[0]
    with torch.no_grad():
        for each in (first.self_attn.o_proj, first.mlp.down_proj):
            each.weight.zero_()
    found = measured(subject).as_dict()
    content = json.loads(json.dumps(found, allow_nan=False))
    rows = {(row["layer"], row["stream"]): row for row in content["rows"]}
    assert list(content["rows"][0])[: len(COLUMNS)] == COLUMNS
    same = [(0, "resid_pre"), (0, "resid_mid"), (0, "resid_post"), (1, "resid_pre")]
    for place in same:
        row = rows[place]
        assert row["cosine"] == pytest.approx(1)
        assert row["variance_mean_positive"] == row["variance_max_negative"] == 0
        assert row["growth_pre"] is None
        assert {"growth_pre", "probe_accuracy", "probe_embedding"} <= set(row["reasons"])
        assert content["reasons"]["llama"]["layer {} {}".format(*place)] == row["reasons"]
    for place in ((1, "resid_mid"), (1, "resid_post")):
        row = rows[place]
        assert row["cosine"] < 0.999
        assert row["cosine_low"] <= row["cosine"] <= row["cosine_high"]
        assert row["variance_mean_positive"] > 0
        shares = [row[f"growth_{part}"] for part in ("pre", "update", "covariance")]
        assert sum(shares) == pytest.approx(1, abs=1e-6)
        # All variance is of this layer's update.
        assert shares[1] == pytest.approx(1, abs=1e-6)
    for row in content["rows"]:
        check_reasons(row)
    # One name more for the same stream.
    same_stream = [{**rows[place], "layer": 0, "stream": ""} for place in same[2:]]
    assert same_stream[0] == same_stream[1]
    notes = [note for note in content["notes"] if "same token" in note]
    assert len(notes) == 2
    assert "A note." in content["notes"]


def test_every_part_is_reported_of_several_models(tokenizer: Any) -> None:
    models = subject_of("gpt2", tokenizer), subject_of("gpt_neox", tokenizer)
    found = measured(*models, layers=[1])
    content = found.as_dict()
    assert content["models"] == ["gpt2", "gpt_neox"]
    assert (content["pair"], content["n_positive"], content["at"]) == ("made", 12, "last")
    for name, n_places in (("gpt2", 6), ("gpt_neox", 4)):
        own = {
            part: [each for each in content[part] if each["model"] == name]
            for part in ("rows", "growth", "sharing", "untangling", "directions")
        }
        assert len(own["rows"]) == len(own["untangling"]) == n_places
        assert [each["layer"] for each in own["growth"]] == [0, 1]
        assert len(own["sharing"]) == 1
        assert own["sharing"][0]["sentence"]
        assert {each["layer"] for each in own["directions"]} == {1}
        # The row's growth is that of the step that leads to it.
        rows = {(row["layer"], row["stream"]): row for row in own["rows"]}
        assert rows[1, "resid_post"]["growth_pre"] == own["growth"][1]["pre"]
        assert rows[1, "resid_pre"]["growth_pre"] == own["growth"][0]["pre"]
        assert own["untangling"][-1]["embedding_accuracy"] == rows[0, "resid_pre"]["probe_accuracy"]
    attention = [row for row in content["rows"] if row["stream"] == "resid_mid"]
    assert all(row["growth_pre"] is not None for row in attention)
    assert attention[1]["growth_pre"] != content["growth"][1]["pre"]
    assert "resid_mid" in content["reasons"]["gpt_neox"]
    assert [each.layers for each in found.directions] == [(0, 1), (0, 1)]
    # The same again, and other draws.
    assert measured(*models, layers=[1]).as_dict() == content
    other = measured(models[0], layers=[1], seed=1).as_dict()["rows"][-1]
    row = next(each for each in reversed(content["rows"]) if each["model"] == "gpt2")
    assert other["cosine"] == row["cosine"]
    assert other["cosine_permuted"] != row["cosine_permuted"]


def test_an_encoder_is_measured_at_the_mean(tokenizer: Any) -> None:
    bert = subject_of("bert", tokenizer)
    content = json.loads(json.dumps(measured(bert, at="mean").as_dict(), allow_nan=False))
    assert all(row["cosine"] is not None for row in content["rows"])
    assert all(row["growth_pre"] is not None for row in content["rows"][1:])
    assert content["growth"][0]["attention_variance"] is None
    assert any("not split" in note for note in content["notes"])
    assert content["directions"]


def test_names_are_told_apart_and_wrong_arguments_refused(tokenizer: Any) -> None:
    assert projector.contrast is contrast
    twice = measured(subject_of("llama", tokenizer, "a"), subject_of("gpt2", tokenizer, "a"))
    assert [each.name for each in twice.models] == ["a", "a (2)"]
    assert len({row["model"] for row in twice.as_dict()["rows"]}) == 2
    subject = subject_of("llama", tokenizer)
    given: list[tuple[Any, dict[str, Any], str]] = [
        ([], {}, "models"),
        (["x", "x"], {}, "models"),
        (subject, {"sets": sets(), "layers": [2]}, "layers"),
        (subject, {"sets": sets(), "pair": "negation"}, "sets"),
        (subject, {"at": "first"}, "at"),
        (subject, {"n_draws": 3}, "n_draws"),
        (subject, {"positive": "a.txt"}, "positive"),
    ]
    for models, options, setting in given:
        with pytest.raises(SettingError) as error:
            contrast(models, **options)
        assert error.value.setting == setting
