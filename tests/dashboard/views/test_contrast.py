"""The Contrast page: sets are run, a saved report is shown, wrong input is one line a set."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.background import job as background
from dashboard.background.work import Request, Say, work
from dashboard.contrast.orders import ContrastOrder, Typed, sets_id
from dashboard.state.shelf import jobs, shelf
from projector.figures.contrast.sections import sections
from projector.figures.report import JSON_FILE
from projector.projection.projection import Projection
from tests.dashboard.conftest import DECODER, ENCODER, Open
from tests.dashboard.pages import SCRIPT, click, errors, link
from tests.projector.figures.contrast.made import made

Ordered = list[ContrastOrder]
PARTS = (
    "How the sets separate",
    "Why variance grows",
    "Shared directions",
    "Samples",
    "The direction",
)


def _lines(word: str, n: int = 12) -> str:
    return "\n".join(f"{word} {k}" for k in range(n))


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> Ordered:
    """What was asked for; every run gives a report made by hand, at once."""
    found: Ordered = []

    def follow(request: Request, hear: Say, is_stopped: threading.Event) -> None:
        assert isinstance(request.order, ContrastOrder)
        found.append(request.order)
        hear({"report": made(DECODER, n_layers=2)})

    monkeypatch.setattr(background, "follow_process", follow)
    return found


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets are compared in earnest, without the seconds that a process takes to begin."""
    monkeypatch.setattr(
        background,
        "follow_process",
        lambda request, hear, is_stopped: work(
            request, lambda record: hear(json.loads(json.dumps(record)))
        ),
    )


def _sha256(root: Path, name: str) -> str:
    found = Projection.load(root / name).facts.model.sha256
    assert found is not None
    return found


def _end(at: AppTest, sha256: str) -> AppTest:
    """The page as soon as what it runs is over."""
    job = jobs().running("contrast", sha256)
    assert job is None or job.wait(60)
    return at.run()


def _figures(at: AppTest) -> list[dict[str, Any]]:
    return [json.loads(each.proto.spec) for each in at.get("plotly_chart")]  # type: ignore[union-attr]


def _open_part(at: AppTest, title: str) -> list[dict[str, Any]]:
    at.session_state["contrast part"] = title
    return _figures(at.run())


def _fill(at: AppTest, positive: str, negative: str) -> None:
    at.text_area(key="contrast positive").set_value(positive)
    at.text_area(key="contrast negative").set_value(negative)


def test_a_pair_is_run_and_kept(open_page: Open, root: Path, ordered: Ordered) -> None:
    sha256 = _sha256(root, DECODER)
    at = open_page("contrast")
    assert errors(at) == []
    assert "Press Run" in at.info[0].value
    at.selectbox(key="contrast pair").select("negation").run()
    at.segmented_control(key="contrast at").set_value("mean").run()
    at.checkbox(key="contrast outliers").check().run()
    _end(click(at, "Run"), sha256)
    assert errors(at) == []
    assert ordered == [ContrastOrder(pair="negation", at="mean", keep_outliers=True)]
    # Its parts one at a time, each with the chosen layer in grey and words for who can't see it.
    expected = sections(made(DECODER, n_layers=2), layer=1)
    assert [each.label for each in at.tabs] == [each.title for each in expected] == list(PARTS)
    for part in expected:
        (figure,) = _open_part(at, part.title)
        assert part.figure is not None
        drawn = json.loads(part.figure.to_json())
        assert [each.get("name") for each in figure["data"]] == [
            each.get("name") for each in drawn["data"]
        ]
        (chart,) = at.get("plotly_chart")
        assert part.found in chart.proto.alt  # type: ignore[union-attr]
        is_said = any(
            "layer 1" in each.value and "at the left" in each.value for each in at.caption
        )
        assert is_said == (part.axis is not None and bool(part.figure.layout.shapes))
    assert [each.proto.label for each in at.get("download_button")] == ["HTML", "JSON", "CSV"]  # type: ignore[union-attr]
    # Another layer is marked without another run, and the part that was open stays open.
    _open_part(at, PARTS[0])
    at.sidebar.select_slider(key="choose layer").set_value(0).run()
    assert [shape["x0"] for shape in _figures(at)[0]["layout"]["shapes"]] == [0, 0, 0]
    assert len(ordered) == 1
    # A result is of its model.
    at.sidebar.selectbox(key="choose projection").select(ENCODER).run()
    assert errors(at) == []
    assert not _figures(at)
    assert any("encoder" in each.value for each in at.caption)
    _end(click(at, "Run"), _sha256(root, ENCODER))
    assert ordered[-1] == ContrastOrder(pair="negation", at="mean", keep_outliers=True)


def test_what_differs_from_the_fields_says_so_and_a_link_brings_it_back(
    open_page: Open, root: Path, ordered: Ordered
) -> None:
    sha256 = _sha256(root, DECODER)
    at = open_page("contrast")
    _end(click(at, "Run"), sha256)
    assert [each.value for each in at.info] == []
    # The fields hold something else now: the result of before stays, and tells what it is.
    at.selectbox(key="contrast pair").select("negation").run()
    (said,) = (each.value.replace("\\", "") for each in at.info)
    assert ContrastOrder(pair="code-docstrings").words in said
    assert len(_figures(at)) == 1
    at.segmented_control(key="contrast at").set_value("mean").run()
    _end(click(at, "Run"), sha256)
    assert len(ordered) == 2
    assert [each.value for each in at.info] == []
    # What is kept already is not run a second time.
    at.selectbox(key="contrast pair").select("code-docstrings").run()
    at.segmented_control(key="contrast at").set_value("last").run()
    assert [each.value for each in at.info] == []
    assert len(_figures(at)) == 1
    at.segmented_control(key="contrast source").set_value("own").run()
    _fill(at, _lines(SCRIPT), _lines("b"))
    _end(click(at, "Run"), sha256)
    asked = link(at)
    expected = sets_id(Typed("Set A", _lines(SCRIPT)), Typed("Set B", _lines("b")))
    assert (asked["source"], asked["sets"]) == ("own", expected)
    assert "pair" not in asked
    # A reload, and the link in another browser.
    again = open_page("contrast", **asked)
    assert errors(again) == []
    assert again.segmented_control(key="contrast source").value == "own"
    assert again.text_area(key="contrast positive").value == _lines(SCRIPT)
    assert len(_figures(again)) == 1
    assert [each.value for each in again.info] == []
    assert len(ordered) == 3
    # What a link names that is not there is told.
    other = open_page("contrast", pair="nothing", source="own", sets="0" * 16)
    assert errors(other) == []
    assert len(other.warning) == 1
    assert not _figures(other)


def test_own_prompts_are_run_in_earnest(open_page: Open, root: Path, in_this_process: None) -> None:
    at = open_page("contrast", source="own")
    first, second = (
        "\n".join(f"{a} {b} {words[0]}" for a in words for b in words)
        for words in (("the", "of", "self", "method"), ("is", "other", "in", "and"))
    )
    _fill(at, first, second)
    _end(click(at, "Run"), _sha256(root, DECODER))
    assert errors(at) == []
    order = ContrastOrder(positive=Typed("Set A", first), negative=Typed("Set B", second))
    kept = shelf().peek(("contrast", _sha256(root, DECODER), order.id))
    assert (kept["n_positive"], kept["n_negative"], kept["at"]) == (16, 16, "last")
    assert {(row["layer"], row["stream"]) for row in kept["rows"]} >= {
        (0, "resid_pre"),
        (1, "resid_post"),
    }
    # What is drawn and said is what was measured.
    for part in sections(kept, layer=1):
        figures = _open_part(at, part.title)
        assert len(figures) == (part.figure is not None)
        said = [each.value.replace("\\", "") for each in at.markdown]
        assert all(paragraph in said for paragraph in part.found.split("\n\n"))


def test_what_is_wrong_is_one_line_a_set(open_page: Open, root: Path, ordered: Ordered) -> None:
    at = open_page("contrast", source="own")
    click(at, "Run")
    first, second = errors(at)
    assert first.startswith("Set A ")
    assert second.startswith("Set B ")
    assert not ordered
    _fill(at, _lines(SCRIPT), _lines("b"))
    _end(click(at, "Run"), _sha256(root, DECODER))
    assert errors(at) == []
    order = ordered[-1]
    assert order.positive is not None
    assert order.negative is not None
    assert (order.positive.text, order.negative.text) == (_lines(SCRIPT), _lines("b"))
    assert len(_figures(at)) == 1
    # What can't be run leaves what was there.
    _fill(at, _lines(SCRIPT), f"{_lines('b')}\n{_lines(SCRIPT)}")
    click(at, "Run")
    (error,) = errors(at)
    assert " 12 " in error
    assert len(_figures(at)) == 1
    assert len(ordered) == 1


def test_a_run_goes_on_and_can_be_stopped(
    open_page: Open, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = _sha256(root, DECODER)
    begun = threading.Event()

    def follow(request: Request, hear: Say, is_stopped: threading.Event) -> None:
        hear({"stage": "Measuring", "done": 3, "total": 4, "unit": "places"})
        begun.set()
        assert is_stopped.wait(60)

    monkeypatch.setattr(background, "follow_process", follow)
    at = open_page("contrast")
    click(at, "Run")
    job = jobs().running("contrast", sha256)
    assert job is not None
    assert begun.wait(60)
    # Another session sees it too, and does not begin a second one.
    other = open_page("contrast")
    (button,) = [each for each in other.button if each.label == "Run"]
    assert button.disabled
    assert jobs().running("contrast", sha256) is job
    assert (job.stage.done, job.stage.share) == (3, 0.75)
    click(other, "Stop")
    assert jobs().running("contrast", sha256) is None
    at.run()
    assert errors(at) == []
    assert not _figures(at)
    assert [each.label for each in at.button if each.label == "Stop"] == []


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
    drawn = [_open_part(at, title) for title in PARTS]
    assert [len(figures) for figures in drawn] == [1, 1, 2, 2, 2]
    assert SCRIPT not in json.dumps(drawn)
    assert (link(at)["layer"], link(at)["source"]) == ("1", "saved")
