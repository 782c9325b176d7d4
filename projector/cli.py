"""``projector …``: the command line. It parses, calls, and shows; nothing is computed here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from shutil import which
from typing import Annotated, Any, NoReturn

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

_LEGEND = """[dim]rank ρ  rank correlation of distance on the map and 1 − ρ
kept    of a neuron's 10 nearest by ρ, how many are among its 10 nearest on the map
chance  the same, were positions random
stable  of its 10 nearest on the map, how many two halves of the corpus agree on[/dim]"""
_LINEAR_LEGEND = """[dim]cost    of the linear arrangement, as a share of a random order's; spectral
        and leaf are the two orders it was improved from[/dim]"""
# Beside these, a table row a map would scroll the summary off the screen.
_MOST_ROWS = 24

app = typer.Typer(
    name="projector",
    help="Place a transformer's neurons so that those that fire together stand together.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, for scripts.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace the projection that OUT holds.")]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of a hub model.", show_default=False)
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the code that comes with the model.")
]
Objective = Annotated[
    str,
    typer.Option(
        help="[b]stress[/b]: distances match 1 − ρ. [b]linear[/b]: an order, in 1-D. "
        "[b]neighbours[/b]: UMAP, keeps neighbours."
    ),
]
Solver = Annotated[
    str, typer.Option(help="[b]smacof[/b], or [b]adamw[/b], which learns batch by batch.")
]
Dim = Annotated[
    int | None,
    typer.Option(help="Coordinates of a position: 3, or 1 for linear.", show_default=False),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Start = Annotated[
    str, typer.Option(help="Where stress starts: classical, single-point, uniform, normal.")
]
Lp = Annotated[float, typer.Option("--lp", help="Order of the distance; other than 2 with adamw.")]
Lr = Annotated[float, typer.Option("--lr", help="Learning rate of adamw.")]
Absolute = Annotated[bool, typer.Option("--absolute", help="Use |ρ| in place of ρ.")]


@app.command()
def fit(
    model: Annotated[
        str, typer.Argument(help="[b]bundled[/b], a local folder, or a hub id.")
    ] = "bundled",
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the projection.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    corpus: Annotated[
        str,
        typer.Option(
            help="stdlib[:train|:heldout], a .txt, .jsonl or .parquet file or a folder of them, "
            "or hf:NAME[:CONFIG][:SPLIT][:COLUMN]."
        ),
    ] = "stdlib",
    sites: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: mlp_post, mlp_out, attn_out, attn_z, resid_pre, resid_mid, "
            "resid_post. The first three by default.",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="For example 0,3-5. All by default.", show_default=False)
    ] = None,
    dim: Dim = None,
    objective: Objective = "stress",
    solver: Solver = "smacof",
    correlation: Annotated[
        str,
        typer.Option(
            help="[b]pooled[/b] over all tokens, or [b]per-sequence[/b]: the mean of each "
            "sequence's own matrix."
        ),
    ] = "pooled",
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Most tokens to count, drawn evenly over the corpus. All by default.",
            show_default=False,
        ),
    ] = None,
    sequence_length: Annotated[
        int | None,
        typer.Option(
            help="Tokens of a sequence. 256, or what the model takes.", show_default=False
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Sequences at once.")] = 16,
    pack: Annotated[
        bool | None,
        typer.Option(
            "--pack/--no-pack",
            help="Let documents share a sequence. By default where the model is causal.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="auto, float32, bfloat16, float16: what the model computes in.")
    ] = "auto",
    skip_first: Annotated[
        int | None,
        typer.Option(
            help="Positions left out at the start of each sequence. 1 where the model is causal.",
            show_default=False,
        ),
    ] = None,
    start: Start = "classical",
    lp: Lp = 2.0,
    lr: Lr = 3e-3,
    accumulate: Annotated[int, typer.Option(help="Batches per step of adamw.")] = 1,
    absolute: Absolute = False,
    log_with: Annotated[
        str | None,
        typer.Option(help="Track adamw with [b]tensorboard[/b], in OUT.logs.", show_default=False),
    ] = None,
    no_statistics: Annotated[
        bool, typer.Option("--no-statistics", help="Keep positions only: far smaller on disk.")
    ] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Also write the pictures, as HTML, to OUT.")
    ] = False,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    force: Force = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint of a stopped fit.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fit neuron positions: run MODEL over a corpus, and place each layer's neurons.

    Says first how many tokens, how long and how much disk. Stopped, it goes on with --resume.
    """
    screen = _Screen(as_json)
    with screen.errors():
        from projector.budget import size_text
        from projector.checkpoint import check_unfinished, checkpoint_path
        from projector.estimating import estimate
        from projector.fitting import FitSettings, prepare, run
        from projector.projection import Projection, check_out

        layout = _layout(objective, solver, dim, seed, start, lp, lr, accumulate, absolute)
        if log_with is not None and layout.method != "adamw":
            raise UserError("--log-with follows the training of --solver adamw: add that")
        settings = FitSettings(
            sites=_parse_sites(sites),
            layers=_parse_layers(layers),
            correlation=correlation,
            max_tokens=max_tokens,
            sequence_length=sequence_length,
            batch_size=batch_size,
            skip_first=skip_first,
            packed=pack,
            keep_statistics=not no_statistics,
        )
        check_out(out, force=force)
        check_unfinished(out, force=force, resume=resume)
        with screen.progress() as progress:
            job = prepare(
                model,
                corpus,
                settings,
                layout,
                revision=revision,
                device=device,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                progress=progress,
            )
            progress.begin("Timing a batch", None, "")
            needs = estimate(job)
            progress.end()
        for note in job.corpus.notes:
            screen.say(f"[b]{escape(job.corpus.source)}[/b]: {escape(note)}")
        for site, reason in job.left_out.items():
            screen.say(f"[yellow]without {site}[/yellow]: {escape(reason)}")
        screen.say(
            f"{len(job.widths)} maps from {needs.n_tokens:,} tokens: about "
            f"{_duration(needs.seconds)}{' less what is done' if resume else ''}, "
            f"{size_text(needs.disk_bytes)} on disk, "
            f"{size_text(needs.memory_bytes)} of memory"
        )
        widest = max(job.widths.values())
        if needs.n_tokens < widest:
            screen.say(
                f"[yellow]few tokens[/yellow]: {needs.n_tokens:,} for {widest:,} neurons; "
                f"chance alone gives correlations of about ±{needs.n_tokens**-0.5:.2f}"
            )
        screen.checkpoint = checkpoint_path(out)
        with screen.progress() as progress:
            run(
                job,
                out=out,
                force=force,
                resume=resume,
                progress=progress,
                log_with=log_with,
                log_dir=out.parent / f"{out.name}.logs" if log_with else None,
            )
        projection = Projection.load(out)
        written = _write_pictures(projection, out) if pictures else []
        screen.finish(
            _summary(projection, out) | {"pictures": [str(path) for path in written]},
            projection,
            next_command=_next_command(projection, out, written),
        )


@app.command()
def relayout(
    projection_dir: Annotated[Path, typer.Argument(metavar="DIR", help="A saved projection.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the new projection.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    objective: Objective = "stress",
    solver: Solver = "smacof",
    dim: Dim = None,
    seed: Seed = 0,
    start: Start = "classical",
    lp: Lp = 2.0,
    lr: Lr = 3e-3,
    absolute: Absolute = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make new positions from a projection's saved correlations, without the model."""
    screen = _Screen(as_json)
    with screen.errors():
        from projector.fitting import relayout as make
        from projector.projection import Projection, check_out

        layout = _layout(objective, solver, dim, seed, start, lp, lr, 1, absolute)
        old = Projection.load(projection_dir)
        check_out(out, force=force)
        if out.resolve() == projection_dir.resolve():
            raise UserError("--out is the projection itself: give another folder")
        with screen.progress() as progress:
            projection = make(old, layout, progress=progress)
            projection.save(out, force=force)
        screen.finish(_summary(projection, out), projection, _next_command(projection, out, []))


@app.command()
def info(
    projection_dir: Annotated[Path, typer.Argument(metavar="DIR", help="A saved projection.")],
    as_json: Json = False,
) -> None:
    """Say what a projection holds, where it is from, and how far each map can be trusted."""
    screen = _Screen(as_json)
    with screen.errors():
        from projector.projection import Projection

        projection = Projection.load(projection_dir)
        screen.describe(projection)
        screen.finish(
            _summary(projection, projection_dir) | {"facts": projection.facts},
            projection,
            every_map=True,
        )


@app.command()
def plot(
    projection_dir: Annotated[Path, typer.Argument(metavar="DIR", help="A saved projection.")],
    out: Annotated[
        Path, typer.Option("--out", help="The HTML file to write.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    kind: Annotated[
        str,
        typer.Option(
            help="[b]map[/b], [b]heatmap[/b] (correlations before and after ordering), or "
            "[b]trust[/b] (stress and neighbours kept, over layers)."
        ),
    ] = "map",
    layer: Annotated[
        int | None,
        typer.Option(help="A map without it has a slider over all layers.", show_default=False),
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="The projection's first by default.", show_default=False)
    ] = None,
    order: Annotated[
        str,
        typer.Option(
            help="Of a heatmap: [b]leaf[/b] shows groups as blocks, [b]linear[/b], "
            "[b]spectral[/b], [b]index[/b]."
        ),
    ] = "leaf",
    as_json: Json = False,
) -> None:
    """Draw a projection as one HTML file that needs no network."""
    screen = _Screen(as_json)
    with screen.errors():
        from projector import figures
        from projector.projection import Projection

        if kind not in ("map", "heatmap", "trust"):
            raise UserError(f"unknown kind '{kind}': choose from map, heatmap, trust")
        if out.suffix.lower() not in (".html", ".htm"):
            raise UserError(f"--out '{out}' is no .html file: a picture is written as HTML")
        projection = Projection.load(projection_dir)
        chosen_site = site or projection.sites[0]
        if kind == "map":
            layers = None if layer is None else [layer]
            figure = figures.map_figure(projection, chosen_site, layers)
        elif kind == "heatmap":
            if layer is None:
                raise UserError(
                    "a heatmap shows one layer: add --layer, one of "
                    + ", ".join(str(n) for n in projection.layers)
                )
            figure = figures.heatmap_figure(projection, layer, chosen_site, order)
        else:
            figure = figures.stress_figure(projection)
        figures.write_figure(figure, out)
        screen.result(
            {"picture": str(out)}, f"Wrote [b]{escape(str(out))}[/b]: open it in a browser."
        )


@app.command("import")
def import_(
    checkpoint: Annotated[
        Path, typer.Argument(help="A safetensors file of positions, written by Accelerate.")
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model", help="The model they belong to: a folder or a hub id.", show_default=False
        ),
    ] = ...,  # type: ignore[assignment]
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the projection.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a projection of positions that were trained elsewhere."""
    screen = _Screen(as_json)
    with screen.errors():
        from projector.importing import import_checkpoint
        from projector.projection import check_out

        check_out(out, force=force)
        with screen.progress() as progress:
            progress.begin("Loading the model", None, "")
            projection = import_checkpoint(
                checkpoint, model, revision=revision, trust_remote_code=trust_remote_code
            )
            progress.end()
        projection.save(out, force=force)
        screen.finish(_summary(projection, out), projection, _next_command(projection, out, []))


def main() -> None:
    """Entry point: quiet libraries, then the command."""
    # Before transformers is imported anywhere: its messages are for those who write models.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    app()


def _layout(
    objective: str,
    solver: str,
    dim: int | None,
    seed: int,
    start: str,
    p: float,
    lr: float,
    accumulate: int,
    absolute: bool,
) -> Any:
    from projector.solvers import Layout

    return Layout(
        objective=objective,
        solver=solver,
        dim=dim if dim is not None else 1 if objective == "linear" else 3,
        seed=seed,
        start=start,
        p=p,
        lr=lr,
        accumulate=accumulate,
        absolute=absolute,
    )


def _parse_layers(text: str | None) -> tuple[int, ...] | None:
    """``0,3-5`` → (0, 3, 4, 5)."""
    if text is None:
        return None
    layers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = [first, last] if dash else [first, first]
        if not all(n.isdecimal() and len(n) < 6 for n in numbers) or int(numbers[0]) > int(
            numbers[1]
        ):
            raise UserError(f"layers '{text}' can't be read: write for example 0,3-5")
        layers += range(int(numbers[0]), int(numbers[1]) + 1)
    return tuple(layers)


def _parse_sites(text: str | None) -> tuple[str, ...] | None:
    """``mlp_post,attn_out`` → its parts."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def _write_pictures(projection: Any, out: Path) -> list[Path]:
    from projector.figures import write_pictures

    return write_pictures(projection, out)


def _summary(projection: Any, out: Path) -> dict[str, Any]:
    """The one object of ``--json``."""
    return {
        "projection": str(out),
        "model": projection.facts["model"],
        "corpus": projection.facts["corpus"],
        "layout": projection.facts["layout"],
        "maps": [
            {"layer": layer, "site": site, **projection.figures(layer, site)}
            for layer, site in projection.maps
        ],
    }


def _next_command(projection: Any, out: Path, pictures: list[Path]) -> str:
    site = projection.sites[0]
    layers = [layer for layer, s in projection.maps if s == site]
    layer, program = layers[len(layers) // 2], _program()
    if pictures:
        names = ", ".join(path.name for path in pictures)
        then = f"{program} info {quote(str(out))}"
        if projection.has_statistics:
            is_umap = projection.facts["layout"]["objective"] == "neighbours"
            objective = "stress" if is_umap else "neighbours"
            then = (
                f"{program} relayout {quote(str(out))} --objective {objective} "
                f"--out {quote(f'{out}-{objective}')}"
            )
        return f"open {names} there in a browser; then try\n  {then}"
    picture = quote(f"{out}-map.html")
    return f"{program} plot {quote(str(out))} --layer {layer} --site {site} --out {picture}"


def _program() -> str:
    """This program as the user can call it again from here."""
    called = Path(sys.argv[0])
    if which("projector") is not None or called.name != "projector":
        return "projector"
    return os.path.relpath(called)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


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


class _Screen:
    """What the user sees: text for a person, or one JSON object and all else on standard error."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        # Where work that is stopped may be gone on from.
        self.checkpoint: Path | None = None
        self.out = Console(stderr=as_json, highlight=False)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """One line and status 2 for a user's mistake; 130 for Ctrl-C."""
        try:
            yield
        except UserError as error:
            self._fail(str(error))
        except OSError as error:
            # What a user's paths can do to a system: too long a name, no permission.
            where = f" '{error.filename}'" if error.filename else ""
            self._fail(f"{error.strerror or error}{where}")
        except KeyboardInterrupt:
            resumes = self.checkpoint is not None and self.checkpoint.exists()
            self.say_aside(
                "stopped"
                + (": the same command with --resume goes on from here" if resumes else "")
            )
            raise typer.Exit(130) from None

    def _fail(self, text: str) -> NoReturn:
        message = " ".join(text.split())
        if self.as_json:
            print(json.dumps({"error": message}, ensure_ascii=False))
        self.say_aside(f"[red]error:[/red] {escape(message)}")
        raise typer.Exit(2) from None

    def say_aside(self, text: str) -> None:
        """One line on standard error."""
        Console(stderr=True, highlight=False, soft_wrap=True).print(text)

    @contextmanager
    def progress(self) -> Iterator[_Bars]:
        """Bars with rates and time left, on standard error where a script reads the output."""
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
        """Where a projection is from."""
        facts = projection.facts
        model, corpus, layout = facts["model"], facts["corpus"], facts["layout"]
        rows = {
            "model": f"{model['id']} ({model['dtype']}, weights {model['sha256'][:12]})",
            "corpus": "unknown"
            if corpus is None
            else f"{corpus['source']}, {corpus['n_tokens']:,} of {corpus['n_tokens_available']:,} "
            f"tokens in sequences of {corpus['sequence_length']}",
            "maps": f"{layout['objective']} by {layout['method']}, {layout['dim']}-D",
            "correlation": str(facts["correlation"] or "unknown")
            + (", |ρ|" if layout["absolute"] else ""),
            "statistics": "kept" if projection.has_statistics else "not kept",
        }
        for name, text in rows.items():
            self.say(f"[b]{name:<12}[/b] {escape(text)}")
        for site, reason in facts["left_out_sites"].items():
            self.say(f"[yellow]without {site}[/yellow]: {escape(reason)}")

    def finish(
        self,
        value: dict[str, Any],
        projection: Any,
        next_command: str | None = None,
        *,
        every_map: bool = False,
    ) -> None:
        """The result: JSON, or a table and what to do next."""
        if self.as_json:
            print(json.dumps(value, ensure_ascii=False, allow_nan=False))
            return
        self.out.print(_table(projection, every_map=every_map))
        if projection.facts["layout"]["objective"] == "linear":
            self.say(_LINEAR_LEGEND)
        self.say(_LEGEND)
        if next_command:
            self.say(f"Wrote [b]{escape(value['projection'])}[/b]")
            self.say(f"Next: {escape(next_command)}")


def _table(projection: Any, *, every_map: bool) -> Table:
    """A row a map; where they are many, a row a site with the median over layers."""
    linear = projection.facts["layout"]["objective"] == "linear"
    table = Table(
        header_style="bold", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True
    )
    costs = ("spectral", "leaf", "cost") if linear else ("stress", "stress-1")
    table.add_column("layer", justify="right", no_wrap=True)
    table.add_column("site", no_wrap=True)
    for name in ("neurons", "dead", *costs, "rank ρ", "kept", "chance", "stable"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = [(layer, site, projection.figures(layer, site)) for layer, site in projection.maps]
    if len(rows) <= _MOST_ROWS or every_map:
        for layer, site, figures in rows:
            table.add_row(str(layer), escape(site), *_cells([figures], linear))
        return table
    for site in projection.sites:
        group = [figures for _, s, figures in rows if s == site]
        table.add_row(f"all {len(group)}", escape(site), *_cells(group, linear))
    return table


def _cells(group: list[dict[str, Any]], linear: bool) -> list[str]:
    """Medians over the group, dead neurons summed; a dash where no figure is known."""

    def median(pattern: str, values: list[float | None], factor: float = 1.0) -> str:
        known = sorted(v for v in values if v is not None)
        return pattern.format(known[len(known) // 2] * factor) if known else "–"

    def over(name: str) -> list[float | None]:
        return [figures[name] for figures in group]

    cells = [
        median("{:,.0f}", over("n_neurons")),
        f"{sum(len(f['dead_neurons']) + len(f['nonfinite_neurons']) for f in group):,}",
    ]
    if linear:
        costs = [f["arrangement_cost"] for f in group if "arrangement_cost" in f]
        for name in ("spectral", "leaf", "final"):
            # As a share of what a random order costs: the bare sums grow with N³.
            cells.append(median("{:.4f}", [c[name] / c["random"] for c in costs if c["random"]]))
    else:
        cells += [median("{:.4f}", over("stress")), median("{:.3f}", over("stress_1"))]
    cells.append(median("{:.3f}", over("rank_correlation")))
    for name in ("neighbour_overlap", "chance_overlap", "stability"):
        cells.append(median("{:.1f}", over(name), 10))
    return cells


if __name__ == "__main__":
    main()
