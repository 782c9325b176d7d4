"""Options that several commands share, and what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from projector.errors import UserError, named
from projector.storage.resuming import FORCE_HELP, RESUME_HELP
from projector.terminal.options import name_options

name_options(
    n_seeds="--seeds",
    n_windows="--windows",
    n_partners="--partners",
    n_workers="--workers",
    n_repeats="--repeats",
    n_tasks="--limit",
    evaluations="--evaluation",
)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, for scripts.")
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="[b]bundled[/b], a local folder, a .gguf file, or a hub id."
    ),
]
Device = Annotated[str, typer.Option(help="Device to run on: auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[
    str, typer.Option(help="Type that the model computes in: auto, float32, bfloat16 or float16.")
]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of a hub model.", show_default=False)
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the code that comes with the model.")
]

# What prune and sweep share.
Sequences = Annotated[int, typer.Option("--sequences", help="Calibration sequences to draw.")]
SequenceLength = Annotated[
    int | None,
    typer.Option(
        help="Tokens per sequence. By default 256, or as many as the model takes.",
        show_default=False,
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        help="Text to plan and to refit on, a source as for `perplexity --corpus`. By default, "
        "for the bundled model, {usual_calibration}.",
        show_default=False,
    ),
]
ProjectionDir = Annotated[
    Path | None,
    typer.Option(
        "--projection",
        help="The model's projection, for {projection_methods}.",
        show_default=False,
    ),
]
Allocation = Annotated[
    str,
    typer.Option(
        help="[b]uniform[/b]: as many neurons in every layer. [b]global[/b]: more in layers where "
        "they matter, if the model's config can hold different widths."
    ),
]
RoundTo = Annotated[int, typer.Option("--round-to", help="Widths are multiples of this.")]
PoleSpace = Annotated[
    str | None,
    typer.Option(
        "--space",
        help="Space in which the poles of {projection_methods} are found, as for `pruning poles`. "
        "By default abs-correlation, or positions where the projection keeps no statistics.",
        show_default=False,
    ),
]
PoleSize = Annotated[
    int | None,
    typer.Option(
        "--min-cluster-size",
        help="Minimum size of these poles, as for `pruning poles`.",
        show_default=False,
    ),
]
PoleSelection = Annotated[
    str | None,
    typer.Option(
        "--selection",
        help="How these poles are selected, as for `pruning poles`. By default leaf, and eom in "
        "space positions.",
        show_default=False,
    ),
]
Steps = Annotated[
    int, typer.Option("--steps", help="Training steps in each layer, for {training_refits}.")
]

MemoryBudget = Annotated[
    str | None,
    typer.Option(
        help="Most memory to use besides the model's own, for example 8GiB. By default the free "
        "memory minus a margin.",
        show_default=False,
    ),
]

# What sweep and reuse share; and all that can be resumed.
Seeds = Annotated[
    int, typer.Option(help="Number of seeds; each draws its own calibration sequences.")
]
Windows = Annotated[
    int,
    typer.Option(
        help="Number of windows that every model is scored on; all models use the same ones."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help=RESUME_HELP)]
Force = Annotated[bool, typer.Option("--force", help=FORCE_HELP)]


def calibration_of(given: str | None, model: str) -> str:
    """The calibration text: the given one, or the model's usual one."""
    from pruning.preparing import usual_texts

    if given is not None:
        return given
    usual = usual_texts(model)
    if usual is None:
        raise UserError(
            f"calibration text for '{model}' is not given: add {named('calibration', 'SOURCE')}",
            setting="calibration",
        )
    return usual.calibration


def evaluation_of(given: str | None, model: str, setting: str = "evaluation") -> str:
    """The evaluation text or texts: those given, or the model's usual one."""
    from pruning.preparing import usual_texts

    if given is not None:
        return given
    usual = usual_texts(model)
    if usual is None:
        raise UserError(
            f"evaluation text for '{model}' is not given: add {named(setting, 'SOURCE')}",
            setting=setting,
        )
    return usual.evaluation


def names(text: str) -> tuple[str, ...]:
    """``random, obs`` → its parts."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(setting: str, text: str) -> tuple[float, ...]:
    """``0.1, 0.3`` → its parts."""
    try:
        return tuple(float(part) for part in names(text))
    except ValueError as error:
        raise UserError(
            f"{named(setting)} '{text}' can't be read: write for example 0.1,0.3",
            setting=setting,
            value=text,
        ) from error


def memory_words(needs: Any) -> str:
    """What layers take, before they are made (:class:`pruning.layerwise.budget.Needs`)."""
    from projector.memory import enough_text

    return (
        f"Needs about {enough_text(needs.total)} of memory besides the model, layer by layer: "
        f"{needs.parts()}"
    )
