"""The page Change of basis: a matrix is dragged, planes are played, saved, and drawn of a model."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from projector.figures.basis.page import plane_data
from projector.figures.basis.script import plane_script, plane_style
from projector.model.loading import load_model
from projector.residual.basis.maps import read_map
from projector.residual.basis.planes import view_matrix
from projector.residual.subject import Subject
from tests.dashboard.browser.app import App, Watch, choose, params, rest, run_prompt, until, visit
from tests.dashboard.browser.conftest import EVIL_TOKEN

# Points at places of the picture, a row below another, until another point is chosen.
_POINT_ABOUT = """(canvas) => {
  const box = canvas.getBoundingClientRect();
  const root = canvas.closest(".plane");
  const first = root.dataset.chosen;
  for (let y = 0; y < box.height && root.dataset.chosen === first; y += 8)
    for (let x = 0; x < box.width && root.dataset.chosen === first; x += 8)
      canvas.dispatchEvent(
        new PointerEvent("pointermove", { clientX: box.left + x, clientY: box.top + y }));
}"""


def _state(place: Page | Locator) -> dict[str, str]:
    found: dict[str, str] = place.locator(".plane").first.evaluate("e => ({ ...e.dataset })")
    return found


def _matrix(page: Page) -> np.ndarray:
    return np.array(json.loads(_state(page)["matrix"]))


def _facts(page: Page) -> dict[str, list[float]]:
    """What the page says beside the picture: numbers by their names."""
    lines = page.locator(".plane .facts > div").evaluate_all(
        "all => all.map((line) => [...line.children].map((e) => e.textContent))"
    )
    return {
        name: [float(n.replace("−", "-")) for n in re.findall(r"−?\d+\.?\d*", text)]
        for name, text in lines
    }


def _save(page: Page, button: Locator, folder: Path) -> Path:
    with page.expect_download() as waiting:
        button.click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_a_matrix_is_dragged_played_and_saved(
    page: Page, app: App, browser: Browser, tmp_path: Path
) -> None:
    page.goto(app.link("basis"))
    expect(page.locator(".plane canvas")).to_be_visible()
    rest(page)
    before = _matrix(page)
    tip = page.locator(".plane .handle.first")
    box, stage = tip.bounding_box(), page.locator(".plane canvas").bounding_box()
    assert box is not None
    assert stage is not None
    page.mouse.move(box["x"] + 13, box["y"] + 13)
    page.mouse.down()
    page.mouse.move(stage["x"] + 0.62 * stage["width"], stage["y"] + 0.7 * stage["height"], steps=3)
    page.mouse.up()
    rest(page)
    matrix = _matrix(page)
    # The first column follows the tip, downwards here, and the second stays.
    assert matrix[1, 0] < 0 < matrix[0, 0]
    assert (matrix[:, 1] == before[:, 1]).all()
    facts = _facts(page)
    assert abs(facts["Determinant"][0] - np.linalg.det(matrix)) < 0.006
    np.testing.assert_allclose(facts["Singular values"], np.linalg.svd(matrix)[1], atol=0.006)
    tip.press("ArrowUp")
    until(lambda: abs(_matrix(page)[1, 0] - matrix[1, 0] - 0.1) < 1e-6)
    field = page.get_by_role("spinbutton", name="Row 2, column 2")
    for wrong in ("", "50"):
        held = _matrix(page)[1, 1]
        field.fill(wrong)
        page.keyboard.press("Tab")
        expect(page.get_by_text("Give a number from −9 to 9.")).to_be_visible()
        assert _matrix(page)[1, 1] == held
        assert float(field.input_value()) == held
    field.fill("-2")
    page.keyboard.press("Tab")
    until(lambda: _matrix(page)[1, 1] == -2)
    expect(page.get_by_text("Give a number from −9 to 9.")).to_be_hidden()
    rest(page)
    # It plays, and the keys stop it and move it.
    slider = page.get_by_role("slider", name="From before to after")
    page.get_by_role("button", name="Play").click()
    until(lambda: 0 < float(_state(page)["t"]) < 1)
    slider.press(" ")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    slider.fill("0.4")
    slider.press("ArrowRight")
    assert _state(page)["t"] == "0.450"
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")
    assert _state(page)["t"] == "0.350"
    # What a ReLU keeps of the cloud, which does not change.
    page.get_by_text("ReLU after the matrix").click()
    points = np.random.default_rng(0).standard_normal((60, 2)) + np.array((0.3, 0.1))
    after = points @ _matrix(page).T
    shares = [100 * (p > 0).all(1).mean() for p in (points, after)]
    facts = _facts(page)
    for when, share in zip(("before", "after"), shares, strict=True):
        assert abs(facts[f"Points in the positive orthant {when}"][0] - share) < 0.6
    slider.fill("2")
    assert _state(page)["t"] == "2.000"
    picture = _save(page, page.get_by_role("button", name="Save as PNG"), tmp_path).read_bytes()
    colours = Image.open(io.BytesIO(picture)).convert("RGB").getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 50
    # It is kept while another page is looked at.
    matrix = _matrix(page)
    visit(page, "Lens")
    visit(page, "Change of basis")
    expect(page.locator(".plane canvas")).to_be_visible()
    assert (_matrix(page) == matrix).all()
    path = _save(page, page.get_by_role("button", name="HTML"), tmp_path)
    alone, watch = browser.new_page(reduced_motion="reduce", color_scheme="dark"), Watch()
    watch.follow(alone, "file://")
    alone.goto(path.as_uri())
    assert (_matrix(alone) == matrix).all()
    # Who wants no motion sees the end at once.
    alone.get_by_role("button", name="Play").click()
    assert _state(alone)["t"] == "1.000"
    alone.locator(".plane .handle.second").press("ArrowUp")
    assert abs(_matrix(alone)[1, 1] - matrix[1, 1] - 0.1) < 1e-6
    assert watch.problems == []
    alone.close()


def test_an_answer_of_the_server_does_not_take_a_matrix_back(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content(f"<style>{plane_style()}</style><div id='root'></div>")
    # As the component does it: what was dragged is told, and comes back with the page's next run.
    page.evaluate(
        """async ([script, data]) => {
          const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
          const { mount } = await import(url);
          window.sent = [];
          window.show = (matrix) =>
            mount(document.getElementById("root"), { ...data, matrix }, (_, m) =>
              window.sent.push(m.map((row) => [...row])));
          window.show(data.matrix);
        }""",
        [plane_script(), plane_data(view_matrix(((1.0, 0.5), (0.0, 1.0)), [(1.0, 2.0)]))],
    )
    tip = page.locator(".handle.first")
    tip.press("ArrowRight")
    page.wait_for_timeout(550)
    until(lambda: page.evaluate("window.sent") == [[[1.1, 0.5], [0, 1]]])
    for _ in range(3):
        tip.press("ArrowRight")
    page.evaluate("void window.show(window.sent[0])")
    assert _matrix(page).tolist() == [[1.4, 0.5], [0, 1]]
    expect(tip).to_be_focused()
    until(lambda: page.evaluate("window.sent.at(-1)") == [[1.4, 0.5], [0, 1]])
    # Also while a tip is held: it is the same one that the pointer goes on with.
    box = tip.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 13, box["y"] + 13)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 13)
    page.evaluate("void window.show(window.sent.at(-1))")
    held = _matrix(page)[0, 0]
    page.mouse.move(box["x"] + 90, box["y"] + 13)
    page.mouse.up()
    assert 1.4 < held < _matrix(page)[0, 0]
    assert page.evaluate("window.sent.at(-1)") == _matrix(page).tolist()
    page.close()


def test_planes_of_the_model_follow_the_prompt(
    page: Page, app: App, browser: Browser, tmp_path: Path
) -> None:
    page.goto(app.link("basis", layer=1))
    rest(page)
    choose(page, "Matrix", "W_O: from the heads' values to the attention output")
    expect(page.get_by_role("heading", name="Layer 1 · W_O")).to_be_visible()
    loaded = load_model(str(app.root / "models" / "decoder"), device="cpu", with_head=True)
    values = np.linalg.svd(read_map(Subject(loaded), 1, "W_O").left.numpy())[1]
    shown = _facts(page)["Top singular values"]
    np.testing.assert_allclose(shown, values[: len(shown)], atol=0.006)
    run_prompt(page, f"kalo {EVIL_TOKEN} mi tenra", n_new=0)
    until(lambda: int(_state(page)["points"]) > 4)
    rest(page)
    page.get_by_text("Attention", exact=True).click()
    rest(page)
    expect(page.get_by_role("heading", name="L1 H0 on the prompt")).to_be_visible()
    choose(page, "Head", "head 1")
    assert params(page)["head"] == "1"
    expect(page.get_by_role("heading", name="L1 H1 on the prompt")).to_be_visible()
    page.get_by_role("combobox", name="Token").click()
    page.get_by_role("option", name=re.compile("^2 ‘")).click()
    until(lambda: _state(page)["chosen"] == "1")
    rest(page)
    path = _save(page, page.get_by_role("button", name="HTML"), tmp_path)
    alone, watch = browser.new_page(), Watch()
    watch.follow(alone, "file://")
    alone.goto(path.as_uri())
    # The mixture of the same token is drawn, then that of the point that is pointed at.
    assert _state(alone)["chosen"] == "1"
    expect(alone.locator(".pattern .said")).to_contain_text("Token 2 “")
    alone.locator(".plane canvas").evaluate(_POINT_ABOUT)
    assert _state(alone)["chosen"] != "1"
    expect(alone.get_by_text(EVIL_TOKEN).first).to_be_visible()
    assert watch.problems == []
    alone.close()
    page.get_by_text("Skip connection", exact=True).click()
    rest(page)
    facts = _facts(page)
    assert {"Length: x", "Length: added by head 1", "Length: their sum"} <= set(facts)
    page.get_by_text("What a ReLU keeps", exact=True).click()
    rest(page)
    expect(page.locator(".plane canvas")).to_have_count(2)
    # What is saved of this part opens with its ReLU, as the part does.
    path = _save(page, page.get_by_role("button", name="HTML").first, tmp_path)
    alone = browser.new_page()
    alone.goto(path.as_uri())
    expect(alone.get_by_role("checkbox", name="ReLU after the matrix")).to_be_checked()
    alone.close()
    page.get_by_role("gridcell").nth(1).click()
    until(lambda: "token" in params(page))
