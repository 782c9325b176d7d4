"""Every page on tiny models: what it shows, and one clear message where it can't show anything."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch
from markdown_it import MarkdownIt
from safetensors.torch import save_file
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

import dashboard
from dashboard.components.neuron_map import View
from dashboard.frame import opening
from dashboard.prompts import Prompt, store
from dashboard.state import loading
from dashboard.state.loading import examples_path, folders_with, prompt_folder
from dashboard.views import map as map_view
from dashboard.views import prompt as prompt_view
from projector.fitting.preparing import FitSettings, prepare
from projector.projection.importing import import_checkpoint
from projector.projection.projection import FACTS_FILE, STATISTICS_FILE, Projection
from projector.sites import SITES
from projector.statistics.examples import Examples
from pruning.methods.plan import LayerPlan, PruningPlan
from pruning.poles.files import POLES_FILE
from pruning.poles.finding import find_poles
from pruning.poles.poles import PoleSettings
from pruning.saving import PLAN_FILE
from pruning.sweep.report import PruningReport, Row
from tests.dashboard.conftest import DECODER, ENCODER, GPT2
from tests.families import build
from tests.projections import Change, edit
from tests.pruning.test_preparing import fit

FAMILIES = (DECODER, GPT2, ENCODER)
PAGES = ("map", "neuron", "prompt", "heatmap", "poles", "pruning")
SCRIPT = "<script>alert(1)</script>"
NEURON = 3
# With as few neurons as these models have, the usual settings find no pole.
GROUPING = "correlation,2,leaf,0"
Open = Callable[..., AppTest]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept between runs of the app is kept elsewhere, and no prompt was run yet."""
    monkeypatch.setenv("TRANSFORMER_PROJECTOR_CACHE", str(tmp_path / "cache"))
    loading._runs.clear()
    loading._texts.clear()
    loading._facts.clear()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Open:
    """``start(root, page, *arguments, **params)``: the app as a link opens it, not yet run."""

    def make(root: Path, page: str, *arguments: str, **params: object) -> AppTest:
        given = ["--root", str(root)] if root.is_dir() else []
        monkeypatch.setattr(sys, "argv", ["app", *given, "--device", "cpu", *arguments])
        script = Path(dashboard.__file__).parent / "streamlit_app.py"
        at = AppTest.from_file(script, default_timeout=120)
        if page != "map":
            # As the browser asks for a page by its address; a test can't otherwise.
            at._page_hash = calc_hash(page)
        for name, value in params.items():
            at.query_params[name] = str(value)
        return at

    return make


@pytest.fixture
def open_page(root: Path, start: Open) -> Open:
    """``open_page(page, **params)``: the same of the usual root, run once."""

    def make(page: str, **params: object) -> AppTest:
        usual: dict[str, object] = {"projection": DECODER, "layer": 1, "site": "mlp_post"}
        return start(root, page, **usual | params).run()

    return make


def errors(at: AppTest) -> list[str]:
    """Messages of the page, without the signs that keep Markdown from reading them."""
    assert not at.exception, [each.message for each in at.exception]
    return [re.sub(r"\\(.)", r"\1", each.value) for each in at.error]


def link(at: AppTest) -> dict[str, str]:
    """What stands in the address."""
    return {name: str(value) for name, value in at.query_params.items()}


def maps_of(at: AppTest) -> list[dict[str, Any]]:
    """What was sent to each map of the page."""
    return [json.loads(each.proto.bytes) for each in at.get("bidi_component")]  # type: ignore[union-attr]


def decoded(text: str, dtype: type, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)


def click(at: AppTest, label: str) -> AppTest:
    (button,) = [each for each in at.button if each.label == label]
    return button.click().run()


def ask(at: AppTest, text: str, *, n_new: int = 4, other: str | None = None) -> AppTest:
    """Type a prompt, and press Run."""
    if other is not None:
        at.toggle(key="compare").set_value(True).run()
        at.text_area(key="other text").set_value(other)
    at.text_area(key="prompt text").set_value(text)
    at.number_input(key="prompt tokens").set_value(n_new)
    return click(at, "Run")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_page_shows_every_kind_of_model(family: str, page: str, open_page: Open) -> None:
    prompt = store(Prompt("kalo mi", 3), prompt_folder())
    at = open_page(page, projection=family, neuron=NEURON, prompt=prompt, pole=0, grouping=GROUPING)
    assert errors(at) == []
    assert len(at.title) == 1
    assert at.title[0].value != "No projection yet"
    # The link is whole: as it came.
    assert link(at) == {
        "projection": family,
        "layer": "1",
        "site": "mlp_post",
        "neuron": str(NEURON),
        "prompt": prompt,
        "pole": "0",
        "grouping": GROUPING,
    }
    assert at.sidebar.selectbox(key="choose projection").options == sorted(FAMILIES)


def test_pages_are_different_ones(open_page: Open) -> None:
    titles = {page: open_page(page, neuron=NEURON).title[0].value for page in PAGES}
    assert len(set(titles.values())) == len(PAGES)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    "params",
    [
        {"layer": 77, "site": "moon", "neuron": 10**8, "pole": 10**8, "token": 10**8},
        {"layer": -1, "neuron": "1e9", "pole": "x", "token": "٣", "marked": "0-9999999"},
        {"neuron": 39, "marked": "30-99", "pole": 999, "model": SCRIPT, "report": SCRIPT},
        {"grouping": "correlation,1000000,eom,99", "neuron": NEURON},
        {"site": SCRIPT, "neuron": NEURON, "grouping": SCRIPT},
    ],
)
def test_no_link_breaks_a_page(page: str, params: dict[str, object], open_page: Open) -> None:
    assert errors(open_page(page, **params)) == []


def test_what_a_short_link_leaves_out_is_filled_in(root: Path, start: Open) -> None:
    short = {"projection": DECODER, "layer": 1, "pole": 0, "marked": "2-4", "grouping": GROUPING}
    at = start(root, "poles", **short).run()
    assert errors(at) == []
    assert link(at) == {name: str(value) for name, value in short.items()} | {"site": "mlp_post"}
    assert any(each.value.startswith("Pole 0:") for each in at.subheader)
    # Of another map than the link's its pole would be another one.
    at = start(root, "poles", **short | {"layer": 77}).run()
    assert errors(at) == []
    assert link(at) == {"projection": DECODER, "layer": "0", "site": "mlp_post"} | {
        "grouping": GROUPING
    }


@pytest.mark.parametrize("page", PAGES)
def test_an_unknown_projection_is_said_and_another_shown(page: str, open_page: Open) -> None:
    at = open_page(page, projection=SCRIPT, neuron=NEURON)
    (error,) = errors(at)
    assert f"There is no projection {SCRIPT} here" in error
    assert at.sidebar.selectbox(key="choose projection").value == ENCODER
    # And then it is not said any more.
    assert errors(at.run()) == []
    assert link(at)["projection"] == ENCODER


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("family", [DECODER, GPT2])
def test_every_page_shows_attention_too(family: str, page: str, open_page: Open) -> None:
    prompt = store(Prompt("kalo mi", 3), prompt_folder())
    at = open_page(page, projection=family, site="attn_out", neuron=NEURON, prompt=prompt)
    assert errors(at) == []
    assert link(at)["site"] == "attn_out"


@pytest.mark.parametrize("page", PAGES)
def test_names_of_folders_are_text(page: str, root: Path, start: Open, tmp_path: Path) -> None:
    """What is in them was written by someone else."""
    name = "<img src=x onerror=alert(1)> **b** $x$ [l](javascript:x)"
    own = tmp_path / "own"
    shutil.copytree(root / DECODER, own / name)
    shutil.copytree(root / "models" / DECODER, own / "models" / "<b>x")
    params = {"layer": 1, "site": "mlp_post", "neuron": NEURON, "model": "models/<b>x"}
    at = start(own, page, projection=name, **params).run()
    assert errors(at) == []
    assert at.sidebar.selectbox(key="choose projection").value == name
    assert at.sidebar.selectbox(key="choose model").value == "models/<b>x"
    shown = [*at.title, *at.caption, *at.markdown, *at.info, *at.warning, *at.subheader]
    assert len(shown) > 2
    for each in shown:
        rendered = MarkdownIt("commonmark").render(each.value)
        assert "alert(1)" not in rendered
        assert "<b>" not in rendered
    assert not any("<img" in str(each.proto) for each in at.get("html"))  # type: ignore[union-attr]


# The sidebar.


def test_what_is_chosen_at_the_side_is_shown(open_page: Open) -> None:
    at = open_page("map", neuron=NEURON, marked="1-2", token=2)
    at.sidebar.select_slider(key="choose layer").set_value(0).run()
    assert errors(at) == []
    assert "Layer 0" in at.title[0].value
    # Neuron 3 of another layer is another neuron.
    assert link(at) == {
        "projection": DECODER,
        "layer": "0",
        "site": "mlp_post",
        "token": "2",
    }
    at.sidebar.selectbox(key="choose site").select("attn_out").run()
    assert "attention output" in at.title[0].value
    at.sidebar.selectbox(key="choose projection").select(GPT2).run()
    assert errors(at) == []
    assert link(at)["projection"] == GPT2


def test_pages_take_a_site_s_names_from_its_record(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = replace(SITES["mlp_post"], words="odd ones", short="odd", help="What is odd.")
    monkeypatch.setitem(SITES, "mlp_post", replace(record, beside=None))
    at = open_page("map", neuron=NEURON)
    assert re.sub(r"\\(.)", r"\1", at.title[0].value) == "Layer 1: odd ones"
    assert len(maps_of(at)) == 1
    chosen = at.sidebar.selectbox(key="choose site")
    assert "odd ones (mlp_post)" in chosen.options
    assert "- odd ones: What is odd." in chosen.help
    assert any("L1 odd N3" in each.value for each in at.markdown)


def test_the_sidebar_says_what_is_loaded_and_where(open_page: Open) -> None:
    loading.model_room.clear()
    at = open_page("map")
    assert "loaded when a page needs it" in at.sidebar.caption[0].value
    at.selectbox(key="map colour").select("importance").run()
    assert errors(at) == []
    assert "in memory on cpu" in at.run().sidebar.caption[0].value
    assert "seen" in at.sidebar.caption[0].value or "made" in at.sidebar.caption[0].value


def test_a_local_model_is_found_below_the_roots(open_page: Open) -> None:
    at = open_page("neuron", neuron=NEURON)
    assert at.sidebar.selectbox(key="choose model").value == f"models/{DECODER}"
    assert errors(at) == []


# Map.


def test_points_are_the_projections(open_page: Open, root: Path) -> None:
    (found,) = maps_of(open_page("map", neuron=NEURON, marked="5-6"))
    projection = Projection.load(root / DECODER)
    assert [panel["name"] for panel in found["panels"]] == ["L1", "L1 attn out"]
    for panel, site in zip(found["panels"], ("mlp_post", "attn_out"), strict=True):
        expected = projection.positions(1, site).numpy()
        points = decoded(panel["positions"], np.float32, len(expected), 3)
        np.testing.assert_array_equal(points[:, : expected.shape[1]], expected)
    assert (found["panels"][0]["selected"], found["panels"][0]["marked"]) == (NEURON, [5, 6])
    assert (found["panels"][1]["selected"], found["panels"][1]["marked"]) == (None, [])


def test_a_neuron_on_the_map_leads_to_its_card_and_back(open_page: Open) -> None:
    at = open_page("map", neuron=NEURON, grouping=GROUPING)
    at.button(key="open card").click().run()
    assert errors(at) == []
    assert at.title[0].value == f"L1 N{NEURON}"
    poles = [button for button in at.button if button.label == "Show its pole on the map"]
    if poles:
        poles[0].click().run()
        assert errors(at) == []
        assert "Layer 1" in at.title[0].value
        assert NEURON in maps_of(at)[0]["panels"][0]["marked"]


def test_positions_are_sent_once_in_a_session(open_page: Open) -> None:
    at = open_page("map")
    at.selectbox(key="map colour").select("mean").run()
    (found,) = maps_of(at)
    assert [panel["positions"] for panel in found["panels"]] == [None, None]
    assert all(panel["values"] for panel in found["panels"])


@pytest.mark.parametrize("color", ["pole", "mean", "spread", "importance", "dead", "none"])
def test_a_map_has_every_colour_and_size(color: str, open_page: Open) -> None:
    at = open_page("map", grouping=GROUPING)
    at.selectbox(key="map colour").select(color).run()
    assert errors(at) == []
    values = decoded(maps_of(at)[0]["panels"][0]["values"], np.uint8, -1)
    assert (len(set(values.tolist())) > 1) == (color not in ("dead", "none"))
    if color in ("mean", "spread", "importance"):
        at.selectbox(key="map size").select(color).run()
        assert errors(at) == []
        sizes = decoded(maps_of(at)[0]["panels"][0]["sizes"], np.uint8, -1)
        assert len(set(sizes.tolist())) > 5


@pytest.mark.parametrize(
    ("typed", "layer", "neuron"), [("L0 N39", "0", "39"), ("12", "1", "12"), ("1/0", "1", "0")]
)
def test_a_neuron_is_found_by_its_name(
    typed: str, layer: str, neuron: str, open_page: Open
) -> None:
    at = open_page("map")
    at.text_input(key="find neuron").set_value(typed).run()
    assert errors(at) == []
    assert (link(at)["layer"], link(at)["neuron"]) == (layer, neuron)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("L7 N1", "There is no layer 7 here: give 0 to 1"),
        ("L1 N40", "Layer 1 has no neuron 40: give 0 to 39"),
        (SCRIPT, "names no neuron"),
        ("L1", "names no neuron"),
    ],
)
def test_a_neuron_that_is_not_there_is_said_once(typed: str, says: str, open_page: Open) -> None:
    at = open_page("map", neuron=NEURON)
    at.text_input(key="find neuron").set_value(typed).run()
    (error,) = errors(at)
    assert says in error
    assert link(at)["neuron"] == str(NEURON)
    assert errors(at.run()) == []


# Neuron.


@pytest.mark.parametrize("family", FAMILIES)
def test_a_card_reads_text_once_and_keeps_it(family: str, open_page: Open, root: Path) -> None:
    at = open_page("neuron", projection=family, neuron=NEURON)
    assert at.title[0].value == f"L1 N{NEURON}"
    at.text_input(key="examples source").set_value("unseen.txt")
    at.button(key="read examples").click().run()
    assert errors(at) == []
    sha256 = Projection.load(root / family).facts.model.sha256
    examples = Examples.load(examples_path(sha256, 1, "mlp_post"))
    n_excerpts = int((examples.highest_at[NEURON] >= 0).sum())
    assert n_excerpts >= 3
    assert sum("border-bottom" in str(each.proto) for each in at.get("html")) == n_excerpts  # type: ignore[union-attr]
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
    other = Examples.load(examples_path(sha256, 1, "mlp_post"))
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
    path = examples_path(sha256, 1, "mlp_post")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    at = open_page("neuron", neuron=NEURON)
    (error,) = errors(at)
    assert "is damaged: remove it" in error
    assert any("vocabulary" in each.value for each in at.subheader)


# Prompt.


def tokens_of(at: AppTest) -> list[dict[str, Any]]:
    (found,) = maps_of(at)
    return list(found["tokens"])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_is_shown_token_by_token(
    family: str, open_page: Open, guest: Callable[[str], Any]
) -> None:
    text = f"kalo {SCRIPT}\nmi"
    at = ask(open_page("prompt", projection=family), text)
    assert errors(at) == []
    tokens = tokens_of(at)
    ids = guest(family).loaded.tokenizer(text)["input_ids"]
    made = [token["made"] for token in tokens]
    assert not any(made[: len(ids)])
    # An encoder shows the prompt's own tokens.
    assert made[len(ids) :] == ([] if family == ENCODER else [True] * (len(tokens) - len(ids)))
    assert (len(tokens) > len(ids)) == (family != ENCODER)
    shown = "".join(token["text"] for token in tokens[1 : len(ids)])
    assert shown.replace("⏎", "") == text
    (found,) = maps_of(at)
    for panel in found["panels"]:
        assert panel["frames"] == len(tokens)
        decoded(panel["values"], np.int8, len(tokens), 40 if panel["name"] == "L1" else 24)
    # The link brings it back, in another session, with the text in its field.
    again = open_page("prompt", **link(at))
    assert errors(again) == []
    assert tokens_of(again) == tokens
    assert again.text_area(key="prompt text").value == text
    assert again.number_input(key="prompt tokens").value == 4


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("", "The prompt is empty"),
        (" \n ", "The prompt is empty"),
        ("\x00\x1b", "The prompt is empty"),
        ("kalo " * 100, "and the model takes 64: shorten it"),
        ("x" * 200_001, "characters: give 200,000 at most"),
    ],
)
@pytest.mark.parametrize("family", [DECODER, GPT2])
def test_a_prompt_that_can_not_be_run_is_said(
    family: str, typed: str, says: str, open_page: Open
) -> None:
    at = ask(open_page("prompt", projection=family), typed)
    (error,) = errors(at)
    assert says in error
    # And the app goes on.
    at = ask(at, "kalo mi")
    assert errors(at) == []
    assert tokens_of(at)


def test_control_signs_are_left_out(open_page: Open) -> None:
    at = ask(open_page("prompt"), "ka\x00lo\x1b[31m mi", n_new=0)
    assert errors(at) == []
    assert "".join(token["text"] for token in tokens_of(at)[1:]) == "kalo[31m mi"


@pytest.mark.parametrize("prompt", ["0" * 16, "../../../etc/passwd", SCRIPT, "x" * 150])
@pytest.mark.parametrize("place", ["prompt", "other"])
def test_a_prompt_that_is_not_here_is_said_once(place: str, prompt: str, open_page: Open) -> None:
    params = {"prompt": store(Prompt("kalo", 2), prompt_folder())} | {place: prompt}
    at = open_page("prompt", **params)
    (error,) = errors(at)
    assert prompt[:20] in error
    at = ask(at, "kalo mi") if place == "prompt" else at
    assert errors(at) == ([] if place == "prompt" else [error])


def test_two_prompts_stand_side_by_side_on_one_scale(open_page: Open) -> None:
    at = ask(open_page("prompt", neuron=NEURON), "kalo mi", n_new=0, other="raso ten kalo")
    assert errors(at) == []
    (found,) = maps_of(at)
    a, b, difference = found["panels"]
    assert a["scale"] == b["scale"]
    assert a["positions_id"] == b["positions_id"] == difference["positions_id"]
    n = min(a["frames"], b["frames"])
    shown = [
        decoded(p["values"], np.int8, p["frames"], 40)[:n].astype(int) for p in (a, b, difference)
    ]
    # What is beyond a scale has its end's colour.
    is_told = (np.abs(shown) < 127).all(axis=0)
    assert is_told.mean() > 0.9
    first, second, third = (
        each[is_told] / 127 * panel["scale"]
        for each, panel in zip(shown, (a, b, difference), strict=True)
    )
    assert np.abs(third).max() > 0
    step = max(a["scale"], difference["scale"]) / 127
    np.testing.assert_allclose(third, first - second, atol=2 * step)
    assert {"prompt", "other"} <= set(at.query_params)
    at.toggle(key="compare").set_value(False).run()
    assert errors(at) == []
    assert "other" not in at.query_params


def test_a_chat_without_a_template_is_sent_as_text(open_page: Open) -> None:
    at = open_page("prompt")
    at.checkbox(key="prompt chat").set_value(True)
    at = ask(at, "kalo mi", n_new=0)
    assert errors(at) == []
    assert len(at.warning) == 1
    assert "".join(token["text"] for token in tokens_of(at)[1:]) == "kalo mi"


def test_a_model_that_runs_out_of_memory_is_said(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    at = open_page("prompt")
    with monkeypatch.context() as patched:
        patched.setattr(prompt_view, "run_prompt", fail)
        (error,) = errors(ask(at, "kalo mi"))
    assert "Out of memory" in error
    # What failed is not kept.
    assert errors(ask(at, "kalo mi")) == []
    assert tokens_of(at)


# Heatmap.


@pytest.mark.parametrize("by", ["linear", "leaf", "pole", "spectral", "index"])
def test_a_heatmap_has_every_order(by: str, open_page: Open, root: Path) -> None:
    at = open_page("heatmap", grouping=GROUPING, marked="1-4")
    at.selectbox(key="order").select(by).run()
    assert errors(at) == []
    rho = Projection.load(root / DECODER).correlation(1, "mlp_post").numpy()
    charts = at.get("plotly_chart")
    assert len(charts) == (1 if by == "index" else 2)
    for chart in charts:
        figure = json.loads(chart.proto.spec)["data"][0]  # type: ignore[union-attr]
        order = [int(name[1:]) for name in figure["x"]]
        assert sorted(order) == list(range(40))
        z = figure["z"]
        if isinstance(z, dict):
            z = np.frombuffer(base64.b64decode(z["bdata"]), z["dtype"]).reshape(40, 40)
        np.testing.assert_allclose(np.array(z), rho[order][:, order], atol=6e-4)


# Poles.


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
    prompt = store(Prompt("kalo mi", 3), prompt_folder())
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
    other = store(Prompt("raso ten", 3), prompt_folder())
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


# Pruning.


def write_plan(folder: Path, sha256: str, plan: PruningPlan | None) -> None:
    folder.mkdir()
    values = {"plan": plan and plan.to_dict(), "model": {"sha256": sha256}}
    (folder / PLAN_FILE).write_text(json.dumps(values), encoding="utf-8")


def test_who_goes_is_shown_on_the_map(copied: Callable[..., Path], start: Open) -> None:
    own = copied(DECODER)
    sha256 = Projection.load(own / DECODER).facts.model.sha256
    layers = tuple(
        LayerPlan(40, tuple(j for j in range(40) if j not in gone)) for gone in ((1, 2), (0, 7, 39))
    )
    plan = PruningPlan("random", 0.1, 0, "uniform", 1, layers)
    small = PruningPlan("random", 0.1, 0, "uniform", 1, (LayerPlan(3, (1,)),))
    write_plan(own / "a-plan", sha256, plan)
    write_plan(own / "b-small", sha256, small)
    write_plan(own / "c-damaged", sha256, None)
    write_plan(own / "d-of-another-model", "0" * 64, plan)
    at = start(own, "pruning", projection=DECODER, layer=1, site="mlp_post").run()
    assert errors(at) == []
    choice = at.selectbox(key="choose plan")
    assert choice.options == ["a-plan", "b-small", "c-damaged"]
    (found,) = maps_of(at)
    values = decoded(found["panels"][0]["values"], np.uint8, 40)
    gone = values[0]
    assert np.flatnonzero(values == gone).tolist() == [0, 7, 39]
    legend = {index: name for name, index in found["legend"]["items"]}
    assert legend[int(gone)] == "goes"
    for name in ("b-small", "c-damaged"):
        at.selectbox(key="choose plan").select(name).run()
        assert len(errors(at)) == 1
    # Plans are of MLP neurons.
    at = start(own, "pruning", projection=DECODER, layer=1, site="attn_out").run()
    assert errors(at) == []
    assert any("mlp_post" in each.value for each in at.info)


def report(folder: Path, rows: list[dict[str, Any]]) -> None:
    usual: dict[str, Any] = {
        "refit": "none", "seed": 0, "evaluation": "text", "windows": "sample", "bits_per_byte": 1.0,
        "n_tokens": 100, "parameters": 1000, "removed_share": 0.1, "seconds": 1.0,
    }  # fmt: skip
    PruningReport(
        {"n_sequences": 20, "n_seeds": 1, "calibration": {"source": SCRIPT}},
        {"id": SCRIPT, "parameters": 1000},
        [Row(**usual | row) for row in rows],
    ).save(folder)


def test_reports_are_shown_as_far_as_they_go(copied: Callable[..., Path], start: Open) -> None:
    own = copied(DECODER)
    dense = {"method": "dense", "sparsity": 0.0, "perplexity": 9.0}
    random = {"method": "random", "sparsity": 0.25, "perplexity": 12.5}
    report(own / "a-whole", [dense, random])
    report(own / "b-begun", [dense])
    report(own / "c-empty", [])
    at = start(own, "pruning", projection=DECODER).run()
    assert errors(at) == []
    assert at.selectbox(key="choose report").options == ["a-whole", "b-begun", "c-empty"]
    table = at.dataframe[0].value
    assert table["25%"].tolist() == ["12.500"]
    said = " ".join(each.value for each in at.caption)
    assert "1 seed" in said
    assert "1 seeds" not in said
    assert "Of all parameters that is 10.0%" in said
    for name in ("b-begun", "c-empty"):
        at.selectbox(key="choose report").select(name).run()
        assert errors(at) == []
        assert all(each.value.strip(". ") for each in at.caption)
    assert "no rows yet" in " ".join(each.value for each in at.info)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"format": "x"}', json.dumps({"format": "pruning-report"}), "{}"],
)
def test_a_damaged_report_is_said_and_another_can_be_chosen(
    content: str, copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER)
    (own / "bad").mkdir()
    (own / "bad" / "report.json").write_text(content, encoding="utf-8")
    dense = {"method": "dense", "sparsity": 0.0, "perplexity": 9.0}
    report(own / "good", [dense])
    at = start(own, "pruning", projection=DECODER).run()
    assert len(errors(at)) == 1
    at.selectbox(key="choose report").select("good").run()
    assert errors(at) == []


def test_a_report_that_lacks_facts_is_said(copied: Callable[..., Path], start: Open) -> None:
    own = copied(DECODER)
    report(own / "bad", [{"method": "dense", "sparsity": 0.0, "perplexity": 9.0}])
    values = json.loads((own / "bad" / "report.json").read_text())
    values["settings"], values["model"] = {}, {}
    (own / "bad" / "report.json").write_text(json.dumps(values), encoding="utf-8")
    (error,) = errors(start(own, "pruning", projection=DECODER).run())
    assert "is damaged" in error


def fields_of(at: AppTest) -> dict[str, object]:
    """What stands in the fields of a new sweep, by their labels."""
    fields = [*at.multiselect, *at.text_input, *at.number_input]
    return {each.label: each.value for each in fields}


def type_in(at: AppTest, **values: str) -> None:
    for label, value in values.items():
        (field,) = [each for each in at.text_input if each.label == label.replace("_", " ")]
        field.set_value(value)


@pytest.mark.parametrize("name", ["../out", "models", "a b", SCRIPT])
def test_a_sweep_that_can_not_be_is_refused_on_the_page(
    name: str, open_page: Open, root: Path
) -> None:
    at = open_page("pruning")
    type_in(at, Name_of_the_report=name, Calibration_text="seen.txt", Evaluation_text="unseen.txt")
    at.run()
    before = fields_of(at)
    assert before["Name of the report"] == name
    at = click(at, "Start")
    (error,) = errors(at)
    assert "give another name" in error or "can't be a report's name" in error
    assert not (root / ".jobs").exists()
    # Nothing is lost by it.
    assert fields_of(at) == before


@pytest.mark.parametrize(
    ("label", "value", "says"),
    [
        ("Shares to remove", "a third", "write for example 0.1, 0.3"),
        ("Shares to remove", "", "No share to remove is given"),
        ("Calibration text", "", "No calibration text is given"),
        ("Evaluation text", "seen.txt", "are the same text"),
        ("Methods", [], "No method is chosen"),
        ("Refits", [], "No refit is chosen"),
    ],
)
def test_what_is_wrong_with_a_field_is_one_line(
    label: str, value: Any, says: str, open_page: Open, root: Path
) -> None:
    at = open_page("pruning")
    type_in(at, Calibration_text="seen.txt", Evaluation_text="unseen.txt")
    (field,) = [each for each in [*at.text_input, *at.multiselect] if each.label == label]
    field.set_value(value)
    at = click(at, "Start")
    (error,) = errors(at)
    assert says in error
    # No option of a command is named, where there are fields.
    assert "--" not in error
    assert fields_of(at)[label] == value
    assert errors(at.run()) == []
    assert not (root / ".jobs").exists()


def test_a_sweep_is_started_and_its_fields_stay(
    copied: Callable[..., Path], start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = copied(DECODER, "models", "seen.txt", "unseen.txt")
    begun = psutil.Process()
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: begun)
    at = start(own, "pruning", projection=DECODER).run()
    assert fields_of(at)["Name of the report"] == "sweep-1"
    type_in(
        at, Calibration_text="seen.txt", Evaluation_text="unseen.txt", Shares_to_remove="20%, 0.5"
    )
    at.multiselect(key="sweep methods").set_value(["random", "flap", "obs"])
    at.number_input(key="sweep seeds").set_value(2)
    at.run()
    # Three methods, two refits, two shares, two seeds, and the dense model.
    assert "25 models to score" in [each.value for each in at.caption]
    expected = fields_of(at)
    at = click(at, "Start")
    assert errors(at) == []
    order = json.loads((own / ".jobs" / "sweep-1.json").read_text())["order"]
    assert (order["sparsities"], order["n_seeds"]) == ("20%, 0.5", 2)
    # The next one's name is free.
    assert fields_of(at) == expected | {"Name of the report": "sweep-2"}
    # Another page was looked at meanwhile.
    for page in ("map", "pruning"):
        at._page_hash = "" if page == "map" else calc_hash(page)
        at.run()
    assert errors(at) == []
    assert fields_of(at) == expected | {"Name of the report": "sweep-2"}


def write_job(own: Path, name: str, **values: Any) -> None:
    """A job as an app before this one left it."""
    (own / ".jobs").mkdir(exist_ok=True)
    usual = {"name": name, "pid": 1, "created": 1.0, "n_models": 4}
    (own / ".jobs" / f"{name}.json").write_text(json.dumps(usual | values), encoding="utf-8")


def test_jobs_tell_how_they_do_and_can_be_stopped(copied: Callable[..., Path], start: Open) -> None:
    own = copied(DECODER)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        created = psutil.Process(process.pid).create_time()
        write_job(own, "runs", pid=process.pid, created=created)
        write_job(own, "failed")
        log = json.dumps({"error": f"no {SCRIPT} here"})
        (own / ".jobs" / "failed.log").write_text(log, encoding="utf-8")
        write_job(own, "done")
        (own / ".jobs" / "done.log").write_text('{"report": "x"}', encoding="utf-8")
        at = start(own, "pruning", projection=DECODER).run()
        (error,) = errors(at)
        assert error == f"failed: 0 of 4 models; no {SCRIPT} here"
        assert [each.value for each in at.success] == ["done: done, 0 of 4 models"]
        assert [each.key for each in at.button if each.label == "Stop"] == ["stop runs"]
        at.button(key="stop runs").click().run()
        assert process.wait(30) != 0
        at.run()
        # That it was stopped is no error.
        assert len(errors(at)) == 1
        assert "runs: stopped, 0 of 4 models" in [each.value for each in at.info]
        # What was asked for is not known of these.
        assert [each.label for each in at.button if each.label == "Resume"] == []
        for name in ("failed", "done", "runs"):
            at.button(key=f"remove {name}").click().run()
        assert errors(at) == []
        assert [each.label for each in at.button if each.label == "Remove"] == []
        assert list((own / ".jobs").iterdir()) == []
    finally:
        process.kill()
        process.communicate()


def test_a_sweep_that_was_stopped_goes_on(
    copied: Callable[..., Path], start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = copied(DECODER, "models", "seen.txt", "unseen.txt")
    order = {
        "name": "mine", "projection": DECODER, "model": str(own / "models" / DECODER),
        "methods": ["random"], "refits": ["none"], "sparsities": "0.3", "n_seeds": 1,
        "n_sequences": 64, "calibration": "seen.txt", "evaluation": "unseen.txt",
    }  # fmt: skip
    commands: list[list[str]] = []

    def popen(command: list[str], **_: Any) -> psutil.Process:
        commands.append(command)
        return psutil.Process()

    monkeypatch.setattr(subprocess, "Popen", popen)
    write_job(own, "mine", is_stopping=True, order=order)
    write_job(own, "gone", is_stopping=True, order=order | {"name": "gone", "projection": "gone"})
    at = start(own, "pruning", projection=DECODER).run()
    at.button(key="resume gone").click().run()
    (error,) = errors(at)
    assert "There is no projection 'gone'" in error
    at.button(key="resume mine").click().run()
    assert errors(at) == []
    (command,) = commands
    assert "--resume" in command
    assert command[command.index("--out") + 1] == str(own / "mine")
    assert [each.key for each in at.button if each.label == "Stop"] == ["stop mine"]


# Projections that lack something.


@pytest.mark.parametrize("page", PAGES)
def test_a_projection_without_statistics_says_what_it_lacks(
    page: str, copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER, "models")
    (own / DECODER / "statistics.safetensors").unlink()
    prompt = store(Prompt("kalo mi", 2), prompt_folder())
    at = start(
        own, page, projection=DECODER, layer=1, site="mlp_post", neuron=NEURON, prompt=prompt
    ).run()
    expected = 1 if page in ("neuron", "heatmap") else 0
    assert len(errors(at)) == expected
    if expected:
        assert "without statistics" in errors(at)[0]
    if page == "map":
        for color in ("mean", "importance"):
            at.selectbox(key="map colour").select(color).run()
            (error,) = errors(at)
            assert "without statistics" in error
        at.selectbox(key="map colour").select("dead").run()
        assert errors(at) == []
    if page == "poles":
        assert at.metric[0].value.isdecimal()
        at.selectbox(key="pole space").select("correlation").run()
        (error,) = errors(at)
        assert "without statistics" in error


def test_dead_and_broken_neurons_are_told(
    copied: Callable[..., Path], start: Open, checkpoint: Callable[[str], Path], text_file: Path
) -> None:
    own = copied("models")
    folder = own / "models" / DECODER
    model = build(DECODER)
    with torch.no_grad():
        up = model.model.layers[1].mlp.up_proj.weight
        up[5] = 0
        up[9] = torch.inf
        model.model.layers[1].mlp.down_proj.weight[:, 9] = 0
    model.save_pretrained(folder)
    fit(folder, text_file, own / DECODER, "--sites", "mlp_post")
    figures = Projection.load(own / DECODER).figures(1, "mlp_post")
    assert figures["dead_neurons"] == [5]
    assert list(figures["nonfinite_neurons"]) == ["9"]
    for neuron, says in ((5, "dead"), (9, "not finite")):
        params = {"projection": DECODER, "layer": 1, "site": "mlp_post", "neuron": neuron}
        at = start(own, "neuron", **params).run()
        assert errors(at) == []
        (warning,) = at.warning
        assert says in warning.value
    at = start(own, "map", projection=DECODER, layer=1, site="mlp_post").run()
    at.selectbox(key="map colour").select("dead").run()
    assert errors(at) == []
    values = decoded(maps_of(at)[0]["panels"][0]["values"], np.uint8, 40)
    assert np.flatnonzero(values == 0).tolist() == [5, 9]


def test_a_layer_in_which_nothing_varies_is_told(
    copied: Callable[..., Path], start: Open, text_file: Path
) -> None:
    own = copied("models")
    folder = own / "models" / DECODER
    model = build(DECODER)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.zero_()
    model.save_pretrained(folder)
    fit(folder, text_file, own / DECODER, "--sites", "mlp_post")
    for page in PAGES:
        params = {"projection": DECODER, "layer": 1, "site": "mlp_post", "neuron": NEURON}
        at = start(own, page, **params).run()
        assert len(errors(at)) == (page == "heatmap"), page
        if page == "heatmap":
            assert "No neuron of this layer varies" in errors(at)[0]


@pytest.mark.parametrize(
    "options", [("--dim", "1"), ("--dim", "2"), ("--objective", "linear"), ("--absolute",)]
)
def test_maps_of_every_form_are_shown(
    options: tuple[str, ...], copied: Callable[..., Path], start: Open, text_file: Path
) -> None:
    own = copied("models")
    fit(own / "models" / DECODER, text_file, own / DECODER, "--sites", "mlp_post", *options)
    for page in ("map", "poles", "heatmap"):
        at = start(own, page, projection=DECODER, layer=1, site="mlp_post", neuron=NEURON).run()
        assert errors(at) == []
    at = start(own, "map", projection=DECODER, layer=1, site="mlp_post").run()
    (found,) = maps_of(at)
    points = decoded(found["panels"][0]["positions"], np.float32, 40, 3)
    expected = Projection.load(own / DECODER).positions(1, "mlp_post").numpy()
    n = min(3, expected.shape[1])
    np.testing.assert_array_equal(points[:, :n], expected[:, :n])
    assert not points[:, n:].any()
    assert np.abs(points).max() <= found["extent"] + 1e-6


def test_positions_trained_elsewhere_are_shown(
    copied: Callable[..., Path], start: Open, tmp_path: Path
) -> None:
    own = copied("models")
    tensors = {
        f"model.layers.{layer}.{part}.neuron_projections": torch.randn(24, 3)
        for layer in range(2)
        for part in ("mlp", "self_attn")
    }
    save_file(tensors, tmp_path / "positions.safetensors")
    model = own / "models" / DECODER
    import_checkpoint(tmp_path / "positions.safetensors", str(model)).save(own / "imported")
    prompt = store(Prompt("kalo mi", 2), prompt_folder())
    for page in PAGES:
        at = start(own, page, projection="imported", neuron=NEURON, prompt=prompt).run()
        expected = 1 if page in ("neuron", "heatmap") else 0
        assert len(errors(at)) == expected, page
        assert all("without statistics" in error for error in errors(at))


def damaged(name: str) -> Callable[[Path], object]:
    """What is done to a projection."""

    def edited(**changes: Change) -> Callable[[Path], object]:
        return lambda folder: edit(folder, **changes)

    positions = "layouts/stress-3d.safetensors"
    return {
        "not JSON": lambda folder: (folder / FACTS_FILE).write_text("{"),
        "cut short": lambda folder: (folder / FACTS_FILE).write_bytes(
            (folder / FACTS_FILE).read_bytes()[:-20]
        ),
        "other facts": lambda folder: (folder / FACTS_FILE).write_text(
            (folder / FACTS_FILE).read_text() + " "
        ),
        "no positions": lambda folder: (folder / positions).unlink(),
        "cut positions": lambda folder: (folder / positions).write_bytes(
            (folder / positions).read_bytes()[:-9]
        ),
        "no model": edited(facts=lambda facts: facts.update(model=None)),
        "no hash": edited(facts=lambda facts: facts["model"].pop("sha256")),
        "no maps": edited(facts=lambda facts: facts.update(layers=[])),
        "odd corpus": edited(facts=lambda facts: facts.update(corpus={"source": 3})),
        "no objective": edited(layout=lambda layout: layout["settings"].pop("objective")),
        "odd neurons": edited(
            facts=lambda facts: facts["maps"]["layers.1.mlp_post"].update(dead_neurons=None)
        ),
    }[name]


@pytest.mark.parametrize(
    "what",
    ["not JSON", "cut short", "other facts", "no positions", "cut positions", "no model",
     "no hash", "no maps", "odd corpus", "no objective", "odd neurons"],
)  # fmt: skip
def test_a_damaged_projection_is_said_and_another_can_be_chosen(
    what: str, copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER, GPT2)
    damaged(what)(own / DECODER)
    at = start(own, "map", projection=DECODER, layer=1, site="mlp_post").run()
    (error,) = errors(at)
    assert "damaged" in error or "does not belong" in error
    # It is no empty folder.
    assert [each.value for each in at.title] == []
    assert not [each for each in at.button if each.key == "fit now"]
    at.sidebar.selectbox(key="choose projection").select(GPT2).run()
    assert errors(at) == []
    assert "Layer" in at.title[0].value


@pytest.mark.parametrize("page", PAGES)
def test_a_projection_of_another_model_says_so(
    page: str, root: Path, start: Open, tokenizer: Any, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    build(DECODER, seed=1).save_pretrained(other)
    tokenizer.save_pretrained(other)
    prompt = store(Prompt("kalo mi", 2), prompt_folder())
    params = {"projection": DECODER, "layer": 1, "site": "mlp_post", "neuron": NEURON}
    at = start(root, page, "--model", str(other), prompt=prompt, **params).run()
    # Pages that need no model go on without one.
    asks = {"neuron": 1, "prompt": 1}
    assert len(errors(at)) == asks.get(page, 0)
    if page == "map":
        at.selectbox(key="map colour").select("importance").run()
    for error in errors(at):
        assert "is not the one of this projection: its weights are" in error
    if page in ("map", "neuron", "prompt"):
        assert len(errors(at)) == 1
        # The right one can be chosen at the side.
        at.sidebar.selectbox(key="choose model").select(f"models/{DECODER}").run()
        assert errors(at) == []


def test_a_model_that_is_not_there_is_said(copied: Callable[..., Path], start: Open) -> None:
    own = copied(DECODER)
    prompt = store(Prompt("kalo mi", 2), prompt_folder())
    at = start(own, "prompt", "--model", "no/such", projection=DECODER, prompt=prompt).run()
    (error,) = errors(at)
    assert "no/such" in error


# Where there is nothing yet.


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_root_says_what_to_do(page: str, tmp_path: Path, start: Open) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    at = start(empty, page, layer=3, prompt="0" * 16).run()
    assert errors(at) == []
    assert at.title[0].value == "No projection yet"
    assert "projector fit" in at.code[0].value
    assert at.button(key="fit now").label == "Fit the bundled model now"


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
    assert Projection.load(root / "demo").facts.corpus.n_tokens == 2000


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
    folders_with.clear()
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
        (["--root", "nowhere"], "--root 'nowhere' is no folder"),
        (["--colour"], "Unrecognized arguments"),
    ],
)
def test_a_mistake_at_the_start_is_said(
    arguments: list[str], says: str, tmp_path: Path, start: Open
) -> None:
    (error,) = errors(start(tmp_path, "map", *arguments).run())
    assert says in error


def test_the_map_is_drawn_before_its_poles_are_found(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[View] = []
    monkeypatch.setattr(map_view, "neuron_map", lambda view, **_: drawn.append(view))
    loading._poles.clear()
    at = open_page("map", grouping=GROUPING)
    assert errors(at) == []
    before, after = (view.panels[0].legend for view in drawn)
    assert before is not None
    assert after is not None
    assert before.items == (("not known yet", 0),)
    assert after.items is not None
    assert after.items[0][0].startswith("pole 0")


def test_a_wide_layer_s_poles_are_found_apart(
    start: Open, copied: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "MOST_AT_ONCE", 10)
    root = copied(DECODER)
    at = start(root, "map", projection=DECODER, grouping=GROUPING).run()
    assert errors(at) == []
    # In no pole: a share, and not the sign for what is not known.
    assert at.metric[-1].value.endswith("%")
    assert (root / DECODER / POLES_FILE).exists()


def test_a_prompt_that_was_stopped_is_not_run_again_by_itself(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    whole = prompt_view.run_prompt
    monkeypatch.setattr(prompt_view, "run_prompt", lambda *a, **k: ran.append(1) or whole(*a, **k))
    prompt = store(Prompt("kalo mi", 2), prompt_folder())
    at = open_page("heatmap", prompt=prompt)
    # As the button does that stands beside the progress.
    at.session_state["stopped prompt"] = prompt
    at._page_hash = calc_hash("prompt")
    at.run()
    assert ran == []
    (error,) = errors(at)
    assert "press Run" in error
    click(at, "Run").run()
    assert errors(at) == []
    assert ran == [1]


def test_a_table_is_of_the_poles_that_are_shown(
    open_page: Open, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    made = []
    monkeypatch.setattr(
        map_view.exports, "neuron_table", lambda *given: made.append(given[-1]) or pa.table({})
    )
    offered = []
    monkeypatch.setattr(
        map_view.st, "download_button", lambda label, make, *a, **k: offered.append(make)
    )
    open_page("map", grouping=GROUPING)
    # Without a session, as downloads are made.
    offered[-3]()
    expected = find_poles(
        Projection.load(root / DECODER),
        1,
        "mlp_post",
        PoleSettings("correlation", 2, None, "leaf", 0.0),
    )
    assert torch.equal(made[-1].labels, expected.labels)


def test_statistics_that_went_away_are_one_message(
    start: Open, copied: Callable[..., Path]
) -> None:
    root = copied(DECODER)
    at = start(root, "map", projection=DECODER, layer=0).run()
    (root / DECODER / STATISTICS_FILE).unlink()
    at.sidebar.select_slider(key="choose layer").set_value(1).run()
    assert any("can't be read any more" in error for error in errors(at))


@pytest.mark.parametrize(
    ("field", "value"), [("sparsity", None), ("perplexity", "9"), ("seed", 1.5)]
)
def test_a_report_s_rows_are_of_the_right_kinds(
    field: str, value: object, start: Open, copied: Callable[..., Path]
) -> None:
    root = copied(DECODER)
    row = {
        **{"method": "flap", "refit": "none", "sparsity": 0.2, "seed": 0, "evaluation": "x"},
        **{"windows": "sample", "perplexity": 9.0, "bits_per_byte": 1.0, "n_tokens": 9},
        **{"parameters": 5, "removed_share": 0.1, "seconds": 1.0},
    }
    (root / "report").mkdir()
    content = {
        "format": "transformer-pruning-report",
        "format_version": 1,
        "rows": [row | {field: value}],
    }
    content |= {"settings": {}, "model": {}}
    (root / "report" / "report.json").write_text(json.dumps(content), encoding="utf-8")
    at = start(root, "pruning", projection=DECODER).run()
    (error,) = errors(at)
    assert "is damaged" in error
