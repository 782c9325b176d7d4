"""What to fit: the settings of a fit, except those of layouts. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from projector.errors import SettingError, check_choice, check_least, named
from projector.layouts.settings import (
    DEFAULT_LAYOUTS,
    Layout,
    check_distinct,
    parse_layouts,
)
from projector.settings import setting
from projector.sites import check_sites, sites_help

CORRELATIONS = ("pooled", "per-sequence")
LEAST_TOKENS = 100
# Settings of one layout that all of the usual layouts have: these alone choose no other layout.
_OF_USUAL = {"seed", "start", "absolute"}


@dataclass(frozen=True)
class FitSettings:
    """What to fit, apart from how positions are found (:class:`projector.layouts.solving.Layout`).

    A run is told apart from another by every field that does not say otherwise: see
    :func:`projector.settings.setting`.

    Attributes:
        sites: sites to read; None for the default ones that the model has.
        layers: layers to read; None for all.
        correlation: ``pooled`` or ``per-sequence``.
        max_tokens: most tokens to count, drawn evenly over the corpus; None for all.
        sequence_length: tokens of a sequence; None for 256, or what the model can take if less.
        batch_size: sequences at once.
        packed: whether documents stand one after another in a sequence; None where the model is
            causal.
        skip_first: positions left out at the start of each sequence; None for 1 where the model is
            causal and 0 where it is not.
        keep_statistics: whether the projection keeps means and covariances.
        keep_examples: whether the projection keeps the tokens that drive each neuron most.
        cross_layer: whether the partners of MLP neurons in other layers are found too. A finished
            fit that is resumed with it is left as it is, and they are added.
        cross_layer_tokens: most tokens that these are found by: of a larger corpus, whole
            sequences, evenly drawn.
        memory_budget: bytes that the fit may take beside the loaded model; None for what is free,
            less a margin. Where not all maps fit at once, the corpus is passed over more than once.

    Raises:
        SettingError: for a value that is not possible.
    """

    sites: tuple[str, ...] | None = setting(None, help=sites_help)
    layers: tuple[int, ...] | None = setting(
        None, help="Layers to read, for example 0,3-5. By default all."
    )
    correlation: str = setting(
        "pooled",
        help="[b]pooled[/b] over all tokens, or [b]per-sequence[/b]: the mean of each sequence's "
        "own matrix.",
        choices=CORRELATIONS,
    )
    max_tokens: int | None = setting(
        None,
        help="Maximum number of tokens to count, sampled evenly over the corpus. By default all.",
    )
    sequence_length: int | None = setting(
        None, help="Tokens per sequence. By default 256, or the model's maximum if that is less."
    )
    batch_size: int = setting(16, help="Sequences per batch.")
    packed: bool | None = setting(
        None, help="Let documents share a sequence. By default they do if the model is causal."
    )
    skip_first: int | None = setting(
        None,
        help=(
            "Positions to skip at the start of each sequence. By default 1 if the model is "
            "causal, else 0."
        ),
    )
    keep_statistics: bool = setting(
        True, help="Don't save means and covariances: the projection takes far less disk space."
    )
    keep_examples: bool = setting(
        True,
        help="Don't keep examples: each neuron's highest and lowest tokens, and a sample.",
    )
    cross_layer: bool = setting(
        False,
        help=(
            "Also find the neurons of other layers that each MLP neuron is most correlated "
            "with. To add them to a finished fit, resume it with this."
        ),
        may_differ=True,
    )
    cross_layer_tokens: int = setting(
        20_000,
        help="Maximum number of tokens to use to find partners across layers.",
        may_differ=True,
    )
    memory_budget: int | None = setting(
        None,
        help=(
            "Maximum memory to use in addition to the model's own, for example 8GiB. If not all "
            "maps fit, the model runs over the corpus more than once. By default all free "
            "memory, minus a margin."
        ),
        unit="bytes",
    )

    def __post_init__(self) -> None:
        check_choice("correlation", self.correlation, CORRELATIONS)
        check_sites(self.sites)
        check_least("batch_size", self.batch_size, 1)
        check_least("sequence_length", self.sequence_length, 2)
        check_least("skip_first", self.skip_first, 0)
        check_least("max_tokens", self.max_tokens, LEAST_TOKENS)
        check_least("cross_layer_tokens", self.cross_layer_tokens, LEAST_TOKENS)
        check_least("memory_budget", self.memory_budget, 1)


def setting_names() -> set[str]:
    """What a user sets of a fit, by name."""
    kinds = (FitSettings, Layout)
    return {each.name for kind in kinds for each in fields(kind)} | {"layouts", "dtype"}


def choose_layouts(
    layouts: str | Sequence[str | Layout] | None, given: Mapping[str, Any]
) -> tuple[Layout, ...] | None:
    """The layouts of a fit: several by their names, or one by its settings.

    Args:
        layouts: ``stress-3d,neighbours-2d``; or names and layouts one by one; None for one.
        given: fields of the one layout that are set.

    Returns:
        None where none is asked for: :func:`projector.fitting.preparing.prepare` makes the usual
        ones then. Those too where only settings are given that each of them has.

    Raises:
        SettingError: where both are given, a layout is not possible, two are the same, or more
            than one is trained while the model runs.
    """
    if layouts is None:
        if given and given.keys() <= _OF_USUAL:
            return tuple(replace(usual, **given) for usual in parse_layouts(DEFAULT_LAYOUTS))
        return (Layout(**given),) if given else None
    if given:
        name = next(iter(given))
        raise SettingError(
            "layouts",
            layouts if isinstance(layouts, str) else list(layouts),
            f"and {named(name)} exclude each other",
            "name every layout in full, for example stress-3d-absolute, or describe a single one",
        )
    parts = [layouts] if isinstance(layouts, str) else list(layouts)
    found = [
        layout
        for part in parts
        for layout in ([part] if isinstance(part, Layout) else parse_layouts(part))
    ]
    text = ",".join(layout.name for layout in found)
    check_distinct(found)
    if not found:
        raise SettingError("layouts", text, "names no layout", "name one or more")
    if sum(layout.how.trains for layout in found) > 1:
        raise SettingError(
            "layouts",
            text,
            "has more than one layout that is trained while the model runs",
            "name one of them, and add the others with `projector layout`",
        )
    return tuple(found)


def split_options(options: Mapping[str, Any]) -> tuple[FitSettings, tuple[Layout, ...] | None]:
    """Sort options by name into the settings of a fit and its layouts.

    Raises:
        TypeError: for a name that is neither.
        UserError: for a value that can't be.
    """
    options = dict(options)
    layouts = options.pop("layouts", None)
    for name in ("sites", "layers"):
        if isinstance(options.get(name), str):
            raise SettingError(
                name, options[name], "is text, not a list", f"give a list: ['{options[name]}']"
            )
        if options.get(name) is not None:
            options[name] = tuple(options[name])
    names = [{each.name for each in fields(kind)} for kind in (FitSettings, Layout)]
    unknown = set(options) - names[0] - names[1]
    if unknown:
        raise TypeError(f"unknown option {sorted(unknown)[0]!r}")
    first, second = ({k: v for k, v in options.items() if k in group} for group in names)
    return FitSettings(**first), choose_layouts(layouts, second)
