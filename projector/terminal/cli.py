"""``projector …``: the command line. It parses, calls, and shows; nothing is computed here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shlex import quote
from shutil import which
from typing import Annotated, Any

import typer
from rich.markup import escape

from projector.environment import prepare_environment
from projector.errors import UserError
from projector.sites import sites_help
from projector.terminal.options import parse_layers, parse_sites, parse_size
from projector.terminal.screen import Screen, duration_text
from projector.terminal.usage import Commands

app = typer.Typer(
    name="projector",
    help="Place a transformer's neurons so that those that fire together stand together.",
    cls=Commands,
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
        str, typer.Argument(metavar="MODEL", help="[b]bundled[/b], a local folder, or a hub id.")
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
            help=sites_help(),
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
    device_map: Annotated[
        str | None,
        typer.Option(
            help="auto: spread a model that no single device holds over all of them.",
            show_default=False,
        ),
    ] = None,
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
    memory_budget: Annotated[
        str | None,
        typer.Option(
            help="Most memory beside the model, for example 8GiB: where not all maps fit, the "
            "model runs over the corpus more than once. What is free, less a margin.",
            show_default=False,
        ),
    ] = None,
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
    screen = Screen(as_json)
    with screen.errors():
        from projector.fitting.processes import join_processes

        processes = join_processes(device)
        screen.become(processes.rank)
        from projector.fitting.checkpoint import beside, check_unfinished, has_checkpoint
        from projector.fitting.estimating import estimate
        from projector.fitting.pipeline import going_on, run
        from projector.fitting.preparing import FitSettings, prepare
        from projector.memory import size_text
        from projector.model.loading import check_device_map
        from projector.projection.projection import Projection, check_out

        layout = _layout(objective, solver, dim, seed, start, lp, lr, accumulate, absolute)
        if log_with is not None and layout.method != "adamw":
            raise UserError("--log-with follows the training of --solver adamw: add that")
        settings = FitSettings(
            sites=parse_sites(sites),
            layers=parse_layers(layers),
            correlation=correlation,
            max_tokens=max_tokens,
            sequence_length=sequence_length,
            batch_size=batch_size,
            skip_first=skip_first,
            packed=pack,
            keep_statistics=not no_statistics,
            memory_budget=parse_size(memory_budget),
        )
        if device_map is not None:
            check_device_map(device_map, device)
            if processes.n > 1:
                raise UserError(
                    "--device-map auto takes all devices for one process: leave it out, or start "
                    "the fit without a launcher"
                )
        check_out(out, force=force or resume)
        if processes.is_first or not resume:
            check_unfinished(out, force=force, resume=resume)
        with screen.progress() as progress:
            job = prepare(
                model,
                corpus,
                settings,
                layout,
                revision=revision,
                device=device,
                device_map=device_map,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                progress=progress,
            )
            if resume:
                job = going_on(job, out, processes)
            progress.begin("Timing a batch", None, "")
            needs = estimate(job)
            progress.end()
        for note in job.corpus.notes:
            screen.say(f"[b]{escape(job.corpus.source)}[/b]: {escape(note)}")
        for site, reason in job.left_out.items():
            screen.say(f"[yellow]without {site}[/yellow]: {escape(reason)}")
        seconds = needs.seconds / processes.n
        n_maps = len(job.widths)
        screen.say(
            f"{n_maps} map{'s' if n_maps > 1 else ''} from {needs.n_tokens:,} tokens: about "
            f"{duration_text(seconds)}{' less what is done' if resume else ''}, "
            f"{size_text(needs.disk_bytes)} on disk{' beside the pictures' if pictures else ''}, "
            f"{size_text(needs.memory_bytes)} of memory"
        )
        if len(job.plan.passes) > 1:
            screen.say(
                f"[b]{len(job.plan.passes)} passes over the corpus[/b], with at most "
                f"{max(map(len, job.plan.passes))} maps in each, to stay within that memory"
            )
        for (layer, site), n_drawn in job.plan.samples.items():
            screen.say(
                f"[yellow]layer {layer} {site}[/yellow]: no room for its "
                f"{job.widths[layer, site]:,}² correlations: they will be computed from "
                f"{n_drawn:,} of the tokens, evenly drawn, and not kept"
            )
        widest = max(job.widths.values())
        if needs.n_tokens < widest:
            screen.say(
                f"[yellow]few tokens[/yellow]: {needs.n_tokens:,} for {widest:,} neurons; "
                f"chance alone gives correlations of about ±{needs.n_tokens**-0.5:.2f}"
            )
        screen.can_resume = lambda: has_checkpoint(out)
        with screen.progress() as progress:
            run(
                job,
                out=out,
                force=force,
                resume=resume,
                progress=progress,
                log_with=log_with,
                log_dir=beside(out, "logs") if log_with else None,
                processes=processes,
            )
        if not processes.is_first:
            return
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
    screen = Screen(as_json)
    with screen.errors():
        from projector.projection.projection import Projection, check_out
        from projector.projection.relaying import relayout as make

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
    screen = Screen(as_json)
    with screen.errors():
        from projector.projection.projection import Projection

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
    screen = Screen(as_json)
    with screen.errors():
        from projector.figures import figures
        from projector.projection.projection import Projection

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
        Path,
        typer.Argument(
            metavar="FILE", help="A safetensors file of positions, written by Accelerate."
        ),
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
    screen = Screen(as_json)
    with screen.errors():
        from projector.projection.importing import import_checkpoint
        from projector.projection.projection import check_out

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
    """Entry point: settings of libraries, then the command."""
    prepare_environment()
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
    from projector.layouts.solving import Layout

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


def _write_pictures(projection: Any, out: Path) -> list[Path]:
    from projector.figures.figures import write_pictures

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
        if all(projection.has_statistics_of(*key) for key in projection.maps):
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


if __name__ == "__main__":
    main()
