"""Makes docs/tour.gif, the README's moving picture, from a dashboard that runs.

Run `make demo`, then `make dashboard`, then in another terminal:

    .venv/bin/python docs/pictures.py http://localhost:8501

Chromium has to be installed (`make browser`). The program searches for a word, opens the strongest
pole that fires on it, finds one of its neurons on the map, and steps through a prompt. Each frame
is the page as it is; only the pointer, which no screenshot shows, is drawn on top.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from playwright.sync_api import Locator, Page, sync_playwright
from scipy import ndimage
from scipy.spatial import cKDTree

OUT = Path(__file__).parent / "tour.gif"
WIDTH, HEIGHT = 1150, 800
# Screenshots are twice as wide as the picture, which has 1000 pixels.
SCALE = 2 * 1000 / WIDTH
WORD = "self"
PROMPT = "def push(self, item):\n    self.items.append(item)"
# Of the first pole on the map.
POLE = (230, 81, 11)
POINTER = [(0, 0), (0, 17), (4, 13), (7, 19), (10, 18), (7, 12), (12, 12)]


class Film:
    """Frames of a page and how long each is shown, with the pointer on top.

    Attributes:
        frames: half the size of the screenshots.
        milliseconds: one number a frame.
        pointer: where it is, in pixels of the page.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frames: list[Image.Image] = []
        self.milliseconds: list[int] = []
        self.pointer = (WIDTH * 0.55, HEIGHT * 0.75)
        self._seen = self._shoot()

    def _shoot(self) -> Image.Image:
        return Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")

    def _add(self, milliseconds: int) -> None:
        frame = self._seen.copy()
        left, top = self.pointer
        corners = [((left + x) * SCALE, (top + y) * SCALE) for x, y in POINTER]
        ImageDraw.Draw(frame).polygon(corners, fill="black", outline="white", width=2)
        self.frames.append(
            frame.resize((frame.width // 2, frame.height // 2), Image.Resampling.BOX)
        )
        self.milliseconds.append(milliseconds)

    def show(self, milliseconds: int) -> None:
        """The page as it is now."""
        self._seen = self._shoot()
        self._add(milliseconds)

    def rest(self, milliseconds: int) -> None:
        """The page once the app has answered and two screenshots are equal."""
        page = self.page
        for _ in range(60):
            page.wait_for_timeout(400)
            page.locator("[data-test-script-state=notRunning]").first.wait_for(timeout=120_000)
            before, self._seen = self._seen, self._shoot()
            if before.tobytes() == self._seen.tobytes():
                break
        self._add(milliseconds)

    def glide(self, x: float, y: float, n_frames: int = 4) -> None:
        """Move the pointer there."""
        from_x, from_y = self.pointer
        for k in range(1, n_frames + 1):
            part = k / n_frames
            part = part * part * (3 - 2 * part)
            self.pointer = (from_x + (x - from_x) * part, from_y + (y - from_y) * part)
            self._add(50)
        self.page.mouse.move(x, y)

    def click(self, place: Locator) -> None:
        """Move the pointer to an element and click."""
        self.glide(*_middle(place))
        self.page.mouse.click(*self.pointer)

    def dots(
        self, color: tuple[int, int, int], place: Locator, *, look: bool = False
    ) -> list[tuple[float, float]]:
        """The middles of what has a colour in part of the page, the largest first.

        Args:
            look: whether the page changed since its last frame.
        """
        if look:
            self._seen = self._shoot()
        box = place.bounding_box()
        assert box is not None
        left, top = int(box["x"] * SCALE), int(box["y"] * SCALE)
        part = np.asarray(self._seen, np.int16)[top : top + int(box["height"] * SCALE)]
        part = part[:, left : left + int(box["width"] * SCALE)]
        labels, _ = ndimage.label(np.abs(part - np.array(color)).max(-1) < 24)
        areas = ndimage.find_objects(labels)
        sizes = np.bincount(labels.ravel())[1:]
        # A frame around a name is as wide as it is hollow.
        filled = sizes / [labels[area].size for area in areas]
        order = [k for k in np.argsort(-sizes, kind="stable") if sizes[k] > 20 and filled[k] > 0.4]
        middles = ndimage.center_of_mass(labels > 0, labels, [k + 1 for k in order])
        return [((left + x) / SCALE, (top + y) / SCALE) for y, x in middles]

    def save(self, path: Path) -> None:
        """One palette for all frames, so that what doesn't change isn't stored again."""
        colors = _palette(self.frames)
        tree = cKDTree(colors)

        def reduce(frame: Image.Image) -> Image.Image:
            found, places = np.unique(np.asarray(frame).reshape(-1, 3), axis=0, return_inverse=True)
            cells = tree.query(found)[1].astype(np.uint8)[places.ravel()]
            reduced = Image.frombytes("P", frame.size, cells.tobytes())
            reduced.putpalette(colors.astype(np.uint8).tobytes())
            return reduced

        first, *others = map(reduce, self.frames)
        first.save(path, save_all=True, append_images=others, duration=self.milliseconds, loop=0)


def _middle(place: Locator) -> tuple[float, float]:
    """Of an element; of a wide one, a place near its left end."""
    box = place.bounding_box()
    assert box is not None
    return box["x"] + min(box["width"] / 2, 60), box["y"] + box["height"] / 2


def _palette(frames: list[Image.Image]) -> np.ndarray:
    """Frequent colours that are far from each other, (256, 3): large areas keep theirs."""
    colors, counts = np.unique(
        np.concatenate([np.asarray(each).reshape(-1, 3) for each in frames[::4]]),
        axis=0,
        return_counts=True,
    )
    colors = colors.astype(np.float64)
    chosen = [int(counts.argmax())]
    distance = np.full(len(colors), np.inf)
    while len(chosen) < 256:
        distance = np.minimum(distance, ((colors - colors[chosen[-1]]) ** 2).sum(-1))
        chosen.append(int((distance * np.sqrt(counts)).argmax()))
    return colors[chosen]


def prepare(page: Page, url: str) -> None:
    """Run the prompt, so that its page shows it when the tour gets there."""
    page.goto(f"{url}/prompt")
    field = page.get_by_role("textbox", name="Prompt", exact=True)
    field.wait_for(timeout=120_000)
    field.fill(PROMPT)
    field.press("Tab")
    n_new = page.get_by_role("spinbutton", name="Tokens to add")
    n_new.fill("0")
    n_new.press("Tab")
    page.wait_for_timeout(2000)
    page.get_by_role("button", name="Run").click()
    page.locator(".neuron-map[data-points]").wait_for(timeout=120_000)
    page.get_by_test_id("stSidebar").get_by_role("link", name="Overview", exact=True).click()
    page.get_by_text("Poles that stand out most").wait_for(timeout=120_000)


def tour(page: Page, url: str) -> Film:
    """From a word to a group, to a neuron, to a prompt."""
    prepare(page, url)
    side = page.get_by_test_id("stSidebar")
    film = Film(page)
    film.rest(700)

    search = side.get_by_role("textbox", name="Search")
    film.click(search)
    for letter in WORD:
        page.keyboard.type(letter)
        film.show(120)
    page.keyboard.press("Enter")
    result = side.locator("a").filter(has_text=re.compile(rf"pole \d+ · {WORD}")).first
    result.wait_for(timeout=120_000)
    film.rest(800)
    film.click(result)
    page.get_by_role("heading", name="Poles in").wait_for(timeout=120_000)
    film.rest(900)

    film.click(side.get_by_role("link", name="Map", exact=True))
    page.locator(".neuron-map[data-points]").wait_for(timeout=120_000)
    film.rest(500)
    stage = page.locator(".neuron-map .overlay")
    film.glide(*film.dots(POLE, stage)[0])
    page.keyboard.down("Control")
    for _ in range(6):
        page.mouse.wheel(0, -29)
        page.wait_for_timeout(250)
        film.show(80)
    page.keyboard.up("Control")
    film.glide(*_neuron(film, stage), 3)
    page.wait_for_timeout(500)
    film.show(500)
    page.mouse.click(*film.pointer)
    page.get_by_text("10 most correlated").wait_for(timeout=120_000)
    film.rest(500)
    film.click(
        page.locator(".neuron-map [role=button]").filter(has_text=re.compile(r"^N\d+")).first
    )
    film.rest(600)

    film.click(side.get_by_role("link", name="Neuron", exact=True))
    page.get_by_text("Top activating text").wait_for(timeout=120_000)
    film.rest(1500)

    film.click(side.get_by_role("link", name="Prompt", exact=True))
    page.locator(".neuron-map[data-points]").wait_for(timeout=120_000)
    film.rest(300)
    # At the margin: a map that the wheel passes explains how to zoom.
    page.mouse.move(WIDTH - 12, HEIGHT * 0.5)
    for _ in range(6):
        page.mouse.wheel(0, 70)
        page.wait_for_timeout(300)
        film.show(60)
    slider = page.locator(".neuron-map input[type=range]")
    film.glide(*_middle(slider))
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Home")
    film.rest(300)
    for _ in range(int(slider.get_attribute("max") or 0)):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(250)
        film.show(100)
    film.rest(1000)
    return film


def _neuron(film: Film, stage: Locator) -> tuple[float, float]:
    """Where a neuron of the pole is that fires on the word, of those the one that varies most."""
    tip = film.page.locator(".neuron-map .tip")
    # Away from the dots: what is pointed at is explained on top of them.
    film.page.mouse.move(film.pointer[0] + 150, film.pointer[1] - 200)
    film.page.wait_for_timeout(800)
    places = film.dots(POLE, stage, look=True)
    found = {}
    for x, y in places:
        film.page.mouse.move(x, y)
        film.page.wait_for_timeout(500)
        text = tip.inner_text() if tip.is_visible() else ""
        variance = re.search(r"variance ([\d.]+)", text)
        found[x, y] = (WORD in text.splitlines(), float(variance[1]) if variance else 0)
    return max(places, key=found.__getitem__)


def main() -> None:
    url = sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://localhost:8501"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=[
                "--no-sandbox",
                "--use-gl=angle",
                "--use-angle=swiftshader",
                "--enable-unsafe-swiftshader",
            ],
        )
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT},
            device_scale_factor=SCALE,
            color_scheme="light",
        )
        film = tour(page, url)
        film.save(OUT)
        browser.close()
    print(f"{OUT}: {len(film.frames)} frames, {sum(film.milliseconds) / 1000:.1f} s")


if __name__ == "__main__":
    main()
