"""The GPU's command at toy sizes: every figure it plans is told, or why it is not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_parts
from benchmarks.gpu_rows import FULL, TOY, Part, Row, Sizes, Unmeasurable


def run_here(part: Part, is_toy: bool, seconds: float, told: Path) -> str | None:
    """But for the tests, which would be run within a test."""
    if part.name == "tests":
        return "left out"
    return gpu.measure_here(part, is_toy, seconds, told)


def written(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return rows


def test_the_toy_form_tells_every_figure_or_why_it_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main(["--toy", "--out", str(out)], run_here) == 0
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content["is_toy"] is True
    assert content["versions"]["torch"] == torch.__version__
    assert {"name"} <= set(content["gpu"]) or not torch.cuda.is_available()
    rows = content["rows"]
    planned = [row for part in gpu.PARTS for row in part.plan(TOY)]
    assert [(r["part"], r["what"], r["size"]) for r in rows] == [
        (r.part, r.what, r.size) for r in planned
    ]
    for row in rows:
        assert bool(row["values"]) != bool(row["unmeasured"]), row
        if row["values"]:
            assert 0 < row["least"] <= row["median"] <= row["most"], row
    of = {row["what"]: row for row in rows}
    for what in ("copy bandwidth", "matrix rate in float16", "bare forward passes", "whole fit"):
        assert of[what]["values"], what
    bare, whole = of["bare forward passes"], of["whole fit"]
    ratios = [a / b for a, b in zip(whole["values"], bare["values"], strict=True)]
    assert of["whole fit, of the forward passes"]["values"] == pytest.approx(ratios)
    assert of["tests marked gpu that pass"]["unmeasured"] == "left out"
    table = capsys.readouterr().out
    assert "| whole fit |" in table
    assert "unmeasured" in table


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_without_a_gpu_all_is_unmeasured(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main(["--out", str(out)]) == 0
    rows = written(out)
    assert len(rows) == sum(len(part.plan(FULL)) for part in gpu.PARTS)
    assert {row["unmeasured"] for row in rows} == {"no GPU"}


def test_a_part_is_left_out_where_the_time_left_is_too_short(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main(["--toy", "--minutes", "0", "--out", str(out)]) == 0
    assert all("0 s" in row["unmeasured"] for row in written(out))


def planned(sizes: Sizes) -> list[Row]:
    return [Row("some", what, "", "s", target=1.0) for what in ("first", "second")]


def test_what_follows_keeps_its_time() -> None:
    given: list[float] = []

    def run(part: Part, is_toy: bool, seconds: float, told: Path) -> str | None:
        given.append(seconds)
        return None

    parts = [Part(name, 30.0, planned, lambda sizes, until: iter(())) for name in "ab"]
    gpu.measure(True, 2.0, run, parts)
    assert given == [pytest.approx(90, abs=5), pytest.approx(120, abs=5)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unmeasurable("no Triton here"), "no Triton here"),
        (RuntimeError("illegal\n access"), "RuntimeError: illegal access"),
        (subprocess.TimeoutExpired("pytest", 3), "30 s"),
    ],
)
def test_what_fails_keeps_what_was_told_before(
    error: Exception, reason: str, tmp_path: Path
) -> None:
    def measure(sizes: Sizes, until: float) -> Iterator[Row]:
        first = planned(sizes)[0]
        yield first.measured([5.0])
        # Told again, as after another fit.
        yield first.measured([5.0, 2.0, 3.0], "note")
        raise error

    part = Part("some", 1.0, planned, measure)
    told = tmp_path / "told"
    why = gpu.measure_here(part, False, 30.0, told)
    assert reason in str(why)
    first, second = gpu.rows_of(part, False, told, why)
    assert first == planned(FULL)[0].measured([5.0, 2.0, 3.0], "note")
    assert (first.is_met, second.is_met) == (True, None)
    assert reason in str(second.unmeasured)


@pytest.mark.parametrize("takes_long", [True, False])
def test_a_process_that_dies_or_takes_too_long_is_told(
    takes_long: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["-m", "benchmarks.gpu"]
        if takes_long:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        return subprocess.CompletedProcess(command, -11, "")

    monkeypatch.setattr(subprocess, "run", run)
    why = gpu.measure_apart(gpu.PARTS[0], True, 30.0, tmp_path / "told")
    expected = "took longer than the 30 s" if takes_long else "ended with status -11"
    assert expected in str(why)


def test_a_process_of_its_own_says_why_on_its_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(sizes: Sizes, until: float) -> Iterator[Row]:
        yield planned(sizes)[0].measured([1.0])
        raise Unmeasurable("no GPU")

    monkeypatch.setattr(gpu, "PARTS", (Part("some", 1.0, planned, measure),))
    told = tmp_path / "told"
    assert gpu.main(["--part", "some", str(told), "--seconds", "9", "--toy"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == "no GPU"
    assert len(told.read_text().splitlines()) == 1


def test_a_figure_is_held_against_its_target_by_its_median() -> None:
    least, most = (Row("p", "w", "", "×", target=2.0, is_least=is_least) for is_least in (1, 0))
    assert least.is_met is None
    assert least.measured([1.0, 3.0, 9.0]).is_met is True
    assert most.measured([1.0, 3.0, 9.0]).is_met is False
    missed = most.measured([1.0, 3.0, 9.0])
    assert Row.from_json(json.loads(json.dumps(missed.as_json()))) == missed
    assert "| 3 × (1–9) | ≤ 2, missed |" in gpu.table([missed])


def test_tests_are_counted_by_pytest_s_own_report() -> None:
    report = """<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure/></testcase>
    <testcase name="c"><skipped/></testcase><testcase name="d"><error/></testcase></testsuite>
    </testsuites>"""
    assert gpu_parts.count_tests(report) == (1, ["b", "d"], 1)
