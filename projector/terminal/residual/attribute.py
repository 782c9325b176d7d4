"""``projector attribute``: the contribution of each part of the stream to a token's logit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from projector.errors import check_text
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
    from projector.residual.logits.records import AttributedPart, Attribution

_N_SHOWN = 12


@dataclass(frozen=True)
class AttributionOptions:
    """Options for the logit to attribute."""

    token: str | None = setting(
        None,
        help="The token whose logit is split, given by its text (' the' with its space) or its "
        "id (#262). By default the model's most likely next token.",
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
    n_neurons: int = setting(20, help="How many MLP neurons to list, strongest first.")
    until: str | None = setting(
        None,
        help="Attribute what the logit lens reads at a layer instead of the model's own logit, "
        "such as '3 mid' or '3 post'.",
    )

    def __post_init__(self) -> None:
        check_numbers(n_neurons=self.n_neurons)
        check_text("token", self.token)
        check_text("against", self.against)
        check_text("until", self.until)


@command
def attribute(
    screen: Screen,
    model: ModelArgument,
    *,
    text: PromptOptions,
    options: AttributionOptions,
    report: ReportOptions,
    loading: ModelOptions,
) -> None:
    """Split a token's logit, or the difference of two, into what each part of the model adds.

    Parts are the embedding, each head, each MLP, its strongest neurons, and biases. They sum to
    the model's own logit, or to that of the lens with --until; otherwise the command fails.
    """
    from projector.residual.attribution import attribute as attribute_logit

    report.check()
    subject = open_subject(screen, model, loading)
    found = attribute_logit(
        subject,
        subject.encode(text.prompt, as_chat=text.chat),
        token=options.token,
        against=options.against,
        position=options.position,
        n_neurons=options.n_neurons,
        until=options.until,
    )

    def page() -> str:
        from projector.figures.residual.attribution import attribution_page

        return attribution_page(found)

    if not screen.as_json:
        _show(screen, found)
    finish(screen, report, found.as_dict(), page, "")


def _show(screen: Screen, found: Attribution) -> None:
    """The result for a person."""
    from projector.corpus.pieces import readable
    from projector.figures.residual import attribution as words

    likely = ", ".join(f"{readable(text)} {share:.1%}" for text, _, share in found.top)
    before = readable("".join(found.texts[: found.position + 1]))
    screen.say(f"[b]after[/b]  {escape(before if len(before) < 200 else '…' + before[-200:])}")
    screen.say(f"[b]next[/b]   {escape(likely)}")
    screen.say(f"[b]value[/b]  {escape(words.what(found))}: {words.signed(found.logit)}")
    if told := words.readout_text(found):
        screen.say(escape(told))
    parts = found.strongest()
    raising = [part for part in parts if part.value > 0]
    lowering = [part for part in parts if part.value < 0]
    for title, listed in (("raise it most", raising), ("lower it most", lowering)):
        screen.out.print(_table(found, title, listed[:_N_SHOWN]))
        if (n_more := len(listed) - _N_SHOWN) > 0:
            more = "1 more part" if n_more == 1 else f"{n_more:,} more parts"
            screen.say(f"and {more}: --json or --out shows all")
    if neurons := [part for part in found.neurons if part.kind == "neuron"]:
        screen.out.print(_table(found, "neurons, shares of the MLPs", neurons))
    kinds = " · ".join(
        f"{words.kind_text(kind)} {words.signed(v, 2)}" for kind, v in found.by_kind().items()
    )
    screen.say(f"[b]sums[/b]   {escape(kinds)}")
    steps = [f"{step.name} {words.signed(step.adds)}" for step in found.steps]
    own = f"{words.owner(found)} is {words.signed(found.logit)}"
    screen.say(f"[b]steps[/b]  {escape(' · '.join(steps))}; {own}")
    screen.say(escape(words.errors_text(found)))


def _table(found: Attribution, title: str, parts: Sequence[AttributedPart]) -> Table:
    from projector.figures.residual import attribution as words

    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column(title, min_width=22, no_wrap=True)
    for column in ("adds", "share", "to random tokens"):
        table.add_column(column, justify="right", no_wrap=True)
    for part in parts:
        cells: list[Any] = [part.name, words.signed(part.value)]
        cells += [words.share_text(found, part), words.control_cell(part)]
        table.add_row(*cells)
    return table
