"""``projector lens``: what the model's own head reads from the stream at every layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from projector.residual.settings import check_numbers
from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.options import ModelOptions
from projector.terminal.residual.opening import (
    ModelArgument,
    PromptOptions,
    ReportOptions,
    finish,
    open_subject,
)
from projector.terminal.screen import Screen

if TYPE_CHECKING:
    from projector.residual.lens import Lens

_CELL = 15
_MOST_COLUMNS = 6


@dataclass(frozen=True)
class LensOptions:
    """What is read of a prompt."""

    n_top: int = setting(5, help="How many tokens are listed at each layer and position.")
    n_last: int | None = setting(
        None, help="Show only the last tokens of the prompt, this many. By default all."
    )
    tuned: Path | None = setting(
        None, help="Read with the tuned lens that [b]projector tune-lens[/b] wrote to this folder."
    )

    def __post_init__(self) -> None:
        check_numbers(n_top=self.n_top, n_last=self.n_last)


@command
def lens(
    screen: Screen,
    model: ModelArgument,
    *,
    prompt: PromptOptions,
    options: LensOptions,
    loading: ModelOptions,
    report: ReportOptions,
) -> None:
    """Read a prompt at every layer with the model's own final norm and head: the logit lens."""
    from projector.residual.lens import lens as read
    from projector.residual.readings.tuned_lens import TunedLens

    report.check()
    tuned = None if options.tuned is None else TunedLens.load(options.tuned)
    subject = open_subject(screen, model, loading)
    with screen.progress() as progress:
        read_with = partial(
            read,
            subject,
            prompt.prompt,
            chat=prompt.chat,
            n_top=options.n_top,
            n_last=options.n_last,
            progress=progress,
        )
        found = read_with(tuned=tuned)
        # Beside a tuned lens, what the logit lens says.
        plain = None if tuned is None else read_with()

    def page() -> str:
        from projector.figures.residual.lens import lens_page

        return lens_page(found, plain)

    content = {}
    if screen.as_json or report.out is not None:
        content = found.as_dict()
        if plain is not None:
            content["logit_lens"] = [vars(each) for each in plain.summaries]
    if not screen.as_json:
        _show(screen, found)
    finish(screen, report, content, page, "")


def _show(screen: Screen, found: Lens) -> None:
    """A row a layer, the last tokens as columns; and what it says in words."""
    from projector.residual.readings.words import baseline_words, outlier_words, settled_words

    n_columns = max(1, min(_MOST_COLUMNS, (screen.out.width - 24) // (_CELL + 2)))
    places = range(len(found.positions))[-n_columns:]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), header_style="bold")
    table.add_column("layer", justify="right", no_wrap=True)
    table.add_column("KL", justify="right", no_wrap=True)
    for place in places:
        title = found.tokens[found.positions[place]]
        table.add_column(escape(_cut(title, _CELL)), no_wrap=True)
    for s, (reading, summary) in enumerate(zip(found.readings, found.summaries, strict=True)):
        if reading.stream == "resid_mid":
            continue
        name = "embedding" if reading.stream == "resid_pre" else str(reading.layer)
        kl = "–" if summary.kl is None else f"{summary.kl:.2f}"
        table.add_row(name, kl, *(_cell(found, s, place) for place in places))
    screen.out.print(table)
    screen.say(
        f"[dim]Below each token of the prompt: the top token of the {found.lens} and its "
        "probability; bold where it is the model's own. KL: from the lens to the model's own "
        "prediction, in nats, mean over tokens.[/dim]"
    )
    for text in (baseline_words(found), outlier_words(found)):
        if text:
            screen.say(f"[dim]{escape(text)}[/dim]")
    screen.say(escape(settled_words(found)))


def _cell(found: Lens, reading: int, place: int) -> str:
    token, share = found.top(reading, place)[0]
    number = f"{share:.0%}"
    text = f"{escape(_cut(token, _CELL - 4))} [dim]{number}[/dim]"
    is_own = bool(found.top_ids[reading, place, 0] == found.top_ids[-1, place, 0])
    return f"[b]{text}[/b]" if is_own else text


def _cut(text: str, n_signs: int) -> str:
    return text if len(text) <= n_signs else text[: n_signs - 1] + "…"
