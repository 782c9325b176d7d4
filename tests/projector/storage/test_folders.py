"""Folders that are replaced whole."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from projector.storage import folders
from projector.storage.folders import replacing_folder, restore_folder
from tests.projector.storage.dying import die_in
from tests.refused import refused_naming


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


def _replace_and_die(folder: Path, die_at: int) -> None:
    """Replace the folder, and end without a farewell at a moment of the disk."""
    names = ("replace", "unlink", "mkdir")
    die_in(die_at, (folders, "sync"), (shutil, "rmtree"), *((Path, name) for name in names))
    with replacing_folder(folder) as new:
        fill(new)
    os._exit(0)


def test_a_kill_at_any_moment_leaves_the_old_folder_or_the_new_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found, n_restored = [], 0
    for die_at in range(1, 100):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        (out / "old.txt").write_text("old")
        process = multiprocessing.get_context("fork").Process(
            target=_replace_and_die, args=(out, die_at)
        )
        process.start()
        process.join(60)
        n_restored += not out.exists()
        # Whoever opens the folder next puts back what was moved aside.
        restore_folder(out)
        found.append(tree(out))
        assert found[-1] in ({"old.txt": "old"}, {"deep/a.txt": "new"}), die_at
        # And whoever writes next removes what is left.
        with replacing_folder(out) as new:
            fill(new)
        assert [path.name for path in tmp_path.iterdir()] == ["out"], die_at
        assert tree(out) == {"deep/a.txt": "new"}
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert found[0] == {"old.txt": "old"}
    assert found[-1] == {"deep/a.txt": "new"}
    # Between the two renames.
    assert n_restored > 0


def test_two_do_not_write_a_folder_at_once(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "out") as new:
        fill(new)
        with (
            refused_naming(tmp_path / "out"),
            replacing_folder(tmp_path / "out"),
        ):
            pass
    assert tree(tmp_path) == {"out/deep/a.txt": "new"}
