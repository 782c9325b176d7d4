"""A table of what pruning costs for a real model: ``python -m benchmarks.real_model MODEL``.

Sweeps in parts, each an ordinary ``pruning sweep`` with ``--resume``: the same command continues a
stopped run. The parts are methods with least squares; methods with ``reconstruct``; the best of
each share on all windows; and speed and memory as ``pruning bench`` measures them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pruning.terminal.options  # noqa: F401  It names the options in messages.
from benchmarks.results import describe_machine
from projector.errors import SettingError, UserError
from projector.model.architecture.widths import can_have_bias
from projector.progress import Line, Progress, Silent
from projector.projection.provenance import versions
from projector.storage.places import disk_errors
from projector.storage.replacing import replacing_file
from projector.terminal.options import option_words, parse_size
from pruning.calibration.mlps import mlps_of
from pruning.limits import DEFAULT_SEQUENCES, DEFAULT_STEPS
from pruning.methods.plan import LayerPlan, PruningPlan, kept_width
from pruning.preparing import load_prunable
from pruning.reporting.files import JSON_FILE
from pruning.scoring.speed import compare_speed
from pruning.surgery import apply_plan
from pruning.sweep.figure import write_figures
from pruning.sweep.job import SweepJob, prepare_sweep
from pruning.sweep.report import DENSE, OK, PruningReport, Row, Summary
from pruning.sweep.running import run_sweep
from pruning.sweep.settings import SweepRequest, SweepSettings

CALIBRATION = "hf:Salesforce/wikitext:wikitext-2-raw-v1:validation"
EVALUATION = "hf:Salesforce/wikitext:wikitext-2-raw-v1:test"
# More than any text has.
_ALL_WINDOWS = 10**9
_BENCH_FILE = "bench.json"
# No method chooses neurons, because speed and memory depend only on widths.
_FIRST = "first"


@dataclass(frozen=True)
class Asked:
    """The table's model, texts and sizes."""

    model: str
    out: Path
    projection: Path
    calibration: str
    evaluation: str
    shares: tuple[float, ...]
    n_seeds: int
    n_windows: int
    n_sequences: int
    n_steps: int
    device: str
    dtype: str
    n_workers: int
    memory_budget: int | None


@dataclass(frozen=True)
class Group:
    """Methods with one refit, over some seeds, in a separate sweep."""

    methods: tuple[str, ...]
    refit: str
    n_seeds: int


def groups_of(asked: Asked) -> dict[str, Group]:
    """The sweeps over the same windows, by the name of their part."""
    return {
        "least-squares": Group(("wanda", "flap", "obs", "poles"), "least-squares", asked.n_seeds),
        "reconstruct": Group(("obs", "poles"), "reconstruct", 1),
    }


def run_group(asked: Asked, name: str, group: Group, n_windows: int, progress: Progress) -> None:
    """Run one sweep into the folder ``name``; finished rows stay."""
    settings = SweepSettings(
        methods=group.methods,
        sparsities=asked.shares,
        refits=(group.refit,),
        n_seeds=group.n_seeds,
        n_sequences=asked.n_sequences,
        n_steps=asked.n_steps,
    )
    request = SweepRequest(
        model=asked.model,
        settings=settings,
        calibration=asked.calibration,
        evaluations=(asked.evaluation,),
        projection=asked.projection,
        n_windows=n_windows,
        with_winners=False,
        device=asked.device,
        dtype=asked.dtype,
        memory_budget=asked.memory_budget,
    )
    job = prepare_sweep(request, progress)
    out = asked.out / name
    _give_dense(job, asked.out, out)
    report = run_sweep(job, out, resume=True, n_workers=asked.n_workers, progress=progress)
    write_figures(report, out, only_missing=True)


def _give_dense(job: SweepJob, folder: Path, out: Path) -> None:
    """Begin a report with another report's row of the dense model on the same text, if any."""
    if out.exists():
        return
    facts, model = job.facts(), job.model_facts()
    same = ("evaluations", "device", "dtype", "stored_dtype", "versions")
    for report in _reports(folder).values():
        rows = [row for row in report.rows if row.method == DENSE]
        if rows and report.model == model and all(report.settings[k] == facts[k] for k in same):
            PruningReport(facts, model, rows).save(out)
            return


def best_of(asked: Asked) -> dict[float, Summary]:
    """The method and refit with the lowest mean perplexity in the earlier sweeps, for each share.

    Raises:
        UserError: if one of them is not finished.
    """
    found: list[Summary] = []
    for name, group in groups_of(asked).items():
        report = _reports(asked.out).get(name)
        n_wanted = 1 + len(group.methods) * len(asked.shares) * group.n_seeds
        if report is None or len(report.rows) < n_wanted:
            raise UserError(f"part {name} of '{asked.out}' is not finished: run it first")
        found += [s for s in report.summaries() if s.method != DENSE and s.perplexity is not None]
    best: dict[float, Summary] = {}
    for share in asked.shares:
        own = [each for each in found if each.sparsity == share]
        if not own:
            raise UserError(f"no model with {share:.0%} of its neurons removed has a perplexity")
        best[share] = min(own, key=lambda each: each.perplexity or 0.0)
    return best


def run_all_windows(asked: Asked, progress: Progress) -> None:
    """Score the best of each share, and the dense model, on all windows; one seed."""
    shares: dict[tuple[str, str], list[float]] = {}
    for share, best in best_of(asked).items():
        shares.setdefault((best.method, best.refit), []).append(share)
    for (method, refit), own in shares.items():
        group = Group((method,), refit, 1)
        given = Asked(**{**vars(asked), "shares": tuple(own)})
        run_group(given, f"all-windows-{method}-{refit}", group, _ALL_WINDOWS, progress)


def run_bench(asked: Asked, progress: Progress) -> None:
    """Measure speed and memory of the dense model and of a model cut to each share.

    They depend only on the widths, so the first neurons stay, instead of those that a method
    chooses.
    """
    progress.begin("Loading the model", None, "")
    loaded, architecture = load_prunable(asked.model, device=asked.device, dtype=asked.dtype)
    # In the state after refits.
    with_bias = can_have_bias(loaded.model, architecture)
    found = []
    for share in asked.shares:
        layers = []
        for mlp in mlps_of(architecture):
            kept = range(kept_width(mlp.n_neurons, share))
            layers.append(LayerPlan(mlp.n_neurons, tuple(kept)))
        plan = PruningPlan(_FIRST, share, 0, "uniform", 1, tuple(layers))
        pruned = apply_plan(
            loaded.model, plan, architecture=architecture, with_bias=with_bias, shares=True
        )
        names = (DENSE, f"{share:.0%}")
        compared = compare_speed(loaded.model, pruned, names=names, progress=progress)
        found.append({"share": share, **compared.figures()})
    _write(asked.out / _BENCH_FILE, json.dumps(found, indent=1))


def _sweeper(name: str) -> Callable[[Asked, Progress], None]:
    def run(asked: Asked, progress: Progress) -> None:
        run_group(asked, name, groups_of(asked)[name], asked.n_windows, progress)

    return run


# In the order in which they are run.
PARTS: dict[str, Callable[[Asked, Progress], None]] = {
    "least-squares": _sweeper("least-squares"),
    "reconstruct": _sweeper("reconstruct"),
    "all-windows": run_all_windows,
    "bench": run_bench,
}


def _reports(folder: Path) -> dict[str, PruningReport]:
    """The reports of all parts that have begun, by folder name."""
    paths = sorted(folder.glob(f"*/{JSON_FILE}"))
    return {path.parent.name: PruningReport.load(path.parent) for path in paths}


def table(folder: Path) -> str:
    """The results as Markdown: a row per method, refit and share; then speed and memory."""
    lines: list[str] = []
    reports = _reports(folder)
    sampled = {k: each for k, each in reports.items() if not k.startswith("all-windows")}
    whole = {k: each for k, each in reports.items() if k.startswith("all-windows")}
    for title, group in (("", sampled), ("All windows", whole)):
        if any(report.rows for report in group.values()):
            lines += [*_perplexities(title, group.values()), ""]
    bench = folder / _BENCH_FILE
    if bench.exists():
        lines += _speeds(json.loads(bench.read_text(encoding="utf-8")))
    return "\n".join(lines).rstrip() or "Nothing has been measured yet."


def _perplexities(title: str, reports: Any) -> list[str]:
    found: dict[tuple[str, str, float], Summary] = {}
    told: dict[str, None] = {}
    for report in reports:
        told |= dict.fromkeys(str(t["description"]) for t in report.settings["evaluations"])
        for each in report.summaries():
            found.setdefault((each.method, each.refit, each.sparsity), each)
    rows = sorted(found.values(), key=lambda each: each.sparsity)
    dense = next((s.perplexity for s in rows if s.method == DENSE), None)
    best = {
        share: min(s.perplexity for s in rows if s.sparsity == share and s.perplexity is not None)
        for share in {s.sparsity for s in rows if s.perplexity is not None}
    }
    lines = [f"{title + ': ' if title else ''}{'; '.join(told)}.", ""]
    lines += [
        "| method | refit | neurons removed | of all parameters | perplexity | × dense | seeds "
        "| plan and refit |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in rows:
        is_dense = each.method == DENSE
        text = each.text
        if each.perplexity is not None and not is_dense and each.perplexity == best[each.sparsity]:
            text = f"**{text}**"
        times = "–" if None in (dense, each.perplexity) else f"{each.perplexity / dense:.3f}"  # type: ignore[operator]
        cells = (
            (DENSE, "", "", "", text, "", "", "")
            if is_dense
            else (
                f"`{each.method}`",
                f"`{each.refit}`",
                _percent(each.sparsity, 0),
                _percent(each.removed_share, 1),
                text,
                times,
                str(each.n_seeds),
                f"{each.seconds:,.0f} s",
            )
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _percent(share: float, n_digits: int) -> str:
    return f"{100 * share:.{n_digits}f} %"


def _speeds(found: Sequence[Mapping[str, Any]]) -> list[str]:
    one = found[0]
    lines = [
        f"Passes over {one['batch_size']} × {one['sequence_length']} tokens on {one['device']} "
        f"({one['n_threads']} thread{'s' if one['n_threads'] > 1 else ''}), {one['dtype']}; time: "
        f"median of {one['n_repeats']} pairs, middle half in brackets.",
        "",
        "| neurons removed | parameters | operations | time | tokens/s, dense → pruned "
        "| peak memory, dense → pruned |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in found:
        low, high = each["time_ratio_range"]
        dense, pruned = each["dense"], each["pruned"]
        lines.append(
            f"| {_percent(each['share'], 0)} | × {each['parameters_ratio']:.3f} "
            f"| × {each['operations_ratio']:.3f} | × {each['time_ratio']:.3f} "
            f"({low:.3f} to {high:.3f}) | {dense['tokens_per_second']:,.0f} → "
            f"{pruned['tokens_per_second']:,.0f} | {dense['peak_bytes'] / 1e6:,.0f} → "
            f"{pruned['peak_bytes'] / 1e6:,.0f} MB |"
        )
    return lines


def _rows(folder: Path) -> list[dict[str, Any]]:
    """Every row of every seed, with the part that it is of."""

    def plain(part: str, row: Row) -> dict[str, Any]:
        return {"part": part, **asdict(row)}

    return [
        plain(part, row)
        for part, report in _reports(folder).items()
        for row in report.rows
        if row.status == OK
    ]


def _write(path: Path, text: str) -> None:
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as partial:
            partial.write_text(text + "\n", encoding="utf-8")


def write_tables(asked: Asked, machine: Mapping[str, Any]) -> str:
    """Write ``table.md`` and ``table.json`` of the results, and return the Markdown."""
    text = table(asked.out)
    bench = asked.out / _BENCH_FILE
    values = {
        "machine": machine,
        "versions": versions(),
        "asked": {k: str(v) if isinstance(v, Path) else v for k, v in vars(asked).items()},
        "settings": {k: each.settings for k, each in _reports(asked.out).items()},
        "rows": _rows(asked.out),
        "bench": json.loads(bench.read_text(encoding="utf-8")) if bench.exists() else None,
    }
    _write(asked.out / "table.md", text)
    _write(asked.out / "table.json", json.dumps(values, indent=1, ensure_ascii=False))
    return text


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise SettingError("shares", text, "aren't numbers", "give for example 0.2,0.5") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_model", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("model", metavar="MODEL", help="A local folder, or a hub id.")
    parser.add_argument("--projection", type=Path, required=True, help="The model's projection.")
    parser.add_argument("--out", type=Path, required=True, help="Folder for reports and tables.")
    parser.add_argument("--calibration", default=CALIBRATION, help="%(default)s")
    parser.add_argument("--evaluation", default=EVALUATION, help="%(default)s")
    parser.add_argument("--only", choices=[*PARTS, "table"], help="One part, or the table.")
    parser.add_argument("--shares", default="0.2,0.5", help="Shares of neurons to remove.")
    parser.add_argument("--seeds", type=int, default=2, help="Seeds with least squares.")
    parser.add_argument("--windows", type=int, default=20, help="Windows to score.")
    parser.add_argument(
        "--sequences", type=int, default=DEFAULT_SEQUENCES, help="Calibration sequences."
    )
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS, help="Training steps.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--workers", type=int, default=1, help="Processes of one thread each.")
    parser.add_argument("--memory-budget", help="Maximum memory, for example 8GiB.")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, print the tables, and write them."""
    given = _parser().parse_args(arguments)
    progress: Progress = Line(sys.stderr) if sys.stderr.isatty() else Silent()
    machine = describe_machine()
    try:
        asked = Asked(
            model=given.model,
            out=given.out,
            projection=given.projection,
            calibration=given.calibration,
            evaluation=given.evaluation,
            shares=_shares(given.shares),
            n_seeds=given.seeds,
            n_windows=given.windows,
            n_sequences=given.sequences,
            n_steps=given.steps,
            device=given.device,
            dtype=given.dtype,
            n_workers=given.workers,
            memory_budget=parse_size(given.memory_budget),
        )
        for part in PARTS if given.only is None else (given.only,):
            if part in PARTS:
                print(f"  part {part}", file=sys.stderr, flush=True)
                PARTS[part](asked, progress)
                write_tables(asked, machine)
        print(write_tables(asked, machine))
    except UserError as error:
        print(f"error: {' '.join(error.worded(option_words).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
