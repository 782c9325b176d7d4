"""The folder of an image of layers: its pictures and films, and ``report.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from projector.figures.layers.writing import write_checkpoints, write_difference, write_layer_image
from projector.figures.report import JSON_FILE, check_report_place
from projector.progress import Progress, Silent
from projector.residual.layer_image.records import LayerImages
from projector.storage.folders import replacing_folder
from projector.storage.places import disk_errors
from projector.storage.versions import json_text


def check_folder(out: Path, *, force: bool) -> None:
    """Raise a UserError if an image of layers must not be written at ``out``.

    An existing folder is replaced only if it is a report and ``force`` is True.
    """
    check_report_place(out, force=force)


def write_layer_images(
    found: LayerImages, out: Path, *, force: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Write all files atomically; see :func:`check_folder` for replaced folders.

    Returns:
        The content of ``report.json``: ``files``, each with its name and kind, and ``notes`` about
        files that were left out.

    Raises:
        UserError: if it must not be written there, or can't be written.
    """
    check_folder(out, force=force)
    progress = progress or Silent()
    with disk_errors(out), replacing_folder(out) as new:
        progress.begin("Drawing", None, "")
        new.mkdir()
        if found.other is not None and found.difference is not None:
            written = [write_difference(found.image, found.other, found.difference, new)]
        else:
            written = [write_layer_image(found.image, new)]
        if found.checkpoints:
            written.append(write_checkpoints(found.checkpoints, new))
        paths = [path for each in written for path in each.paths]
        notes = dict.fromkeys(each.note for each in written if each.note)
        content = found.as_dict() | {
            "files": [{"name": path.name, "kind": path.suffix[1:]} for path in paths],
            "notes": list(notes),
        }
        (new / JSON_FILE).write_text(json_text(content), encoding="utf-8")
        progress.end()
    return content
