"""``projector contrast``: how two sets of prompts separate over the layers of models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from projector.residual.contrast.settings import (
    ContrastSettings,
    check_continuations,
    check_layers,
    check_models,
)
from projector.settings import setting
from projector.terminal.commands import command
from projector.terminal.options import ModelOptions, name_options
from projector.terminal.residual.opening import open_subject
from projector.terminal.screen import Screen

if TYPE_CHECKING:
    from projector.figures.contrast.series import ModelRows
    from projector.residual.contrast.report import Contrast

ModelArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL",
        help="One or several of [b]bundled[/b], a local folder, a .gguf file, or a hub id.",
    ),
]
Continuations = Annotated[
    list[str] | None,
    typer.Option(
        "--continuation",
        help=(
            "A text that may follow each prompt, with its leading space. The direction's effect "
            "on the text's probability is measured instead of its effect on the prompts' "
            "perplexity. Give one or several."
        ),
        show_default=False,
    ),
]
name_options(n_draws="--draws", models="MODEL", continuations="--continuation")


@dataclass(frozen=True)
class OutOptions:
    """The output folder of the report."""

    out: Path = setting(
        help="Folder for report.json, report.csv, report.html and the directions found."
    )
    force: bool = setting(False, help="Replace the report that OUT holds.")


@command
def contrast(
    screen: Screen,
    models: ModelArguments,
    *,
    settings: ContrastSettings,
    continuation: Continuations = None,
    report: OutOptions,
    loading: ModelOptions,
) -> None:
    """Show how two sets of prompts separate over the layers, compared with chance.

    The direction from one set's mean to the other's is saved and tested by adding it to the stream.
    """
    from projector.figures.contrast.page import contrast_page
    from projector.figures.report import check_report_place, write_report
    from projector.residual.contrast.prompts import read_sets
    from projector.residual.contrast.report import contrast as measure

    check_models(models)
    check_continuations(continuation or None)
    check_report_place(report.out, force=report.force)
    asked, sets = dict(vars(settings)), None
    if settings.positive is not None and settings.negative is not None:
        # What is wrong with a file is told before a model is loaded, and a pipe is read once.
        sets = read_sets(asked.pop("positive"), asked.pop("negative"))
    if settings.layers is not None:
        check_layers(settings.layers, [_count(model, loading) for model in models])
    subjects = [open_subject(screen, model, loading) for model in models]
    with screen.progress() as progress:
        found = measure(
            subjects, sets=sets, **asked, continuations=continuation or None, progress=progress
        )
    content = found.as_dict()

    def beside(folder: Path) -> None:
        _write_directions(found, folder)

    write_report(
        report.out,
        content,
        contrast_page(content),
        rows=content["rows"],
        beside=beside,
        force=report.force,
    )
    if screen.as_json:
        screen.result(content, "")
        return
    _show(screen, content)
    screen.say(f"Wrote [b]{escape(str(report.out))}[/b]: open report.html in it.")
    _say_next(screen, found, models[0], report.out)


def _count(model: str, loading: ModelOptions) -> int | None:
    """How many layers a model's config says that it has."""
    from projector.model.loading import count_layers

    return count_layers(
        model, revision=loading.revision, trust_remote_code=loading.trust_remote_code
    )


def _write_directions(found: Contrast, folder: Path) -> None:
    """One model's directions into ``directions/``, those of several into a folder each of it."""
    from projector.residual.directions.artifact import FOLDER

    names = _folder_names([each.model_name for each in found.directions])
    for name, each in zip(names, found.directions, strict=True):
        each.write(folder / FOLDER / name if len(names) > 1 else folder / FOLDER)


def _folder_names(models: Sequence[str]) -> list[str]:
    """A short name for each model, which any system takes for a folder; no two are the same."""
    names: list[str] = []
    for model in models:
        short = re.sub(r"[^\w.-]+", "-", Path(model).name).strip(".-") or "model"
        taken = {each.lower() for each in names}
        name, number = short, 2
        while name.lower() in taken:
            name, number = f"{short}-{number}", number + 1
        names.append(name)
    return names


def _show(screen: Screen, content: Mapping[str, Any]) -> None:
    """The result for a person."""
    from projector.figures.contrast.series import plain_names, read_models

    names = plain_names(content)
    at = "the last token" if content["at"] == "last" else "the mean of the tokens"
    screen.say(
        f"[b]{escape(names[0])}[/b] ({content['n_positive']:,} prompts) against "
        f"[b]{escape(names[1])}[/b] ({content['n_negative']:,}), read at {at}"
    )
    for note in content["notes"]:
        screen.say(escape(note))
    for model in read_models(content):
        _show_model(screen, content, model, names)
    screen.out.print()
    for line in (*_legend(names), *_effects_legend(content["directions"])):
        screen.say(f"[dim]{escape(line)}[/dim]")


def _show_model(
    screen: Screen, content: Mapping[str, Any], model: ModelRows, names: tuple[str, str]
) -> None:
    """Tables of one model, and what they say in words."""
    from projector.corpus.pieces import readable
    from projector.figures.contrast.effects import effects_of, effects_words
    from projector.figures.contrast.series import entries_of
    from projector.figures.contrast.untangling import untangling_of
    from projector.figures.contrast.words import (
        cosine_words,
        growth_words,
        untangling_words,
        variance_words,
    )

    screen.out.print("", f"[b]{escape(model.model)}[/b]", _rows(model), "", sep="\n")
    sharing = [
        str(each.get("sentence") or "") for each in entries_of(content, "sharing", model.model)
    ]
    untangled = untangling_of(content, model.model)
    for line in (
        cosine_words(model),
        variance_words(model, names),
        growth_words(content, model),
        *sharing,
        "" if untangled is None else untangling_words(untangled),
    ):
        if line:
            screen.say(escape(line))
    effects = effects_of(content, model.model)
    if effects:
        for text in dict.fromkeys(each.get("continuation") for each in effects):
            own = [each for each in effects if each.get("continuation") == text]
            title = [] if text is None else [f"continuation ‘{escape(readable(text))}’"]
            screen.out.print("", *title, _effects(own), "", sep="\n")
        screen.say(escape(effects_words(effects, names)))
        return
    for reason in dict.fromkeys(
        str(each["reason"])
        for each in entries_of(content, "directions", model.model)
        if each.get("reason")
    ):
        screen.say(f"[yellow]direction not tested[/yellow]: {escape(reason)}")


def _legend(names: tuple[str, str]) -> tuple[str, ...]:
    return (
        f"+ is {names[0]}, − is {names[1]}; report.html has all streams and figures.",
        "cosine: of the two sets’ means after each layer, with its spread: 95 % of bootstrap "
        "draws of the prompts. halves: the same for random halves of one set, a little lower, "
        "because each has half the prompts. permuted: the same with permuted labels. Var: "
        "variance over prompts, mean over features.",
        "probe: accuracy of a linear probe on held-out prompts. chance: the same with permuted "
        "labels.",
    )


def _effects_legend(entries: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What the figures of effects are; nothing if there are none."""
    tested = [each for each in entries if each.get("effect") is not None]
    if not tested:
        return ()
    on = "the log-perplexity of held-out prompts, in nats a token"
    if any(each.get("continuation") is not None for each in tested):
        on = "the log-probability of the continuation after held-out prompts, in nats"
    has_permuted = any(each.get("permuted") for each in tested)
    others = "random: the mean effect of random directions of the same norm, "
    others += "which lie almost entirely outside the directions along which the stream varies."
    others += " permuted: the same for directions of permuted labels." if has_permuted else ""
    return (
        f"on +, on −: the effect on {on}. {others} − less +: the difference of both effects. "
        "*: larger in size than the effect of every such direction.",
    )


def _rows(model: ModelRows) -> Table:
    """A row behind each layer, and one at the embedding."""
    from projector.figures.contrast.series import cosine_form
    from projector.residual.flow.words import number

    form = cosine_form([model])
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, header_style="bold")
    titles = (
        "layer",
        "cosine",
        "spread",
        "halves",
        "permuted",
        "Var +",
        "Var −",
        "probe",
        "chance",
    )
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for place, row in zip(model.places, model.rows, strict=True):
        if not place.is_embedding and place.stream == "resid_mid":
            continue
        low, high = (number(row.get(f"cosine_{end}"), form) for end in ("low", "high"))
        table.add_row(
            "embedding" if place.is_embedding else str(place.layer),
            number(row["cosine"], form),
            "–" if "–" in (low, high) else f"{low} to {high}",
            number(row.get("cosine_split_half"), form),
            number(row.get("cosine_permuted"), form),
            _variance(row.get("variance_mean_positive")),
            _variance(row.get("variance_mean_negative")),
            number(row.get("probe_accuracy")),
            number(row.get("probe_permuted")),
        )
    return table


def _effects(effects: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each layer and change: its effect on both sets beside those of controls, and on
    their difference; a star where it is beyond every control."""
    from projector.figures.contrast.effects import change_words, controls_of, is_beyond
    from projector.residual.flow.words import number

    controls = [
        name for name in ("random", "permuted") if any(controls_of(e, name) for e in effects)
    ]
    has_difference = any(each["set"] == "difference" for each in effects)
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, header_style="bold")
    titles = ["layer", "direction", "on +", *controls, "on −", *controls]
    for title in [*titles, "− less +"] if has_difference else titles:
        table.add_column(title, justify="right", no_wrap=True)
    rows: dict[tuple[int, str], dict[str, Mapping[str, Any]]] = {}
    for each in effects:
        rows.setdefault((each["layer"], change_words(each, ("+", "−"))), {})[each["set"]] = each

    def effect(found: Mapping[str, Any]) -> str:
        mark = "*" if is_beyond(found) else " "
        return f"{number(found.get('effect'), '+.3f')}{mark}"

    for (layer, change), by_set in rows.items():
        cells = []
        for which in ("positive", "negative"):
            found = by_set.get(which, {})
            means = (number(found.get(f"{name}_mean"), "+.3f") for name in controls)
            cells += [effect(found), *means]
        if has_difference:
            cells.append(effect(by_set.get("difference", {})))
        table.add_row(str(layer), change, *cells)
    return table


def _variance(value: float | None) -> str:
    """A variance in at most seven characters."""
    from projector.residual.flow.words import number

    is_large = value is not None and 99.5 <= value < 999_999.5
    return number(value, ",.0f" if is_large else ".2g")


def _say_next(screen: Screen, found: Contrast, model: str, out: Path) -> None:
    """How to go on with the directions of the first model, if it can be steered."""
    first = found.models[0]
    if first.directions is not None and any(each.effect is not None for each in first.effects):
        layers = first.directions.layers
        then = f"projector steer {quote(model)} --direction {quote(str(out))}"
        then += f" --layer {layers[len(layers) // 2]} --scale 1 --prompt '…'"
        screen.say(f"Next: {escape(then)}")
