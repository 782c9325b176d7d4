"""``projector steer``: continue a prompt with a direction added to the stream."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.options import ModelOptions
from projector.terminal.residual.opening import ModelArgument, PromptOptions, open_subject
from projector.terminal.screen import Screen

if TYPE_CHECKING:
    from projector.residual.directions.steering import Continuation, Steered


@dataclass(frozen=True)
class SteerOptions:
    """Options for the direction and its scale."""

    direction: Path = setting(
        help="A report of [b]projector contrast[/b], or a folder of its directions."
    )
    layer: int = setting(help="Layer to add the direction of: it is added to the layer's output.")
    scale: float = setting(
        1.0,
        help=(
            "Factor of the difference of means; below 0, the text is steered towards the second "
            "set."
        ),
    )
    n_new: int = setting(40, help="Maximum number of tokens to add.")
    seed: int = setting(0, help="Seed of the random direction.")


@command
def steer(
    screen: Screen,
    model: ModelArgument,
    *,
    text: PromptOptions,
    options: SteerOptions,
    loading: ModelOptions,
) -> None:
    """Continue a prompt while a direction from [b]projector contrast[/b] is added to the stream.

    It also shows the continuation without it, and with a random direction of the same norm.
    """
    from projector.residual.directions.steering import check_direction, check_steering
    from projector.residual.directions.steering import steer as steer_model

    check_steering(scale=options.scale, n_new=options.n_new, seed=options.seed)
    # A folder that holds none, or none of the layer, is reported before a model is loaded.
    check_direction(options.direction, options.layer)
    subject = open_subject(screen, model, loading)
    with screen.progress() as progress:
        found = steer_model(
            subject,
            text.prompt,
            options.direction,
            layer=options.layer,
            scale=options.scale,
            chat=text.chat,
            n_new=options.n_new,
            seed=options.seed,
            progress=progress,
        )
    if screen.as_json:
        screen.result(found.as_dict(), "")
        return
    _show(screen, found)


def _show(screen: Screen, found: Steered) -> None:
    from projector.corpus.pieces import readable

    prompt = readable(found.prompt, running=True)
    screen.say(f"[b]prompt[/b]     {escape(prompt if len(prompt) < 400 else '…' + prompt[-400:])}")
    towards = found.positive_name if found.scale >= 0 else found.negative_name
    share = abs(found.scale) * found.norm / found.usual_norm
    screen.say(
        f"[b]direction[/b]  {escape(found.negative_name)} → {escape(found.positive_name)} of "
        f"layer {found.layer}, scale {_signed(found.scale)}: towards {escape(towards)}, by "
        f"{share:.2g} times the median norm of tokens there"
    )
    titles = ("without the direction", "with the direction", "with a random one of the same norm")
    for title, each in zip(titles, found.continuations, strict=True):
        nats = each.log_perplexity
        told = "" if nats is None else f"   [dim]prompt: {nats:.2f} nats a token[/dim]"
        screen.say(f"\n[b]{title}[/b]{told}")
        screen.say(escape(_text(each)))
    for note in found.notes:
        screen.say(f"\n[yellow]{escape(note)}[/yellow]")
    if found.reason is not None:
        screen.say(f"\n[dim]There is no perplexity of the prompt: {found.reason}.[/dim]")


def _signed(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _text(each: Continuation) -> str:
    """A continuation as it is, but for signs that can't be seen."""
    from projector.corpus.pieces import readable

    lines = [readable(line, running=True) for line in each.text.split("\n")]
    shown = "\n".join(line.replace("⇥\t", "\t") for line in lines)
    return shown.rstrip() if shown.strip() else "(the text ends here)"
