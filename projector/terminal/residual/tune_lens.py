"""``projector tune-lens``: train a tuned lens of a model on a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from projector.corpus.sources import read_documents, sources_help
from projector.residual.readings.settings import TuningSettings
from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.options import ModelOptions
from projector.terminal.residual.opening import ModelArgument, open_subject
from projector.terminal.screen import Screen

if TYPE_CHECKING:
    from projector.residual.readings.tuned_lens import TunedLens


def _corpus_help() -> str:
    return f"{sources_help()}."


@dataclass(frozen=True)
class TuneOptions:
    """Options for training a lens."""

    out: Path = setting(help="Folder for the tuned lens.")
    corpus: str = setting("stdlib", help=_corpus_help)
    force: bool = setting(False, help="Replace the tuned lens that OUT holds.")


@command
def tune_lens(
    screen: Screen,
    model: ModelArgument,
    *,
    options: TuneOptions,
    settings: TuningSettings,
    loading: ModelOptions,
) -> None:
    """Train a tuned lens for [b]projector lens --tuned[/b]: one affine map for each layer.

    It also shows how far both lenses are from the model's own predictions on held-out text.
    """
    from projector.residual.readings.tuned_lens import check_tuned_place
    from projector.residual.readings.tuning import tune_lens as train

    check_tuned_place(options.out, force=options.force)
    # A file that is missing is reported before a model is loaded.
    read_documents(options.corpus)
    subject = open_subject(screen, model, loading)
    with screen.progress() as progress:
        tuned = train(subject, options.corpus, settings, progress=progress)
    tuned.save(options.out, force=options.force)
    facts: dict[str, Any] = {"tuned_lens": str(options.out), **tuned.facts}
    if screen.as_json:
        screen.result(facts, "")
        return
    _show(screen, tuned)
    where = escape(str(options.out))
    screen.say(f"Wrote [b]{where}[/b]")
    screen.say(f"Next: projector lens {escape(model)} --tuned {where} --prompt '…'")


def _show(screen: Screen, tuned: TunedLens) -> None:
    found = tuned.facts["held_out"]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), header_style="bold")
    for title in ("layer", "logit lens", "tuned lens"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in found["rows"]:
        name = "embedding" if row["stream"] == "resid_pre" else str(row["layer"])
        table.add_row(name, f"{row['logit_lens_kl']:.3f}", f"{row['tuned_lens_kl']:.3f}")
    screen.out.print(table)
    baseline = found["baseline_kl"]
    beside = (
        f"; the best fixed guess, the same at every token, has {baseline:.3f}" if baseline else ""
    )
    screen.say(
        f"[dim]KL(final ‖ lens), final being the model's own prediction, in nats, mean over "
        f"{found['n_tokens']:,} tokens that were held out{beside}.[/dim]"
    )
