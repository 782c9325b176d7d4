"""Where activations are read in a block: one record a site, and a layer's site in every file.

Command lines, errors and pages read the records. How a site is found in a model is told by
:mod:`projector.model.architecture.sites`, which is the only other place that knows sites by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from projector.errors import check_choice

# Layer and site.
MapKey = tuple[int, str]


def map_name(layer: int, site: str) -> str:
    """The key of one layer and site in every file of a projection."""
    return f"layers.{layer}.{site}"


def map_of(name: str) -> MapKey:
    """Layer and site of such a key.

    Raises:
        ValueError: if it is none.
    """
    start, layer, site = (*name.split(".", 2), "", "")[:3]
    if start != "layers" or not (layer.isascii() and layer.isdecimal()) or not site:
        raise ValueError(f"'{name}' names no layer and site")
    return int(layer), site


@dataclass(frozen=True)
class Site:
    """A place in every block where activations are read.

    Attributes:
        name: as TransformerLens names its hook point.
        words: what it holds, for people.
        help: one sentence about it.
        short: stands between a layer and a neuron's number, which is said often; None for
            ``words``.
        beside: the site whose map is shown beside this one's; None for none.
        is_default: whether it is read where none is named.
    """

    name: str
    words: str
    help: str
    short: str | None = None
    beside: str | None = None
    is_default: bool = False


SITES: dict[str, Site] = {}


def register(site: Site) -> None:
    """Make a site known to commands, errors and pages, behind those that are."""
    SITES[site.name] = site


register(
    Site(
        "mlp_post",
        "MLP neurons",
        "The MLP's hidden neurons: the input of its down-projection.",
        short="",
        beside="attn_out",
        is_default=True,
    )
)
register(
    Site(
        "mlp_out",
        "MLP output",
        "The output of the MLP's down-projection, before any norm.",
        short="MLP out",
        beside="attn_out",
        is_default=True,
    )
)
register(
    Site(
        "attn_out",
        "attention output",
        "The output of attention's output projection, before any norm.",
        short="attn out",
        beside="mlp_post",
        is_default=True,
    )
)
register(
    Site(
        "attn_z",
        "attention heads",
        "The heads' outputs, side by side: the input of attention's output projection.",
        short="heads",
        beside="mlp_post",
    )
)
register(Site("resid_pre", "stream before", "The residual stream before the block."))
register(Site("resid_mid", "stream between", "The residual stream between attention and MLP."))
register(Site("resid_post", "stream after", "The residual stream after the block."))


def default_sites() -> tuple[str, ...]:
    """The sites that are read where none is named."""
    return tuple(site.name for site in SITES.values() if site.is_default)


def site_words(name: str) -> str:
    """What a site holds, for people; the name of one that has no record."""
    return SITES[name].words if name in SITES else name


def short_words(name: str) -> str:
    """What stands between a layer and a neuron's number; it may be empty."""
    short = SITES[name].short if name in SITES else None
    return site_words(name) if short is None else short


def sites_help() -> str:
    """What may be given for ``sites``, for a command's help."""
    return f"Comma-separated: {', '.join(SITES)}. By default {', '.join(default_sites())}."


def check_sites(sites: Iterable[str] | None) -> None:
    """Raise a SettingError if a site has no record; None passes."""
    for site in sites or ():
        check_choice("sites", site, SITES)
