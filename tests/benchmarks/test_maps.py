"""The table of what maps hold and layouts keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.maps import main
from projector.projection.projection import Projection
from tests.pruning.poles.test_judging import projected, rows_of


def test_a_row_a_map_with_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "map"
    made = projected(rows_of(groups=(8, 12)))
    maps = {name: replace(one, n_tokens=5000) for name, one in made.facts.maps.items()}
    replace(made, facts=replace(made.facts, maps=maps)).save(folder)
    main([str(folder)])
    header, rule, *rows = capsys.readouterr().out.splitlines()
    projection = Projection.load(folder)
    assert len(rows) == len(projection.maps)
    assert header.count("|") == rule.count("|") == rows[0].count("|")
    layer, site = projection.maps[0]
    organisation = projection.organisation(layer, site)
    assert organisation is not None
    assert f"| {organisation.effective_dimension:.0f} (" in rows[0]
    assert all(f"`{name}`" in header for name in projection.layouts)


def test_a_folder_without_a_projection_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: "):
        main([str(tmp_path)])
