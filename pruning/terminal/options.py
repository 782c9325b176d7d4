"""Options that several commands share, and functions that read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from projector.errors import UserError, named
from projector.settings import Template, setting
from projector.storage.resuming import FORCE_HELP, RESUME_HELP
from projector.terminal.commands import Without
from projector.terminal.options import name_options

name_options(
    n_seeds="--seeds",
    n_windows="--windows",
    n_partners="--partners",
    n_workers="--workers",
    n_repeats="--repeats",
    n_tasks="--limit",
    evaluations="--evaluation",
    with_winners="--winners/--no-winners",
    with_controls="/--no-controls",
)

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="[b]bundled[/b], a local folder, a .gguf file, or a hub id."
    ),
]
# Settings of poles are options of their own.
WithoutPoles = Without(("poles",))
# Fields of a request that other options of a command give.
WithoutRest = Without(
    (
        *("model", "settings", "calibration", "evaluation", "evaluations"),
        *("device", "dtype", "revision", "trust_remote_code"),
    )
)


def usual_words() -> dict[str, str]:
    """The usual texts of the bundled model, for help texts."""
    from pruning.preparing import BUNDLED_TEXTS

    return {
        "usual_calibration": BUNDLED_TEXTS.calibration,
        "usual_evaluation": BUNDLED_TEXTS.evaluation,
    }


def _usual(text: str) -> Template:
    return Template(text, usual_words)


CALIBRATION_HELP = _usual(
    "Calibration text, a source as for `perplexity --corpus`. By default, for the bundled model, "
    "{usual_calibration}."
)


@dataclass(frozen=True)
class TextOptions:
    """The texts of an experiment."""

    calibration: str | None = setting(None, help=CALIBRATION_HELP)
    evaluation: str | None = setting(
        None,
        help=_usual(
            "Text to score on, a source as for `perplexity --corpus`. By default, for the bundled "
            "model, {usual_evaluation}."
        ),
    )


@dataclass(frozen=True)
class SeveralTexts(TextOptions):
    """The same, where models may be scored on several."""

    evaluation: str | None = setting(
        None,
        help=_usual(
            "Texts to score on, comma-separated sources as for `perplexity --corpus`. By default, "
            "for the bundled model, {usual_evaluation}."
        ),
    )


@dataclass(frozen=True)
class ReportOptions:
    """Where a report is written."""

    out: Path = setting(help="Folder for the report.")


@dataclass(frozen=True)
class ResumeOptions:
    """What a command does with earlier results."""

    resume: bool = setting(False, help=RESUME_HELP)
    force: bool = setting(False, help=FORCE_HELP)


def calibration_of(given: str | None, model: str) -> str:
    """The calibration text: the given one, or the model's usual one."""
    return _text_of(given, model, "calibration", "calibration")


def evaluation_of(given: str | None, model: str, setting: str = "evaluation") -> str:
    """The evaluation text or texts: those given, or the model's usual one."""
    return _text_of(given, model, "evaluation", setting)


def _text_of(given: str | None, model: str, kind: str, setting: str) -> str:
    from pruning.preparing import usual_texts

    if given is not None:
        return given
    usual = usual_texts(model)
    if usual is None:
        raise UserError(
            f"{kind} text for '{model}' is not given: add {named(setting, 'SOURCE')}",
            setting=setting,
        )
    return str(getattr(usual, kind))


def memory_words(needs: Any) -> str:
    """What layers take, before they are made (:class:`pruning.layerwise.budget.Needs`)."""
    from projector.memory import enough_text

    return (
        f"Needs about {enough_text(needs.total)} of memory in addition to the model, one layer at "
        f"a time: {needs.parts()}"
    )
