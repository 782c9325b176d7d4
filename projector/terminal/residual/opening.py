"""Shared parts of the commands about the residual stream: a model, a prompt, and a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from projector.errors import check_text
from projector.residual.settings import check_effect
from projector.settings import setting
from projector.terminal.options import ModelOptions
from projector.terminal.screen import Screen

if TYPE_CHECKING:
    from projector.residual.subject import Subject

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="[b]bundled[/b], a local folder, a .gguf file, or a hub id."
    ),
]


PROMPT_HELP = "The text to read. The model's first special token is put before it."
CHAT_HELP = "Apply the model's chat template to the prompt, as a user's turn."
OUTLIERS_HELP = (
    "Include tokens with outlier norms (many times the median) in means. By default, they are left "
    "out."
)


@dataclass(frozen=True)
class ReportOptions:
    """The output folder of a report, if any."""

    out: Path | None = setting(None, help="Also write report.json and report.html to this folder.")
    force: bool = setting(False, help="Replace the report that OUT holds.")

    def __post_init__(self) -> None:
        check_effect(self, ["force"], "out")

    def check(self) -> None:
        """Raise a UserError if the report could not be written."""
        from projector.figures.report import check_report_place

        if self.out is not None:
            check_report_place(self.out, force=self.force)


@dataclass(frozen=True)
class PromptOptions:
    """A text for the model."""

    prompt: str = setting(help=PROMPT_HELP)
    chat: bool = setting(False, help=CHAT_HELP)

    def __post_init__(self) -> None:
        check_text("prompt", self.prompt)


def open_subject(screen: Screen, model: str, loading: ModelOptions) -> Subject:
    """Load the model with its head."""
    from dataclasses import asdict

    from projector.model.loading import load_model
    from projector.residual.subject import Subject

    with screen.progress() as progress:
        progress.begin("Loading", None, "")
        return Subject(load_model(model, **asdict(loading), with_head=True))


def finish(
    screen: Screen,
    report: ReportOptions,
    content: Mapping[str, Any],
    page: Callable[[], str],
    text: str,
) -> None:
    """Write the report if requested, and show the result.

    Args:
        content: the content of ``report.json`` and ``--json``.
        page: creates the HTML; called only if a report is written.
        text: the result as text in Rich's markup; "" if it was already shown.
    """
    if report.out is not None:
        from projector.figures.report import write_report

        write_report(report.out, content, page(), force=report.force)
    if screen.as_json or text:
        screen.result(dict(content), text)
    if report.out is not None and not screen.as_json:
        screen.say(f"Wrote [b]{escape(str(report.out))}[/b]: open report.html in it.")
