"""The table of poles beside their controls."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.poles import main
from pruning.poles.files import load_poles
from pruning.poles.poles import finding_words
from tests.pruning.poles.test_judging import projected, rows_of


def test_a_row_a_map_beside_its_controls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "map"
    projected(rows_of(groups=(8, 12))).save(folder)
    main([str(folder)])
    poles = load_poles(folder, 0)
    assert poles is not None
    assert poles.controls is not None
    header, _, row, *rest = capsys.readouterr().out.splitlines()
    assert header.count("|") == row.count("|")
    assert f"| 2 ({poles.controls.shuffled.n_distinct:.1f}, " in row
    assert finding_words(poles) in row
    assert "2 distinct poles" in rest[-1]
