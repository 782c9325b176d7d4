"""The settings of a fit, except those of layouts. Importing this is fast."""

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
    """The settings of a fit, except those of layouts (:class:`projector.layouts.settings.Layout`).

    Two runs are different if any field differs, unless the field may differ; see
    :func:`projector.settings.setting`.

    Attributes:
        sites: sites to read; None for the default sites of the model.
        layers: layers to read; None for all.
        correlation: ``pooled`` or ``per-sequence``.
        max_tokens: maximum number of tokens to count, drawn evenly over the corpus; None for all.
        sequence_length: tokens per sequence; None for 256, or the model's context if that is
            shorter.
        batch_size: sequences per batch.
        packed: whether documents share a sequence; None means True for a causal model, else False.
        skip_first: number of positions to skip at the start of each sequence; None means 1 for a
            causal model, else 0.
        keep_statistics: whether the projection keeps means and covariances.
        keep_examples: whether the projection keeps the tokens with each neuron's highest and lowest
            activations.
        cross_layer: whether to also find the partners of MLP neurons in other layers. If a finished
            fit is resumed with it, partners are added and everything else is unchanged.
        cross_layer_tokens: maximum number of tokens for finding partners; from a larger corpus,
            whole sequences are drawn evenly.
        memory_budget: memory limit in bytes, in addition to the loaded model; None for the free
            memory less a margin. If not all maps fit at once, the model runs over the corpus more
            than once.

    Raises:
        SettingError: for an invalid value.
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
        True,
        help="Save means and covariances. Without them the projection takes far less disk space.",
        help_off="Don't save means and covariances: the projection takes far less disk space.",
    )
    keep_examples: bool = setting(
        True,
        help="Save examples: each neuron's highest and lowest tokens, and a sample.",
        help_off="Don't save examples: each neuron's highest and lowest tokens, and a sample.",
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
    """Names of the settings of a fit."""
    kinds = (FitSettings, Layout)
    return {each.name for kind in kinds for each in fields(kind)} | {"layouts", "dtype"}


def choose_layouts(
    layouts: str | Sequence[str | Layout] | None, given: Mapping[str, Any]
) -> tuple[Layout, ...] | None:
    """Choose the layouts of a fit: several by their names, or one by its settings.

    Args:
        layouts: ``stress-3d,neighbours-2d``; or a list of names and layouts; None for a single one.
        given: the fields that are set for a single layout.

    Returns:
        The layouts. None if none is requested, which :func:`projector.fitting.preparing.prepare`
        replaces by the default ones. If only settings that all default layouts have are given, the
        default layouts with these settings.

    Raises:
        SettingError: if both are given, a layout is invalid, two are the same, or more than one is
            trained while the model runs.
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
        raise SettingError("layouts", text, "holds no layout", "name one or more")
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
        TypeError: for an unknown name.
        UserError: for an invalid value.
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
