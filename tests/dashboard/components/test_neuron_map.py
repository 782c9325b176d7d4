"""What travels to the browser: the numbers, as bytes, and positions only once."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dashboard.components import neuron_map as component
from dashboard.components.neuron_map import Panel, Timeline, Token, View
from dashboard.drawing import palette
from dashboard.drawing.legend import Group, Groups, Hover, Legend

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(7, 3)).astype(np.float32)
POINTS[4] = np.nan


def decoded(text: str, dtype: type, *shape: int) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)


def view(
    *values: NDArray[Any], points: NDArray[np.float32] = POINTS, sizes: NDArray[Any] | None = None
) -> View:
    panels = [Panel(f"panel {k}", "L0", points, each, sizes) for k, each in enumerate(values)]
    return View(panels, dim=3)


def colors(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, 7).astype(np.uint8)


def test_bytes_are_the_numbers() -> None:
    sizes = colors(9)
    hover = Hover("mean", np.linspace(0, 1, 7))
    named = Hover("", np.zeros(7), ("a", "b"))
    panel = Panel(
        "title", "L3", POINTS, colors(1), sizes, selected=2, marked=(1, 5), hover=(hover, named)
    )
    data = View([panel], dim=2, axes=None).data(set())
    found = data["panels"][0]
    np.testing.assert_array_equal(decoded(found["positions"], np.float32, 7, 3), POINTS)
    least, most = np.nanmin(POINTS, axis=0), np.nanmax(POINTS, axis=0)
    assert found["middle"] == pytest.approx((least + most) / 2, abs=1e-6)
    assert found["reach"] == pytest.approx((most - least) / 2, abs=1e-6)
    np.testing.assert_array_equal(decoded(found["values"], np.uint8, 7), panel.values)
    np.testing.assert_array_equal(decoded(found["sizes"], np.uint8, 7), sizes)
    np.testing.assert_array_equal(decoded(data["palette"], np.uint8, 256, 3), palette.groups())
    np.testing.assert_array_equal(
        decoded(data["palette_dark"], np.uint8, 256, 3), palette.groups(dark=True)
    )
    np.testing.assert_array_equal(decoded(data["diverging"], np.uint8, 256, 3), palette.diverging())
    np.testing.assert_array_equal(
        decoded(found["hover"][0]["values"], np.float32, 7), hover.values.astype(np.float32)
    )
    assert [each["names"] for each in found["hover"]] == [None, ["a", "b"]]
    assert (found["selected"], found["marked"], found["frames"]) == (2, [1, 5], None)
    assert (data["dim"], data["axes"], data["token"], data["tokens"]) == (2, None, 0, [])
    # It is sent as JSON.
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_the_values_of_all_tokens_travel_at_once() -> None:
    values = RNG.integers(-127, 128, (4, 7)).astype(np.int8)
    tokens = [Token("<b>", "first"), Token("x", "second", True, "#ff000080")]
    shown = View(
        [Panel("t", "L0", POINTS, values, scale=3.5, values_id="known")],
        dim=3,
        colors=palette.diverging(),
        timeline=Timeline("id", tokens, 1, tokens[1:]),
    )
    data = shown.data(set())
    panel = data["panels"][0]
    assert panel["frames"] == 4
    assert panel["scale"] == 3.5
    assert panel["values_id"] == "known"
    np.testing.assert_array_equal(decoded(panel["values"], np.int8, 4, 7), values)
    assert data["token"] == 1
    assert data["tokens_id"] == "id"
    # As they are: it is the browser that makes text of them.
    assert data["tokens"] == [
        {"text": "<b>", "title": "first", "made": False, "color": ""},
        {"text": "x", "title": "second", "made": True, "color": "#ff000080"},
    ]
    assert data["tokens_beside"] == data["tokens"][1:]


def test_positions_travel_once() -> None:
    sent: set[str] = set()
    first = view(colors(1)).data(sent)["panels"][0]
    again = view(colors(2)).data(sent)["panels"][0]
    assert first["positions"] is not None
    assert again["positions"] is None
    assert again["positions_id"] == first["positions_id"]
    # Colours do each time.
    assert again["values_id"] != first["values_id"]
    np.testing.assert_array_equal(decoded(again["values"], np.uint8, 7), colors(2))
    # Other positions are others.
    moved = POINTS.copy()
    moved[0, 0] += 1
    other = view(colors(1), points=moved).data(sent)["panels"][0]
    assert other["positions_id"] != first["positions_id"]
    assert other["positions"] is not None
    # And what the browser asks for again, it gets.
    sent.discard(first["positions_id"])
    assert view(colors(1)).data(sent)["panels"][0]["positions"] == first["positions"]


def test_two_maps_of_the_same_positions_share_them() -> None:
    panels = view(colors(1), colors(2)).data(set())["panels"]
    assert panels[0]["positions_id"] == panels[1]["positions_id"]
    assert panels[0]["positions"] is not None
    assert panels[1]["positions"] is None


def test_sizes_make_other_values() -> None:
    plain = view(colors(1)).data(set())["panels"][0]
    sized = view(colors(1), sizes=colors(3)).data(set())["panels"][0]
    assert plain["sizes"] is None
    assert plain["values_id"] != sized["values_id"]


def test_a_legend_names_groups_or_a_scale() -> None:
    groups = Legend("Pole", (("pole 0 (3)", 1), ("in no pole", 0)))
    scale = Legend("Mean", None, "−1", "2", signed=True, size="magnitude")
    for legend in (groups, scale):
        panel = Panel("t", "L0", POINTS, colors(1))
        data = View([panel], 3, legend=legend).data(set())
        found = data["legend"]
        expected = None if legend.items is None else [list(item) for item in legend.items]
        assert found["items"] == expected
        for name in ("label", "low", "high", "signed", "size"):
            assert found[name] == getattr(legend, name)


def test_groups_and_texts_travel_once() -> None:
    """Of many neurons these are the most: a click on one sends neither again."""
    item = Group(4, "self", "pole 4", 3, 0.5, "distinct", 1, False, "")
    membership = np.array([0, 0, -1, 0, -1, -1, -1], dtype=np.int16)
    groups = Groups(membership, (item,), "1 pole", "note", "")
    plain = Panel("t", "L0", POINTS, colors(1), groups=groups, group=4, is_by_group=True)
    named = replace(plain, labels=("self", *[""] * 6), snippets=("def f(self)", *[""] * 6))
    sent: set[str] = set()
    first = View([named], 2, beside=0).data(sent)["panels"][0]
    np.testing.assert_array_equal(decoded(first["membership"], np.int16, 7), membership)
    assert first["groups"] == [json.loads(json.dumps(asdict(item)))]
    # By its place in the list, as the browser counts.
    assert (first["group"], first["by_group"]) == (0, True)
    assert first["texts"]["labels"][0] == "self"
    assert first["texts"]["snippets"][0] == "def f(self)"
    chosen = replace(named, selected=1, near=((0, 0.5),), is_isolated=True)
    again = View([chosen], 2, beside=0).data(sent)["panels"][0]
    assert again["membership"] is None
    assert again["texts"] is None
    assert again["texts_id"] == first["texts_id"]
    assert (again["selected"], again["near"], again["isolated"]) == (1, [[0, 0.5]], True)
    assert View([plain], 2).data(set())["panels"][0]["texts_id"] is None
    # A name that a user gave makes other texts.
    other = View([replace(named, labels=("mine", *[""] * 6))], 2).data(sent)["panels"][0]
    assert other["texts"]["labels"][0] == "mine"


def test_what_the_browser_tells_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may be of another view than this one: what is not there is not chosen."""
    mounted: dict[str, Any] = {}
    heard: list[Any] = []
    state: dict[str, Any] = {}
    monkeypatch.setattr(component, "_component", lambda: lambda **given: mounted.update(given))
    monkeypatch.setattr(component.st, "session_state", state)
    component.neuron_map(
        view(colors(1)),
        key="map",
        on_pick=lambda *given: heard.append(("pick", *given)),
        on_choose=lambda *given: heard.append(("choose", *given)),
        on_isolate=lambda *given: heard.append(("isolate", *given)),
        on_mark=lambda *given: heard.append(("mark", *given)),
    )

    def tell(name: str, **value: Any) -> None:
        state["map"] = {name: value}
        mounted[f"on_{name}_change"]()

    for panel in (0, 1):
        tell("picked", panel=panel, neuron=3)
        tell("chosen", panel=panel, pole=None)
        tell("isolated", panel=panel, neuron=2)
        tell("marked", panel=panel, neurons=[5, 2, 2, 99, -1])
    tell("picked", panel=0, neuron=7)
    assert heard == [
        ("pick", 0, 3),
        ("choose", 0, None),
        ("isolate", 0, 2),
        ("mark", 0, (2, 5)),
    ]
