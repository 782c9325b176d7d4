"""The real app in a process of its own, and what tests do with its pages."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

from playwright.sync_api import ConsoleMessage, Locator, Page, WebSocket, expect

REPOSITORY = Path(__file__).parents[3]
PAGES = (
    "overview",
    "map",
    "neuron",
    "prompt",
    "lens",
    "heads",
    "layer-time",
    "contrast",
    "basis",
    "heatmap",
    "across",
    "poles",
    "pruning",
)
# In the menu, where that is not the path with a capital.
NAMES = {"basis": "Change of basis", "across": "Across layers"}
# What a slow machine with other work may take; a page that is right is far faster.
PATIENCE_S = 30.0

expect.set_options(timeout=PATIENCE_S * 1000)
T = TypeVar("T")


@dataclass(frozen=True)
class App:
    """A running app: where it is, whose folders it shows, and what it said."""

    url: str
    root: Path
    log: Path
    pid: int

    def link(self, page: str = "map", **params: object) -> str:
        return f"{self.url}/{page}?{urlencode({k: str(v) for k, v in params.items()})}".rstrip("?")


@contextmanager
def serve(root: Path, folder: Path, *arguments: str) -> Iterator[App]:
    """``streamlit run dashboard`` on a free port, ended in any case.

    Args:
        root: what it may read.
        folder: for its log and its cache.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log.txt"
    environment = os.environ | {
        "TRANSFORMER_PROJECTOR_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        # Its modules, wherever the tests are run from.
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "-m", "streamlit", "run", "dashboard", "--server.port", str(port)]
    command += [
        "--server.fileWatcherType",
        "none",
        # After each run it would walk through all that PyTorch and Transformers hold.
        "--runner.postScriptGC",
        "false",
        "--",
        "--root",
        str(root),
        "--no-poles",
        *arguments,
    ]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        app = App(f"http://localhost:{port}", root, log, process.pid)
        until(lambda: process.poll() is not None or _is_up(app.url))
        assert process.poll() is None, log.read_text(encoding="utf-8")
        yield app
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@dataclass
class Watch:
    """What must not happen on a page, and what it sent to the server."""

    problems: list[str] = field(default_factory=list)
    n_sent: int = 0

    def follow(self, page: Page, url: str) -> None:
        host = urlsplit(url).netloc

        def at_dialog(dialog: Any) -> None:
            self.problems.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        def at_socket(opened: WebSocket) -> None:
            opened.on("framesent", lambda _: self._count())

        def at_request(request: Any) -> None:
            parts = urlsplit(request.url)
            if parts.scheme in ("http", "https") and parts.netloc != host:
                self.problems.append(f"request: {request.url}")

        page.on("pageerror", lambda error: self.problems.append(f"page error: {error}"))
        page.on("console", self._hear)
        page.on("dialog", at_dialog)
        page.on("websocket", at_socket)
        page.on("request", at_request)

    def _hear(self, said: ConsoleMessage) -> None:
        # Streamlit looks for its server below the page's own path first.
        is_search = "/_stcore/" in said.location["url"] and "404" in said.text
        if said.type == "error" and not is_search:
            self.problems.append(f"console: {said.text} ({said.location['url']})")

    def _count(self) -> None:
        self.n_sent += 1


def until(find: Callable[[], T], seconds: float = PATIENCE_S) -> T:
    """What ``find`` gives once that is true."""
    end = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)
    return found


def heading(page: Page) -> Locator:
    """The title of the page."""
    return page.locator("h1")


def rest(page: Page) -> None:
    """Wait until the app has answered: it neither runs nor is about to."""

    def is_at_rest() -> bool:
        page.wait_for_timeout(120)
        return page.locator("[data-test-script-state=notRunning]").count() > 0

    until(lambda: is_at_rest() and is_at_rest())


def params(page: Page) -> dict[str, str]:
    """What stands in the link."""
    # Asked of the page itself: what Playwright knows of it is brought up to date by its own calls.
    query = urlsplit(str(page.evaluate("location.href"))).query
    return {name: values[0] for name, values in parse_qs(query).items()}


def visit(page: Page, name: str) -> None:
    """By the menu, as users do."""
    page.get_by_test_id("stSidebar").get_by_role("link", name=name, exact=True).click()
    rest(page)


# The map.


def the_map(page: Page) -> Locator:
    return page.locator(".neuron-map")


def drawn(page: Page) -> dict[str, str]:
    """What the map says of the picture that is on the screen."""
    found: dict[str, str] = the_map(page).evaluate("e => ({ ...e.dataset })")
    return found


def camera(page: Page) -> dict[str, float]:
    found: dict[str, float] = json.loads(drawn(page)["camera"])
    return found


def wait_for_map(page: Page) -> dict[str, str]:
    """Until all its points are drawn."""
    expect(the_map(page)).to_be_visible(timeout=PATIENCE_S * 1000)
    return until(lambda: (state := drawn(page)) and int(state.get("points", 0)) > 0 and state)


def stage(page: Page) -> dict[str, float]:
    box = page.locator(".neuron-map .overlay").bounding_box()
    assert box is not None
    return {**box}


def turn(page: Page, across: float, down: float) -> None:
    """Drag the map."""
    page.locator(".neuron-map .stage").scroll_into_view_if_needed()
    box = stage(page)
    x, y = box["x"] + 60, box["y"] + box["height"] - 60
    before = drawn(page)["camera"]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + across / 2, y + down / 2)
    page.mouse.move(x + across, y + down)
    page.mouse.up()
    until(lambda: drawn(page)["camera"] != before)


def point_at_one(page: Page, panel: int = 0, n_panels: int = 1) -> tuple[float, float, list[str]]:
    """Point at places until there is a neuron: where, and what the map tells of it."""
    page.locator(".neuron-map .stage").scroll_into_view_if_needed()
    box, tip = stage(page), page.locator(".neuron-map .tip")
    width = box["width"] / n_panels
    for down in range(40, 75, 3):
        for across in range(35, 70, 2):
            x = box["x"] + panel * width + width * across / 100
            y = box["y"] + box["height"] * down / 100
            page.mouse.move(x, y)
            page.wait_for_timeout(30)
            if tip.is_visible():
                return x, y, tip.locator("div").all_inner_texts()
    raise AssertionError("no neuron was found under the pointer")


def pixels(page: Page, x: float, y: float, reach: int = 4) -> set[tuple[int, ...]]:
    """Colours about a place on the screen."""
    import io

    from PIL import Image

    clip = {"x": x - reach, "y": y - reach, "width": 2 * reach, "height": 2 * reach}
    picture = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
    return {picture.getpixel((i, j)) for i in range(picture.width) for j in range(picture.height)}


def choose(page: Page, label: str, option: str) -> None:
    """In a list to choose from."""
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option, exact=True).click()
    rest(page)


def run_prompt(page: Page, text: str, other: str | None = None, n_new: int | None = None) -> None:
    """Type a prompt, or two, and run it."""
    if other is not None:
        page.get_by_text("Compare with a second prompt").click()
        rest(page)
        page.get_by_role("textbox", name="Prompt B").fill(other)
        page.get_by_role("textbox", name="Prompt A").fill(text)
    else:
        page.get_by_role("textbox", name="Prompt", exact=True).fill(text)
    if n_new is not None:
        page.get_by_role("spinbutton", name="Tokens to add").fill(str(n_new))
    page.get_by_role("button", name="Run", exact=True).click()


def cells(table: Locator) -> list[str]:
    """What stands in a table, row by row, as screen readers have it: a little after the eye."""
    expect(table.locator("canvas [role=gridcell]").first).to_be_attached()
    return table.locator("canvas [role=gridcell]").all_text_contents()
