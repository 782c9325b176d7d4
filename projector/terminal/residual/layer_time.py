"""``projector layer-time``: hidden states as particles that move from layer to layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from projector.errors import check_text
from projector.residual.particles.settings import ParticleSettings
from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.options import ModelOptions, name_options
from projector.terminal.residual.opening import CHAT_HELP, PROMPT_HELP, ModelArgument, open_subject
from projector.terminal.screen import Screen

if TYPE_CHECKING:
    from projector.residual.particles.records import LayerTime

name_options(n_lines="--lines", n_groups="--groups")


@dataclass(frozen=True)
class TwoPromptOptions:
    """The texts, and where the picture is written."""

    prompt: str = setting(help=PROMPT_HELP)
    out: Path = setting(help="Folder for layer-time.html, pictures, arrays and report.json.")
    prompt_b: str | None = setting(
        None, help="A second text, which is placed by the same map, beside the first."
    )
    chat: bool = setting(False, help=CHAT_HELP)
    force: bool = setting(False, help="Replace the picture that OUT holds.")

    def __post_init__(self) -> None:
        check_text("prompt", self.prompt)
        check_text("prompt_b", self.prompt_b)


@command
def layer_time(
    screen: Screen,
    model: ModelArgument,
    *,
    options: TwoPromptOptions,
    settings: ParticleSettings,
    loading: ModelOptions,
) -> None:
    """Show the hidden states of a prompt, or of two, as particles that move from layer to layer."""
    from projector.figures.layer_time.folder import check_folder, write_layer_time
    from projector.residual.particles.report import check_before_loading
    from projector.residual.particles.report import layer_time as measure

    check_folder(options.out, force=options.force)
    check_before_loading(settings, options.prompt, options.prompt_b)
    subject = open_subject(screen, model, loading)
    with screen.progress() as progress:
        found = measure(
            subject,
            options.prompt,
            options.prompt_b,
            chat=options.chat,
            progress=progress,
            **vars(settings),
        )
        written = write_layer_time(found, options.out, force=options.force, progress=progress)
    if screen.as_json:
        screen.result(found.as_dict(), "")
        return
    _show(screen, found)
    screen.say(f"Wrote [b]{escape(str(options.out))}[/b]: {', '.join(written.names)}")


def _show(screen: Screen, found: LayerTime) -> None:
    screen.say(f"{len(found.owners):,} particles over {found.n_layers} layers")
