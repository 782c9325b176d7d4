"""``projector layer-time``: hidden states as particles that move from layer to layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from projector.errors import SettingError, check_text
from projector.residual.particles.settings import (
    ParticleSettings,
    check_layers_shown,
    default_reduction,
)
from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.options import ModelOptions, name_options, options_given
from projector.terminal.residual.opening import CHAT_HELP, PROMPT_HELP, ModelArgument, open_subject
from projector.terminal.screen import Screen

name_options(n_lines="--lines", n_groups="--groups", n_pairs="--pairs")

# A table with more rows shows some of them.
_MOST_ROWS, _SHOWN_ROWS = 14, 9
_VARIANCE, _NEIGHBOURS, _MOVES = (
    "variance_explained",
    "neighbours_kept",
    "displacement_correlation",
)
# Prompts are repeated in the next command up to here: a longer one is no line to copy.
_MOST_SIGNS = 100
# Title and figure, and of each control its title and figure.
_COLUMNS = (
    ("variance", _VARIANCE, (("shuffled", "variance_shuffled"),)),
    (
        "neighbours",
        _NEIGHBOURS,
        (("random", "neighbours_random"), ("chance", "neighbours_chance")),
    ),
    ("moves", _MOVES, (("random", "displacement_random"),)),
)


@dataclass(frozen=True)
class TwoPromptOptions:
    """Options for the texts and the output folder."""

    prompt: str = setting(help=PROMPT_HELP)
    out: Path = setting(help="Folder for layer-time.html, pictures, arrays and report.json.")
    prompt_b: str | None = setting(None, help="A second text, placed by the same map as the first.")
    chat: bool = setting(False, help=CHAT_HELP)
    force: bool = setting(False, help="Replace the picture that OUT holds.")

    def __post_init__(self) -> None:
        check_text("prompt", self.prompt)
        check_text("prompt_b", self.prompt_b)


@command
def layer_time(
    screen: Screen,
    model: ModelArgument,
    *,
    options: TwoPromptOptions,
    settings: ParticleSettings,
    loading: ModelOptions,
) -> None:
    """Show the hidden states of a prompt, or of two, as particles that move from layer to layer."""
    from projector.figures.layer_time.folder import check_folder, write_layer_time
    from projector.model.loading import count_layers
    from projector.residual.particles.report import check_before_loading
    from projector.residual.particles.report import layer_time as measure

    check_folder(options.out, force=options.force, autoencoder=settings.autoencoder)
    check_before_loading(settings, options.prompt, options.prompt_b)
    if settings.layers is not None:
        n_layers = count_layers(
            model, revision=loading.revision, trust_remote_code=loading.trust_remote_code
        )
        check_layers_shown(settings.layers, n_layers)
    subject = open_subject(screen, model, loading)
    with screen.progress() as progress:
        found = measure(
            subject,
            options.prompt,
            options.prompt_b,
            chat=options.chat,
            progress=progress,
            **vars(settings),
        )
        written = write_layer_time(found, options.out, force=options.force, progress=progress)
    if screen.as_json:
        screen.result(found.as_dict(), "")
        return
    content = found.as_dict()
    _show(screen, content)
    for note in written.notes:
        screen.say(escape(note))
    screen.say(f"Wrote [b]{escape(str(options.out))}[/b]: {', '.join(written.names)}")
    has_parts = not subject.layout.closes_per_block
    then = _then(model, options, settings, loading) if has_parts else ""
    _say_next(screen, options, settings, then)


def _show(screen: Screen, content: Mapping[str, Any]) -> None:
    """The result for a person: what is shown, how far to trust it, and what was found."""
    from projector.figures.layer_time.words import facts_of, lead_of, sentence

    n = content["n_particles"]
    tokens = " and ".join(f"{len(each['tokens']):,}" for each in content["prompts"])
    screen.say(
        f"[b]{escape(content['model'])}[/b]: {n:,} {'particle' if n == 1 else 'particles'} of "
        f"{tokens} tokens. {escape(lead_of(content))}"
    )
    screen.out.print("", _fidelity(content), sep="\n")
    screen.say(f"[dim]{_legend(content)}[/dim]")
    lines = [_moves(content), *facts_of(content), *content["notes"]]
    for name in ("predictions", "causal_zeros"):
        if name in content["reasons"]:
            lines.append(f"no {_REASONS[name]}: {content['reasons'][name]}")
    for line in lines:
        if line:
            screen.say(escape(sentence(line)))


_REASONS = {"predictions": "predictions", "causal_zeros": "check of equal states"}


def _fidelity(content: Mapping[str, Any]) -> Table:
    """A row a frame, or some of them, evenly, where there are many."""
    from projector.residual.flow.words import number

    frames = content["fidelity"]
    n = len(frames)
    rows = list(range(n))
    if n > _MOST_ROWS:
        rows = sorted({round(i * (n - 1) / (_SHOWN_ROWS - 1)) for i in range(_SHOWN_ROWS)})
    columns = [pair for pair in _COLUMNS if any(each[pair[1]] is not None for each in frames)]
    table = Table(
        box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False, header_style="bold"
    )
    table.add_column("layer", justify="right", no_wrap=True)
    for title, _, controls in columns:
        table.add_column(title, justify="right", no_wrap=True)
        for control, _ in controls:
            table.add_column(control, justify="right", no_wrap=True, style="dim")
    for i in rows:
        each = frames[i]
        cells = [
            number(each[key])
            for _, name, controls in columns
            for key in (name, *(control for _, control in controls))
        ]
        table.add_row("embedding" if each["layer"] is None else str(each["layer"]), *cells)
    return table


def _legend(content: Mapping[str, Any]) -> str:
    """What the columns are."""
    text = ""
    if _has(content, _VARIANCE):
        text += (
            "variance: the share that the picture keeps; shuffled: the same after each "
            "coordinate is shuffled over the particles. "
        )
    counts = sorted({each["neighbours_k"] for each in content["fidelity"]} - {None})
    if counts:
        most = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
        noun = "nearest neighbour" if counts == [1] else "nearest neighbours"
        text += (
            f"neighbours: share of each particle’s {most} {noun} in the picture that are its "
            "nearest in full space. "
        )
    if _has(content, _MOVES):
        text += "moves: rank correlation of how far particles move, here and in full space. "
    text += "random: the same for random projections; chance: for random positions."
    if len(content["fidelity"]) > _MOST_ROWS:
        text += " report.json has every layer."
    return text


def _has(content: Mapping[str, Any], name: str) -> bool:
    return any(each[name] is not None for each in content["fidelity"])


def _moves(content: Mapping[str, Any]) -> str:
    from projector.residual.flow.words import number

    kept, random = content["displacement_correlation"], content["displacement_random"]
    if kept is None:
        return ""
    text = (
        "Over all layers the rank correlation of moves in the picture and in full space is "
        f"{number(kept)}; random projections give {number(random)}"
    )
    is_no_better = random is not None and kept <= random
    return f"{text}: how far a particle moves here means little." if is_no_better else f"{text}."


def _say_next(
    screen: Screen, options: TwoPromptOptions, settings: ParticleSettings, then: str
) -> None:
    """What to open, and how to go on."""
    from projector.figures.layer_time.folder import PAGE_FILE

    screen.say(f"Next: open {escape(str(options.out / PAGE_FILE))} in a browser.")
    if settings.particles == "autoencoder":
        saved = settings.autoencoder or options.out
        screen.say(
            "To show another text with this autoencoder, give --particles autoencoder "
            f"--autoencoder {escape(quote(str(saved)))}."
        )
    elif options.prompt_b is None:
        screen.say("To compare with a second text, add --prompt-b and give another --out.")
    elif then:
        screen.say(f"Then: {escape(then)}")


def _then(
    model: str, options: TwoPromptOptions, settings: ParticleSettings, loading: ModelOptions
) -> str:
    """The same command for what the parts of the model add; "" where there is none to copy."""
    texts = (options.prompt, options.prompt_b or "")
    is_long = sum(map(len, texts)) > _MOST_SIGNS
    if is_long or texts[0] == texts[1] or settings.particles != "tokens":
        return ""
    try:
        parts = replace(settings, particles="contributions")
    except SettingError:
        return ""
    n = 2
    while Path(f"{options.out}-{n}").exists():
        n += 1
    out = f"{options.out}-{n}"
    # The folder is named last, as in the examples.
    asked = options_given(replace(options, force=False), {"out": options.out})
    defaults = {"reduction": default_reduction(parts.particles)}
    given = f"{asked}{options_given(parts, defaults)}{options_given(loading)}"
    return f"projector layer-time {quote(model)}{given} --out {quote(out)}"
