"""Folders that are replaced whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from projector.storage.folders import replacing_folder


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def fill(folder: Path) -> None:
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt").write_text("new")


def test_the_new_folder_stands_in_the_old_one_s_place(tmp_path: Path) -> None:
    out = tmp_path / "above" / "out"
    for _ in range(2):
        with replacing_folder(out) as new:
            fill(new)
            (new.parent / "aside.txt").write_text("needed until the end")
        assert tree(tmp_path) == {"above/out/deep/a.txt": "new"}
        (out / "old.txt").write_text("old")


@pytest.mark.parametrize("when", ["filling", "moving"])
def test_what_fails_leaves_the_old_one(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.txt").write_text("old")
    replace = Path.replace

    def refuse(self: Path, target: Any) -> Path:
        if when == "moving" and self.name == "new":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)

    def attempt() -> None:
        with replacing_folder(out) as new:
            fill(new)
            if when == "filling":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt()
    assert tree(tmp_path) == {"out/old.txt": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
