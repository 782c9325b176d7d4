"""Measure the dashboard's speed in headless Chromium: ``python -m benchmarks.dashboard``.

Models of random weights and projections of random positions are made up, the real app is started
on them, and the browser's own clock tells when what was asked for is on the screen: the second
animation frame after the map was drawn. Drawing is done by the CPU, so that the figures are those
of a machine without a GPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from playwright.sync_api import Browser, Locator, Page, sync_playwright
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from benchmarks.results import describe_machine, write_results
from projector import bundled
from projector.layouts.settings import Layout
from projector.model.architecture.finding import find_architecture
from projector.model.loading import load_model
from projector.projection.facts import Facts, MapFacts
from projector.projection.faithfulness import FIGURES, Faithfulness, PlacementFigures
from projector.projection.projection import PlacedLayout, Projection
from projector.projection.provenance import layout_settings, model_facts, versions
from projector.sites import map_name

# The bundled model's number of neurons, for which the targets are.
SIZES = (768, 5_000, 20_000)
N_LAYERS = 30
SITE = "mlp_post"
PROMPT = "def mean(values):\n    return sum(values) / len(values)\n\n" * 4
N_TOKENS_PLAYED = 40
_REPOSITORY = Path(__file__).parents[1]
_FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
# Watches the map: when a key or button was pressed, and when the picture has changed.
_WATCH = """
window.pressedAt = 0;
window.seen = [];
const now = () => performance.timeOrigin + performance.now();
for (const kind of ["keydown", "pointerdown"])
  document.addEventListener(kind, () => (window.pressedAt = now()), true);
window.follow = (map) => {
  new MutationObserver(() => {
    const { shown, token } = map.dataset;
    requestAnimationFrame(() => requestAnimationFrame(() => {
      window.seen.push({ shown, token, at: now() });
    }));
  }).observe(map, { attributes: true, attributeFilter: ["data-painted-at"] });
};
"""


@dataclass(frozen=True)
class Measurement:
    """One row of the table: the median, and all values."""

    what: str
    n_neurons: int
    unit: str
    target: str
    is_met: bool
    median: float
    values: list[float]


def make_projection(folder: Path, n_neurons: int) -> None:
    """A model of random weights at ``folder/model``, and random positions at ``folder/random``."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(Path(bundled.__file__).parent)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=n_neurons,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    loaded = load_model(str(folder / "model"), device="cpu")
    layout = Layout(dim=3)
    reasons = dict.fromkeys(FIGURES, "it is made up")
    figures = PlacementFigures(Faithfulness(dict.fromkeys(FIGURES), reasons))
    names = [map_name(layer, SITE) for layer in range(N_LAYERS)]
    facts = Facts(
        model=model_facts(loaded, find_architecture(loaded.model)),
        corpus=None,
        sites=(SITE,),
        layers=tuple(range(N_LAYERS)),
        left_out_sites={},
        correlation="pooled",
        maps=dict.fromkeys(names, MapFacts(n_neurons, 0, ())),
        versions=versions(),
    )
    # A ball, as maps of little structure are.
    positions = {}
    for name in names:
        directions = torch.nn.functional.normalize(torch.randn(n_neurons, 3), dim=1)
        positions[name] = 0.7 * directions * torch.rand(n_neurons, 1) ** (1 / 3)
    placed = PlacedLayout(
        layout_settings(layout), dict.fromkeys(names, figures), versions(), positions
    )
    Projection(facts, {layout.name: placed}).save(folder / "random")


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Start the app on a folder from :func:`make_projection`, and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"TRANSFORMER_PROJECTOR_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "streamlit", "run", "dashboard", "--server.port", str(port)]
    command += [
        "--",
        "--projection",
        str(folder / "random"),
        "--model",
        str(folder / "model"),
        "--no-poles",
    ]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=_REPOSITORY, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    url = f"http://localhost:{port}"
    try:
        _until(lambda: _is_up(url))
        yield url
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


def _until(find: Callable[[], Any], seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := find()):
        if time.monotonic() > end:
            raise TimeoutError("the page did not show what was asked for")
        time.sleep(0.02)
    return found


def _drawn(page: Page) -> dict[str, str]:
    found: dict[str, str] = page.locator(".neuron-map").evaluate("e => ({ ...e.dataset })")
    return found


def _has_points(page: Page) -> bool:
    maps = page.locator(".neuron-map")
    return maps.count() > 0 and int(_drawn(page).get("points", 0)) > 0


def _open(browser: Browser, address: str) -> Page:
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.add_init_script(_WATCH)
    page.goto(address)
    _until(lambda: _has_points(page))
    page.locator(".neuron-map").evaluate("e => window.follow(e)")
    page.wait_for_timeout(1500)
    return page


def _seconds_until(page: Page, name: str, before: str) -> float:
    """Seconds from the press to the first picture in which ``name`` differs from ``before``."""
    script = (
        "([name, before]) => { const found = window.seen.find((s) => s[name] !== before);"
        " return found ? found.at - window.pressedAt : null; }"
    )
    found = _until(lambda: page.evaluate(script, [name, before]))
    return float(found) / 1000


def _press(page: Page, target: Locator, key: str, name: str) -> float:
    before = _drawn(page)[name]
    page.evaluate("window.seen = []")
    target.press(key)
    seconds = _seconds_until(page, name, before)
    # Each begins at rest.
    page.wait_for_timeout(600)
    _until(lambda: page.locator("[data-test-script-state=notRunning]").count() > 0)
    return seconds


def time_first_screen(browser: Browser, folder: Path, n_times: int) -> list[float]:
    """Seconds from the command to the map, each time with a new server and browser page."""
    found = []
    for _ in range(n_times):
        began = time.monotonic()
        with serve(folder) as url:
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            page.goto(f"{url}/map")
            _until(lambda page=page: _has_points(page))
            found.append(time.monotonic() - began)
            page.close()
    return found


def time_page(browser: Browser, url: str, n_times: int) -> list[float]:
    """Seconds from opening the address of a running app to the map."""
    found = []
    for _ in range(n_times):
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        began = time.monotonic()
        page.goto(f"{url}/map")
        _until(lambda page=page: _has_points(page))
        found.append(time.monotonic() - began)
        page.close()
    return found


def time_layers(browser: Browser, url: str, n_times: int) -> tuple[list[float], list[float]]:
    """Seconds to switch to another layer: a layer not seen before, and a layer seen before."""
    page = _open(browser, f"{url}/map")
    slider = page.get_by_role("slider", name="Layer")
    first = [_press(page, slider, "ArrowRight", "shown") for _ in range(9)]
    again = [
        _press(page, slider, "ArrowLeft" if k % 2 == 0 else "ArrowRight", "shown")
        for k in range(n_times)
    ]
    page.close()
    return first, again


def time_overview(browser: Browser, url: str, n_times: int) -> list[float]:
    """Seconds from a click on Overview, in a running app, to all small maps."""
    found = []
    page = _open(browser, f"{url}/map")
    menu = page.get_by_test_id("stSidebar")
    grid = page.locator(".map-grid[data-drawn]")
    for _ in range(n_times):
        began = time.monotonic()
        menu.get_by_role("link", name="Overview", exact=True).click()
        _until(lambda: grid.count() > 0)
        found.append(time.monotonic() - began)
        menu.get_by_role("link", name="Map", exact=True).click()
        _until(lambda: _has_points(page))
        page.wait_for_timeout(1500)
    page.close()
    return found


def open_prompt(browser: Browser, url: str) -> Page:
    """Open the page of a prompt that has run."""
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.add_init_script(_WATCH)
    page.goto(f"{url}/prompt")
    page.get_by_role("textbox", name="Prompt", exact=True).fill(PROMPT)
    page.get_by_role("spinbutton", name="Tokens to add").fill("0")
    page.get_by_role("button", name="Run", exact=True).click()
    _until(lambda: _has_points(page))
    page.locator(".neuron-map").evaluate("e => window.follow(e)")
    page.wait_for_timeout(1500)
    return page


def time_tokens(page: Page, n_times: int) -> list[float]:
    """Seconds to the next token, from the first token on; the page opens on the last."""
    overlay = page.locator(".neuron-map .overlay")
    overlay.press("Home")
    _until(lambda: _drawn(page)["token"] == "0")
    page.wait_for_timeout(600)
    return [_press(page, overlay, "ArrowRight", "token") for _ in range(n_times)]


def time_playback(page: Page, n_times: int, rate: int = 30) -> list[float]:
    """Tokens per second that are drawn, for a requested ``rate``."""
    found = []
    page.get_by_label("Tokens per second").select_option(str(rate))
    for _ in range(n_times):
        overlay = page.locator(".neuron-map .overlay")
        overlay.press("Home")
        page.wait_for_timeout(1000)
        page.evaluate("window.seen = []")
        overlay.press(" ")
        _until(lambda: int(_drawn(page)["token"]) >= N_TOKENS_PLAYED)
        overlay.press(" ")
        # The first picture of each token.
        times = page.evaluate(
            "() => { const first = new Map(); for (const s of window.seen)"
            " if (!first.has(s.token)) first.set(s.token, s.at); return [...first.values()]; }"
        )
        found.append((len(times) - 1) / (times[-1] - times[0]) * 1000)
        page.wait_for_timeout(600)
    return found


def measure(browser: Browser, n_neurons: int, n_times: int) -> list[Measurement]:
    """All measurements for one size."""
    within = 0.3 if n_neurons <= 5_000 else 1.0
    found = []

    def add(
        what: str, unit: str, target: float, values: list[float], *, at_least: bool = False
    ) -> None:
        median = statistics.median(values)
        is_met = median >= target if at_least else median <= target
        sign = "≥" if at_least else "≤"
        found.append(
            Measurement(what, n_neurons, unit, f"{sign} {target:g}", is_met, median, values)
        )
        print(f"  {what}: {median:.3g} {unit}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_projection(folder, n_neurons)
        add("first screen, from the command", "s", 5.0, time_first_screen(browser, folder, n_times))
        with serve(folder) as url:
            add("first screen of a running app", "s", 5.0, time_page(browser, url, n_times))
            first, again = time_layers(browser, url, n_times)
            add("a layer not seen before", "s", within, first)
            add("a layer seen before", "s", within, again)
            add("Overview, from the click", "s", 2.0, time_overview(browser, url, n_times))
            page = open_prompt(browser, url)
            add("another token", "s", within, time_tokens(page, n_times))
            add("playback", "tokens/s", 20.0, time_playback(page, n_times), at_least=True)
            page.close()
    return found


def table(rows: Sequence[Measurement]) -> str:
    """The table as Markdown."""
    lines = [
        "| neurons | what | median | least to most | target |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        low, high = min(row.values), max(row.values)
        mark = "" if row.is_met else ", missed"
        lines.append(
            f"| {row.n_neurons:,} | {row.what} | {row.median:.3g} {row.unit} "
            f"| {low:.3g}–{high:.3g} | {row.target} {row.unit}{mark} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write everything as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="Repetitions of each measurement.")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="Neurons.")
    out = Path("runs/benchmarks/dashboard.json")
    parser.add_argument("--out", type=Path, default=out, help="JSON file to write.")
    given = parser.parse_args(arguments)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("error: no Chromium: `make browser` installs it", file=sys.stderr)
        return 2
    rows: list[Measurement] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_FLAGS))
        machine = {**describe_machine(), "chromium": browser.version}
        for n_neurons in given.sizes:
            print(f"{n_neurons:,} neurons", file=sys.stderr, flush=True)
            rows += measure(browser, n_neurons, given.repeats)
        browser.close()
    print(table(rows))
    write_results(given.out, machine, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
