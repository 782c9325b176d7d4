"""``projector fit``: make a projection from a model and a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from projector.corpus.sources import sources_help
from projector.fitting.settings import FitSettings, choose_layouts
from projector.layouts.registry import trained_solvers
from projector.layouts.settings import DEFAULT_LAYOUTS, Layout
from projector.settings import setting
from projector.storage.resuming import FORCE_HELP, RESUME_HELP
from projector.terminal.commands import Given, command
from projector.terminal.options import ModelOptions, option_words
from projector.terminal.results import next_command, show_partners, summary
from projector.terminal.screen import Screen, duration_text, partners_words

if TYPE_CHECKING:
    from projector.fitting.estimating import Estimate
    from projector.fitting.preparing import Job
    from projector.fitting.processes import Processes
    from projector.progress import Progress
    from projector.storage.resuming import Step


def _corpus_help() -> str:
    return f"{sources_help()}."


def _log_help() -> str:
    return f"Track {' or '.join(trained_solvers())} with [b]tensorboard[/b], in OUT.logs."


@dataclass(frozen=True)
class FitOptions:
    """Options of the command in addition to the settings of the fit."""

    out: Path = setting(help="Folder for the projection.")
    layouts: str | None = setting(
        None,
        help=(
            "Layouts to make of every map, by name, for example stress-3d,neighbours-2d. They "
            f"replace the options of a single layout. By default {DEFAULT_LAYOUTS}, to which "
            "--seed, --start and --absolute apply."
        ),
    )
    corpus: str = setting("stdlib", help=_corpus_help)
    pictures: bool = setting(False, help="Also write the pictures, as HTML, to OUT.")
    log_with: str | None = setting(None, help=_log_help)
    force: bool = setting(False, help=FORCE_HELP)
    resume: bool = setting(False, help=RESUME_HELP)


@command
def fit(
    screen: Screen,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="[b]bundled[/b], a local folder, a .gguf file, or a hub id."
        ),
    ] = "bundled",
    *,
    options: FitOptions,
    settings: FitSettings,
    layout: Given[Layout],
    loading: ModelOptions,
) -> None:
    """Fit neuron positions: run MODEL over a corpus, and place each layer's neurons.

    First shows how many tokens it reads, and the time and disk it takes. A stopped fit continues
    with --resume.
    """
    from projector.fitting.processes import join_processes

    processes = join_processes(loading.device)
    screen.become(processes.rank)
    from projector.errors import UserError
    from projector.fitting.checkpoint import beside
    from projector.fitting.cross_layer.adding import can_resume, half_found_words, lacks_partners
    from projector.fitting.pipeline import check_start, next_step, run
    from projector.projection.overview import FACTS_FILE
    from projector.storage.resuming import Step

    out, again = options.out, {"force": options.force, "resume": options.resume}
    layouts = choose_layouts(options.layouts, layout.values)
    _check(options, layouts or (), loading, processes)
    check_start(out, **again)
    with screen.progress() as progress:
        job = _prepare(model, options.corpus, settings, layouts, loading, progress)
    step = next_step(job, out, processes, **again)
    why = "there is no stopped fit here"
    if can_resume(out) or (out / FACTS_FILE).exists():
        why = "what another fit left is replaced"
    adds_partners = step is Step.LEAVE and lacks_partners(job, out, force=options.force)
    if step is Step.LEAVE and not adds_partners:
        screen.say(
            f"This fit is already finished in [b]{escape(str(out))}[/b]. There is nothing to do."
        )
        half_found = None if settings.cross_layer else half_found_words(out)
        if half_found is not None:
            screen.say(f"[yellow]{escape(UserError(half_found).worded(option_words))}[/yellow]")
    else:
        if options.resume and step is Step.START:
            screen.say(f"{escape(why)}: starting from the beginning")
        if adds_partners:
            _estimate_partners(screen, job, out)
        else:
            _estimate(screen, job, options, processes, step)
        screen.can_resume = lambda: can_resume(out)
        with screen.progress() as progress:
            run(
                job,
                out=out,
                **again,
                progress=progress,
                log_with=options.log_with,
                log_dir=beside(out, "logs") if options.log_with else None,
                processes=processes,
            )
    if processes.is_first:
        _show(screen, options, only_missing=step is Step.LEAVE)


def _check(
    options: FitOptions, layouts: Sequence[Layout], loading: ModelOptions, processes: Processes
) -> None:
    """Raise a UserError for options that do not go together."""
    from projector.errors import UserError, named
    from projector.model.loading import check_device_map

    if options.log_with is not None and not any(layout.how.trains for layout in layouts):
        raise UserError(
            f"{named('log_with')} tracks training, but no layout here is trained: add "
            f"{' or '.join(named('solver', each) for each in trained_solvers())}",
            setting="log_with",
            value=options.log_with,
        )
    if loading.device_map is None:
        return
    check_device_map(loading.device_map, loading.device)
    if processes.n > 1:
        raise UserError(
            f"{named('device_map', 'auto')} takes all devices for one process: leave it out, or "
            "start the fit without a launcher",
            setting="device_map",
            value=loading.device_map,
        )


def _prepare(
    model: str,
    corpus: str,
    settings: FitSettings,
    layouts: Sequence[Layout] | None,
    loading: ModelOptions,
    progress: Progress,
) -> Job:
    """The fit, ready to run."""
    from projector.fitting.preparing import prepare

    return prepare(model, corpus, settings, layouts, **asdict(loading), progress=progress)


def _estimate(
    screen: Screen, job: Job, options: FitOptions, processes: Processes, step: Step
) -> None:
    """Find what the fit takes, and tell it."""
    from projector.fitting.estimating import estimate
    from projector.fitting.pipeline import going_on
    from projector.storage.resuming import Step

    with screen.progress() as progress:
        if step is Step.GO_ON:
            job = going_on(job, options.out, processes)
        progress.begin("Timing a batch", None, "")
        needs = estimate(job)
        progress.end()
    less = " less what is done" if step is Step.GO_ON else ""
    _tell(screen, job, needs, options, processes.n, less)


def _estimate_partners(screen: Screen, job: Job, out: Path) -> None:
    """Find what is left of a finished fit that lacks partners across layers, and tell it."""
    from projector.fitting.estimating import seconds_of_partners

    screen.say(
        f"This fit is already finished in [b]{escape(str(out))}[/b]. Partners across layers are "
        "added to it."
    )
    with screen.progress() as progress:
        progress.begin("Timing a batch", None, "")
        seconds = seconds_of_partners(job)
        progress.end()
    _tell_partners(screen, job, seconds)


def _tell_partners(screen: Screen, job: Job, seconds: float) -> None:
    """What finding partners across layers takes."""
    plan = job.cross_layer
    if plan is None:
        return
    screen.say(partners_words(plan, seconds))


def _tell(
    screen: Screen,
    job: Job,
    needs: Estimate,
    options: FitOptions,
    n_processes: int,
    less: str,
) -> None:
    """What is fitted, and what it takes."""
    from projector.memory import size_text
    from projector.projection.provenance import dtype_name

    for note in job.corpus.notes:
        screen.say(f"[b]{escape(job.corpus.source)}[/b]: {escape(note)}")
    for site, reason in job.left_out.items():
        screen.say(f"[yellow]without {site}[/yellow]: {escape(reason)}")
    n_maps, n_layouts = len(job.widths), len(job.layouts)
    what = f"{n_maps} map{'s' if n_maps > 1 else ''}"
    if n_layouts > 1:
        what += f" in {n_layouts} layouts"
    seconds = f"{duration_text(needs.seconds / n_processes)}{less}"
    disk = f"{size_text(needs.disk_bytes)} on disk"
    disk += " plus the pictures" if options.pictures else ""
    screen.say(
        f"{what} from {needs.n_tokens:,} tokens: about {seconds}, {disk}, "
        f"{size_text(needs.memory_bytes)} of memory"
    )
    _tell_partners(screen, job, needs.partner_seconds)
    screen.say(f"The model computes in {dtype_name(job.trunk)}{_dtype_words(job)}")
    if len(job.plan.passes) > 1:
        screen.say(
            f"[b]{len(job.plan.passes)} passes over the corpus[/b], with at most "
            f"{max(map(len, job.plan.passes))} maps in each, to stay within that memory"
        )
    for (layer, site), n_drawn in job.plan.samples.items():
        screen.say(
            f"[yellow]layer {layer} {site}[/yellow]: its {job.widths[layer, site]:,}² "
            f"correlations don't fit in memory: they will be computed from {n_drawn:,} evenly "
            "sampled tokens, and not kept"
        )
    if job.examples is not None and job.examples.cut:
        screen.say(
            f"Examples were cut to the size of the statistics: {', '.join(job.examples.cut)}"
        )
    widest = max(job.widths.values())
    if needs.n_tokens < widest:
        screen.say(
            f"[yellow]few tokens[/yellow]: {needs.n_tokens:,} for {widest:,} neurons; "
            f"chance alone gives correlations of about ±{needs.n_tokens**-0.5:.2f}"
        )


def _dtype_words(job: Job) -> str:
    """Where that is not what a CPU usually computes in, why it is."""
    from projector.model.loading import input_device, widest_dtype

    dtype, is_on_cpu = widest_dtype(job.trunk), input_device(job.trunk).type == "cpu"
    if not is_on_cpu or dtype.itemsize > 2 or dtype != job.loaded.stored_dtype:
        return ""
    return ", the type of its weights"


def _show(screen: Screen, options: FitOptions, *, only_missing: bool) -> None:
    """The projection that was made, and its pictures where they are asked for.

    Args:
        only_missing: leave the pictures that are there as they are.
    """
    from projector.projection.projection import Projection

    projection = Projection.load(options.out)
    written: list[Path] = []
    found = projection.cross_layer
    if found is not None:
        show_partners(screen, found)
    if options.pictures:
        from projector.figures.html import write_pictures

        written = write_pictures(projection, options.out, only_missing=only_missing)
    screen.finish(
        summary(projection, options.out)
        | {
            "pictures": [str(path) for path in written],
            "cross_layer": None if found is None else found.as_dict(),
        },
        projection,
        next_command=next_command(projection, options.out, written),
        is_written=bool(written) or not only_missing,
    )
