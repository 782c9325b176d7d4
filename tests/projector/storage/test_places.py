"""A place that can't be written is told before any work: the path that was given, and why."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from projector.errors import UserError
from projector.storage.folders import replacing_folder
from projector.storage.places import check_place, check_replaceable, disk_errors
from tests.refused import refused, refused_by_the_disk


def refuse(folder: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be made in a folder."""
    mkdir, open_ = os.mkdir, os.open

    def checked(function: Any) -> Any:
        def call(path: Any, *given: Any, **options: Any) -> Any:
            if isinstance(path, str | os.PathLike) and Path(path).parent == folder:
                raise OSError(code, os.strerror(code), str(path))
            return function(path, *given, **options)

        return call

    monkeypatch.setattr(os, "mkdir", checked(mkdir))
    monkeypatch.setattr(os, "open", checked(open_))


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOENT, errno.EPERM])
def test_what_the_system_refuses_is_told_with_the_path_and_the_reason(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = tmp_path / "held"
    held.mkdir()
    (held / "report.json").touch()
    refuse(tmp_path, code, monkeypatch)
    for out, force in ((tmp_path / "new", False), (tmp_path / "a" / "b", False), (held, True)):
        with pytest.raises(UserError) as caught:
            check_replaceable(out, "report.json", "a report", force=force)
        assert (caught.value.setting, caught.value.value) == ("out", str(out))
        assert f"'{out}'" in str(caught.value)
        assert os.strerror(code) in str(caught.value)
    # In a folder that exists, files of its own can be written.
    check_place(held)
    # Where nothing was checked before, nobody is said to be writing there.
    with (
        refused_by_the_disk(code, held, os.strerror(code)) as caught,
        disk_errors(held),
        replacing_folder(held),
    ):
        pass
    assert ".held" not in str(caught.value)


def test_what_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    for out in (tmp_path / "held", tmp_path / "new", tmp_path / "a" / "b"):
        check_replaceable(out, "report.json", "a report", force=False)
    assert [path.name for path in tmp_path.rglob("*")] == ["held"]


@pytest.mark.parametrize("length", [250, 300])
def test_a_name_too_long_to_be_written(length: int, tmp_path: Path) -> None:
    """The shorter one can be made; what stands beside it while it is written can't."""
    out = tmp_path / ("a" * length)
    with refused("out", str(out), os.strerror(errno.ENAMETOOLONG)):
        check_replaceable(out, "report.json", "a report", force=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc")
def test_a_place_under_proc() -> None:
    with pytest.raises(UserError) as caught:
        check_replaceable(Path("/proc/x"), "report.json", "a report", force=False)
    assert (caught.value.setting, caught.value.value) == ("out", "/proc/x")


def test_a_mount_point_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda self: self == tmp_path)
    with refused("out", str(tmp_path), "mount point"):
        check_replaceable(tmp_path, "report.json", "a report", force=False)
    check_place(tmp_path)
