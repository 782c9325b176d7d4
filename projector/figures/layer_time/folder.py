"""The folder of a picture of hidden states: its report and arrays, the player, and the films."""

from __future__ import annotations

from pathlib import Path

from projector.progress import Progress, Silent
from projector.residual.particles.artifact import TENSOR_FILE, write_particles
from projector.residual.particles.records import LayerTime
from projector.storage.folders import replacing_folder
from projector.storage.places import check_replaceable, disk_errors

PAGE_FILE = "layer-time.html"


def check_folder(out: Path, *, force: bool) -> None:
    """Raise a UserError if no picture may be written at ``out``.

    What is there is replaced only where it is one, and ``force`` is given.
    """
    check_replaceable(out, TENSOR_FILE, "a picture of layers", force=force)


def write_layer_time(
    found: LayerTime, out: Path, *, force: bool = False, progress: Progress | None = None
) -> tuple[str, ...]:
    """Write all files in one step; see :func:`check_folder` for what it replaces.

    Returns:
        The names of the files.

    Raises:
        UserError: if it may not be written there, or the disk refuses.
    """
    check_folder(out, force=force)
    progress = progress or Silent()
    with disk_errors(out), replacing_folder(out) as new:
        progress.begin("Writing", None, "")
        write_particles(found, new)
        names = tuple(sorted(each.name for each in new.iterdir()))
    progress.end()
    return names
