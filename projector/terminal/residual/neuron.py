"""``projector neuron``: show what a neuron reads and writes, from its weights."""

from __future__ import annotations

from dataclasses import dataclass
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
    ReportOptions,
    finish,
    open_subject,
)
from projector.terminal.screen import Screen

if TYPE_CHECKING:
    from projector.residual.neuron import FavouredTokens, NeuronWeights
    from projector.residual.neuron_heads import HeadReaders


@dataclass(frozen=True)
class NeuronOptions:
    """Options for the neuron and the length of lists."""

    layer: int = setting(help="The neuron's layer, from 0.")
    neuron: int = setting(help="The neuron's number among the layer's MLP neurons, from 0.")
    n_top: int = setting(10, help="How many tokens and later neurons to list.")
    heads: bool = setting(
        False, help="Also list the heads of later layers that read it; this takes longer."
    )
    n_shuffles: int = setting(20, help="How many times to shuffle weights for the control.")
    seed: int = setting(0, help="Seed of the control.")

    def __post_init__(self) -> None:
        check_numbers(
            layer=self.layer,
            neuron=self.neuron,
            n_top=self.n_top,
            n_shuffles=self.n_shuffles,
            seed=self.seed,
        )


@command
def neuron(
    screen: Screen,
    model: ModelArgument,
    *,
    options: NeuronOptions,
    loading: ModelOptions,
    report: ReportOptions,
) -> None:
    """Show what one MLP neuron reads and writes: the tokens and later neurons its weights favour.

    This uses weights only, no text. Each number is compared with the same for shuffled weights.
    """
    from projector.residual.neuron import neuron_weights

    report.check()
    subject = open_subject(screen, model, loading)
    found = neuron_weights(subject, **vars(options))
    name = subject.loaded.identifier

    def page() -> str:
        from projector.figures.residual.neuron import neuron_page

        return neuron_page(found, name)

    if not screen.as_json:
        _show(screen, found)
    finish(screen, report, {"model": name} | found.as_dict(), page, "")


def _show(screen: Screen, found: NeuronWeights) -> None:
    from projector.figures.residual import neuron as words
    from projector.residual.flow.words import number

    screen.say(
        f"[b]L{found.layer} N{found.neuron}[/b], one of {found.n_neurons:,}. "
        + escape(words.gated_words(found))
    )
    for tokens in found.reads:
        screen.out.print(_tokens(f"{tokens.part} reads most", tokens))
        screen.say(escape(words.control_words(tokens, found.n_shuffles)))
    screen.say(f"[dim]{escape(words.reads_words(found.reads[0]))}[/dim]")
    if found.writes is None:
        screen.say(f"[yellow]without what it writes[/yellow]: {escape(found.writes_reason or '')}")
    else:
        screen.out.print(_tokens("output raises most", found.writes))
        screen.say(escape(words.control_words(found.writes, found.n_shuffles)))
        screen.say(f"[dim]{escape(words.writes_words())}[/dim]")
    if found.readers is not None:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1), header_style="bold")
        for title in ("read by", "input"):
            table.add_column(title, no_wrap=True)
        table.add_column("cosine", justify="right", no_wrap=True)
        for each in found.readers.strongest:
            table.add_row(f"L{each.layer} N{each.neuron}", each.part, number(each.cosine))
        screen.out.print(table)
        screen.say(escape(words.readers_words(found.readers, found.n_shuffles)))
    if found.heads is not None:
        screen.out.print(_heads(found.heads))
        screen.say(escape(words.heads_words(found.heads, found.n_shuffles)))
    for note in found.notes:
        screen.say(escape(note))


def _heads(heads: HeadReaders) -> Table:
    from projector.residual.flow.words import number

    table = Table(box=SIMPLE_HEAD, padding=(0, 1), header_style="bold")
    for title in ("read by", "part"):
        table.add_column(title, no_wrap=True)
    table.add_column("strength", justify="right", no_wrap=True)
    for each in heads.strongest:
        table.add_row(f"L{each.layer} H{each.head}", each.part, number(each.strength))
    return table


def _tokens(title: str, tokens: FavouredTokens) -> Table:
    from projector.corpus.pieces import readable
    from projector.residual.flow.words import number

    table = Table(box=SIMPLE_HEAD, padding=(0, 1), header_style="bold")
    table.add_column(title, min_width=20, no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("least", min_width=20, no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    for high, low in zip(tokens.most, tokens.least, strict=True):
        table.add_row(
            escape(readable(high.text)),
            number(high.value),
            escape(readable(low.text)),
            number(low.value),
        )
    return table
