"""Frames become a GIF, and an MP4 where there is an ffmpeg."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from projector.figures.layers import film
from projector.figures.layers.film import find_ffmpeg, write_film

HEIGHT, WIDTH = 21, 33


def make_frames(n: int = 3) -> list[np.ndarray]:
    return [np.full((HEIGHT, WIDTH, 3), (40 * i, 255 - 40 * i, 7), np.uint8) for i in range(n)]


def fake_ffmpeg(folder: Path, body: str) -> str:
    """A program in Python that takes ffmpeg's place; the file to write is its last argument."""
    path = folder / "ffmpeg"
    path.write_text(f"#!{sys.executable}\nimport sys\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def use(monkeypatch: pytest.MonkeyPatch, program: str | None) -> None:
    monkeypatch.setattr(film, "find_ffmpeg", lambda: program)


def test_a_gif_shows_each_frame_in_a_loop(out: Path) -> None:
    frames = make_frames()
    written = write_film(frames, out / "layers.1", fps=4, kinds=("gif",))
    assert written.paths == (out / "layers.1.gif",)
    with Image.open(written.paths[0]) as image:
        assert (image.n_frames, image.info["loop"]) == (3, 0)
        for i, frame in enumerate(frames):
            image.seek(i)
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), frame)
            assert image.info["duration"] == (250 if i < 2 else 1250)


def test_a_gif_of_many_colours_keeps_those_that_have_to_be_exact(out: Path) -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (60, 60, 3)).astype(np.uint8)
    exact = frame[:5].reshape(-1, 3)[:200]
    (path,) = write_film([frame], out / "f", fps=1, kinds=("gif",), exact=exact).paths
    with Image.open(path) as image:
        found = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(found.reshape(-1, 3)[:200], exact)
    assert np.abs(found.astype(int) - frame).mean() < 40


def test_an_ffmpeg_gets_the_pixels_and_the_last_frame_stays(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = (
        "size = sys.argv[sys.argv.index('-s') + 1]\n"
        "open(sys.argv[-1], 'wb').write(size.encode() + b' ' + sys.stdin.buffer.read())"
    )
    use(monkeypatch, fake_ffmpeg(tmp_path, body))
    frames = make_frames()
    written = write_film(frames, out / "layers", fps=2)
    assert written.note is None
    assert [path.name for path in written.paths] == ["layers.gif", "layers.mp4"]
    shown = b"".join(each.tobytes() for each in [*frames, frames[-1], frames[-1]])
    assert (out / "layers.mp4").read_bytes() == f"{WIDTH}x{HEIGHT} ".encode() + shown


def test_without_ffmpeg_there_is_a_gif_and_a_note(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, None)
    # Of an earlier film, which this one is not.
    (out / "layers.mp4").write_bytes(b"old")
    written = write_film(make_frames(), out / "layers", fps=4)
    assert [path.name for path in written.paths] == ["layers.gif"]
    assert "ffmpeg" in str(written.note)
    assert [path.name for path in out.iterdir()] == ["layers.gif"]


@pytest.mark.parametrize(
    "body",
    [
        "open(sys.argv[-1], 'wb').write(b'half')\n"
        "print('bad\ncodec', file=sys.stderr); sys.exit(3)",
        "open(sys.argv[-1], 'wb').write(b'half'); sys.exit(1)",
        "pass",
    ],
    ids=["with words", "silent", "no file"],
)
def test_an_ffmpeg_that_fails_is_one_line_and_leaves_nothing(
    body: str, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, fake_ffmpeg(tmp_path, body))
    written = write_film(make_frames(), out / "layers", fps=4)
    assert [path.name for path in written.paths] == ["layers.gif"]
    assert written.note is not None
    assert len(written.note.splitlines()) == 1
    assert [path.name for path in out.iterdir()] == ["layers.gif"]


def test_an_ffmpeg_that_can_not_be_run_is_a_note(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in (tmp_path / "nowhere", tmp_path):
        use(monkeypatch, str(program))
        written = write_film(make_frames(), out / "layers", fps=4)
        assert written.note is not None
        assert [path.name for path in out.iterdir()] == ["layers.gif"]


def test_a_full_disk_leaves_the_old_film(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("layers.gif", "layers.mp4"):
        (out / name).write_bytes(b"old")
    body = "print('av_interleaved: No space left on device', file=sys.stderr); sys.exit(1)"
    use(monkeypatch, fake_ffmpeg(tmp_path, body))
    with pytest.raises(OSError, match="No space"):
        write_film(make_frames(), out / "layers", fps=4)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        "layers.gif": b"old",
        "layers.mp4": b"old",
    }


def test_the_ffmpeg_of_the_system_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = fake_ffmpeg(tmp_path, "pass")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_ffmpeg() == program
    monkeypatch.setenv("PATH", "")
    # As where it is not installed.
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert find_ffmpeg() is None


@pytest.mark.skipif(find_ffmpeg() is None, reason="there is no ffmpeg here")
def test_equal_frames_give_equal_films(out: Path) -> None:
    first = write_film(make_frames(), out / "a", fps=4)
    again = write_film(make_frames(), out / "b", fps=4)
    assert first.note is None
    contents = [[path.read_bytes() for path in each.paths] for each in (first, again)]
    assert contents[0] == contents[1]
    assert contents[0][1][4:8] == b"ftyp"


def test_frames_of_two_sizes_are_no_film(out: Path) -> None:
    for frames in ([], [*make_frames(1), np.zeros((2, 2, 3), np.uint8)]):
        with pytest.raises(ValueError, match="frame"):
            write_film(frames, out / "x", fps=4)
    assert not list(out.iterdir())
