"""A report comes back from disk as it was; its rows and its table are the same."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from pruning.reporting.files import CSV_FILE, JSON_FILE
from pruning.sweep.report import DENSE, NOT_APPLICABLE, PruningReport, Row
from tests.refused import refused_by_the_disk, refused_naming

NAME = 'a "quoted", text; of two\nlines – ρ.txt'


def row(
    method: str = "obs",
    refit: str = "none",
    sparsity: float = 0.2,
    seed: int = 0,
    perplexity: float | None = 10.0,
    **others: Any,
) -> Row:
    values: dict[str, Any] = {
        "evaluation": "text",
        "windows": "sample",
        "bits_per_byte": None if perplexity is None else 1.25,
        "n_tokens": 640,
        "parameters": 900,
        "removed_share": 0.1,
        "seconds": 1.5,
    }
    return Row(method, refit, sparsity, seed, perplexity=perplexity, **(values | others))


def made(*rows: Row) -> PruningReport:
    settings = {"methods": ["obs", "poles"], "calibration": {"source": "stdlib:train"}}
    return PruningReport(settings, {"id": "tiny", "parameters": 1000}, list(rows))


def full() -> PruningReport:
    """Two methods, two sparsities, three seeds, a dense model and one that can't be."""
    rows = [row(DENSE, sparsity=0.0, perplexity=7.0, removed_share=0.0)]
    for method, base in (("obs", 10.0), ("poles", 9.0)):
        for sparsity in (0.5, 0.2):
            for seed in range(3):
                # Further apart, and higher, at more sparsity.
                value = base + 10 * sparsity + seed**2 * sparsity
                rows.append(row(method, "none", sparsity, seed, value, seconds=float(seed)))
    reason = "it has no place for a bias"
    rows.append(row("obs", "bias", 0.2, 0, None, status=NOT_APPLICABLE, reason=reason))
    rows.append(row("obs", "none", 0.2, 0, 55.0, evaluation=NAME))
    rows.append(row("obs", "none", 0.2, 0, 44.0, windows="all"))
    return made(*rows)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    report = full()
    report.save(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert {path.name for path in folder.iterdir()} == {JSON_FILE, CSV_FILE}
    loaded = PruningReport.load(folder)
    assert loaded == report
    before = (folder / JSON_FILE).read_bytes()
    loaded.save(folder)
    assert (folder / JSON_FILE).read_bytes() == before
    assert PruningReport.load(str(folder)) == report


def test_the_csv_holds_the_same_rows(tmp_path: Path) -> None:
    report = full()
    report.save(tmp_path)
    with (tmp_path / CSV_FILE).open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    values = json.loads((tmp_path / JSON_FILE).read_text(encoding="utf-8"))["rows"]
    assert len(lines) == len(values) == len(report.rows)
    for line, value in zip(lines, values, strict=True):
        assert line == {k: "" if v is None else str(v) for k, v in value.items()}
    needed = "method refit sparsity seed evaluation perplexity parameters removed_share seconds"
    assert set(needed.split()) <= set(lines[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_has_no_number_that_is_none(value: float, tmp_path: Path) -> None:
    good = full()
    good.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="JSON"):
        made(row(perplexity=value)).save(tmp_path)
    # What was there stays.
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_summaries_are_means_and_standard_deviations_over_seeds() -> None:
    report = full()
    found = {(s.method, s.refit, s.sparsity, s.evaluation): s for s in report.summaries()}
    assert len(found) == 1 + 4 + 1
    for (method, refit, sparsity, evaluation), summary in found.items():
        values = [
            r.perplexity
            for r in report.rows
            if (r.method, r.refit, r.sparsity, r.evaluation)
            == (method, refit, sparsity, evaluation)
            and r.windows == "sample"
            and r.perplexity is not None
        ]
        assert summary.n_seeds == len(values)
        assert summary.perplexity == pytest.approx(mean(values), rel=1e-12)
        expected = stdev(values) if len(values) > 1 else None
        if expected is None:
            assert summary.spread is None
        else:
            assert summary.spread == pytest.approx(expected, rel=1e-12)
    assert found["obs", "none", 0.2, "text"].seconds == 1.0
    assert ("obs", "bias", 0.2, "text") not in found
    (again,) = report.summaries("all")
    assert (again.perplexity, again.windows) == (44.0, "all")


def test_a_seed_that_broke_leaves_no_mean_and_wins_nothing() -> None:
    rows = [row("obs", seed=i, perplexity=p) for i, p in enumerate((8.0, None, None))]
    rows += [row("poles", seed=i, perplexity=9.0) for i in range(3)]
    report = made(*rows)
    broken, whole = report.summaries()
    assert (broken.n_seeds, broken.n_broken, broken.perplexity, broken.spread) == (3, 2, None, None)
    assert (whole.n_broken, whole.perplexity, whole.spread) == (0, 9.0, 0.0)
    assert (broken.text, whole.text) == ("broken", "9.000")
    assert [w.method for w in report.winners("text")] == ["poles"]


def test_winners_are_the_least_at_each_sparsity() -> None:
    report = full()
    winners = report.winners("text")
    assert [(w.sparsity, w.method) for w in winners] == [(0.2, "poles"), (0.5, "poles")]
    (other,) = report.winners(NAME)
    assert (other.method, other.perplexity) == ("obs", 55.0)
    assert report.winners("another") == []
    # Of equal ones, the first.
    tie = made(row("flap"), row("obs"), row("poles", perplexity=11.0))
    assert [w.method for w in tie.winners("text")] == ["flap"]
    # By the mean over seeds, not by the luckiest; and the dense model is no winner.
    rows = [row(DENSE, sparsity=0.0, perplexity=1.0)]
    rows += [row("obs", seed=i, perplexity=p) for i, p in enumerate((1.0, 30.0))]
    rows += [row("poles", seed=i, perplexity=p) for i, p in enumerate((9.0, 11.0))]
    assert [w.method for w in made(*rows).winners("text")] == ["poles"]


def test_a_report_knows_what_it_has() -> None:
    report = full()
    assert report.has(("obs", "none", 0.5, 2))
    assert report.has(row("obs", "bias").combination)
    assert not report.has(("obs", "none", 0.5, 3))
    assert not report.has(("obs", "none", 0.5, 2), "all")
    assert report.has(("obs", "none", 0.2, 0), "all")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{", "damaged & JSON"),
        ("[" * 100_000, "damaged & JSON"),
        ("\udcff", "damaged & JSON"),
        ("[]", "transformer-pruning-report"),
        ('{"format": "another"}', "transformer-pruning-report"),
        ("null", "transformer-pruning-report"),
    ],
)
def test_what_is_no_report_is_refused(text: str, names: str, tmp_path: Path) -> None:
    (tmp_path / JSON_FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with refused_naming(tmp_path / JSON_FILE, *names.split(" & ")):
        PruningReport.load(tmp_path)


def test_a_folder_without_a_report_says_what_makes_one(tmp_path: Path) -> None:
    with refused_naming(JSON_FILE, "`pruning sweep`"):
        PruningReport.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"format_version": 0}, "format version 0 & `pruning sweep`"),
        ({"format_version": None}, "format_version & None"),
        ({"rows": [{"method": "obs"}]}, "damaged"),
        ({"rows": 3}, "damaged"),
        ({"rows": [3]}, "damaged"),
        ({"settings": 5}, "damaged"),
        ({"settings": "many words"}, "damaged"),
        ({"model": None}, "damaged"),
    ],
)
def test_damage_and_other_versions_are_refused(
    changes: dict[str, Any], names: str, tmp_path: Path
) -> None:
    full().save(tmp_path)
    path = tmp_path / JSON_FILE
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))
    with refused_naming(path, *names.split(" & ")):
        PruningReport.load(tmp_path)


def test_rows_that_lack_a_field_are_damage(tmp_path: Path) -> None:
    full().save(tmp_path)
    path = tmp_path / JSON_FILE
    values = json.loads(path.read_text(encoding="utf-8"))
    del values["rows"][0]["perplexity"]
    path.write_text(json.dumps(values))
    with refused_naming(path, "damaged"):
        PruningReport.load(tmp_path)


def test_a_full_disk_is_one_line_and_leaves_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full().save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(self: Path, *args: Any, **kwargs: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with refused_by_the_disk(errno.ENOSPC, tmp_path):
        made(row()).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
