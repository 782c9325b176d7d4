"""The output of commands: progress, tables, one-line errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from projector.errors import UserError
from projector.layouts.objective import Column, Objective
from projector.layouts.registry import OBJECTIVES
from projector.projection.faithfulness import FIGURES
from projector.projection.verdict import site_verdicts
from projector.sites import MapKey
from projector.statistics.organisation import PARTNER_RHO, Organisation
from projector.terminal.options import option_words

if TYPE_CHECKING:
    from projector.statistics.cross_layer.plan import CrossLayerPlan

_ORGANISATION_LEGEND = (
    "neurons   those that have correlations\n"
    "dimension effective dimension, N²/Σρ²: N if no two are correlated, 1 if all are the same\n"
    "axis      the leading axis's share of all variance\n"
    f"partner   neurons with |ρ| ≥ {PARTNER_RHO} to at least one other\n"
    "chance    the same for independent neurons, over as many tokens"
)
# Beside these, a table row a map would scroll the summary off the screen.
_MOST_ROWS = 24


def duration_text(seconds: float) -> str:
    """A duration as text: ``40 s``, ``14 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def partners_words(plan: CrossLayerPlan, seconds: float) -> str:
    """The estimated cost of finding partners across layers."""
    from projector.memory import size_text

    n_pairs = len(plan.pairs)
    return (
        f"Partners across layers: {n_pairs:,} pair{'s' if n_pairs > 1 else ''} of layers, "
        f"{sum(plan.widths.values()):,} neurons, {plan.corpus.n_tokens:,} tokens, "
        f"{_operations_text(plan.operations)}: about {duration_text(seconds)}, "
        f"{size_text(plan.n_bytes)} of memory, and {size_text(plan.disk_bytes)} on disk until "
        "they are found"
    )


def _operations_text(n: int) -> str:
    """A number of operations: ``41 Tflop``."""
    power = 4 if n >= 1e12 else 3
    return f"{n / 1000**power:.3g} {'T' if power == 4 else 'G'}flop"


class _Rate(ProgressColumn):
    """Units done a second."""

    def render(self, task: Task) -> Text:
        if task.speed is None or not task.fields.get("unit"):
            return Text("")
        speed = f"{task.speed:,.0f}" if task.speed >= 10 else f"{task.speed:.1f}"
        return Text(f"{speed} {task.fields['unit']}/s", style="cyan")


class _Bars:
    """Draws the stages of :class:`projector.progress.Progress`."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._task: Any = None

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        self.end()
        self._task = self._bars.add_task(stage, total=total, unit=unit)

    def advance(self, n: int) -> None:
        self._bars.advance(self._task, n)

    def end(self) -> None:
        if self._task is not None:
            task = self._bars.tasks[self._bars.task_ids.index(self._task)]
            if task.total is None:
                self._bars.update(
                    self._task, total=max(1, task.completed), completed=max(1, task.completed)
                )
            self._bars.stop_task(self._task)
            self._task = None


class Screen:
    """A command's output: text, or one JSON object with all other text on standard error."""

    def __init__(self, as_json: bool) -> None:
        self.as_json, self.rank = as_json, 0
        # Whether work that is stopped now can be resumed.
        self.can_resume: Callable[[], bool] = lambda: False
        self.out = Console(stderr=as_json, highlight=False)

    def become(self, rank: int) -> None:
        """Set this process's rank: only the first process writes text, except for errors."""
        self.rank = rank
        self.out.quiet = rank > 0

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Handle errors: one line and exit status 2 for user errors; 130 for Ctrl-C."""
        try:
            yield
        except UserError as error:
            self._fail(error.worded(option_words), error.to_record())
        except OSError as error:
            # What a user's paths can do to a system: too long a name, no permission.
            where = f" '{error.filename}'" if error.filename else ""
            text = f"{error.strerror or error}{where}"
            self._fail(text, UserError(text).to_record())
        except KeyboardInterrupt:
            if not self.rank:
                self.say_aside(
                    "stopped"
                    + (
                        ": the same command with --resume continues from here"
                        if self.can_resume()
                        else ""
                    )
                )
            raise typer.Exit(130) from None

    def _fail(self, text: str, record: dict[str, Any]) -> NoReturn:
        message = " ".join(text.split())
        if self.as_json and not self.rank:
            print(json.dumps({"error": message} | record, ensure_ascii=False))
        where = f" in process {self.rank}" if self.rank else ""
        self.say_aside(f"[red]error{where}:[/red] {escape(message)}")
        raise typer.Exit(2) from None

    def say_aside(self, text: str) -> None:
        """Write one line to standard error."""
        Console(stderr=True, highlight=False, soft_wrap=True).print(text)

    @contextmanager
    def progress(self) -> Iterator[_Bars]:
        """Progress bars with rates and remaining time, on standard error with ``--json``."""
        columns = (
            SpinnerColumn(finished_text="[green]✓[/green]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=self.out) as bars:
            shown = _Bars(bars)
            try:
                yield shown
            except BaseException:
                # Half-filled bars would stand above the line that says what went wrong.
                bars.live.transient = True
                raise
            shown.end()

    def say(self, text: str) -> None:
        self.out.print(text, soft_wrap=True)

    def result(self, value: dict[str, Any], text: str) -> None:
        if self.as_json:
            print(json.dumps(value, ensure_ascii=False, allow_nan=False))
        else:
            self.say(text)

    def describe(self, projection: Any) -> None:
        """Describe the provenance of a projection."""
        facts = projection.facts
        model, corpus = facts.model, facts.corpus
        rows = {
            "model": f"{model.id} ({model.dtype}, weights {model.sha256[:12]})",
            "corpus": "unknown"
            if corpus is None
            else f"{corpus.source}, {corpus.n_tokens:,} of {corpus.n_tokens_available:,} "
            f"tokens in sequences of {corpus.sequence_length}",
            "correlation": facts.correlation or "unknown",
            "statistics": _kept_text(projection),
            "examples": _examples_text(projection),
        }
        for name, text in rows.items():
            self.say(f"[b]{name:<12}[/b] {escape(text)}")
        for i, (name, layout) in enumerate(projection.layouts.items()):
            heading = "" if i else "layouts" if len(projection.layouts) > 1 else "layout"
            self.say(f"[b]{heading:<12}[/b] {escape(_layout_text(name, layout.settings))}")
        for site, reason in facts.left_out_sites.items():
            self.say(f"[yellow]without {site}[/yellow]: {escape(reason)}")

    def show_organisation(self, found: Mapping[MapKey, Organisation | None]) -> None:
        """Show how organised each map is, compared with independent neurons; nothing if no map has
        correlations.
        """
        if not any(found.values()):
            return
        table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 0))
        table.add_column("layer", justify="right", no_wrap=True)
        table.add_column("site", no_wrap=True)
        for title in ("neurons", "dimension", "chance", "axis", "chance", "partner", "chance"):
            table.add_column(title, justify="right", no_wrap=True)
        for (layer, site), each in found.items():
            cells = ["–"] * 7 if each is None else _organisation_cells(each)
            table.add_row(str(layer), escape(site), *cells)
        self.say("[b]How organised each map is[/b]")
        self.out.print(table)
        self.say(f"[dim]{_ORGANISATION_LEGEND}[/dim]")

    def finish(
        self,
        value: dict[str, Any],
        projection: Any,
        next_command: str | None = None,
        *,
        every_map: bool = False,
        layout: str | None = None,
        is_written: bool = True,
    ) -> None:
        """Show the result: JSON, or a table of the maps of one layout or of all; and the next
        step.
        """
        if self.as_json:
            print(json.dumps(value, ensure_ascii=False, allow_nan=False))
            return
        legend: dict[str, None] = {}
        for name in projection.layouts if layout is None else (layout,):
            if len(projection.layouts) > 1:
                self.say(f"[b]{escape(name)}[/b]")
            self.out.print(_table(projection, every_map=every_map, layout=name))
            for line in site_verdicts(projection, name):
                self.say(escape(line))
            self.say("")
            legend |= dict.fromkeys(_legend(projection, name))
        self.say(f"[dim]{escape(chr(10).join(legend))}[/dim]")
        for layer, site in projection.maps:
            sample = projection.figures(layer, site).sample
            if sample is not None:
                self.say(f"[yellow]layer {layer} {escape(site)}[/yellow]: {sample.words()}")
        if value.get("most_organised"):
            self.say(escape(value["most_organised"]))
        if next_command:
            if is_written:
                self.say(f"Wrote [b]{escape(value['projection'])}[/b]")
            self.say(f"Next: {escape(next_command)}")


def _organisation_cells(each: Organisation) -> list[str]:
    return [
        f"{each.n_neurons:,}",
        f"{each.effective_dimension:,.0f}",
        f"{each.effective_dimension_by_chance:,.0f}",
        f"{each.leading_share:.1%}",
        f"{each.leading_share_by_chance:.1%}",
        f"{each.partnered_share:.0%}",
        f"{each.partnered_share_by_chance:.0%}",
    ]


def _layout_text(name: str, settings: Any) -> str:
    """How the positions of a layout were found."""
    absolute = ", from |ρ|" if settings.absolute else ""
    return f"{name}: {settings.objective} by {settings.method}, {settings.dim}-D{absolute}"


def _examples_text(projection: Any) -> str:
    """What is kept of what drives the neurons."""
    facts = projection.example_facts
    if facts is None:
        return projection.example_problem or "none"
    context = f", with {facts.n_context} tokens of context"
    return (
        f"{facts.n_extremes} highest and {facts.n_extremes} lowest tokens of each neuron"
        f"{'' if facts.is_whole else context}, and its activation on {facts.n_sample:,} tokens"
        + (f"; cut to take no more than statistics do: {', '.join(facts.cut)}" if facts.cut else "")
    )


def _kept_text(projection: Any) -> str:
    n_kept = sum(projection.has_statistics_of(*key) for key in projection.maps)
    if n_kept == len(projection.maps):
        return "kept"
    return f"kept of {n_kept} of {len(projection.maps)} maps" if n_kept else "not kept"


def _record(projection: Any, layout: str | None) -> Objective | None:
    """The objective of what is shown; None if it is not known any more."""
    return OBJECTIVES.get(projection.layout(layout).settings.objective)


def _columns(projection: Any, layout: str | None) -> list[Column]:
    """What is told of each map: what its objective alone knows, and figures that mean something."""
    record = _record(projection, layout)
    found = [] if record is None else list(record.columns)
    objective = projection.layout(layout).settings.objective
    for figure in FIGURES.values():
        if figure.column and figure.lacking(objective) is None:
            found.append(Column(figure.column, figure.number, figure.pattern))
    return found


def legend(lines: Iterable[tuple[str, str]]) -> Table:
    """Names and what they mean, wrapped at the screen's width."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, min_width=9, style="dim")
    table.add_column(overflow="fold", style="dim")
    for name, text in lines:
        table.add_row(escape(name), escape(text))
    return table


def _legend(projection: Any, layout: str | None) -> list[str]:
    """What the columns of the table tell."""
    record = _record(projection, layout)
    lines = [record.legend] if record is not None and record.legend else []
    shown = {column.title for column in _columns(projection, layout)}
    lines += [
        f"{figure.column:<7} {figure.legend}"
        for figure in FIGURES.values()
        if figure.legend and figure.column in shown
    ]
    return lines


def _table(projection: Any, *, every_map: bool, layout: str | None) -> Table:
    """A row a map; where they are many, a row a site with the median over layers."""
    columns = _columns(projection, layout)
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 0))
    table.add_column("layer", justify="right", no_wrap=True)
    table.add_column("site", no_wrap=True)
    for title in ("neurons", "dead", *(column.title for column in columns)):
        table.add_column(title, justify="right", no_wrap=True)
    rows = [
        (layer, site, projection.figures(layer, site, layout)) for layer, site in projection.maps
    ]
    if len(rows) <= _MOST_ROWS or every_map:
        for layer, site, figures in rows:
            table.add_row(str(layer), escape(site), *_cells([figures], columns))
        return table
    for site in projection.sites:
        group = [figures for _, s, figures in rows if s == site]
        table.add_row(f"all {len(group)}", escape(site), *_cells(group, columns))
    return table


def _cells(group: list[Any], columns: list[Column]) -> list[str]:
    """Medians over the group, dead neurons summed; a dash where no figure is known."""

    def median(pattern: str, values: Iterable[float | None]) -> str:
        known = sorted(v for v in values if v is not None)
        return pattern.format(known[len(known) // 2]) if known else "–"

    return [
        median("{:,.0f}", (figures.n_neurons for figures in group)),
        f"{sum(len(f.dead_neurons) + len(f.nonfinite_neurons) for f in group):,}",
        *(
            median(column.pattern, (column.read(figures) for figures in group))
            for column in columns
        ),
    ]
