"""``projector stream``: the growth of the residual stream, and zero-layer paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from projector.corpus.sources import sources_help
from projector.errors import check_text
from projector.residual.settings import check_effect, check_numbers
from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.options import ModelOptions
from projector.terminal.residual.opening import (
    CHAT_HELP,
    OUTLIERS_HELP,
    PROMPT_HELP,
    ModelArgument,
    ReportOptions,
    finish,
    open_subject,
)
from projector.terminal.screen import Screen

if TYPE_CHECKING:
    from projector.residual.flow.records import Flow
    from projector.residual.flow.stream import Stream

# Tokens of a prompt that are shown, the last ones; a report shows more.
_MOST_ALONE = 24


def _corpus_help() -> str:
    return (
        f"Read a corpus instead of a prompt: {sources_help()}. Bigrams are scored only for a "
        "corpus."
    )


@dataclass(frozen=True)
class StreamOptions:
    """Options for the text and the averages over it."""

    prompt: str | None = setting(None, help=PROMPT_HELP)
    chat: bool = setting(False, help=CHAT_HELP)
    corpus: str | None = setting(None, help=_corpus_help)
    max_tokens: int = setting(
        20_000, help="Maximum number of tokens to read, sampled evenly over the corpus."
    )
    sequence_length: int | None = setting(
        None, help="How many tokens the model reads at once. By default at most 256."
    )
    keep_outliers: bool = setting(False, help=OUTLIERS_HELP)
    n_shuffles: int = setting(
        10, help="How many times to shuffle the corpus's bigrams for the control."
    )
    seed: int = setting(0, help="Seed of the controls.")

    def __post_init__(self) -> None:
        check_numbers(
            max_tokens=self.max_tokens,
            sequence_length=self.sequence_length,
            n_shuffles=self.n_shuffles,
            seed=self.seed,
        )
        check_text("prompt", self.prompt)
        if self.prompt is not None or self.corpus is not None:
            check_effect(self, ["chat"], "prompt")
            check_effect(self, ["max_tokens", "sequence_length", "n_shuffles"], "corpus")


@command
def stream(
    screen: Screen,
    model: ModelArgument,
    *,
    options: StreamOptions,
    loading: ModelOptions,
    report: ReportOptions,
) -> None:
    """Show how the residual stream grows layer by layer, and how much each part adds to it.

    On a corpus, also score how well zero-layer paths, which use no attention, predict bigrams.
    """
    from projector.residual.flow.stream import check_source
    from projector.residual.flow.stream import stream as measure

    check_source(options.prompt, options.corpus)
    report.check()
    subject = open_subject(screen, model, loading)
    with screen.progress() as progress:
        found = measure(subject, **vars(options), progress=progress)

    def page() -> str:
        from projector.figures.residual.stream import stream_page

        return stream_page(found)

    if not screen.as_json:
        _show(screen, found)
    finish(screen, report, found.as_dict(), page, "")


def _show(screen: Screen, found: Stream) -> None:
    """The result for a person."""
    from projector.residual.flow import words

    flow = found.flow
    for note in found.notes:
        screen.say(f"[b]{escape(found.corpus or '')}[/b]: {escape(note)}")
    screen.out.print(_layers(flow), "", sep="\n")
    screen.say(f"[dim]{escape(words.layers_legend())}[/dim]")
    parts = ", ".join(f"{each.name} {words.number(each.norm)}" for each in flow.embedding)
    lines = [
        words.tokens_words(flow),
        f"Norms of what the first layer reads: {parts}.",
        words.heads_words(flow),
        words.successive_words(flow),
        words.closing_words(flow),
        words.outlier_words(flow),
    ]
    for line in filter(None, lines):
        screen.say(escape(line))
    if found.zero_layer is not None:
        screen.out.print("", _scores(found), "", sep="\n")
        screen.say(f"[dim]{escape(words.scores_legend(found.zero_layer))}[/dim]")
        for line in words.zero_layer_words(found.zero_layer):
            screen.say(escape(line))
    elif found.alone:
        screen.out.print(_alone(found))
        screen.say(f"[dim]{escape(words.alone_legend())}[/dim]")
    if found.zero_layer_reason is not None:
        screen.say(f"[yellow]without zero-layer paths[/yellow]: {escape(found.zero_layer_reason)}")


def _narrow_table() -> Table:
    """A table whose columns of numbers fit a terminal of 80 columns."""
    return Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False, header_style="bold")


def _norm(value: float | None) -> str:
    """A norm in at most seven characters."""
    from projector.residual.flow.words import number

    large = value is not None and value >= 999.995
    huge = value is not None and value >= 999_999.5
    return number(value, ".1e" if huge else ",.0f" if large else ".2f")


def _layers(flow: Flow) -> Table:
    from projector.residual.flow.words import number

    table = _narrow_table()
    has_bias = any(row.bias_share is not None for row in flow.rows)
    titles = ["layer", "before", "update", "attention", "share", "MLP", "share"]
    titles += ["biases", "along", "next"] if has_bias else ["along", "next"]
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for row in flow.rows:
        cells = [
            str(row.layer),
            _norm(row.before),
            _norm(row.update),
            _norm(row.attention),
            number(row.attention_share, ".0%"),
            _norm(row.mlp),
            number(row.mlp_share, ".0%"),
        ]
        cells += [number(row.bias_share, ".0%")] if has_bias else []
        table.add_row(*cells, number(row.along_stream), number(row.next_cosine))
    return table


def _scores(found: Stream) -> Table:
    from projector.residual.flow.words import PATHS, number

    table = _narrow_table()
    table.add_column("prediction", no_wrap=True)
    for title in ("agrees", "shuffled", "right", "log p", "KL", "shuffled"):
        table.add_column(title, justify="right", no_wrap=True)
    assert found.zero_layer is not None
    for path in found.zero_layer.paths:
        table.add_row(
            PATHS[path.name][0],
            f"{path.score.agreement:.1%}",
            f"{path.shuffled.agreement:.1%}",
            f"{path.score.accuracy:.1%}",
            number(path.score.log_probability),
            number(path.score.kl),
            number(path.shuffled.kl),
        )
    return table


def _alone(found: Stream) -> Table:
    from projector.corpus.pieces import readable
    from projector.residual.flow.words import PATHS

    table = Table(box=SIMPLE_HEAD, padding=(0, 1), header_style="bold")
    table.add_column("token", no_wrap=True)
    names = list(found.alone[0].guesses)
    for name in names:
        table.add_column(PATHS[name][0], no_wrap=True)
    for each in found.alone[-_MOST_ALONE:]:
        guesses = [each.guesses[name] for name in names]
        cells = [f"{readable(g.text)} {g.probability:.0%}" for g in guesses]
        table.add_row(escape(readable(each.text)), *map(escape, cells))
    return table
