"""``projector fit``: a model and a corpus become a projection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from projector.corpus.sources import sources_help
from projector.fitting.settings import FitSettings
from projector.layouts.settings import Layout
from projector.settings import setting
from projector.terminal.commands import Given, command
from projector.terminal.options import ModelOptions
from projector.terminal.results import next_command, summary
from projector.terminal.screen import Screen, duration_text

if TYPE_CHECKING:
    from projector.fitting.estimating import Estimate
    from projector.fitting.preparing import Job
    from projector.fitting.processes import Processes


def _corpus_help() -> str:
    return f"{sources_help()}."


@dataclass(frozen=True)
class FitOptions:
    """What is asked of the command apart from the settings of the fit."""

    out: Path = setting(help="Folder for the projection.")
    corpus: str = setting("stdlib", help=_corpus_help)
    pictures: bool = setting(False, help="Also write the pictures, as HTML, to OUT.")
    log_with: str | None = setting(None, help="Track adamw with [b]tensorboard[/b], in OUT.logs.")
    force: bool = setting(False, help="Replace the projection that OUT holds.")
    resume: bool = setting(False, help="Go on from the checkpoint of a stopped fit.")


@command
def fit(
    screen: Screen,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="[b]bundled[/b], a local folder, or a hub id.")
    ] = "bundled",
    *,
    options: FitOptions,
    settings: FitSettings,
    layout: Given[Layout],
    loading: ModelOptions,
) -> None:
    """Fit neuron positions: run MODEL over a corpus, and place each layer's neurons.

    Says first how many tokens, how long and how much disk. Stopped, it goes on with --resume.
    """
    from projector.fitting.processes import join_processes

    processes = join_processes(loading.device)
    screen.become(processes.rank)
    from projector.fitting.checkpoint import beside, has_checkpoint
    from projector.fitting.pipeline import run

    out = options.out
    job = _prepared(screen, model, options, settings, layout.make(), loading, processes)
    screen.can_resume = lambda: has_checkpoint(out)
    with screen.progress() as progress:
        run(
            job,
            out=out,
            force=options.force,
            resume=options.resume,
            progress=progress,
            log_with=options.log_with,
            log_dir=beside(out, "logs") if options.log_with else None,
            processes=processes,
        )
    if processes.is_first:
        _show(screen, options)


def _prepared(
    screen: Screen,
    model: str,
    options: FitOptions,
    settings: FitSettings,
    layout: Layout,
    loading: ModelOptions,
    processes: Processes,
) -> Job:
    """The fit, ready to run, after it was told what it takes."""
    from projector.errors import UserError, named
    from projector.fitting.checkpoint import check_unfinished
    from projector.fitting.estimating import estimate
    from projector.fitting.pipeline import going_on
    from projector.fitting.preparing import prepare
    from projector.model.loading import check_device_map
    from projector.projection.projection import check_out

    if options.log_with is not None and not layout.how.trains:
        raise UserError(
            f"{named('log_with')} follows the training of {named('solver', 'adamw')}: add that"
        )
    if loading.device_map is not None:
        check_device_map(loading.device_map, loading.device)
        if processes.n > 1:
            raise UserError(
                f"{named('device_map', 'auto')} takes all devices for one process: leave it out, "
                "or start the fit without a launcher"
            )
    check_out(options.out, force=options.force or options.resume)
    if processes.is_first or not options.resume:
        check_unfinished(options.out, force=options.force, resume=options.resume)
    with screen.progress() as progress:
        job = prepare(model, options.corpus, settings, layout, **asdict(loading), progress=progress)
        if options.resume:
            job = going_on(job, options.out, processes)
        progress.begin("Timing a batch", None, "")
        needs = estimate(job)
        progress.end()
    _tell(screen, job, needs, options, processes.n)
    return job


def _tell(screen: Screen, job: Job, needs: Estimate, options: FitOptions, n_processes: int) -> None:
    """What is fitted, and what it takes."""
    from projector.memory import size_text

    for note in job.corpus.notes:
        screen.say(f"[b]{escape(job.corpus.source)}[/b]: {escape(note)}")
    for site, reason in job.left_out.items():
        screen.say(f"[yellow]without {site}[/yellow]: {escape(reason)}")
    n_maps = len(job.widths)
    screen.say(
        f"{n_maps} map{'s' if n_maps > 1 else ''} from {needs.n_tokens:,} tokens: about "
        f"{duration_text(needs.seconds / n_processes)}"
        f"{' less what is done' if options.resume else ''}, "
        f"{size_text(needs.disk_bytes)} on disk{' beside the pictures' if options.pictures else ''}"
        f", {size_text(needs.memory_bytes)} of memory"
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


def _show(screen: Screen, options: FitOptions, more: Mapping[str, Any] | None = None) -> None:
    """The projection that was made, and its pictures where they are asked for."""
    from projector.projection.projection import Projection

    projection = Projection.load(options.out)
    written: list[Path] = []
    if options.pictures:
        from projector.figures.figures import write_pictures

        written = write_pictures(projection, options.out)
    screen.finish(
        summary(projection, options.out)
        | {"pictures": [str(path) for path in written]}
        | dict(more or {}),
        projection,
        next_command=next_command(projection, options.out, written),
    )
