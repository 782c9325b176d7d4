"""The benchmark of the residual stream measures what it says, on a tiny model."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.residual import PARTS, made_up_ids, table
from projector.model.loading import LoadedModel
from projector.residual.subject import Subject
from tests.families import build


@pytest.mark.parametrize("part", list(PARTS))
def test_each_part_is_timed_beside_the_forward_pass(part: str, tokenizer: Any) -> None:
    subject = Subject(LoadedModel(build("gemma2"), tokenizer, "tiny", ""))
    row = PARTS[part](subject, made_up_ids(subject, 12), 2)
    assert "forward" in row.beside
    assert {len(seconds) for seconds in row.seconds.values()} == {2}
    assert row.ratio == row.median("whole") / sum(row.median(name) for name in row.beside)
    (line,) = (each for each in table([row]).splitlines() if "tiny" in each)
    assert f"{row.ratio:.2f}" in line
    assert ("missed" in line) == (row.ratio > row.most)
