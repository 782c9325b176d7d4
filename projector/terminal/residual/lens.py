"""``projector lens``: the predictions of the model's own head at every layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from projector.residual.settings import check_numbers
from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.options import ModelOptions
from projector.terminal.residual.opening import (
    OUTLIERS_HELP,
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
# Of a column of the table: a blank at either side, and one between it and the next.
_BETWEEN = 3


@dataclass(frozen=True)
class LensOptions:
    """Options of the lens."""

    n_top: int = setting(5, help="How many tokens to list at each layer and position.")
    n_last: int | None = setting(
        None, help="Show only this many of the prompt's last tokens. By default all."
    )
    keep_outliers: bool = setting(False, help=OUTLIERS_HELP)
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
    from projector.residual.lens import run_lenses as read
    from projector.residual.readings.tuned_lens import TunedLens

    report.check()
    tuned = None if options.tuned is None else TunedLens.load(options.tuned)
    subject = open_subject(screen, model, loading)
    with screen.progress() as progress:
        # Beside a tuned lens, what the logit lens says.
        found, *others = read(
            subject,
            subject.ids_of(prompt.prompt, as_chat=prompt.chat),
            [None] if tuned is None else [tuned, None],
            n_top=options.n_top,
            n_last=options.n_last,
            keep_outliers=options.keep_outliers,
            progress=progress,
        )
    plain = others[0] if others else None

    def page() -> str:
        from projector.figures.residual.lens import lens_page

        return lens_page(found, plain)

    content = {}
    if screen.as_json or report.out is not None:
        content = found.as_dict()
        if plain is not None:
            content["logit_lens"] = [vars(each) for each in plain.summaries]
    if not screen.as_json:
        _show(screen, found, shown_by="--out DIR" if report.out is None else "the report")
    finish(screen, report, content, page, "")


def _show(screen: Screen, found: Lens, *, shown_by: str) -> None:
    """A row a layer, the last tokens as columns, as many as fit; and what it says in words."""
    from projector.residual.readings.words import baseline_words, outlier_words, settled_words

    names, averages = ["layer"], ["KL"]
    readings = [s for s, each in enumerate(found.readings) if each.stream != "resid_mid"]
    for s in readings:
        reading, kl = found.readings[s], found.summaries[s].kl
        names.append("embedding" if reading.stream == "resid_pre" else str(reading.layer))
        averages.append("–" if kl is None else f"{kl:.2f}")
    columns = _columns_that_fit(found, readings, screen.out.width - _width(names, averages) - 1)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), header_style="bold")
    for title in ("layer", "KL"):
        table.add_column(title, justify="right", no_wrap=True)
    for title, *_ in columns:
        table.add_column(title, no_wrap=True)
    for row in zip(names[1:], averages[1:], *(cells for _, *cells in columns), strict=True):
        table.add_row(*row)
    screen.out.print(table)
    if n_left_out := len(found.positions) - len(columns):
        first, last = found.positions[0], found.positions[n_left_out - 1]
        which = f"token ({first}) doesn't" if n_left_out == 1 else f"tokens ({first}–{last}) don't"
        screen.say(f"{n_left_out} earlier {which} fit: widen the terminal, or {shown_by} shows all")
    screen.say(
        f"[dim]Below each token of the prompt: the top token of the {found.lens} and its "
        "probability; bold where it is the model's own. KL is KL(final ‖ lens) in nats, mean over "
        "tokens.[/dim]"
    )
    for text in (baseline_words(found), outlier_words(found)):
        if text:
            screen.say(f"[dim]{escape(text)}[/dim]")
    screen.say(escape(settled_words(found)))


def _columns_that_fit(found: Lens, readings: list[int], width: int) -> list[list[str]]:
    """A title and cells for each of the last tokens, as many as ``width`` holds, at least one."""
    from projector.corpus.pieces import readable

    columns: list[list[str]] = []
    for place in reversed(range(len(found.positions))):
        title = escape(_cut(readable(found.tokens[found.positions[place]]), _CELL))
        column = [title, *(_cell(found, s, place) for s in readings)]
        width -= _width(column)
        if columns and width < 0:
            break
        columns.insert(0, column)
    return columns


def _width(*columns: list[str]) -> int:
    """How many signs columns of marked-up cells take in the table."""
    widest = (max(cell_len(Text.from_markup(cell).plain) for cell in each) for each in columns)
    return sum(each + _BETWEEN for each in widest)


def _cell(found: Lens, reading: int, place: int) -> str:
    from projector.corpus.pieces import readable

    token, _, share = found.top(reading, place)[0]
    number = f"{share:.0%}"
    text = f"{escape(_cut(readable(token), _CELL - 4))} [dim]{number}[/dim]"
    is_own = bool(found.top_ids[reading, place, 0] == found.top_ids[-1, place, 0])
    return f"[b]{text}[/b]" if is_own else text


def _cut(text: str, n_signs: int) -> str:
    return text if len(text) <= n_signs else text[: n_signs - 1] + "…"
