"""The app without a browser: what tests ask of its pages."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np
from streamlit.testing.v1 import AppTest

from tests.dashboard.conftest import DECODER, ENCODER, GPT2

FAMILIES = (DECODER, GPT2, ENCODER)
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
SCRIPT = "<script>alert(1)</script>"
NEURON = 3
# With as few neurons as these models have, the usual settings find no pole.
GROUPING = "correlation,2,leaf,0"


def errors(at: AppTest) -> list[str]:
    """Messages of the page, without the signs that keep Markdown from reading them."""
    assert not at.exception, [each.message for each in at.exception]
    return [re.sub(r"\\(.)", r"\1", each.value) for each in at.error]


def link(at: AppTest) -> dict[str, str]:
    """What stands in the address."""
    return {name: str(value) for name, value in at.query_params.items()}


def maps_of(at: AppTest) -> list[dict[str, Any]]:
    """What was sent to each map of the page."""
    return [json.loads(each.proto.bytes) for each in at.get("bidi_component")]  # type: ignore[union-attr]


def decoded(text: str, dtype: type, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)


def click(at: AppTest, label: str) -> AppTest:
    (button,) = [each for each in at.button if each.label == label]
    return button.click().run()


def ask(at: AppTest, text: str, *, n_new: int = 4, other: str | None = None) -> AppTest:
    """Type a prompt, and press Run."""
    if other is not None:
        at.toggle(key="compare").set_value(True).run()
        at.text_area(key="other text").set_value(other)
    at.text_area(key="prompt text").set_value(text)
    at.number_input(key="prompt tokens").set_value(n_new)
    return click(at, "Run")


def tokens_of(at: AppTest) -> list[dict[str, Any]]:
    (found,) = maps_of(at)
    return list(found["tokens"])


def parts_of(at: AppTest, name: str) -> list[dict[str, Any]]:
    """What was sent to the page's own tables and bars: those that hold ``name``.

    As a browser does it, which keeps what is sent once.
    """
    found = [json.loads(each.proto.bytes) for each in at.get("bidi_component") if each.proto.bytes]
    for each in found:
        if "cells" in each:
            _TABLES[each["id"]] = each
    found = [{**_TABLES.get(each.get("id", ""), {}), **each} for each in found]
    return [each for each in found if name in each]


# Tables by their ids.
_TABLES: dict[str, dict[str, Any]] = {}


def grid_of(at: AppTest) -> dict[str, Any]:
    (found,) = parts_of(at, "cells")
    return found


def cell(grid: dict[str, Any], row: int, column: int) -> list[str]:
    """Text, background and tip."""
    return [grid["words"][k] for k in grid["cells"][row][column]]
