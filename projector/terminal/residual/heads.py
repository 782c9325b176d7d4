"""``projector heads``: kinds of attention heads, and attention patterns and paths on a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from projector.errors import check_text
from projector.residual.settings import check_effect, check_numbers, parse_heads
from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.options import ModelOptions
from projector.terminal.residual.opening import (
    CHAT_HELP,
    ModelArgument,
    ReportOptions,
    finish,
    open_subject,
)
from projector.terminal.screen import Screen

if TYPE_CHECKING:
    from projector.residual.heads.report import HeadsReport

_N_HEADS, _N_PLACES, _N_PATHS = 6, 6, 8
# Smaller shares of a token's attention are not listed.
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class HeadsOptions:
    """Options for the heads to show and their random controls."""

    prompt: str | None = setting(
        None, help="Also show what heads do on this text: patterns, and paths through two heads."
    )
    chat: bool = setting(False, help=CHAT_HELP)
    show: str | None = setting(
        None,
        help=(
            "The heads to show in detail, as layer.head: 3.2,4.3. By default the two strongest "
            "of each kind."
        ),
    )
    token: str | None = setting(
        None,
        help="Trace paths through two heads to this token's logit, given by its text (' the' "
        "with its space) or its id (#262). By default the model's most likely next token.",
    )
    against: str | None = setting(
        None, help="Subtract this token's logit, to see what favours one token over the other."
    )
    position: int = setting(
        -1,
        help=(
            "Position of the token after which the prediction is read, counted from 0; -1 is "
            "the last."
        ),
    )
    n_sequences: int = setting(
        4, help="Number of sequences of random tokens on which heads are scored."
    )
    length: int = setting(50, help="Number of random tokens in a sequence before it repeats them.")
    n_random: int = setting(
        100,
        help="How many random heads each head is compared with. Kinds need at least 100; 0 skips "
        "the comparison.",
    )
    seed: int = setting(0, help="Seed of the random tokens and the random heads.")

    def __post_init__(self) -> None:
        check_numbers(
            n_sequences=self.n_sequences, length=self.length, n_random=self.n_random, seed=self.seed
        )
        for name in ("prompt", "show", "token", "against"):
            check_text(name, getattr(self, name))
        check_effect(self, ["chat", "token", "against", "position"], "prompt")
        if self.show is not None:
            parse_heads(self.show)


@command
def heads(
    screen: Screen,
    model: ModelArgument,
    *,
    options: HeadsOptions,
    report: ReportOptions,
    loading: ModelOptions,
) -> None:
    """Find previous-token, duplicate-token, induction, beginning-of-text and copying heads.

    Each score is compared with those of random heads that have the same singular values in the
    same place. A head is of a kind only if its score is high and exceeds theirs.
    """
    from projector.residual.heads.report import heads as look

    report.check()
    subject = open_subject(screen, model, loading)
    ids = None
    if options.prompt is not None:
        ids = subject.encode(options.prompt, as_chat=options.chat)
    with screen.progress() as progress:
        found = look(
            subject,
            ids,
            show=options.show,
            n_sequences=options.n_sequences,
            length=options.length,
            n_random=options.n_random,
            seed=options.seed,
            token=options.token,
            against=options.against,
            position=options.position,
            progress=progress,
        )

    def page() -> str:
        from projector.figures.residual.heads import heads_page

        return heads_page(found)

    if not screen.as_json:
        _show(screen, found)
    finish(screen, report, found.as_dict(), page, "")


def _show(screen: Screen, found: HeadsReport) -> None:
    """The result for a person."""
    from projector.residual.heads.kinds import KINDS, LEAST_PERCENTILE

    scores = found.scores
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("kind of head", no_wrap=True)
    table.add_column("found", justify="right")
    table.add_column("by chance", justify="right")
    table.add_column("strongest: score, and share of random heads below it")
    for kind in KINDS:
        chance = scores.expected.get(kind.name)
        rows = scores.of_kind(kind.name) or scores.strongest(kind.name, 1)
        cells = []
        for row in rows[:_N_HEADS]:
            beside = row.percentile(kind.name)
            share = "" if beside is None else f" ({beside:.0f} %)"
            cell = f"L{row.layer} H{row.head} {_number(row.score(kind.name))}{share}"
            # A line breaks between heads, not within one.
            cells.append(cell.replace(" ", "\u00a0"))
        more = len(rows) - _N_HEADS
        cells += [f"and {more} more"] if more > 0 else []
        text = "  ".join(cells)
        n_found = len(scores.of_kind(kind.name))
        table.add_row(
            kind.title,
            f"{n_found} of {len(scores.rows)}",
            "–" if chance is None else f"{chance:.1f}",
            text if n_found else f"[dim]{text}[/dim]",
        )
    screen.out.print(table)
    for kind in KINDS:
        screen.say(
            f"[dim]{kind.title}: {kind.shown_by}; score {kind.least} or more, and above at least "
            f"{LEAST_PERCENTILE:.0f} % of random heads[/dim]"
        )
    _show_composition(screen, found)
    _show_prompt(screen, found)
    for reason in found.reasons:
        screen.say(f"[yellow]missing[/yellow] {escape(reason)}")


def _show_composition(screen: Screen, found: HeadsReport) -> None:
    if found.compositions is None:
        return
    cells = [
        f"{each.kind} L{each.later[0]} H{each.later[1]} ← L{each.earlier[0]} H{each.earlier[1]} "
        f"{each.strength:.2f} (random {each.null_mean:.2f})"
        for each in found.compositions.strongest(_N_PLACES)
    ]
    screen.say(f"[b]composition[/b]  {'  '.join(cells)}")


def _show_prompt(screen: Screen, found: HeadsReport) -> None:
    from projector.corpus.pieces import readable
    from projector.residual.heads.kinds import KINDS

    prompt = found.prompt
    if prompt is None:
        return
    names = {(row.layer, row.head): row.kinds for row in found.scores.rows}
    titles = {kind.name: kind.title for kind in KINDS}

    for head in prompt.patterns:
        kinds = ", ".join(titles[name] for name in names.get(head, ())) or "no kind"
        text = ";  ".join(
            f"{_token(prompt.texts, row)} → {_token(prompt.texts, column)} {share:.2f}"
            for row, column, share in prompt.strongest(head, _N_PLACES)
            if share >= _LEAST_SHARE
        )
        text = text or f"only to the first token; every other share is below {_LEAST_SHARE}"
        screen.say(f"[b]L{head[0]} H{head[1]}[/b] ({kinds}) attends  {text}")
    if prompt.patterns:
        screen.say(
            "[dim]each token with its position, counted from 0 → the token that it attends to, "
            "and the share of its attention that goes there. The first token is left out, because "
            "most heads attend to it when they find nothing else.[/dim]"
        )
    if found.virtual is None:
        return
    goal = found.virtual.inputs.goal
    what = "logit" if goal.against is None else "difference of logits"
    screen.say(
        f"[b]paths through two heads[/b] to a {what}; the stream adds {_number(goal.from_stream)}, "
        f"the model's own is {_number(goal.logit)}; in brackets the share of Σ |value| of all paths"
    )
    for each in found.virtual.rows[:_N_PATHS]:
        start = ", ".join(escape(readable(prompt.texts[at])) for at, _ in each.from_positions)
        screen.say(
            f"  L{each.first[0]} H{each.first[1]} then L{each.second[0]} H{each.second[1]}  "
            f"{_number(each.value)} ({_number(100 * each.share)} %) from {start}"
        )


def _token(texts: Sequence[str], at: int) -> str:
    """A token and its position, told from each other: ‘return’ 1."""
    from projector.corpus.pieces import readable

    return f"‘{escape(readable(texts[at]))}’ [dim]{at}[/dim]"


def _number(value: float | None) -> str:
    from projector.residual.flow.words import number

    return number(value)
