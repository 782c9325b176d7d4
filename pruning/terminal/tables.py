"""What results look like on a screen, in at most 100 columns."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from projector.memory import size_text
from pruning.poles.poles import Pole, Poles
from pruning.scoring.speed import SpeedComparison
from pruning.scoring.tasks import TaskResult
from pruning.sweep.report import DENSE, PruningReport

POLES_LEGEND = """[dim]size      neurons of the largest pole and of the median one
noise     neurons in no pole, as a share of those that are not dead
within    {rho} of a pole's pairs of neurons; of a layer, the median pole's
between   {rho} to the other pole where that is highest; of a layer, the median pole's
validity  DBCV, from −1 to 1: how dense poles are and how far apart; noise lowers it
opposite  mean ρ of the two poles for which that is lowest, where it is below 0[/dim]"""
POLE_LEGEND = """[dim]          of a pole, the other one of the two, and that ρ
exemplars neurons that stand for the pole, most central first[/dim]"""
REPORT_LEGEND = """[dim]perplexity at each sparsity: mean ± standard deviation over seeds; bold: the
least of its column; –: not applicable; broken: the perplexity of a seed is not finite[/dim]"""
_MOST_POLES = 12
# Of method and refit, and of a perplexity with its spread.
_NAMES_WIDTH, _CELL_WIDTH = 28, 18
_MOST_EXEMPLARS = 4


def poles_table(found: Sequence[Poles]) -> Table:
    """A row a layer and site."""
    table = _table("layer", "site")
    for name in (
        "neurons",
        "dead",
        "poles",
        "size",
        "noise",
        "within",
        "between",
        "opposite",
        "validity",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        sizes, poles = one.sizes, one.poles
        table.add_row(
            str(one.layer),
            escape(one.site),
            f"{one.n_neurons:,}",
            f"{len(one.undefined):,}",
            f"{len(poles):,}",
            f"{max(sizes):,}, {median(sizes):,.0f}" if sizes else "–",
            "–" if one.noise_share is None else f"{one.noise_share:.0%}",
            _number(_median([within(one, pole) for pole in poles])),
            _number(_median([between(one, pole) for pole in poles])),
            _number(
                min((p.opposite_rho for p in poles if p.opposite_rho is not None), default=None)
            ),
            _number(one.validity),
        )
    return table


def pole_table(one: Poles) -> Table:
    """A row a pole, the largest first; the last row counts those that were left out."""
    table = _table("pole")
    for name in ("neurons", "within", "between", "opposite"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("exemplars")
    for k, pole in enumerate(one.poles[:_MOST_POLES]):
        first = ", ".join(str(neuron) for neuron in pole.exemplars[:_MOST_EXEMPLARS])
        n_more = len(pole.exemplars) - _MOST_EXEMPLARS
        table.add_row(
            str(k),
            f"{pole.size:,}",
            _number(within(one, pole)),
            _number(between(one, pole)),
            "–" if pole.opposite is None else f"{pole.opposite} ({_number(pole.opposite_rho)})",
            first + (f" and {n_more:,} more" if n_more > 0 else ""),
        )
    if len(one.poles) > _MOST_POLES:
        rest = one.sizes[_MOST_POLES:]
        table.add_row("…", f"≤ {rest[0]:,}", "", "", "", f"{len(rest):,} more poles")
    return table


def poles_legend(one: Poles) -> str:
    """What the columns mean, for the space in which poles were found."""
    is_absolute = one.settings.space == "abs-correlation"
    return POLES_LEGEND.format(rho="mean |ρ|" if is_absolute else "mean ρ")


def within(one: Poles, pole: Pole) -> float | None:
    """How alike the neurons of a pole are, in the space's own terms."""
    is_absolute = one.settings.space == "abs-correlation"
    return pole.within_absolute_rho if is_absolute else pole.within_rho


def between(one: Poles, pole: Pole) -> float | None:
    """How alike a pole is to the nearest other one, in the space's own terms."""
    is_absolute = one.settings.space == "abs-correlation"
    return pole.between_absolute_rho if is_absolute else pole.between_rho


def _table(*text_columns: str) -> Table:
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 0))
    for name in text_columns:
        table.add_column(name, justify="left" if name == "site" else "right", no_wrap=True)
    return table


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def report_table(report: PruningReport, evaluation: str, width: int | None = None) -> Table:
    """A row a method and refit, a column a sparsity: mean perplexity ± spread over seeds.

    Args:
        width: of the screen, in characters: where the spread does not fit, it is left out.
    """
    found = [s for s in report.summaries() if s.evaluation == evaluation]
    sparsities = sorted({row.sparsity for row in report.rows if row.method != DENSE})
    best = {each.sparsity: each for each in report.winners(evaluation)}
    is_narrow = width is not None and width < _NAMES_WIDTH + _CELL_WIDTH * len(sparsities)
    table = _table("method", "refit")
    for sparsity in sparsities:
        table.add_column(f"{sparsity:.0%}", justify="right", no_wrap=True)
    cells = {(s.method, s.refit, s.sparsity): s for s in found}
    combinations = dict.fromkeys(
        (row.method, row.refit) for row in report.rows if row.evaluation == evaluation
    )
    for method, refit in combinations:
        if method == DENSE:
            cell = cells.get((method, refit, 0.0))
            text = "–" if cell is None else cell.text
            table.add_row(DENSE, "", *[text] * len(sparsities), style="dim")
            continue
        row = []
        for sparsity in sparsities:
            cell = cells.get((method, refit, sparsity))
            text = "–" if cell is None else cell.text
            if is_narrow:
                text = text.partition(" ±")[0]
            row.append(
                f"[b]{text}[/b]" if cell is not None and best.get(sparsity) == cell else text
            )
        table.add_row(escape(method), escape(refit), *row)
    return table


def known(value: float | None) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:,.4f}"


def bench_table(found: SpeedComparison) -> Table:
    """A row a model, and one of ratios."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("model")
    for name in ("parameters", "weights", "operations/token", "tokens/s", "peak memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in (found.dense, found.pruned):
        table.add_row(
            escape(one.name),
            f"{one.n_parameters:,}",
            size_text(one.weight_bytes),
            f"{one.operations_per_token:,.0f}",
            f"{one.tokens_per_second:,.0f}",
            size_text(one.peak_bytes),
        )
    table.add_row(
        "ratio",
        f"{found.parameters_ratio:.3f}",
        f"{found.pruned.weight_bytes / found.dense.weight_bytes:.3f}",
        f"{found.operations_ratio:.3f}",
        f"{found.pruned.tokens_per_second / found.dense.tokens_per_second:.3f}",
        f"{found.pruned.peak_bytes / found.dense.peak_bytes:.3f}",
    )
    return table


def tasks_table(found: Sequence[TaskResult]) -> Table:
    """A row a metric."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1))
    for name in ("task", "metric", "filter"):
        table.add_column(name)
    for name in ("value", "± error", "examples"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        table.add_row(
            escape(one.task),
            escape(one.metric),
            escape(one.filter),
            known(one.value),
            known(one.standard_error),
            "–" if one.n_samples is None else f"{one.n_samples:,}",
        )
    return table
