"""``pruning prune``: a smaller checkpoint of a model."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from rich.markup import escape

from projector.terminal.options import parse_size
from projector.terminal.screen import Screen
from pruning.terminal.options import (
    Allocation,
    Calibration,
    Device,
    Dtype,
    Force,
    Json,
    MemoryBudget,
    Model,
    PoleSelection,
    PoleSize,
    PoleSpace,
    ProjectionDir,
    Resume,
    Revision,
    RoundTo,
    SequenceLength,
    Sequences,
    Steps,
    TrustRemoteCode,
    calibration_of,
    memory_words,
)

Out = Annotated[
    Path, typer.Option("--out", help="Folder for the pruned model.", show_default=False)
]
MethodName = Annotated[str, typer.Option(help="How to choose the neurons to remove. {methods}.")]
Sparsity = Annotated[
    float, typer.Option(help="Share of each layer's MLP neurons to remove, between 0 and 1.")
]
RefitName = Annotated[str, typer.Option(help="How to refit the weights that stay. {refits}.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


def prune(
    model: Model,
    out: Out = ...,  # type: ignore[assignment]
    method: MethodName = "poles",
    sparsity: Sparsity = 0.3,
    refit: RefitName = "reconstruct",
    projection: ProjectionDir = None,
    space: PoleSpace = None,
    min_cluster_size: PoleSize = None,
    selection: PoleSelection = None,
    calibration: Calibration = None,
    sequences: Sequences = 256,
    sequence_length: SequenceLength = None,
    steps: Steps = 200,
    allocation: Allocation = "uniform",
    round_to: RoundTo = 1,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    memory_budget: MemoryBudget = None,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a smaller checkpoint of MODEL, which plain transformers loads."""
    screen = Screen(as_json)
    with screen.errors():
        from pruning.preparing import PoleOptions
        from pruning.pruning import PruneSettings, layers_path, prune_model
        from pruning.saving import check_out

        screen.can_resume = layers_path(out).exists

        settings = PruneSettings(
            method=method,
            sparsity=sparsity,
            refit=refit,
            n_sequences=sequences,
            n_steps=steps,
            allocation=allocation,
            round_to=round_to,
            seed=seed,
            poles=PoleOptions(space, min_cluster_size, selection),
        )
        source = calibration_of(calibration, model)
        budget = parse_size(memory_budget)
        check_out(out, force=force or resume)
        with screen.progress() as progress:
            made = prune_model(
                model,
                settings,
                out,
                calibration=source,
                projection=projection,
                sequence_length=sequence_length,
                revision=revision,
                device=device,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                memory_budget=budget,
                resume=resume,
                force=force,
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
