"""``pruning …``: the command line. It parses, calls, and shows; nothing is computed here."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from rich.markup import escape

from projector.corpus.sources import sources_help
from projector.environment import prepare_environment
from projector.errors import UserError
from projector.terminal.options import parse_layers, parse_sites
from projector.terminal.screen import Screen
from projector.terminal.usage import Commands

app = typer.Typer(
    name="pruning",
    help="Find redundant neurons of a transformer, remove them, and measure what it costs.",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, for scripts.")
]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="[b]bundled[/b], a local folder, or a hub id.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[
    str, typer.Option(help="auto, float32, bfloat16, float16: what the model computes in.")
]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of a hub model.", show_default=False)
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the code that comes with the model.")
]


@app.command()
def poles(
    projection_dir: Annotated[Path, typer.Argument(metavar="DIR", help="A saved projection.")],
    layer: Annotated[
        str | None, typer.Option(help="For example 0,3-5. All by default.", show_default=False)
    ] = None,
    site: Annotated[str, typer.Option(help="Comma-separated.")] = "mlp_post",
    space: Annotated[
        str,
        typer.Option(
            help="Where neurons are near one another: [b]positions[/b] on the map, "
            "[b]correlation[/b], or [b]abs-correlation[/b]: anti-correlated ones too."
        ),
    ] = "positions",
    min_cluster_size: Annotated[int, typer.Option(help="Fewest neurons of a pole.")] = 3,
    min_samples: Annotated[
        int | None,
        typer.Option(
            help="Neighbours that make a place dense: the more, the more noise. As many as the "
            "fewest neurons of a pole by default.",
            show_default=False,
        ),
    ] = None,
    selection: Annotated[
        str,
        typer.Option(help="[b]eom[/b]: poles that last as density rises. [b]leaf[/b]: smallest."),
    ] = "eom",
    epsilon: Annotated[float, typer.Option(help="Poles closer than this are one.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Find groups of neurons that fire together, and keep them in DIR, as poles.json."""
    screen = Screen(as_json)
    with screen.errors():
        from projector.projection.projection import Projection
        from pruning.poles.poles import (
            PoleSettings,
            check_poles_file,
            choose_maps,
            find_poles,
            save_poles,
        )
        from pruning.terminal.tables import POLE_LEGEND, pole_table, poles_legend, poles_table

        settings = PoleSettings(space, min_cluster_size, min_samples, selection, epsilon)
        projection = Projection.load(projection_dir)
        maps = choose_maps(projection, parse_layers(layer), parse_sites(site) or ())
        check_poles_file(projection_dir)
        with screen.progress() as progress:
            progress.begin("Finding poles", len(maps), "maps")
            found = []
            for one_layer, one_site in maps:
                found.append(find_poles(projection, one_layer, one_site, settings))
                progress.advance(1)
        path = save_poles(projection_dir, found)
        if as_json:
            screen.result(
                {
                    "saved": str(path),
                    "key": settings.key,
                    "maps": [one.figures() for one in found],
                },
                "",
            )
            return
        for one in found if len(found) <= 2 else ():
            screen.say(f"[b]layer {one.layer} {escape(one.site)}[/b]")
            if one.poles:
                screen.out.print(pole_table(one))
        screen.out.print(poles_table(found))
        screen.say(poles_legend(found[0]))
        if len(found) <= 2:
            screen.say(POLE_LEGEND)
        for reason in dict.fromkeys(text for one in found for text in one.reasons.values()):
            screen.say(f"[dim]–[/dim]         [dim]{escape(reason)}[/dim]")
        if space == "positions" and projection.layout().settings.objective == "linear":
            screen.say(
                "[yellow]linear map[/yellow]: its neurons stand one step apart, no place denser "
                "than another: take --space correlation"
            )
        screen.say(f"Wrote [b]{escape(str(path))}[/b]")
        if len(found) > 2:
            screen.say("Next: the same with --layer and one number shows that layer's poles")


@app.command()
def perplexity(
    model: Model = "bundled",
    corpus: Annotated[
        str,
        typer.Option(
            help=f"{sources_help()}.",
            show_default=False,
        ),
    ] = ...,  # type: ignore[assignment]
    protocol: Annotated[
        str,
        typer.Option(
            help="[b]windows[/b] that do not overlap, [b]stride[/b]: windows that do, "
            "[b]gptq-2048[/b], or [b]lm-eval-word[/b]: per document and word."
        ),
    ] = "windows",
    stride: Annotated[
        int | None,
        typer.Option(
            help="Tokens from one window's start to the next, for --protocol stride. 1,024, or "
            "half a window.",
            show_default=False,
        ),
    ] = None,
    max_windows: Annotated[
        int | None,
        typer.Option(
            help="Most windows, drawn evenly over the corpus. All by default.", show_default=False
        ),
    ] = None,
    detokenize: Annotated[
        bool,
        typer.Option(
            "--detokenize",
            help="Undo WikiText's spaces around punctuation, for --protocol lm-eval-word.",
        ),
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Windows at once. As many as memory is set aside for.", show_default=False
        ),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Measure how well MODEL predicts a text: perplexity and bits per byte."""
    screen = Screen(as_json)
    with screen.errors():
        from projector.corpus.sources import read_documents
        from projector.model.context import find_context
        from projector.model.loading import load_model
        from pruning.scoring.perplexity import prepare, score
        from pruning.scoring.windows import check_options

        # What is wrong with them is told before a model is loaded.
        check_options(protocol, stride, max_windows, detokenize)
        read_documents(corpus)
        with screen.progress() as progress:
            progress.begin("Loading the model", None, "")
            loaded = load_model(
                model,
                revision=revision,
                device=device,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                with_head=True,
            )
            text = prepare(
                corpus,
                loaded.tokenizer,
                find_context(loaded.model, loaded.tokenizer),
                protocol,
                stride=stride,
                max_windows=max_windows,
                detokenize=detokenize,
                progress=progress,
            )
            found = score(loaded.model, text, batch_size=batch_size, progress=progress)
        figures = found.figures()
        value = {
            "model": loaded.identifier,
            "weights_sha256": loaded.weights_sha256,
            "corpus": text.source,
            "protocol": text.protocol,
            "description": text.description,
            "n_documents": text.n_documents,
            "n_windows": text.n_windows,
        }
        per_word = " per word" if found.n_words is not None else ""
        lines = [
            f"[b]perplexity   [/b] {_known(figures['perplexity'])}{per_word}",
            f"[b]bits per byte[/b] {_known(figures['bits_per_byte'])}",
            f"[b]scored       [/b] {found.n_tokens:,} tokens"
            + ("" if found.n_bytes is None else f", {found.n_bytes:,} bytes")
            + ("" if found.n_words is None else f", {found.n_words:,} words"),
            f"[b]protocol     [/b] {escape(text.description)}",
        ]
        if figures["reason"]:
            lines.append(f"[yellow]–[/yellow] {escape(figures['reason'])}")
        screen.result(value | figures, "\n".join(lines))


@app.command()
def bench(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="The dense model: [b]bundled[/b], a local folder, or a hub id."
        ),
    ],
    pruned: Annotated[str, typer.Argument(metavar="PRUNED", help="The pruned one.")],
    batch_size: Annotated[int, typer.Option(help="Sequences at once.")] = 4,
    sequence_length: Annotated[
        int | None,
        typer.Option(
            help="Tokens of a sequence. 256, or what the models take.", show_default=False
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Timed passes of each model, 7 or more.")] = 21,
    device: Device = "auto",
    dtype: Dtype = "auto",
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Time two models in one run: tokens per second and memory, dense and pruned."""
    screen = Screen(as_json)
    with screen.errors():
        from projector.model.loading import load_model
        from pruning.scoring.speed import compare_speed

        with screen.progress() as progress:
            progress.begin("Loading the models", None, "")
            loaded = [
                load_model(
                    name,
                    device=device,
                    dtype=dtype,
                    trust_remote_code=trust_remote_code,
                    with_head=True,
                )
                for name in (model, pruned)
            ]
            found = compare_speed(
                loaded[0].model,
                loaded[1].model,
                names=(loaded[0].identifier, loaded[1].identifier),
                batch_size=batch_size,
                sequence_length=sequence_length,
                n_repeats=repeats,
                progress=progress,
            )
        if as_json:
            screen.result(found.figures(), "")
            return
        screen.out.print(_bench_table(found))
        low, high = found.time_ratio_range
        screen.say(
            f"time took {found.time_ratio:.3f} of the dense model's (middle half of "
            f"{found.n_repeats} pairs {low:.3f} to {high:.3f}), operations "
            f"{found.operations_ratio:.3f}: {abs(found.excess):.1%} "
            f"{'slower' if found.excess > 0 else 'faster'} than operations alone would be"
        )
        screen.say(
            f"[dim]passes over {found.batch_size} × {found.sequence_length:,} tokens on "
            f"{found.device} ({found.n_threads} threads), {found.dtype}; peak: {found.memory}[/dim]"
        )
        for note in found.notes:
            screen.say(f"[yellow]not alike[/yellow]: {escape(note)}")
        if high - low > 0.1 * found.time_ratio:
            screen.say(
                "[yellow]unsteady[/yellow]: the machine is busy with other work; run it again"
            )


Sequences = Annotated[int, typer.Option("--sequences", help="Calibration sequences to draw.")]
SequenceLength = Annotated[
    int | None,
    typer.Option(help="Tokens of a sequence. 256, or what the model takes.", show_default=False),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        help="Text to decide and to refit on: a source as for `perplexity --corpus`. For the "
        "bundled model stdlib:train.",
        show_default=False,
    ),
]
ProjectionDir = Annotated[
    Path | None,
    typer.Option(
        "--projection", help="The model's projection, for method poles.", show_default=False
    ),
]
Allocation = Annotated[
    str,
    typer.Option(
        help="[b]uniform[/b]: as many neurons in every layer. [b]global[/b]: more where they "
        "count, if the model's config can hold that."
    ),
]
RoundTo = Annotated[int, typer.Option("--round-to", help="Widths are multiples of this.")]
PoleSpace = Annotated[
    str | None,
    typer.Option(
        "--space",
        help="Of the poles that method poles takes, as for `pruning poles`. abs-correlation, or "
        "positions where the projection keeps no statistics.",
        show_default=False,
    ),
]
PoleSize = Annotated[
    int | None, typer.Option("--min-cluster-size", help="Of those poles.", show_default=False)
]
PoleSelection = Annotated[
    str | None,
    typer.Option(
        "--selection", help="Of those poles. leaf; eom in space positions.", show_default=False
    ),
]
Steps = Annotated[int, typer.Option("--steps", help="Of --refit reconstruct, in each layer.")]


@app.command()
def prune(
    model: Model,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the pruned model.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    method: Annotated[
        str,
        typer.Option(
            help="Who goes: random, magnitude, activation, wanda, flap, folding, poles, obs."
        ),
    ] = "poles",
    sparsity: Annotated[
        float, typer.Option(help="Share of each layer's MLP neurons to remove.")
    ] = 0.3,
    refit: Annotated[
        str,
        typer.Option(help="What the others do about it: none, bias, least-squares, reconstruct."),
    ] = "reconstruct",
    projection: ProjectionDir = None,
    space: PoleSpace = None,
    min_cluster_size: PoleSize = None,
    selection: PoleSelection = None,
    calibration: Calibration = None,
    sequences: Sequences = 256,
    sequence_length: SequenceLength = None,
    steps: Steps = 200,
    allocation: Allocation = "uniform",
    round_to: RoundTo = 1,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the pruned model that OUT holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a smaller checkpoint of MODEL, which plain transformers loads."""
    screen = Screen(as_json)
    with screen.errors():
        from pruning.preparing import PoleOptions
        from pruning.pruning import PruneSettings, prune_model
        from pruning.saving import check_out

        settings = PruneSettings(
            method=method,
            sparsity=sparsity,
            refit=refit,
            n_sequences=sequences,
            n_steps=steps,
            allocation=allocation,
            round_to=round_to,
            seed=seed,
            poles=PoleOptions(space, min_cluster_size, selection),
        )
        source = _calibration(calibration, model)
        check_out(out, force=force)
        with screen.progress() as progress:
            made = prune_model(
                model,
                settings,
                out,
                calibration=source,
                projection=projection,
                sequence_length=sequence_length,
                revision=revision,
                device=device,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                force=force,
                progress=progress,
            )
        lines = [
            f"{made.n_parameters_before:,} → {made.n_parameters:,} parameters "
            f"({made.removed_share:.1%} fewer); MLPs of {_range(made.widths)} neurons",
            "Loaded again in a fresh process by plain transformers: "
            f"outputs differ by {made.saved.greatest_difference:.1g}",
        ]
        if made.saved.tokenizer_differs:
            lines.append(
                "[yellow]note[/yellow]: AutoTokenizer cuts text differently for this model type; "
                "load its tokenizer with PreTrainedTokenizerFast.from_pretrained"
            )
        lines.append(f"Wrote [b]{escape(str(out))}[/b]")
        lines.append(f"Next: pruning bench {escape(f'{quote(model)} {quote(str(out))}')}")
        screen.result(made.as_dict(), "\n".join(lines))


@app.command()
def sweep(
    model: Model,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the report.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    methods: Annotated[
        str, typer.Option(help="Comma-separated.")
    ] = "random,magnitude,activation,wanda,flap,folding,poles,obs",
    sparsities: Annotated[str, typer.Option(help="Comma-separated.")] = "0.1,0.2,0.3,0.5",
    refits: Annotated[
        str, typer.Option(help="Comma-separated.")
    ] = "none,bias,least-squares,reconstruct",
    seeds: Annotated[
        int, typer.Option(help="How many; each draws its own calibration sequences.")
    ] = 3,
    projection: ProjectionDir = None,
    space: PoleSpace = None,
    min_cluster_size: PoleSize = None,
    selection: PoleSelection = None,
    calibration: Calibration = None,
    evaluation: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated texts to score on. For the bundled model stdlib:heldout.",
            show_default=False,
        ),
    ] = None,
    windows: Annotated[
        int, typer.Option(help="Windows that every model is scored on, the same for all.")
    ] = 64,
    winners: Annotated[
        bool,
        typer.Option(
            "--winners/--no-winners", help="Score the best of each sparsity again on all windows."
        ),
    ] = True,
    sequences: Sequences = 256,
    sequence_length: SequenceLength = None,
    steps: Steps = 200,
    allocation: Allocation = "uniform",
    round_to: RoundTo = 1,
    workers: Annotated[
        int, typer.Option(help="Processes of one thread each, on a CPU; as many as cores at most.")
    ] = 1,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the report that OUT holds.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the report that OUT holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare methods and refits at equal size: perplexity against what was removed."""
    screen = Screen(as_json)
    with screen.errors():
        from dataclasses import asdict

        from projector.figures.figures import write_figure
        from pruning.preparing import PoleOptions
        from pruning.sweep.figure import report_figure
        from pruning.sweep.job import (
            SweepRequest,
            SweepSettings,
            begin_report,
            check_report,
            prepare_sweep,
            run_sweep,
        )
        from pruning.sweep.report import JSON_FILE
        from pruning.sweep.workers import check_workers
        from pruning.terminal.tables import REPORT_LEGEND, report_table

        settings = SweepSettings(
            methods=_names(methods),
            sparsities=_numbers("--sparsities", sparsities),
            refits=_names(refits),
            n_seeds=seeds,
            n_sequences=sequences,
            n_steps=steps,
            allocation=allocation,
            round_to=round_to,
            poles=PoleOptions(space, min_cluster_size, selection),
        )
        source = _calibration(calibration, model)
        texts = _evaluations(evaluation, model)
        screen.can_resume = (out / JSON_FILE).exists
        request = SweepRequest(
            model=model,
            settings=settings,
            calibration=source,
            evaluations=texts,
            projection=projection,
            n_windows=windows,
            with_winners=winners,
            sequence_length=sequence_length,
            revision=revision,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )
        check_report(out, resume=resume, force=force)
        check_workers(workers)
        with screen.progress() as progress:
            job = prepare_sweep(request, progress)
            begin_report(job, out, resume=resume, force=force)
            for text in (*job.samples, *job.wholes):
                screen.say(f"[b]{escape(text.source)}[/b]: {escape(text.description)}")
            report = run_sweep(
                job, out, resume=resume, force=force, n_workers=workers, progress=progress
            )
        figures: list[Path] = []
        for old in out.glob("report*.html"):
            # Of a report that was replaced, with more or fewer texts.
            old.unlink()
        for text in job.samples:
            stem = "report" if len(job.samples) == 1 else f"report-{len(figures)}"
            figures.append(out / f"{stem}.html")
            write_figure(report_figure(report, text.source), figures[-1])
        if as_json:
            screen.result(
                {
                    "report": str(out / JSON_FILE),
                    "figures": [str(path) for path in figures],
                    "summaries": [
                        asdict(each) for each in report.summaries() + report.summaries("all")
                    ],
                },
                "",
            )
            return
        for text in job.samples:
            screen.say(f"[b]{escape(text.source)}[/b]")
            screen.out.print(report_table(report, text.source, screen.out.width))
        screen.say(REPORT_LEGEND)
        for each in report.summaries("all"):
            screen.say(
                f"on all windows of {escape(each.evaluation)}: {each.sparsity:.0%} {each.method}, "
                f"{each.refit}: {each.text}"
            )
        screen.say(f"Wrote [b]{escape(str(out))}[/b]: open {figures[0].name} there in a browser")


def _calibration(given: str | None, model: str) -> str:
    if given is not None:
        return given
    if model != "bundled":
        raise UserError(f"calibration text for '{model}' is not given: add --calibration SOURCE")
    return "stdlib:train"


def _evaluations(given: str | None, model: str) -> tuple[str, ...]:
    if given is not None:
        return _names(given)
    if model != "bundled":
        raise UserError(f"evaluation text for '{model}' is not given: add --evaluation SOURCE")
    return ("stdlib:heldout",)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in _names(text))
    except ValueError as error:
        raise UserError(f"{flag} '{text}' can't be read: write for example 0.1,0.3") from error


def _range(widths: list[int]) -> str:
    least, most = min(widths), max(widths)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


@app.command()
def tasks(
    model: Model,
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks",
            help="Comma-separated names of lm-evaluation-harness, for example hellaswag,arc_easy.",
            show_default=False,
        ),
    ] = ...,  # type: ignore[assignment]
    limit: Annotated[
        int | None,
        typer.Option(help="Most examples of each task, to try it out.", show_default=False),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Examples at once.")] = 8,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Judge MODEL by benchmark tasks, through lm-evaluation-harness (an optional extra)."""
    screen = Screen(as_json)
    with screen.errors():
        from dataclasses import asdict

        from projector.model.loading import load_model
        from pruning.scoring.tasks import check_installed, run_tasks

        names = [name.strip() for name in tasks.split(",") if name.strip()]
        check_installed()
        loaded = load_model(
            model,
            revision=revision,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            with_head=True,
        )
        # The harness draws its own progress, and some of its tasks print.
        with redirect_stdout(sys.stderr):
            found = run_tasks(
                loaded.model, loaded.tokenizer, names, limit=limit, batch_size=batch_size
            )
        if as_json:
            value = {
                "model": loaded.identifier,
                "weights_sha256": loaded.weights_sha256,
                "limit": limit,
                "results": [asdict(one) for one in found],
            }
            screen.result(value, "")
            return
        screen.out.print(_tasks_table(found))
        if limit is not None:
            screen.say(
                f"[yellow]at most {limit:,} examples[/yellow] of each task: no result to cite"
            )


def _known(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4f}"


def _bench_table(found: Any) -> Any:
    """A row a model, and one of ratios."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from projector.memory import size_text

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


def _tasks_table(found: Any) -> Any:
    """A row a metric."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

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
            _known(one.value),
            _known(one.standard_error),
            "–" if one.n_samples is None else f"{one.n_samples:,}",
        )
    return table


def main() -> None:
    """Entry point: settings of libraries, then the command."""
    prepare_environment()
    app()


if __name__ == "__main__":
    main()
