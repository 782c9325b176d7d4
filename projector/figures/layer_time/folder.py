"""The folder of a picture of hidden states: its report and arrays, the player, and the films."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from projector.corpus.pieces import readable
from projector.errors import UserError, named
from projector.figures.layer_time.page import layer_time_page
from projector.figures.layers.density import write_density
from projector.figures.layers.writing import write_layer_image
from projector.progress import Progress, Silent
from projector.residual.layer_image.image import layer_image
from projector.residual.particles.artifact import TENSOR_FILE, read_particles, write_particles
from projector.residual.particles.autoencoder.artifact import place_of_autoencoder
from projector.residual.particles.records import AUTOENCODER_FOLDER, LayerTime
from projector.storage.folders import replacing_folder
from projector.storage.places import check_replaceable, disk_errors

PAGE_FILE = "layer-time.html"


@dataclass(frozen=True)
class Files:
    """The content of a folder: the names of files, and notes about files that couldn't be
    written.
    """

    names: tuple[str, ...]
    notes: tuple[str, ...]


def check_folder(out: Path, *, force: bool, autoencoder: Path | None = None) -> None:
    """Raise a UserError if a picture must not be written at ``out``.

    An existing folder is replaced only if it is a picture and ``force`` is True. A trained
    autoencoder is never removed: a picture with an autoencoder is replaced only by one with the
    same autoencoder, which is then written into the new folder.

    Args:
        autoencoder: the folder of the saved autoencoder of the new picture.
    """
    check_replaceable(out, TENSOR_FILE, "a picture of layers", force=force)
    held = out / AUTOENCODER_FOLDER
    if not held.is_dir():
        return
    if autoencoder is None or place_of_autoencoder(autoencoder).resolve() != held.resolve():
        raise UserError(
            f"'{out}' holds a trained autoencoder, which would be lost: give another folder for "
            f"{named('out')}, or use it ({named('autoencoder', str(out))})",
            setting="out",
            value=str(out),
        )


def write_layer_time(
    found: LayerTime, out: Path, *, force: bool = False, progress: Progress | None = None
) -> Files:
    """Write all files atomically; see :func:`check_folder` for replaced folders.

    Raises:
        UserError: if it must not be written there, or can't be written.
    """
    check_folder(out, force=force, autoencoder=found.settings.autoencoder)
    progress = progress or Silent()
    with disk_errors(out), replacing_folder(out) as new:
        progress.begin("Drawing", None, "")
        write_particles(found, new)
        notes = _draw(found, new)
        names = tuple(sorted(each.name for each in new.iterdir()))
    progress.end()
    return Files(names, notes)


def _draw(found: LayerTime, folder: Path) -> tuple[str, ...]:
    """The pictures, from what was written; notes on what could not be."""
    report, arrays = read_particles(folder)
    (folder / PAGE_FILE).write_text(layer_time_page(report, arrays), encoding="utf-8")
    prompt = found.prompts[-1]
    of = " of B" if len(found.prompts) > 1 else ""
    image = layer_image(
        found.last_states[-1],
        names=[each.name for each in found.frames],
        model=found.model_name,
        token=f"token {len(prompt.ids) - 1:,} ‘{readable(prompt.pieces[-1])}’{of}",
        prompt="".join(prompt.pieces) if prompt.text is None else prompt.text,
    )
    written = [write_layer_image(image, folder), write_density(report, arrays, folder)]
    return tuple(dict.fromkeys(each.note for each in written if each.note))
