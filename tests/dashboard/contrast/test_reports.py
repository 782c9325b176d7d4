"""Rows of a report as the page saves them."""

from __future__ import annotations

import csv
import io
import json

from dashboard.contrast.reports import rows_of
from dashboard.frame.exports import csv_of

ROWS = [
    {"model": "a", "layer": 0, "cosine": None, "reasons": {"cosine": "no “spread”"}},
    {"model": "a", "layer": 1, "cosine": 0.5, "reasons": {}},
]


def test_rows_are_a_table_with_their_reasons() -> None:
    text = csv_of(rows_of({"rows": ROWS})).decode("utf-8")
    found = list(csv.DictReader(io.StringIO(text)))
    assert [each["cosine"] for each in found] == ["", "0.5"]
    assert [json.loads(each["reasons"]) for each in found] == [each["reasons"] for each in ROWS]
