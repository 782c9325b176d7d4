"""Sites: the places in a block where activations are read, and their names in files.

Command lines, errors and pages use these records. :mod:`projector.model.architecture.sites` finds
each site in a model, and is the only other module that refers to sites by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from projector.errors import check_choice

# Layer and site.
MapKey = tuple[int, str]


def map_name(layer: int, site: str) -> str:
    """The key of a layer and site in every file of a projection."""
    return f"layers.{layer}.{site}"


def map_of(name: str) -> MapKey:
    """The layer and site of a map's key.

    Raises:
        ValueError: if it isn't the key of a map.
    """
    start, layer, site = (*name.split(".", 2), "", "")[:3]
    if start != "layers" or not (layer.isascii() and layer.isdecimal()) or not site:
        raise ValueError(f"'{name}' isn't the key of a layer and site")
    return int(layer), site


@dataclass(frozen=True)
class Site:
    """A place in every block where activations are read.

    Attributes:
        name: the name, after the hook points of TransformerLens.
        words: a description in a few words.
        help: one sentence about it.
        short: a short form, written between a layer and a neuron's number; None to use ``words``.
        beside: the site with the map that is shown next to this one's; None for no site.
        is_default: whether it is read by default.
    """

    name: str
    words: str
    help: str
    short: str | None = None
    beside: str | None = None
    is_default: bool = False


SITES: dict[str, Site] = {}


def register(site: Site) -> None:
    """Register a site for commands, errors and pages, after the existing ones."""
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
    """The sites that are read by default."""
    return tuple(site.name for site in SITES.values() if site.is_default)


def site_words(name: str) -> str:
    """A site's description; the name itself if it isn't registered."""
    return SITES[name].words if name in SITES else name


def short_words(name: str) -> str:
    """The site's short form between a layer and a neuron's number; may be empty."""
    short = SITES[name].short if name in SITES else None
    return site_words(name) if short is None else short


def sites_help() -> str:
    """The valid values of ``sites``, for a command's help."""
    return f"Comma-separated: {', '.join(SITES)}. By default {', '.join(default_sites())}."


def check_sites(sites: Iterable[str] | None) -> None:
    """Raise a SettingError if a site isn't registered; None is accepted."""
    for site in sites or ():
        check_choice("sites", site, SITES)
