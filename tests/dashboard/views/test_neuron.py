"""The card of a neuron."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dashboard.state.store import examples_name, stored_examples
from projector.projection.projection import Projection
from projector.statistics.examples import Examples
from tests.dashboard.conftest import DECODER, Open
from tests.dashboard.pages import (
    FAMILIES,
    NEURON,
    SCRIPT,
    errors,
)


def n_underlined(at: Any) -> int:
    """How many excerpts are shown: each has one token that drives the neuron."""
    return sum(str(each.proto).count("border-bottom") for each in at.get("html"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_card_reads_text_once_and_keeps_it(family: str, open_page: Open, root: Path) -> None:
    at = open_page("neuron", projection=family, neuron=NEURON)
    assert at.title[0].value == f"L1 N{NEURON}"
    at.text_input(key="examples source").set_value("unseen.txt")
    at.button(key="read examples").click().run()
    assert errors(at) == []
    sha256 = Projection.load(root / family).facts.model.sha256
    examples = Examples.load(stored_examples().path / examples_name(sha256, 1, "mlp_post"))
    n_excerpts = int((examples.highest_at[NEURON] >= 0).sum())
    assert n_excerpts >= 3
    assert n_underlined(at) == n_excerpts
    for kind in ("lowest", "quantiles", "at random"):
        at.segmented_control(key="examples kind").set_value(kind).run()
        assert errors(at) == []
    # Another session reads nothing again, and another neuron has its own.
    again = open_page("neuron", projection=family, neuron=NEURON + 1)
    assert errors(again) == []
    assert not [each for each in again.button if each.key == "read examples"]
    assert again.title[0].value == f"L1 N{NEURON + 1}"
    # It tells which text, and another one can take its place.
    assert any("unseen.txt" in each.value for each in again.caption)
    again.button(key="read other").click().run()
    again.text_input(key="examples source").set_value("seen.txt")
    again.button(key="read examples").click().run()
    assert errors(again) == []
    assert any("seen.txt" in each.value for each in again.caption)
    assert not [each for each in again.button if each.key == "read examples"]
    other = Examples.load(stored_examples().path / examples_name(sha256, 1, "mlp_post"))
    assert other.source == "seen.txt"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "No text is named"),
        ("nowhere.txt", "There is no text 'nowhere.txt'"),
        ("../../etc/passwd", "There is no text"),
        (SCRIPT, "There is no text"),
        ("models", "holds no"),
        ("stdlib:moon", "no split 'moon'"),
    ],
)
def test_a_text_that_can_not_be_read_is_said(source: str, says: str, open_page: Open) -> None:
    at = open_page("neuron", neuron=NEURON)
    at.text_input(key="examples source").set_value(source)
    at.button(key="read examples").click().run()
    (error,) = errors(at)
    assert says in error


def test_a_card_without_a_neuron_says_what_to_do(open_page: Open) -> None:
    at = open_page("neuron")
    assert errors(at) == []
    assert len(at.info) == 1


def test_damaged_examples_are_said_and_the_rest_is_shown(open_page: Open, root: Path) -> None:
    sha256 = Projection.load(root / DECODER).facts.model.sha256
    path = stored_examples().path / examples_name(sha256, 1, "mlp_post")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    at = open_page("neuron", neuron=NEURON)
    (error,) = errors(at)
    assert "is damaged: remove it" in error
    assert any("vocabulary" in each.value for each in at.subheader)
