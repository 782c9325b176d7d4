"""Tables of results for a screen, as wide as the screen."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from projector.memory import size_text
from projector.naming.legend import signs_in
from projector.terminal.screen import legend
from pruning.poles.poles import Pole, Poles, finding_words
from pruning.scoring.speed import SpeedComparison
from pruning.scoring.tasks import TaskResult
from pruning.sweep.report import DENSE, PruningReport

_POLES_LEGEND = {
    "poles": "number of groups on the map",
    "by chance": "mean number of poles in shuffled ρ and in ρ with the same spectrum",
    "distinct": "poles that both halves of the corpus confirm, and whose {mean} inside is higher "
    "than in shuffled ρ",
    "shuffled": "mean number of distinct poles in shuffled ρ",
    "beyond": "distinct poles beyond the spectrum: their {mean} inside is higher than in ρ with "
    "the same spectrum",
    "spectrum": "mean number of poles beyond the spectrum in ρ with the same spectrum",
    "fires on": "what the most separate poles fire on, or the names that you gave them, "
    "separated by |",
    "size": "neurons in the largest pole and in the median pole",
    "noise": "neurons in no pole, as a share of those that are not dead",
    "within": "{mean} of the pairs of neurons in a pole; for a layer, the median over poles",
    "between": "highest {mean} to another pole; for a layer, the median over poles",
    "opposite": "lowest mean ρ between two poles, if it is below 0",
    "validity": "DBCV, from −1 to 1: how dense poles are and how far apart they are; noise lowers "
    "it",
}
_POLE_LEGEND = {
    "finding": "result of the controls; weak: shuffled ρ reaches as much",
    "within": "{mean} of the pairs of neurons in the pole",
    "between": "highest {mean} to another pole",
    "opposite": "the pole with the lowest mean ρ to this one, and that ρ",
    "exemplars": "neurons that represent the pole, most central first",
}
REPORT_LEGEND = """[dim]perplexity at each sparsity: mean ± standard deviation over seeds; bold: the
least of its column; –: not applicable; broken: the perplexity of a seed is not finite[/dim]"""
_MOST_POLES = 12
# Widths of a screen, in characters, from which tables have more columns.
_NARROW, _MIDDLING, _WIDE, _WIDEST = 72, 100, 140, 160
# Of method and refit, and of a perplexity with its spread.
_NAMES_WIDTH, _CELL_WIDTH = 28, 18
_MOST_EXEMPLARS, _WIDEST_TEXT = 4, 80


def poles_table(
    found: Sequence[Poles], width: int, names: Sequence[Sequence[str | None]] = ()
) -> Table:
    """A row a layer and site.

    Args:
        width: of the screen, in characters: it decides which columns there are.
        names: those that the user gave the poles of each map; none where empty.
    """
    columns = _columns_of_maps(width)
    table = _table("layer", "site")
    rows = [_cells_of_map(one, names[k] if names else ()) for k, one in enumerate(found)]
    for name in columns:
        if name == "fires on":
            table.add_column(name, overflow="fold", max_width=_WIDEST_TEXT)
        else:
            # No number is cut, whatever the others take.
            longest = max((len(cells[name]) for cells in rows), default=0)
            table.add_column(name, justify="right", no_wrap=True, min_width=longest)
    for one, cells in zip(found, rows, strict=True):
        table.add_row(str(one.layer), escape(one.site), *(cells[name] for name in columns))
    return table


def legend_of_maps(found: Sequence[Poles], width: int) -> Table:
    """What the columns mean, for the space in which poles were found."""
    columns = _columns_of_maps(width)
    return _legend({n: text for n, text in _POLES_LEGEND.items() if n in columns}, found[0])


def _columns_of_maps(width: int) -> tuple[str, ...]:
    """Those that fit, what the poles fire on always being among them."""
    # A count, and beside it the one of its control.
    judged = ("distinct", "shuffled", "beyond", "spectrum")
    if width >= _WIDE:
        more = ("size", "noise", "within", "between", "opposite", "validity", "fires on")
        dead = ("dead",) if width >= _WIDEST else ()
        return ("neurons", *dead, "poles", "by chance", *judged, *more)
    if width >= _MIDDLING:
        return ("poles", "by chance", *judged, "within", "fires on")
    return ("poles", *(judged if width >= _NARROW else judged[:2]), "fires on")


def _cells_of_map(one: Poles, names: Sequence[str | None]) -> dict[str, str]:
    sizes, poles = one.sizes, one.poles
    shuffled = None if one.controls is None else one.controls.shuffled
    spectrum = None if one.controls is None else one.controls.same_spectrum
    n_poles = [None if each is None else each.n_poles for each in (shuffled, spectrum)]
    n_distinct = None if shuffled is None else shuffled.n_distinct
    n_beyond = None if spectrum is None else spectrum.n_beyond_spectrum
    return {
        "neurons": f"{one.n_neurons:,}",
        "dead": f"{len(one.undefined):,}",
        "poles": f"{len(poles):,}",
        "by chance": " and ".join(f"{n:.1f}" for n in n_poles if n is not None) or "–",
        "distinct": _count(one.n_distinct),
        "shuffled": _mean(n_distinct),
        "beyond": _count(one.n_beyond_spectrum),
        "spectrum": _mean(n_beyond),
        "size": f"{max(sizes):,}, {median(sizes):,.0f}" if sizes else "–",
        "noise": "–" if one.noise_share is None else f"{one.noise_share:.0%}",
        "within": _number(_median([within(one, pole) for pole in poles])),
        "between": _number(_median([between(one, pole) for pole in poles])),
        "opposite": _number(
            min((p.opposite_rho for p in poles if p.opposite_rho is not None), default=None)
        ),
        "validity": _number(one.validity),
        "fires on": escape(" | ".join(strongest_labels(one, names=names))),
    }


def strongest_labels(one: Poles, n: int = 3, names: Sequence[str | None] = ()) -> list[str]:
    """What the first poles fire on: the distinct ones, or all where none is known to be.

    Those that fire on one thing; where there are none, the first.

    Args:
        names: those that the user gave the poles, which are told instead; none where empty.
    """
    is_judged = one.n_distinct is not None
    shown = [k for k in one.distinct_first if one.poles[k].distinct or not is_judged]
    called = [(names[k] if names else None) or one.poles[k].label for k in shown]
    labels = list(dict.fromkeys(label for label in called if label))
    clear = [label for label in labels if "(mixed)" not in label]
    return clear[:n] or labels[:1]


def legend_of_labels(
    found: Sequence[Poles], names: Sequence[Sequence[str | None]], *, has_poles: bool
) -> Table:
    """What the signs in the labels of both tables mean: of those that occur.

    Args:
        names: those that the user gave the poles of each map, which have no such signs.
        has_poles: whether :func:`pole_table` is shown too.
    """
    labels: list[str | None] = []
    for one, of_map in zip(found, names, strict=True):
        labels += strongest_labels(one, names=of_map)
        if has_poles:
            first = one.distinct_first[:_MOST_POLES]
            labels += [(of_map[k] if of_map else None) or one.poles[k].label for k in first]
    given = {name for of_map in names for name in of_map}
    return legend(signs_in(label for label in labels if label and label not in given))


def _count(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


def _mean(of_draws: float | None) -> str:
    return "–" if of_draws is None else f"{of_draws:.1f}"


def pole_table(one: Poles, width: int, names: Sequence[str | None] = ()) -> Table:
    """A row a pole, distinct ones first; the last row counts those that were left out.

    Args:
        width: of the screen, in characters: it decides which columns there are.
        names: those that the user gave the poles; none where empty.
    """
    columns = _columns_of_poles(width)
    table = _table("pole")
    order = one.distinct_first
    rows = {k: _cells_of_pole(one, k, names[k] if names else None) for k in order[:_MOST_POLES]}
    for name in columns:
        if name in ("fires on", "exemplars"):
            table.add_column(name, overflow="fold")
        elif name == "finding":
            table.add_column(name)
        else:
            longest = max((len(cells[name]) for cells in rows.values()), default=0)
            table.add_column(name, justify="right", no_wrap=True, min_width=longest)
    for k, cells in rows.items():
        is_weak = one.poles[k].distinct is False
        table.add_row(str(k), *(cells[name] for name in columns), style="dim" if is_weak else None)
    if len(order) > _MOST_POLES:
        rest = order[_MOST_POLES:]
        n_distinct = sum(bool(one.poles[k].distinct) for k in rest)
        text = f"{len(rest):,} more poles"
        if n_distinct:
            text += f", {n_distinct:,} of them distinct"
        text += ": --json lists all"
        table.add_row("…", *(text if name == "fires on" else "" for name in columns))
    return table


def legend_of_poles(one: Poles, width: int) -> Table:
    """What the columns of :func:`pole_table` mean."""
    columns = _columns_of_poles(width)
    return _legend({n: text for n, text in _POLE_LEGEND.items() if n in columns}, one)


def _columns_of_poles(width: int) -> tuple[str, ...]:
    first = ("fires on", "neurons", "within", "between")
    if width >= _MIDDLING:
        return (*first, "opposite", "finding", "exemplars")
    return (*first, "opposite", "finding")


def _cells_of_pole(one: Poles, k: int, called: str | None) -> dict[str, str]:
    pole = one.poles[k]
    first = ", ".join(str(neuron) for neuron in pole.exemplars[:_MOST_EXEMPLARS])
    n_more = len(pole.exemplars) - _MOST_EXEMPLARS
    opposite = "–" if pole.opposite is None else f"{pole.opposite} ({_number(pole.opposite_rho)})"
    return {
        "fires on": escape(called or pole.label or "–"),
        "neurons": f"{pole.size:,}",
        "within": _number(within(one, pole)),
        "between": _number(between(one, pole)),
        "opposite": opposite,
        "finding": finding_words(one, k) or "–",
        "exemplars": first + (f" and {n_more:,} more" if n_more > 0 else ""),
    }


def _legend(columns: dict[str, str], one: Poles) -> Table:
    mean = "mean |ρ|" if one.settings.space == "abs-correlation" else "mean ρ"
    return legend((name, text.format(mean=mean)) for name, text in columns.items())


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
