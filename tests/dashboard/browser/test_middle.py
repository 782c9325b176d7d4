"""Maps that lie beside 0: drawn about the middle of their points."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from dashboard.components.neuron_map import Panel, View, standalone_html
from dashboard.drawing import palette
from tests.dashboard.browser.app import camera, until, wait_for_map

COLOR = 1
N = 60


def show(browser: Browser, folder: Path, dim: int, away: tuple[float, float, float]) -> Page:
    points = np.random.default_rng(0).uniform(-3, 3, (N, 3))
    points[:, dim:] = 0
    points -= points.mean(axis=0)
    values = np.full(N, COLOR, dtype=np.uint8)
    moved = (points + away).astype(np.float32)
    view = View([Panel("", "L0", moved, values)], dim)
    path = folder / "map.html"
    path.write_text(standalone_html(view, "Map"), encoding="utf-8")
    page = browser.new_page(color_scheme="light")
    page.goto(path.as_uri())
    wait_for_map(page)
    return page


def painted(page: Page) -> np.ndarray:
    """Where points are on the screen, (height, width) bool."""
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    return np.abs(pixels - palette.groups()[COLOR]).sum(axis=2) < 12  # type: ignore[no-any-return]


@pytest.mark.parametrize(("dim", "away"), [(2, (6.5, 1.5, 0.0)), (3, (6.5, 1.5, -20.0))])
def test_where_a_map_lies_does_not_move_its_points(
    dim: int, away: tuple[float, float, float], browser: Browser, tmp_path: Path
) -> None:
    centred = show(browser, tmp_path, dim, (0.0, 0.0, 0.0))
    moved = show(browser, tmp_path, dim, away)
    expected, found = painted(centred), painted(moved)
    assert expected.sum() > 1000
    # But for rounding at the rims.
    assert (expected != found).sum() < 0.02 * expected.sum()
    centred.close()
    moved.close()


def test_arrow_keys_move_a_flat_map(browser: Browser, tmp_path: Path) -> None:
    page = show(browser, tmp_path, 2, (0.0, 0.0, 0.0))
    start = camera(page)
    page.locator(".neuron-map .overlay").press("ArrowRight")
    until(lambda: camera(page)["x"] > start["x"])
    assert camera(page)["yaw"] == start["yaw"]
    page.close()
