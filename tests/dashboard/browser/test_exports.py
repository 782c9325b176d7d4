"""What can be taken away: tables, pages and pictures that hold what was on the screen."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from projector.projection.projection import Projection
from pruning.poles.finding import find_poles
from tests.dashboard.browser.app import (
    App,
    Watch,
    drawn,
    heading,
    rest,
    run_prompt,
    the_map,
    until,
    visit,
    wait_for_map,
)
from tests.families import N_NEURONS


def _save(page: Page, button: Locator, folder: Path) -> Path:
    with page.expect_download() as waiting:
        button.click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def _button(page: Page, name: str) -> Locator:
    return page.get_by_test_id("stDownloadButton").get_by_role("button", name=name)


def test_positions_and_poles_are_saved_as_tables(
    page: Page, app: App, tmp_path: Path, projection: Projection
) -> None:
    page.goto(app.link(layer=1))
    wait_for_map(page)
    # Points first, their poles after.
    expect(the_map(page)).to_contain_text("in no pole")
    rest(page)
    parquet = pyarrow.parquet.read_table(_save(page, _button(page, "Parquet"), tmp_path))
    csv = pyarrow.csv.read_csv(_save(page, _button(page, "CSV"), tmp_path))
    positions = projection.positions(1, "mlp_post").numpy()
    poles = find_poles(projection, 1, "mlp_post").labels.numpy()
    for table in (parquet, csv):
        assert table.num_rows == N_NEURONS
        found = np.stack([table[f"position_{k}"].to_numpy() for k in (1, 2, 3)], axis=1)
        np.testing.assert_allclose(found, positions, rtol=1e-6)
        assert (table["pole"].to_numpy() == poles).all()


def _open_alone(browser: Browser, path: Path) -> tuple[Page, Watch]:
    """A saved page, where there is no network."""
    page = browser.new_page()
    watch = Watch()
    watch.follow(page, "file://")
    page.goto(path.as_uri())
    return page, watch


def test_the_map_is_saved_as_a_page_of_its_own(
    page: Page, app: App, browser: Browser, tmp_path: Path
) -> None:
    page.goto(app.link(neuron=3))
    wait_for_map(page)
    # Points first, their poles after.
    expect(the_map(page)).to_contain_text("in no pole")
    rest(page)
    path = _save(page, _button(page, "HTML"), tmp_path)
    shown = drawn(page)["shown"]
    alone, watch = _open_alone(browser, path)
    state = wait_for_map(alone)
    assert state["shown"] == shown
    assert int(state["points"]) == N_NEURONS
    assert watch.problems == []
    alone.close()


def test_a_prompt_is_saved_with_its_tokens(
    page: Page, app: App, browser: Browser, tmp_path: Path
) -> None:
    page.goto(app.link("prompt"))
    rest(page)
    text = "kalo </script><script>alert(1)</script> mi"
    run_prompt(page, text, n_new=0)
    shown = wait_for_map(page)["shown"]
    rest(page)
    alone, watch = _open_alone(browser, _save(page, _button(page, "HTML"), tmp_path))
    assert wait_for_map(alone)["shown"] == shown
    assert text in "".join(alone.locator(".neuron-map .token").all_inner_texts())
    # It opens on the last token, as the page did.
    last = alone.locator(".neuron-map .token").count() - 1
    assert drawn(alone)["token"] == str(last)
    alone.keyboard.press("Home")
    until(lambda: drawn(alone)["token"] == "0")
    alone.keyboard.press("ArrowRight")
    until(lambda: drawn(alone)["token"] == "1")
    alone.keyboard.press(" ")
    until(lambda: int(drawn(alone)["token"]) > 2)
    assert watch.problems == []
    alone.close()


def test_the_map_is_saved_as_a_picture_and_tables_of_names_that_tell(
    page: Page, app: App, tmp_path: Path
) -> None:
    names = set()
    for layer in (0, 1):
        page.goto(app.link(layer=layer))
        wait_for_map(page)
        rest(page)
        names.add(_save(page, _button(page, "CSV"), tmp_path).name)
        path = _save(page, page.get_by_role("button", name="Save as PNG"), tmp_path)
        names.add(path.name)
    assert len(names) == 4
    # A download runs nothing again.
    before = drawn(page)["drawn"]
    _save(page, _button(page, "CSV"), tmp_path)
    page.wait_for_timeout(500)
    assert drawn(page)["drawn"] == before
    assert path.suffix == ".png"
    picture = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
    box = page.locator(".neuron-map .stage").bounding_box()
    assert box is not None
    assert abs(picture.width - box["width"]) < 4
    # Points in the colours of poles, and not the page alone.
    colors = picture.getcolors(1 << 20)
    assert colors is not None
    assert len(colors) > 50


def test_figures_are_saved_as_pages_and_pictures(
    page: Page, app: App, browser: Browser, tmp_path: Path
) -> None:
    page.goto(app.link("prompt"))
    for path, title in (
        ("heatmap", "Correlations in layer 0: MLP neurons"),
        ("poles", "Poles in layer 0: MLP neurons"),
        ("pruning", "What pruning costs"),
    ):
        visit(page, path.capitalize())
        expect(heading(page)).to_have_text(title)
        plot = page.locator(".js-plotly-plot").last
        expect(plot).to_be_visible()
        rest(page)
        saved = _save(page, _button(page, "HTML").last, tmp_path)
        alone, watch = _open_alone(browser, saved)
        expect(alone.locator(".js-plotly-plot .main-svg").first).to_be_visible()
        assert watch.problems == []
        alone.close()
        plot.hover()
        picture = _save(page, plot.locator("[data-title*=PNG]"), tmp_path)
        assert picture.read_bytes().startswith(b"\x89PNG")
