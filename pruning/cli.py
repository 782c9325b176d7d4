"""``pruning …``: the command line. It parses, calls, and shows; nothing is computed here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from projector.screen import Screen

app = typer.Typer(
    name="pruning",
    help="Find redundant neurons of a transformer, remove them, and measure what it costs.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, for scripts.")
]
Model = Annotated[str, typer.Argument(help="[b]bundled[/b], a local folder, or a hub id.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[
    str, typer.Option(help="auto, float32, bfloat16, float16: what the model computes in.")
]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of a hub model.", show_default=False)
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the code that comes with the model.")
]


def main() -> None:
    """Entry point: quiet libraries, then the command."""
    # Before transformers is imported anywhere: its messages are for those who write models.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    app()


if __name__ == "__main__":
    main()
