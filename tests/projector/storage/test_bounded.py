"""A bounded folder: what was not used for longest goes first, and nothing of anyone else's."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock

from projector.storage import bounded
from projector.storage.bounded import BoundedFolder

PATTERNS = ("texts/*.json", "tensors/*.bin")


def write(folder: BoundedFolder, name: str, n_bytes: int) -> None:
    with folder.writing(name) as path:
        path.write_bytes(b"x" * n_bytes)


def age(folder: BoundedFolder, *names: str) -> None:
    """Make files look unused for long, the first one for longest."""
    for k, name in enumerate(names):
        os.utime(folder.path / name, (1_000 + k, 1_000))


def held(folder: BoundedFolder) -> set[str]:
    return {path.relative_to(folder.path).as_posix() for path in folder.files()}


def test_the_longest_unused_file_goes_first(tmp_path: Path) -> None:
    folder = BoundedFolder(tmp_path / "kept", PATTERNS, 250)
    names = ("texts/a.json", "tensors/b.bin", "texts/c.json")
    for name in names[:2]:
        write(folder, name, 100)
    age(folder, *names[:2])
    # It was written first, and used last.
    assert folder.find("texts/a.json") == folder.path / "texts/a.json"
    write(folder, names[2], 100)
    assert held(folder) == {"texts/a.json", "texts/c.json"}
    assert folder.find("tensors/b.bin") is None


def test_use_does_not_look_like_a_change(tmp_path: Path) -> None:
    folder = BoundedFolder(tmp_path, PATTERNS, 250)
    write(folder, "texts/a.json", 1)
    age(folder, "texts/a.json")
    folder.find("texts/a.json")
    assert (tmp_path / "texts/a.json").stat().st_mtime == 1_000


def test_the_newest_file_stays_however_large_it_is(tmp_path: Path) -> None:
    folder = BoundedFolder(tmp_path, PATTERNS, 100)
    write(folder, "texts/a.json", 50)
    write(folder, "tensors/b.bin", 500)
    assert held(folder) == {"tensors/b.bin"}


def test_other_files_of_the_folder_stay(tmp_path: Path) -> None:
    """The folder is whatever a user named: their own files are no business of it."""
    folder = BoundedFolder(tmp_path, PATTERNS, 10)
    theirs = [
        tmp_path / "big.json",
        tmp_path / "texts" / "notes.txt",
        tmp_path / "texts/x/y.json",
        tmp_path / "texts" / ".notes.txt.partial",
        tmp_path / "texts" / ".notes.txt.1.1.partial",
        tmp_path / "texts" / ".a.json.partial",
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
        os.utime(path, (1, 1))
    write(folder, "texts/a.json", 100)
    assert all(path.exists() for path in theirs)
    with pytest.raises(ValueError, match="none of"), folder.writing("big.json"):
        pass


def test_what_fails_leaves_the_old_file(tmp_path: Path) -> None:
    folder = BoundedFolder(tmp_path, PATTERNS, 100)
    write(folder, "texts/a.json", 3)

    def fail() -> None:
        with folder.writing("texts/a.json") as path:
            path.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "texts/a.json").read_bytes() == b"xxx"
    assert len(list((tmp_path / "texts").iterdir())) == 1


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    folder = BoundedFolder(tmp_path, PATTERNS, 100)
    old, young = (tmp_path / "texts" / f".{name}.json.1.1.partial" for name in ("old", "young"))
    old.parent.mkdir()
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    write(folder, "texts/a.json", 1)
    assert not old.exists()
    assert young.exists()


def test_names_that_no_file_can_have_are_not_found(tmp_path: Path) -> None:
    folder = BoundedFolder(tmp_path, PATTERNS, 100)
    assert folder.find("texts/" + "x" * 5_000) is None
    assert folder.find("texts/\0.json") is None
    folder.trim()


@pytest.mark.parametrize("code", [errno.EROFS, errno.EPERM, errno.EACCES])
def test_what_can_only_be_read_is_found(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = BoundedFolder(tmp_path, PATTERNS, 100)
    write(folder, "texts/a.json", 1)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "utime", refuse)
    assert folder.find("texts/a.json") == tmp_path / "texts/a.json"


def test_who_can_not_have_the_lock_writes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too much goes when somebody writes after that."""
    folder = BoundedFolder(tmp_path, PATTERNS, 100)
    write(folder, "texts/a.json", 100)
    age(folder, "texts/a.json")
    monkeypatch.setattr(bounded, "_PATIENCE_S", 0.1)
    with FileLock(tmp_path / ".lock"):
        write(folder, "texts/b.json", 100)
    assert held(folder) == {"texts/a.json", "texts/b.json"}
    write(folder, "texts/b.json", 100)
    assert held(folder) == {"texts/b.json"}


def test_threads_that_write_at_once_keep_the_bound_and_whole_files(tmp_path: Path) -> None:
    folder = BoundedFolder(tmp_path, PATTERNS, 1_000)
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for k in range(15):
                # Some names are the threads' own, one is everyone's.
                write(folder, "texts/all.json", 100)
                write(folder, f"texts/{number}-{k}.json", 100)
                path = folder.find("texts/all.json")
                # It may have gone meanwhile; a part of it is never there.
                with suppress(FileNotFoundError):
                    assert path is None or len(path.read_bytes()) == 100
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    folder.trim()
    assert sum(path.stat().st_size for path in folder.files()) <= 1_000
    assert not list((tmp_path / "texts").glob(".*.partial"))


def test_processes_that_write_at_once_keep_the_bound(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from projector.storage.bounded import BoundedFolder\n"
        f"folder = BoundedFolder(Path(sys.argv[1]), {PATTERNS!r}, 1000)\n"
        "for k in range(20):\n"
        "    with folder.writing(f'texts/{sys.argv[2]}-{k}.json') as path:\n"
        "        path.write_bytes(b'x' * 100)\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name]) for name in "ab"
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    sizes = [path.stat().st_size for path in (tmp_path / "texts").glob("*.json")]
    assert sizes == [100] * 10
