"""``pruning prune``: a smaller checkpoint of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

from rich.markup import escape

from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.options import LoadingOptions
from projector.terminal.screen import Screen
from pruning.settings import (
    MEMORY_HELP,
    PROJECTION_HELP,
    SEQUENCE_LENGTH_HELP,
    PoleOptions,
    PruneSettings,
)
from pruning.terminal.options import (
    CALIBRATION_HELP,
    Model,
    ResumeOptions,
    WithoutPoles,
    calibration_of,
    memory_words,
)


@dataclass(frozen=True)
class PruneOptions:
    """Where a pruned model is written, and the text and projection that it is made from."""

    out: Path = setting(help="Folder for the pruned model.")
    projection: Path | None = setting(None, help=PROJECTION_HELP)
    calibration: str | None = setting(None, help=CALIBRATION_HELP)
    sequence_length: int | None = setting(None, help=SEQUENCE_LENGTH_HELP)
    memory_budget: int | None = setting(None, help=MEMORY_HELP, unit="bytes")


@command
def prune(
    screen: Screen,
    model: Model,
    *,
    options: PruneOptions,
    settings: Annotated[PruneSettings, WithoutPoles],
    poles: PoleOptions,
    loading: LoadingOptions,
    again: ResumeOptions,
) -> None:
    """Make a smaller checkpoint of MODEL, which plain transformers loads."""
    from pruning.pruning import layers_path, prune_model
    from pruning.saving import check_out

    out = options.out
    screen.can_resume = layers_path(out).exists
    source = calibration_of(options.calibration, model)
    check_out(out, force=again.force or again.resume)
    with screen.progress() as progress:
        made = prune_model(
            model,
            replace(settings, poles=poles),
            out,
            calibration=source,
            projection=options.projection,
            sequence_length=options.sequence_length,
            memory_budget=options.memory_budget,
            **vars(loading),
            **vars(again),
            progress=progress,
            tell=lambda what: _tell(screen, what, out),
        )
    screen.result(made.as_dict(), "\n".join(_lines(made, model, out)))


def _tell(screen: Screen, what: Any, out: Path) -> None:
    """Before the work begins: what is to be done, and what memory it takes."""
    from projector.storage.resuming import Step

    if what is Step.LEAVE:
        screen.say(f"[b]{escape(str(out))}[/b] is finished: nothing is left to do")
    elif what is Step.GO_ON:
        screen.say("Resuming from the layers that were made")
    elif not isinstance(what, Step):
        screen.say(memory_words(what))


def _lines(made: Any, model: str, out: Path) -> list[str]:
    """What a person reads of a pruned model."""
    lines = [
        f"{made.n_parameters_before:,} → {made.n_parameters:,} parameters "
        f"({made.removed_share:.1%} fewer); MLPs of {_range(made.widths)} neurons",
    ]
    if made.saved.greatest_difference is None:
        return [*lines, f"The pruned model is in [b]{escape(str(out))}[/b]"]
    lines.append(
        "Loaded again in a fresh process by plain transformers: "
        f"outputs differ by {made.saved.greatest_difference:.1g}"
    )
    if made.saved.tokenizer_differs:
        lines.append(
            "[yellow]note[/yellow]: AutoTokenizer cuts text differently for this model type; "
            "load its tokenizer with PreTrainedTokenizerFast.from_pretrained"
        )
    lines.append(f"Wrote [b]{escape(str(out))}[/b]")
    lines.append(f"Next: pruning bench {escape(f'{quote(model)} {quote(str(out))}')}")
    return lines


def _range(widths: list[int]) -> str:
    least, most = min(widths), max(widths)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
