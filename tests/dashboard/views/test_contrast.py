"""The Contrast page: sets are run, a saved report is shown, wrong input is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.contrast.orders import ContrastOrder
from dashboard.frame.contrast import running
from projector.figures.contrast.panels import panels
from projector.figures.report import JSON_FILE
from tests.dashboard.conftest import DECODER, ENCODER, Open
from tests.dashboard.pages import SCRIPT, click, errors, link
from tests.projector.figures.contrast.made import made

Ordered = list[ContrastOrder]


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> Ordered:
    """What was asked for; every run gives a report made by hand."""
    found: Ordered = []

    def run(subject: Any, order: ContrastOrder, progress: Any) -> dict[str, Any]:
        progress.begin("Reading prompts", 2, "prompts")
        progress.advance(2)
        found.append(order)
        return made(DECODER, n_layers=2)

    monkeypatch.setattr(running, "run_order", run)
    return found


def _figures(at: AppTest) -> list[dict[str, Any]]:
    return [json.loads(each.proto.spec) for each in at.get("plotly_chart")]  # type: ignore[union-attr]


def _text(at: AppTest) -> str:
    return " ".join(each.value for each in (*at.markdown, *at.caption)).replace("\\", "")


def test_a_pair_is_run_and_kept_for_the_session(open_page: Open, ordered: Ordered) -> None:
    at = open_page("contrast")
    assert errors(at) == []
    assert "Press Run" in at.info[0].value
    at.selectbox(key="contrast pair").select("negation").run()
    at.segmented_control(key="contrast at").set_value("mean").run()
    at.checkbox(key="contrast outliers").check().run()
    click(at, "Run")
    assert errors(at) == []
    assert ordered == [ContrastOrder(pair="negation", at="mean", keep_outliers=True)]
    # Panels, growth, sharing, samples and the direction, each with its controls and its caption.
    figures = _figures(at)
    assert len(figures) == 5
    expected = json.loads(panels(made(DECODER, n_layers=2), layer=1).to_json())
    assert [each["name"] for each in figures[0]["data"]] == [
        each["name"] for each in expected["data"]
    ]
    assert [shape["x0"] for shape in figures[0]["layout"]["shapes"]] == [1, 1, 1]
    for words in (
        "At every place its whole interval is below what permuted labels give",
        "Successive layers do not share directions.",
        "are larger than that of every random direction",
        "on the embedding alone on 70 %",
    ):
        assert words in _text(at)
    assert [each.proto.label for each in at.get("download_button")] == ["HTML", "JSON", "CSV"]  # type: ignore[union-attr]
    # Another layer is marked without another run; and nothing is run when the page is seen again.
    at.sidebar.select_slider(key="choose layer").set_value(0).run()
    assert [shape["x0"] for shape in _figures(at)[0]["layout"]["shapes"]] == [0, 0, 0]
    assert len(ordered) == 1
    # A result is of its model.
    at.sidebar.selectbox(key="choose projection").select(ENCODER).run()
    assert errors(at) == []
    assert not _figures(at)
    assert any("encoder" in each.value for each in at.caption)
    click(at, "Run")
    assert ordered[-1] == ContrastOrder(pair="negation", at="mean", keep_outliers=True)


def test_own_prompts_are_run_and_what_is_wrong_is_one_line(
    open_page: Open, ordered: Ordered
) -> None:
    at = open_page("contrast")
    at.segmented_control(key="contrast source").set_value("own").run()
    click(at, "Run")
    (error,) = errors(at)
    assert error.startswith("Set A 'Set A.txt' holds no prompt")
    assert not ordered
    first, second = ("\n".join(f"{word} {k}" for k in range(10)) for word in (SCRIPT, "b"))
    at.text_area(key="contrast positive").set_value(first)
    at.text_area(key="contrast negative").set_value(second)
    click(at, "Run")
    assert errors(at) == []
    order = ordered[-1]
    assert order.pair is None
    assert order.positive is not None
    assert order.negative is not None
    assert (order.positive.text, order.negative.text) == (first, second)
    assert len(_figures(at)) == 5
    # What can't be run leaves what was there.
    at.text_area(key="contrast negative").set_value(f"{second}\n{first}")
    click(at, "Run")
    (error,) = errors(at)
    assert "10 that are in both sets" in error
    assert len(_figures(at)) == 5


def test_a_saved_report_is_shown_and_others_are_not_offered(
    copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER, "models")
    for name, content in (
        ("parted", made(SCRIPT, "two", positive=SCRIPT)),
        ("lens", {"model": "x", "summaries": []}),
    ):
        (own / name).mkdir()
        (own / name / JSON_FILE).write_text(json.dumps(content), encoding="utf-8")
    (own / "broken").mkdir()
    (own / "broken" / JSON_FILE).write_text("{", encoding="utf-8")
    at = start(own, "contrast", projection=DECODER, layer=1, site="mlp_post").run()
    at.segmented_control(key="contrast source").set_value("saved").run()
    assert errors(at) == []
    assert at.selectbox(key="contrast report").options == ["parted"]
    # Panels and growth of both models, and three figures of each.
    assert len(_figures(at)) == 2 + 2 * 3
    assert SCRIPT not in json.dumps(_figures(at))
    assert link(at)["layer"] == "1"
