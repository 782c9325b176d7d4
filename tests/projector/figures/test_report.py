"""A report's folder: written whole, and nothing else is ever replaced by it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from projector.errors import UserError
from projector.figures.report import CSV_FILE, JSON_FILE, PAGE_FILE, write_report


def test_a_report_is_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "new" / "report"
    write_report(out, {"a": "é"}, "<p>1</p>")
    assert json.loads((out / JSON_FILE).read_text(encoding="utf-8")) == {"a": "é"}
    with pytest.raises(UserError) as caught:
        write_report(out, {"a": 2}, "<p>2</p>")
    assert caught.value.setting == "force"
    assert (out / PAGE_FILE).read_text(encoding="utf-8") == "<p>1</p>"
    write_report(out, {"a": 2}, "<p>2</p>", force=True)
    assert (out / PAGE_FILE).read_text(encoding="utf-8") == "<p>2</p>"


@pytest.mark.parametrize("force", [False, True])
def test_other_files_are_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError) as caught:
        write_report(tmp_path, {}, "", force=force)
    assert (caught.value.setting, caught.value.value) == ("out", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_json_lacks_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_report(tmp_path / "r", {"x": float("nan")}, "")
    assert list(tmp_path.glob("*")) in ([], [tmp_path / ".r.lock"])


def test_rows_and_what_lies_beside_are_written_with_it(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"model": 'a, "b"', "cosine": 0.5, "reasons": {}},
        {"model": "é", "cosine": None, "reasons": {"cosine": 'a "é", b'}},
    ]

    def beside(folder: Path) -> None:
        (folder / "more").mkdir()
        (folder / "more" / "x.txt").write_text("x")

    write_report(tmp_path / "r", {}, "", rows=rows, beside=beside)
    with (tmp_path / "r" / CSV_FILE).open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {"model": 'a, "b"', "cosine": "0.5", "reasons": "{}"}
    assert json.loads(second.pop("reasons")) == rows[1]["reasons"]
    assert second == {"model": "é", "cosine": ""}
    assert (tmp_path / "r" / "more" / "x.txt").read_text() == "x"

    def fail(folder: Path) -> None:
        raise OSError("the disk is gone")

    with pytest.raises(UserError):
        write_report(tmp_path / "r", {"new": 1}, "", beside=fail, force=True)
    assert json.loads((tmp_path / "r" / JSON_FILE).read_text()) == {}
    assert not list(tmp_path.glob(".r.partial"))
