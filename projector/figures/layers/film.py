"""Write frames as a film: a GIF, and an MP4 if ffmpeg is installed."""

from __future__ import annotations

import errno
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from projector.errors import check_choice
from projector.storage.replacing import replacing_file

KINDS = ("gif", "mp4")
# The last frame stays for a while before a film begins again.
HOLD_S = 1.0
# Of a GIF's palette.
_MOST_COLOURS = 256
_AT_ONCE, _N_CODES = 4096, 1 << 24
_PATIENCE_S = 600
_NO_FFMPEG = (
    "MP4 was left out, because no ffmpeg was found: install ffmpeg, or "
    "`pip install 'transformer-projector[video]'`"
)
_FULL = ("No space left", "Disk quota", "File too large")

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Written:
    """Files that were written.

    Attributes:
        paths: paths of the files.
        note: why a file was left out; None if none was.
    """

    paths: tuple[Path, ...]
    note: str | None = None


def write_film(
    frames: Iterable[Pixels],
    path_without_suffix: Path,
    *,
    fps: float,
    kinds: Sequence[str] = KINDS,
    exact: Pixels | None = None,
) -> Written:
    """Write frames as ``NAME.gif`` and ``NAME.mp4``, which loop and pause for a second on the last
    frame.

    All frames are in memory while they are written: n × h × w × 3 bytes. Existing files are
    replaced atomically. An MP4 that can't be made is left out, and one of an earlier film is
    removed.

    Args:
        frames: (h, w, 3) uint8 RGB each; at least one, all of the same size.
        path_without_suffix: the folder and the name of the files.
        fps: frames per second.
        kinds: kinds of files, from :data:`KINDS`.
        exact: (n, 3) uint8, colours that a GIF must show exactly. It has 256 colours, and every
            other colour is replaced by a similar one. None for the most frequent colours.

    Raises:
        ValueError: if there are no frames, or frames have different sizes.
        OSError: if a file can't be written; no file is left in this case.
    """
    for kind in kinds:
        check_choice("kinds", kind, KINDS)
    shown = list(frames)
    if not shown or any(each.shape != shown[0].shape for each in shown):
        raise ValueError("a film needs at least one frame, and all frames must have the same size")
    path_of = {
        kind: path_without_suffix.with_name(f"{path_without_suffix.name}.{kind}") for kind in kinds
    }
    note = None
    with tempfile.TemporaryDirectory() as folder, ExitStack() as files:
        made = Path(folder) / "film.mp4"
        if "mp4" in path_of and (note := _make_mp4(shown, made, fps)) is None:
            shutil.copyfile(made, files.enter_context(replacing_file(path_of["mp4"])))
        if "gif" in path_of:
            _write_gif(shown, files.enter_context(replacing_file(path_of["gif"])), fps, exact)
    if note is not None:
        path_of.pop("mp4").unlink(missing_ok=True)
    return Written(tuple(path_of.values()), note)


def find_ffmpeg() -> str | None:
    """Find the system's ffmpeg, or else that of imageio-ffmpeg; None if there is neither."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return str(get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        # It is not installed, or has no program for this system.
        return None


def _make_mp4(frames: Sequence[Pixels], path: Path, fps: float) -> str | None:
    """Write H.264 that every browser plays; why there is none, where it can't be made.

    Raises:
        OSError: if there is no space for it.
    """
    program = find_ffmpeg()
    if program is None:
        return _NO_FFMPEG
    height, width = frames[0].shape[:2]
    asked = ["-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    asked += ["-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-", "-an"]
    # Its colour planes are half as wide and high: sides have to be even.
    asked += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white,scale=out_color_matrix=bt709"]
    asked += ["-c:v", "libx264", "-crf", "16", "-pix_fmt", "yuv420p", "-colorspace", "bt709"]
    # One thread and no versions in it: equal frames give equal bytes.
    asked += ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
    asked += ["-map_metadata", "-1", "-movflags", "+faststart", "-f", "mp4", str(path)]
    with tempfile.TemporaryFile() as pixels:
        for frame in [*frames, *[frames[-1]] * round(HOLD_S * fps)]:
            pixels.write(np.ascontiguousarray(frame).data)
        pixels.seek(0)
        try:
            done = subprocess.run(
                [program, *asked], stdin=pixels, capture_output=True, timeout=_PATIENCE_S
            )
        except subprocess.TimeoutExpired:
            return f"MP4 was left out, because ffmpeg took more than {_PATIENCE_S} s"
        except OSError as error:
            return f"MP4 was left out, because ffmpeg can't be run: {error.strerror}"
    problem = done.stderr.decode("utf-8", "replace") if done.returncode else ""
    if any(sign in problem for sign in _FULL):
        raise OSError(errno.ENOSPC, "No space left for a film")
    if done.returncode or not path.is_file() or not path.stat().st_size:
        last = (problem.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        return f"MP4 was left out, because ffmpeg failed: {' '.join(last.split())[:200]}"
    return None


def _write_gif(frames: Sequence[Pixels], path: Path, fps: float, exact: Pixels | None) -> None:
    """Write a GIF of one palette, so that no colour changes from frame to frame."""
    codes = [_codes(frame) for frame in frames]
    colours, counts = _count(codes)
    kept = _codes(np.zeros((0, 3), dtype=np.uint8) if exact is None else exact)
    palette = _palette(colours, counts, kept)
    # 16 MB, in which a colour is found without a search.
    nearest = np.zeros(_N_CODES, dtype=np.uint8)
    nearest[colours] = _nearest(_rgb(colours), palette)
    images = []
    for code in codes:
        image = Image.fromarray(nearest[code], mode="P")
        image.putpalette(palette.tobytes())
        images.append(image)
    # Times are in hundredths of a second.
    step = max(2, round(100 / fps)) * 10
    times = [step] * (len(images) - 1) + [step + round(HOLD_S * 1000)]
    images[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=times if len(images) > 1 else times[0],
        loop=0,
        optimize=False,
    )


def _codes(pixels: Pixels) -> NDArray[np.uint32]:
    """(…,) uint32: the colour of each of (…, 3) pixels as a number 0xRRGGBB."""
    wide = pixels.astype(np.uint32)
    return (wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]).astype(np.uint32)


def _rgb(codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """(n, 3) uint8 of n numbers 0xRRGGBB."""
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8)


def _count(codes: Sequence[NDArray[np.uint32]]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """All colours of a film in order, and how many pixels each has."""
    parts = [np.unique(each, return_counts=True) for each in codes]
    colours, place = np.unique(np.concatenate([each for each, _ in parts]), return_inverse=True)
    weights = np.concatenate([each for _, each in parts])
    return colours, np.bincount(place, weights).astype(np.int64)


def _palette(
    colours: NDArray[np.uint32], counts: NDArray[np.int64], exact: NDArray[np.uint32]
) -> NDArray[np.uint8]:
    """(256, 3) uint8: all of a film's colours where they are so few; else those that have to be
    exact, those of most pixels, and some that stand for the others."""
    palette = np.zeros((_MOST_COLOURS, 3), dtype=np.uint8)
    if len(colours) <= _MOST_COLOURS:
        palette[: len(colours)] = _rgb(colours)
        return palette
    first = np.isin(colours, exact)
    order = np.lexsort((-counts, ~first))
    n_exact = min(int(first.sum()), _MOST_COLOURS)
    n_kept = n_exact + (_MOST_COLOURS - n_exact) // 2
    palette[:n_kept] = _rgb(colours[order[:n_kept]])
    if n_kept < _MOST_COLOURS:
        # Each once, so that rare ones are stood for too.
        others = Image.fromarray(_rgb(colours[order[n_kept:]])[None])
        found = others.quantize(_MOST_COLOURS - n_kept, method=Image.Quantize.MEDIANCUT)
        stand_ins = np.array(found.getpalette() or [], dtype=np.uint8).reshape(-1, 3)
        stand_ins = stand_ins[: _MOST_COLOURS - n_kept]
        palette[n_kept : n_kept + len(stand_ins)] = stand_ins
    return palette


def _nearest(rgb: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n,) uint8: which colour of a palette is nearest to each of n."""
    found = np.empty(len(rgb), dtype=np.uint8)
    wide = palette.astype(np.int64)
    for start in range(0, len(rgb), _AT_ONCE):
        part = rgb[start : start + _AT_ONCE].astype(np.int64)
        found[start : start + _AT_ONCE] = ((part[:, None] - wide) ** 2).sum(axis=2).argmin(axis=1)
    return found
