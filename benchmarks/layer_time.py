"""Measure how fast layer-time plays in headless Chromium: ``python -m benchmarks.layer_time``.

The offline page of made-up particles, with lines to their nearest neighbours, is opened in a
browser without a GPU. Its own clock tells when the first picture was on the screen and how many
pictures a second it draws while it plays. Processor time of all the browser's processes tells what
a picture costs, also while the machine has other work.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, sync_playwright
from sklearn.neighbors import NearestNeighbors

from benchmarks.results import describe_machine, write_results
from projector.figures.layer_time.page import write_layer_time_page

SIZES = (256, 1_024, 4_096)
N_FRAMES = 32
N_LINES = 5
# Further parts of the picture: the switches that are turned on.
SHOWN = {"points": (), "lines": ("lines",), "lines and trails": ("lines", "trails")}
TARGET_LOADED_S, TARGET_FPS = 2.0, 30.0
# As it starts by itself without a GPU: SwiftShader draws WebGL, and plain software the page around
# it. With --use-angle=swiftshader the whole page would go through SwiftShader too.
_FLAGS = ("--no-sandbox", "--enable-unsafe-swiftshader")
_PLAYED_MS = 3_000
# When the second animation frame after the first picture began, from the start of the navigation.
_SEEN = """
() => new Promise((done) => {
  const look = () => {
    const host = document.querySelector("#viewer").shadowRoot.querySelector(".layer-time");
    if (!(Number(host.dataset.painted) > 0)) return requestAnimationFrame(look);
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() / 1000)));
  };
  look();
})
"""
# How many pictures were drawn, and when.
_PAINTED = """
() => {
  const host = document.querySelector("#viewer").shadowRoot.querySelector(".layer-time");
  return [Number(host.dataset.painted), performance.now() / 1000];
}
"""
_RENDERER = """
() => {
  const gl = document.createElement("canvas").getContext("webgl2");
  if (!gl) return "no WebGL";
  const told = gl.getExtension("WEBGL_debug_renderer_info");
  return gl.getParameter(told ? told.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
}
"""


@dataclass(frozen=True)
class Measurement:
    """One row of the table: the median, and all values."""

    what: str
    n_particles: int
    n_frames: int
    unit: str
    target: str
    median: float
    values: list[float]


def make_layer_time(n_particles: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A report and tensors: a walk of 3-D Gaussians, each with its nearest in every frame."""
    rng = np.random.default_rng(0)
    shape = (N_FRAMES, n_particles, 3)
    positions = np.empty(shape, dtype=np.float32)
    positions[0] = rng.normal(size=shape[1:])
    for frame in range(1, N_FRAMES):
        positions[frame] = 0.97 * positions[frame - 1] + 0.24 * rng.normal(size=shape[1:])
    neighbours = np.empty((N_FRAMES, n_particles, N_LINES), dtype=np.int32)
    distances = np.empty(neighbours.shape, dtype=np.float32)
    for frame, points in enumerate(positions):
        found = NearestNeighbors(n_neighbors=N_LINES).fit(points).kneighbors()
        distances[frame], neighbours[frame] = found
    moved = np.zeros((N_FRAMES, n_particles), dtype=np.float32)
    moved[1:] = np.linalg.norm(np.diff(positions, axis=0), axis=-1)
    frames: list[dict[str, Any]] = [{"layer": None, "name": "embedding"}]
    frames += [{"layer": layer, "name": f"layer {layer}"} for layer in range(N_FRAMES - 1)]
    texts = [f" {i}" for i in range(n_particles)]
    tokens = [{"text": text, "made": False} for text in texts]
    report: dict[str, Any] = {
        "kind": "layer-time",
        "version": 1,
        "model": "made up",
        "settings": {"particles": "tokens", "reduction": "pca", "dim": 3},
        "prompts": [{"text": "".join(texts), "tokens": tokens}],
        "n_particles": n_particles,
        "n_layers": N_FRAMES - 1,
        "n_frames": N_FRAMES,
        "frames": frames,
        "parts": [],
        "fidelity": [],
        "displacement_correlation": None,
        "outliers": [],
        "first_difference": None,
        "causal_zeros": None,
        "shared": None,
        "predictions": None,
        "autoencoder": None,
        "notes": [],
        "reasons": {},
    }
    zeros = np.zeros(n_particles, dtype=np.int32)
    tensors = {
        "positions": positions,
        "norms": np.linalg.norm(positions, axis=-1).astype(np.float32),
        "displacements": moved,
        "neighbours": neighbours,
        "distances": distances,
        "born": zeros,
        "outlying": np.zeros(n_particles, dtype=bool),
        "owner_prompt": zeros,
        "owner_token": np.arange(n_particles, dtype=np.int32),
        "owner_part": zeros - 1,
        "partners": np.empty((0, 2), dtype=np.int32),
    }
    return report, tensors


def open_page(browser: Browser, path: Path) -> tuple[Page, float]:
    """Open the page; return it and the seconds until its first picture was on the screen."""
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_selector("#viewer")
    return page, float(page.evaluate(_SEEN))


def show(page: Page, names: Sequence[str]) -> None:
    """Turn the named switches on, and the others off."""
    for name in ("lines", "trails"):
        switch = page.locator(f"button[data-name={name}]")
        if (switch.get_attribute("aria-pressed") == "true") != (name in names):
            switch.click()


def processor_s() -> float:
    """Processor seconds of the browser's processes."""
    seconds = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds


def play(page: Page) -> tuple[float, float]:
    """Pictures per second while the page plays, and milliseconds of processor time per picture."""
    page.wait_for_timeout(500)
    worked = processor_s()
    n_before, began = page.evaluate(_PAINTED)
    page.wait_for_timeout(_PLAYED_MS)
    n_after, ended = page.evaluate(_PAINTED)
    n = n_after - n_before
    return n / (ended - began), 1000 * (processor_s() - worked) / max(n, 1)


def measure(browser: Browser, folder: Path, n_particles: int, n_times: int) -> list[Measurement]:
    """Seconds until the first picture, pictures per second while it plays, and the cost of each."""
    path = folder / f"{n_particles}.html"
    write_layer_time_page(*make_layer_time(n_particles), path)
    loaded: list[float] = []
    played: dict[str, list[tuple[float, float]]] = {what: [] for what in SHOWN}
    for _ in range(n_times):
        page, seconds = open_page(browser, path)
        loaded.append(seconds)
        for what, names in SHOWN.items():
            show(page, names)
            played[what].append(play(page))
        page.close()

    def row(what: str, unit: str, values: Sequence[float], target: str = "") -> Measurement:
        median = statistics.median(values)
        return Measurement(what, n_particles, N_FRAMES, unit, target, median, list(values))

    found = [row("first picture", "s", loaded, f"≤ {TARGET_LOADED_S:g}")]
    for what, both in played.items():
        rates, costs = zip(*both, strict=True)
        target = f"≥ {TARGET_FPS:g}" if what == "lines" else ""
        found.append(row(f"playing, {what}", "pictures/s", rates, target))
        found.append(row(f"playing, {what}", "ms of processor time a picture", costs))
    return found


def table(rows: Sequence[Measurement], machine: Mapping[str, Any]) -> str:
    """The rows as Markdown, below a line on the machine."""
    lines = [
        f"{machine['processor']}, {machine['n_cores']} cores, load {machine['load_at_start']:.1f}",
        f"Chromium {machine['chromium']}, {machine['renderer']}",
        "",
        "| particles × frames | what | median (least to most) | unit | target |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        spread = f"{row.median:.2f} ({min(row.values):.2f}–{max(row.values):.2f})"
        size = f"{row.n_particles:,} × {row.n_frames}"
        lines.append(f"| {size} | {row.what} | {spread} | {row.unit} | {row.target} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write everything as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layer_time", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="Repetitions of each measurement.")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="Particles.")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/benchmarks/layer_time.json"),
        help="JSON file to write.",
    )
    given = parser.parse_args(arguments)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("error: no Chromium: `make browser` installs it", file=sys.stderr)
        return 2
    rows: list[Measurement] = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_FLAGS))
        page = browser.new_page()
        machine = {
            **describe_machine(),
            "chromium": browser.version,
            "renderer": page.evaluate(_RENDERER),
        }
        page.close()
        for n_particles in given.sizes:
            print(f"{n_particles:,} particles", file=sys.stderr, flush=True)
            rows += measure(browser, Path(folder), n_particles, given.repeats)
        browser.close()
    print(table(rows, machine))
    write_results(given.out, machine, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
