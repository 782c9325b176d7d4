"""The renderer's moving points, alone on a page, also on a device that was lost."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from projector.figures.renderer.script import script

# Three frames of four points: the first moves to the right, the second is born in frame 1, the
# third has no position in frame 2, the fourth stays below.
_PAGE = """<!doctype html><body style="margin:0"><canvas width="400" height="400"></canvas>
<script type="module">
%s
%s
const none = NaN;
const positions = new Float32Array([
  -1, 0, 0,   0, 0, 0,   0, 1, 0,         0, -1, 0,
   0, 0, 0,   0.5, 0.5, 0,   0, 1, 0,     0, -1, 0,
   1, 0, 0,   0.5, 0.5, 0,   none, none, none,   0, -1, 0,
]);
const made = (canvas) => {
  const found = new Moving(canvas, () => { window.nRedrawn += 1; paint(window.last); });
  found.show({
    nFrames: 3, nPoints: 4, positions, born: new Int16Array([0, 1, 0, 0]),
    lines: {
      k: 1,
      neighbours: new Int32Array([2, -1, 0, 2, 3, 3, 3, 2, -1, -1, -1, -1]),
      distances: new Float32Array(12).map((_, i) => i),
    },
    pairs: new Int32Array([0, 3]),
  });
  // Each point in a colour of its own.
  const palette = between([[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]]);
  found.colors(new Uint8Array([0, 85, 170, 255]), palette);
  return found;
};
window.nRedrawn = 0;
const camera = new Camera();
camera.show("test", "", 2);
const moving = made(document.querySelector("canvas"));
const box = { left: 0, width: 400, height: 400, isFlat: true };
box.matrix = camera.matrix({ middle: [0, 0, 0], reach: [1, 1, 1] }, box, false);
const paint = (options) => {
  window.last = options;
  moving.paint({ box, colors: { page: "white", mark: "magenta" }, ratio: 1, ...options });
};
// The colour that a point is drawn in at its place, and what is drawn at all.
const shownNow = () => {
  const other = document.createElement("canvas");
  other.width = other.height = 400;
  const pen = other.getContext("2d");
  pen.drawImage(moving.canvas, 0, 0);
  return pen.getImageData(0, 0, 400, 400).data;
};
const seen = (options) => {
  paint(options);
  const all = shownNow();
  const found = [0, 1, 2, 3].map((i) => {
    const at = moving.placeOf(i, options.at, box);
    if (!at) return null;
    const first = 4 * (400 * Math.round(at.y) + Math.round(at.x));
    return { x: Math.round(at.x), y: Math.round(at.y), color: [...all.slice(first, first + 3)] };
  });
  let n = 0;
  for (let i = 3; i < all.length; i += 4) if (all[i]) n += 1;
  return { points: found, n, nCalls: moving.nCalls, gl: Boolean(moving.gl) };
};
const lose = () => moving.gl.getExtension("WEBGL_lose_context");
Object.assign(window, { moving, seen, paint, lose, Player, ready: true });
</script></body>"""
_WITHOUT = """
const own = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
  return kind === "webgl2" ? null : own.call(this, kind, ...more);
};"""
_BARE = {"hasLines": False, "hasPairs": False}


@pytest.fixture(scope="module")
def pages(browser: Browser) -> Iterator[list[Page]]:
    """The page with WebGL, and the same without it."""
    text = _PAGE % (script("moving.js"), script("player.js"))
    found, problems = [], list[str]()
    for start in ("", _WITHOUT):
        page = browser.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.add_init_script(start)
        page.goto("about:blank")
        page.set_content(text)
        page.wait_for_function("window.ready", timeout=20_000)
        found.append(page)
    yield found
    for page in found:
        page.close()
    assert problems == []


def seen(page: Page, at: float, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("seen", {"at": at, **_BARE, **options})
    return found


@pytest.mark.parametrize("is_plain", [False, True])
def test_points_move_between_frames_and_are_there_when_they_are(
    pages: list[Page], is_plain: bool
) -> None:
    page = pages[is_plain]
    first, half, last = (seen(page, at) for at in (0, 0.5, 2))
    assert first["gl"] is not is_plain
    # From the left to the middle: half way it is half way, in its own colour.
    x = [each["points"][0]["x"] for each in (first, half, last)]
    assert x == pytest.approx([30, 115, 370], abs=1)
    assert [each["points"][0]["color"] for each in (first, half, last)] == [[255, 0, 0]] * 3
    # The second comes into being on the way to its frame, where it will be.
    assert first["points"][1] is None
    assert half["points"][1]["x"] == pytest.approx(285, abs=1)
    assert half["points"][1]["color"] == [0, 255, 0]
    # The third has no place in the end.
    assert half["points"][2]["color"] == [0, 0, 255]
    assert last["points"][2] is None
    assert seen(page, 1.5)["points"][2] is None
    assert half["points"][3]["color"] == [0, 0, 0]
    # What is hidden is not drawn, and is not picked.
    page.evaluate("moving.emphasis(new Uint8Array([255, 0, 0, 0]))")
    alone = seen(page, 0.5)
    page.evaluate("moving.emphasis(new Uint8Array([255, 255, 255, 255]))")
    assert alone["points"][1:] == [None] * 3
    assert 0 < alone["n"] < half["n"] / 2


@pytest.mark.parametrize("is_plain", [False, True])
def test_lines_pairs_and_trails_are_drawn_in_few_calls(pages: list[Page], is_plain: bool) -> None:
    page = pages[is_plain]
    bare = seen(page, 1)
    lines = seen(page, 1, hasLines=True)
    pairs = seen(page, 1, hasPairs=True)
    trails = seen(page, 1, trails=2)
    # In frame 1 lines lead from the first to the third and on to the fourth, and from the second to
    # the fourth: about 170, 340 and 270 pixels, less what points cover.
    # A plain canvas draws soft edges, two pixels wide.
    wide = 2 if is_plain else 1
    assert 500 < lines["n"] - bare["n"] < 900 * wide
    assert 100 < pairs["n"] - bare["n"] < 250 * wide
    # The first point came from the left; at the start nothing has come from anywhere.
    assert 100 < trails["n"] - bare["n"] < 250 * wide
    assert seen(page, 0, trails=2)["n"] == seen(page, 0)["n"]
    # No line leads to a point without a position.
    assert seen(page, 2, hasLines=True)["n"] == seen(page, 2)["n"]
    everything = seen(page, 1.5, hasLines=True, hasPairs=True, trails=2)
    assert everything["nCalls"] == (0 if is_plain else 4)


def test_a_device_that_was_lost_draws_the_same_again(pages: list[Page]) -> None:
    page = pages[0]
    before = seen(page, 0.5, hasLines=True, hasPairs=True, trails=2)
    page.evaluate("window.losing = lose(); losing.loseContext()")
    page.wait_for_function("moving.device.gl.isContextLost()")
    page.evaluate("paint({ at: 0.5, hasLines: true, hasPairs: true, trails: 2 })")
    page.evaluate("losing.restoreContext()")
    page.wait_for_function("window.nRedrawn > 0")
    assert seen(page, 0.5, hasLines=True, hasPairs=True, trails=2) == before


def test_time_runs_in_a_loop_and_rests_on_whole_frames(pages: list[Page]) -> None:
    page = pages[0]
    found = page.evaluate(
        """async () => {
          const told = [];
          const times = [];
          const player = new Player({
            nFrames: 3, redraw: () => times.push(player.at), tell: (frame) => told.push(frame),
          });
          player.pace = 0.02;
          player.play();
          await new Promise((done) => setTimeout(done, 600));
          player.scrub(1.4);
          const scrubbed = [player.at, player.playing];
          player.goTo(1.4);
          player.step(1);
          player.step(1);
          player.step(-1);
          const rested = player.at;
          await new Promise((done) => setTimeout(done, 400));
          player.destroy();
          return { times, told, scrubbed, rested };
        }"""
    )
    times = found["times"]
    assert any(later < earlier for earlier, later in pairwise(times))
    assert max(times) == 2
    assert any(time % 1 for time in times)
    assert found["scrubbed"] == [1.4, False]
    # Over the end and back; told once, where it came to rest.
    assert found["rested"] == 2
    assert found["told"] == [2]
