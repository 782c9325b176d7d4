"""What is added to an artifact is there whole or not at all, and nothing else changes."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import re
import threading
from pathlib import Path

import pytest

from projector.errors import UserError
from projector.storage import replacing
from projector.storage.additions import LOCK, adding, alone_at, finish_additions
from projector.storage.places import alone
from projector.storage.replacing import COMMITTED, STAGED, finish_replacing, replacing_files
from tests.projections import contents
from tests.projector.storage.dying import die_in
from tests.refused import refused, refused_by_the_disk, refused_naming

MAIN = "projection.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    (out / MAIN).write_text("{}")
    return out


def test_what_is_added_stands_beside_what_was_there(folder: Path) -> None:
    before = contents(folder)
    with adding(folder) as addition:
        addition.write("poles/a.json", "one")
        addition.path("layouts/b.safetensors").write_bytes(b"two")
        # Nobody sees a part of it.
        assert not (folder / "poles").exists()
    assert contents(folder) == before | {"poles/a.json": b"one", "layouts/b.safetensors": b"two"}
    with adding(folder) as addition:
        assert addition.names("poles") == ["poles/a.json"]
        assert addition.names("labels") == []
        assert addition.read("poles/a.json") == b"one"
        assert addition.read("poles/b.json") is None


def test_a_name_that_exists_needs_force(folder: Path) -> None:
    with adding(folder) as addition:
        addition.write("poles/a.json", "one")
    with adding(folder) as addition, refused("force", False, folder / "poles/a.json"):
        addition.write("poles/a.json", "two")
    assert contents(folder) == {MAIN: b"{}", "poles/a.json": b"one"}
    with adding(folder) as addition:
        addition.write("poles/a.json", "two", force=True)
    assert contents(folder) == {MAIN: b"{}", "poles/a.json": b"two"}
    with adding(folder) as addition:
        addition.remove("poles/a.json")
        addition.remove("poles/none.json")
    assert contents(folder) == {MAIN: b"{}"}
    assert not (folder / "poles").exists()


@pytest.mark.parametrize("content", ["", b""])
def test_nothing_is_no_content(content: str | bytes, folder: Path) -> None:
    with adding(folder) as addition, pytest.raises(ValueError, match=r"poles/a\.json"):
        addition.write("poles/a.json", content)
    assert contents(folder) == {MAIN: b"{}"}


def test_a_reader_finishes_nothing_while_somebody_writes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it might take what is added meanwhile for what is to be removed."""
    monkeypatch.setattr("projector.storage.additions._PATIENCE_S", 0.1)
    (folder / COMMITTED).mkdir()
    (folder / COMMITTED / "a.json").touch()
    with alone_at(folder):
        (folder / "a.json").write_text("added")
        with refused_naming(folder, "0 seconds"):
            finish_additions(folder)
        assert (folder / "a.json").read_text() == "added"
    finish_additions(folder)
    assert contents(folder) == {MAIN: b"{}"}


def test_a_lock_that_was_removed_while_one_waits_is_taken_anew(folder: Path) -> None:
    """Two would have it otherwise: one the file that was removed, one the file of its name."""
    path, order = folder / LOCK, []

    def wait() -> None:
        with alone(path, patience_s=60, told=""):
            order.append("second")
            assert path.exists()
            with pytest.raises(UserError), alone(path, patience_s=0, told=""):
                pass

    with alone(path, patience_s=0, told=""):
        waiting = threading.Thread(target=wait)
        waiting.start()
        order.append("first")
    waiting.join(60)
    assert order == ["first", "second"]
    assert not path.exists()


def test_an_error_leaves_the_folder_as_it_was(folder: Path) -> None:
    before = contents(folder)

    def add_to_a_full_disk() -> None:
        with adding(folder) as addition:
            addition.write("a.json", "one")
            raise OSError(errno.ENOSPC, "No space left on device")

    with refused_by_the_disk(errno.ENOSPC, folder):
        add_to_a_full_disk()
    assert contents(folder) == before
    assert [path.name for path in folder.iterdir()] == [MAIN]


def test_nothing_is_added_to_what_was_replaced_meanwhile(folder: Path) -> None:
    known = hashlib.sha256(b"{}").hexdigest()
    with adding(folder, belongs_to=known) as addition:
        addition.write("a.json", "one")
    (folder / MAIN).write_text("another")
    with refused_naming(f"'{folder}'"), adding(folder, belongs_to=known):
        pass
    (folder / MAIN).unlink()
    with refused_naming(f"'{folder / MAIN}'"), adding(folder, belongs_to=known):
        pass
    with refused_naming(folder / "nowhere"), adding(folder / "nowhere"):
        pass


@pytest.mark.parametrize("name", ["../a", "/a", "", "a/../../b"])
def test_a_name_stays_within_the_folder(name: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(name))), adding(folder) as addition:
        addition.write(name, "x")


def _count_up(folder: Path, key: str, n: int) -> None:
    """What whoever finds poles does: read what is known, and write more."""
    for i in range(n):
        with adding(folder) as addition:
            known = json.loads(addition.read("poles/all.json") or b"{}")
            addition.write("poles/all.json", json.dumps({**known, f"{key}{i}": i}), force=True)
            addition.write(f"layouts/{key}{i}.json", key)


def test_two_processes_that_add_at_once_lose_nothing(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count_up, args=(folder, key, 20)) for key in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    found = json.loads((folder / "poles" / "all.json").read_text())
    assert found == {f"{key}{i}": i for key in "ab" for i in range(20)}
    assert len(list((folder / "layouts").iterdir())) == 40
    assert not (folder / LOCK).exists()


def test_two_threads_that_add_at_once_lose_nothing(folder: Path) -> None:
    threads = [threading.Thread(target=_count_up, args=(folder, key, 10)) for key in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = json.loads((folder / "poles" / "all.json").read_text())
    assert found == {f"{key}{i}": i for key in "ab" for i in range(10)}


def test_who_waits_too_long_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projector.storage.additions._PATIENCE_S", 0.1)
    with (
        alone_at(folder),
        refused_naming(folder, "0 seconds"),
        adding(folder),
    ):
        pass
    with adding(folder) as addition:
        addition.write("a.json", "x")


def test_a_replacement_reaches_into_folders_and_is_finished_by_the_next(folder: Path) -> None:
    (folder / "layouts").mkdir()
    (folder / "layouts" / "old.json").write_text("old")
    (folder / "layouts" / "mine.txt").write_text("mine")
    with replacing_files(folder) as staging:
        (staging / "layouts").mkdir()
        (staging / "layouts" / "new.json").write_text("new")
        (staging / "layouts" / "old.json").touch()
    assert contents(folder) == {
        MAIN: b"{}",
        "layouts/mine.txt": b"mine",
        "layouts/new.json": b"new",
    }
    # Killed when all was decided, and half of it moved.
    committed = folder / COMMITTED / "layouts"
    committed.mkdir(parents=True)
    (committed / "new.json").write_text("newer")
    (committed / "mine.txt").touch()
    finish_replacing(folder)
    assert contents(folder) == {MAIN: b"{}", "layouts/new.json": b"newer"}
    assert not (folder / COMMITTED).exists()
    assert not (folder / STAGED).exists()


def _add_and_die(folder: Path, die_at: int) -> None:
    """Add two files, and end without a farewell at a moment of the disk."""
    names = ("replace", "unlink", "rmdir")
    die_in(die_at, (replacing, "sync"), *((Path, name) for name in names))
    with adding(folder) as addition:
        addition.write("layouts/a.json", "new text", force=True)
        addition.path("layouts/a.safetensors", force=True).write_bytes(b"new tensors")
    os._exit(0)


def test_a_kill_at_any_moment_leaves_the_old_files_or_the_new_ones(folder: Path) -> None:
    old = {"layouts/a.json": b"old text", "layouts/a.safetensors": b"old tensors"}
    new = {"layouts/a.json": b"new text", "layouts/a.safetensors": b"new tensors"}
    found: list[dict[str, bytes]] = []
    for die_at in range(1, 200):
        for name, content in old.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        process = multiprocessing.get_context("fork").Process(
            target=_add_and_die, args=(folder, die_at)
        )
        process.start()
        process.join(60)
        # Whoever opens the folder next finishes what was decided.
        finish_replacing(folder)
        now = {name: (folder / name).read_bytes() for name in old}
        assert now in (old, new), die_at
        found.append(now)
        # And nothing is in the way of the next one.
        with adding(folder) as addition:
            addition.write("layouts/b.json", "b", force=True)
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert found[0] == old
    assert found[-1] == new
    assert sorted(contents(folder)) == sorted([MAIN, "layouts/b.json", *new])
