"""The table on a model: its parts go on where they were stopped, and score nothing twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.real_model import PARTS, main
from pruning.sweep import bench
from pruning.sweep.report import DENSE
from tests.conftest import make_text
from tests.pruning.test_preparing import fit


def test_every_part_once_and_the_best_again_on_all_windows(
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own, other, out = tmp_path / "own.txt", tmp_path / "other.txt", tmp_path / "out"
    own.write_text(make_text(1500, 21), encoding="utf-8")
    other.write_text(make_text(250, 22), encoding="utf-8")
    projection = fit(checkpoint("llama"), own, tmp_path / "map")
    options = [str(checkpoint("llama")), "--projection", str(projection), "--out", str(out)]
    options += ["--calibration", str(own), "--evaluation", str(other), "--shares", "0.5"]
    options += ["--seeds", "1", "--windows", "1", "--sequences", "20", "--steps", "2"]
    score, scored = bench.score, []

    def counted(model: Any, text: Any) -> Any:
        scored.append(text.n_windows)
        if len(scored) == 3:
            raise KeyboardInterrupt
        return score(model, text)

    monkeypatch.setattr(bench, "score", counted)
    # The best is not known yet.
    assert main([*options, "--only", "all-windows"]) == 2
    with pytest.raises(KeyboardInterrupt):
        main([*options, "--only", "least-squares"])
    assert main(options) == 0
    # The dense model, four methods (one of them begun twice), and two: then dense and the best.
    n_all = scored[-1]
    assert n_all > 1
    assert scored == [1] * (1 + 4 + 1 + 2) + [n_all] * 2
    found = json.loads((out / "table.json").read_text(encoding="utf-8"))
    rows = {(row["part"].partition("-")[0], row["method"]): row for row in found["rows"]}
    sampled = [row for (part, method), row in rows.items() if part != "all" and method != DENSE]
    best = min(sampled, key=lambda row: row["perplexity"])
    assert {method for part, method in rows if part == "all"} == {DENSE, best["method"]}
    assert found["bench"][0]["parameters_ratio"] == pytest.approx(1 - best["removed_share"])
    captured = capsys.readouterr()
    assert captured.out == (out / "table.md").read_text(encoding="utf-8")
    assert f"**{best['perplexity']:.3f}**" in captured.out
    assert captured.err.count("error: ") == 1
    assert main(options) == 0
    assert len(scored) == 10
    for wrong in (["--shares", "0.2,x"], ["--windows", "0"], ["--evaluation", str(own)]):
        assert main([*options, *wrong]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert set(PARTS) == {"least-squares", "reconstruct", "all-windows", "bench"}
