"""``projector layer-image``: all layers of one token as one image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from projector.residual.layer_image.settings import ImageSettings
from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.options import ModelOptions
from projector.terminal.residual.opening import ModelArgument, PromptOptions, open_subject
from projector.terminal.screen import Screen

if TYPE_CHECKING:
    from projector.residual.layer_image.records import LayerImages
    from projector.residual.subject import Subject


@dataclass(frozen=True)
class FolderOptions:
    """The output folder of the pictures."""

    out: Path = setting(help="Folder for layers.png, the films and report.json.")
    force: bool = setting(False, help="Replace the pictures that OUT holds.")


@command
def layer_image(
    screen: Screen,
    model: ModelArgument,
    *,
    prompt: PromptOptions,
    settings: ImageSettings,
    folder: FolderOptions,
    loading: ModelOptions,
) -> None:
    """Draw the hidden state of a token at all layers as one image: PNG, GIF and MP4.

    It can also draw two models and their difference, or a sequence of checkpoints as a film.
    """
    from projector.figures.layers.folder import check_folder, write_layer_images
    from projector.figures.report import JSON_FILE
    from projector.residual.layer_image.report import layer_image as read

    check_folder(folder.out, force=folder.force)
    subject = open_subject(screen, model, loading)
    with screen.progress() as progress:
        found = read(
            subject,
            prompt.prompt,
            chat=prompt.chat,
            load=lambda name: _load(name, loading),
            progress=progress,
            **vars(settings),
        )
        content = write_layer_images(found, folder.out, force=folder.force, progress=progress)
    if screen.as_json:
        screen.result(content, "")
        return
    _show(screen, found)
    for note in content["notes"]:
        screen.say(f"[yellow]{escape(note)}[/yellow]")
    pictures = [str(each["name"]) for each in content["files"]]
    names = ", ".join([*pictures, JSON_FILE])
    screen.say(f"Wrote [b]{escape(str(folder.out))}[/b]: {escape(names)}")
    first, *films = pictures
    shown = f"Next: open {folder.out / first}."
    for what in ("layer", "checkpoint"):
        of = [film for film in films if film.startswith(what)]
        if of:
            shown += f" {' and '.join(of)}: one {what} after another."
    screen.say(escape(shown))


def _load(name: str, loading: ModelOptions) -> Subject:
    """Another model, while bars are drawn already."""
    from projector.model.loading import load_model
    from projector.residual.subject import Subject

    return Subject(load_model(name, **asdict(loading), with_head=True))


def _show(screen: Screen, found: LayerImages) -> None:
    """What the picture says of itself."""
    from projector.figures.layers.words import largest_words, range_words, reading_words, title_of

    image = found.image
    screen.say(f"[b]{escape(title_of(image))}[/b]")
    screen.say(escape(reading_words(image, in_bands=True)))
    if image.note:
        screen.say(escape(image.note))
    together = [image, *([found.other] if found.other else []), *found.checkpoints]
    screen.say(escape(range_words(together)))
    screen.say(escape(largest_words([image])))
    if found.difference is not None:
        words = (range_words([found.difference]), largest_words([found.difference]))
        screen.say(escape(f"Difference: {' '.join(each for each in words if each)}"))
