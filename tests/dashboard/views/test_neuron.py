"""The card of a neuron."""

from __future__ import annotations

import html
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.state.store import examples_name, stored_examples
from projector.corpus.pieces import Pieces
from projector.corpus.tokens import read_corpus
from projector.model.architecture.finding import find_architecture
from projector.model.loading import load_model
from projector.naming.names import read_names
from projector.projection.projection import Projection
from projector.sites import map_name
from projector.statistics.example_facts import (
    EXAMPLES_FILE,
    MAP_TENSORS,
    SHARED_TENSORS,
    ExampleFacts,
)
from projector.statistics.examples import Examples, gather_examples
from tests.dashboard.conftest import DECODER, Open
from tests.dashboard.pages import (
    FAMILIES,
    NEURON,
    SCRIPT,
    errors,
)
from tests.refused import lacking


@pytest.fixture(scope="module")
def with_examples(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose projection holds what drives its neurons, as a fit keeps it, and no model."""
    own = tmp_path_factory.mktemp("examples")
    shutil.copytree(root / DECODER, own / DECODER)
    if not Projection.load(own / DECODER).has_examples:
        add_examples(own / DECODER, root / "models" / DECODER, root / "seen.txt")
    return own


@pytest.fixture(scope="module")
def without_examples(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root as older versions left it: no projection holds examples."""
    own = tmp_path_factory.mktemp("bare") / "root"
    shutil.copytree(root, own)
    for path in own.rglob(EXAMPLES_FILE):
        path.unlink()
    return own


@pytest.fixture
def open_neuron(without_examples: Path, start: Open) -> Open:
    """``open_neuron(**params)``: the page where the fit kept no examples."""

    def make(**params: object) -> AppTest:
        usual: dict[str, object] = {"projection": DECODER, "layer": 1, "site": "mlp_post"}
        return start(without_examples, "neuron", **usual | params).run()

    return make


def add_examples(folder: Path, model: Path, text: Path) -> None:
    """What a fit keeps, gathered map by map."""
    loaded = load_model(str(model), device="cpu")
    architecture = find_architecture(loaded.model)
    corpus = read_corpus(str(text), loaded.tokenizer, sequence_length=40, max_tokens=1500)
    projection, tensors = Projection.load(folder), {}
    for layer, site in projection.maps:
        found = gather_examples(
            loaded.model, architecture, corpus, layer, site, n_extremes=10, n_sample=200
        )
        shared = {name: getattr(found, name) for name in SHARED_TENSORS}
        own = {f"{map_name(layer, site)}.{name}": getattr(found, name) for name in MAP_TENSORS}
        tensors |= shared | own
    is_place = ("highest_at", "lowest_at", "sample_at")
    tensors = {k: t.int() if k.split(".")[-1] in is_place else t for k, t in tensors.items()}
    tensors |= Pieces.of_tokenizer(loaded.tokenizer, tensors["ids"].tolist()).state()
    facts = ExampleFacts(10, len(tensors["sample_at"]), is_whole=True, source=corpus.source)
    replace(projection, example_facts=facts, example_tensors=tensors).save(folder, force=True)


def n_underlined(at: Any) -> int:
    """How many excerpts are shown: each has one token that drives the neuron."""
    return sum(str(each.proto).count("border-bottom") for each in at.get("html"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_card_reads_text_once_and_keeps_it(family: str, open_neuron: Open, root: Path) -> None:
    at = open_neuron(projection=family, neuron=NEURON)
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
    again = open_neuron(projection=family, neuron=NEURON + 1)
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
        ("", "stdlib"),
        ("nowhere.txt", "'nowhere.txt'"),
        ("../../etc/passwd", "'../../etc/passwd'"),
        (SCRIPT, SCRIPT),
        ("models", "models"),
        ("stdlib:moon", "'moon'"),
    ],
)
def test_a_text_that_can_not_be_read_is_said(source: str, says: str, open_neuron: Open) -> None:
    at = open_neuron(neuron=NEURON)
    at.text_input(key="examples source").set_value(source)
    at.button(key="read examples").click().run()
    (error,) = errors(at)
    assert says in error


def test_a_card_without_a_neuron_says_what_to_do(open_page: Open) -> None:
    at = open_page("neuron")
    assert errors(at) == []
    (info,) = at.info
    assert "L3 N345" in info.value


def test_damaged_examples_are_said_and_the_rest_is_shown(open_page: Open, root: Path) -> None:
    sha256 = Projection.load(root / DECODER).facts.model.sha256
    path = stored_examples().path / examples_name(sha256, 1, "mlp_post")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    at = open_page("neuron", neuron=NEURON)
    (error,) = errors(at)
    assert lacking(error, path, "damaged") == []
    assert any("vocabulary" in each.value for each in at.subheader)


def open_saved(start: Open, folder: Path, **params: object) -> AppTest:
    usual: dict[str, object] = {"projection": DECODER, "layer": 1, "site": "mlp_post"}
    return start(folder, "neuron", **usual | params).run()


def test_saved_examples_are_shown_at_once_and_without_the_model(
    with_examples: Path, start: Open
) -> None:
    """There is no model here that could be run."""
    at = open_saved(start, with_examples, neuron=NEURON)
    (error,) = errors(at)
    # Only what weights tell is missing, and it is said how to give them.
    assert "--model" in error
    # It begins with the end that its label is of.
    kinds = at.segmented_control(key="examples kind")
    kinds.set_value("highest").run()
    projection = Projection.load(with_examples / DECODER)
    examples, pieces = projection.examples(1, "mlp_post"), projection.pieces
    (page,) = [str(each.proto) for each in at.get("html") if "border-bottom" in str(each.proto)]  # type: ignore[union-attr]
    assert n_underlined(at) == int((examples.highest_at[NEURON] >= 0).sum())
    for place in examples.highest_at[NEURON].tolist():
        (text,) = pieces.texts([int(examples.ids[place])])
        assert html.escape(text) in page
    for kind, n in (("lowest", 10), ("quantiles", 7), ("at random", 8)):
        kinds.set_value(kind).run()
        assert n_underlined(at) == n
    assert any("Fires on" in each.value for each in at.markdown)
    assert any("tokens of" in each.value for each in at.caption)
    assert not [each for each in at.button if each.key == "read examples"]


def test_a_click_on_a_neighbour_or_an_arrow_goes_to_another_neuron(
    with_examples: Path, start: Open
) -> None:
    at = open_saved(start, with_examples, neuron=0)
    assert at.button(key="neuron Left").disabled
    at.button(key="neuron Right").click().run()
    assert at.title[0].value == "L1 N1"
    assert at.query_params["neuron"] in ("1", ["1"])
    assert not at.button(key="neuron Left").disabled
    rho = Projection.load(with_examples / DECODER).correlation(1, "mlp_post")
    order = [int(j) for j in rho[1].argsort(descending=True) if j != 1][:10]
    links = [each.proto for each in at.get("page_link")]  # type: ignore[union-attr]
    named = [link.label.split()[0] for link in links if re.match(r"N\d+ ", link.label)]
    assert named[:10] == [f"N{j}" for j in order]


def test_a_name_of_ones_own_is_kept_beside_the_projection(
    with_examples: Path, start: Open, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(with_examples, own)
    at = open_saved(start, own, neuron=NEURON)
    key = f"name of 1 mlp_post {NEURON}"
    at.text_input(key=key).set_value(SCRIPT).run()
    assert read_names(own / DECODER).of_neuron(1, "mlp_post", NEURON) == SCRIPT
    again = open_saved(start, own, neuron=NEURON)
    assert again.text_input(key=key).value == SCRIPT
    assert open_saved(start, own, neuron=NEURON + 1).text_input[0].value != SCRIPT
    # One that can't be kept is said, and stays in the field.
    again.text_input(key=key).set_value("x" * 200).run()
    assert any("too long" in each or "at most" in each for each in errors(again))
    assert read_names(own / DECODER).of_neuron(1, "mlp_post", NEURON) == SCRIPT


def test_a_text_of_ones_own_shows_the_neuron_on_every_token(open_page: Open) -> None:
    at = open_page("neuron", neuron=NEURON)
    at.text_area(key="text to try").set_value("kalo <b> mi")
    at.button(key="try text").click().run()
    assert errors(at) == []
    (page,) = tried(at)
    assert page.count("<span") >= 3
    assert "&lt;" in page
    # It is there for the next neuron too, and an emptied field takes it away.
    at.button(key="neuron Right").click().run()
    (after,) = tried(at)
    assert after != page
    at.text_area(key="text to try").set_value(" ")
    at.button(key="try text").click().run()
    assert errors(at) == []
    assert tried(at) == []


def tried(at: AppTest) -> list[str]:
    """The paragraphs of a text of one's own: excerpts have heads, and stand in a grid."""
    pages = [str(each.proto.body) for each in at.get("html")]  # type: ignore[union-attr]
    return [page for page in pages if page.startswith("<div") and "kalo" in text_of(page)]


def text_of(page: str) -> str:
    return "" if "grid" in page else re.sub(r"<[^>]*>", "", page)


def test_a_projection_without_examples_says_how_to_get_them(
    without_examples: Path, start: Open, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    for name in (DECODER, "models"):
        shutil.copytree(without_examples / name, own / name)
    at = open_saved(start, own, neuron=NEURON)
    assert errors(at) == []
    (info,) = at.info
    assert "no examples" in info.value
    assert at.button(key="read examples").label == "Find examples"
    # Its text isn't here: the page says how to give it.
    assert at.text_input(key="examples source").value == ""
    assert any("`--root`" in each.value for each in at.caption)


def test_what_a_neuron_reads_and_writes_stands_beside_shuffled_weights(open_page: Open) -> None:
    at = open_page("neuron", neuron=3, layer=0)
    assert errors(at) == []
    assert "Reads and writes" in [each.value for each in at.subheader]
    shown = [each.value for each in at.markdown]
    # A gated MLP has two inputs.
    assert {"**Gate reads**", "**Input reads**", "**Writes**"} <= set(shown)
    controls = [each.value for each in at.caption if "Shuffled weights reach" in each.value]
    assert len(controls) == 4
    # Later neurons that read it are links to their cards.
    links = [each.proto for each in at.get("page_link")]  # type: ignore[union-attr]
    later = [each for each in links if each.label.startswith("L1 N")]
    assert later
    # Attention has no neurons of its own.
    at = open_page("neuron", neuron=3, layer=0, site="attn_out")
    assert "Reads and writes" not in [each.value for each in at.subheader]
