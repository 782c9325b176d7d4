"""The files of partners across layers: ``partners.json`` and ``partners.safetensors``.

They are added to a projection and hold its fingerprint, like a layout's files. PyTorch is only
needed to write them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from projector.errors import UserError, named
from projector.projection.facts import Facts
from projector.projection.overview import FACTS_FILE, Saved, checked_header
from projector.sites import map_name
from projector.statistics.cross_layer.records import (
    CONTROL_TENSORS,
    FORMAT,
    FORMAT_VERSION,
    LAYER_TENSORS,
    PARTNERS_FILE,
    PARTNERS_TENSORS,
    SITE,
    CrossLayerFacts,
)
from projector.storage.entries import Entry, Wrong
from projector.storage.versions import Upgrade, json_text, read_json, upgraded

if TYPE_CHECKING:
    from torch import Tensor


def _to_2(content: dict[str, Any]) -> dict[str, Any]:
    """Version 1 has no control of single neurons."""
    return {**content, "has_controls": False}


UPGRADES: Mapping[int, Upgrade] = {1: _to_2}


def again() -> str:
    """What the user can do if partners can't be read."""
    return f"find them again: run its fit with {named('cross_layer', True)} and " + named(
        "resume", True
    )


def none_found(problem: str | None = None) -> UserError:
    """The error for a projection without partners across layers.

    Args:
        problem: why existing partners can't be read.
    """
    told = problem or (
        "this projection holds no partners across layers: run its fit again with "
        f"{named('cross_layer', True)} and {named('resume', True)}, which adds them"
    )
    return UserError(told, setting="cross_layer", value=False)


def write_partners(
    path_of: Callable[[str], Path],
    facts: CrossLayerFacts,
    tensors: Mapping[str, Tensor],
    fingerprint: str,
) -> None:
    """Write both files.

    Args:
        path_of: returns the path to write to for a file name relative to the projection's folder.
        tensors: the tensors of every layer's
            :class:`projector.statistics.cross_layer.partners.Partners`.
        fingerprint: the fingerprint of their projection.
    """
    from projector.storage.tensors import write_tensors

    text = json_text(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "projection": fingerprint,
            **facts.as_dict(),
        }
    )
    path_of(PARTNERS_FILE).write_text(text, encoding="utf-8")
    own = hashlib.sha256(text.encode()).hexdigest()
    metadata = {"projection": fingerprint, "partners": own}
    write_tensors(path_of(PARTNERS_TENSORS), tensors, metadata)


def read_partners(saved: Saved) -> CrossLayerFacts | None:
    """Read the partners across layers in a projection's folder; None if it has none.

    Raises:
        UserError: on ``cross_layer``, if the files are damaged, or belong to another projection.
    """
    path = saved.folder / PARTNERS_FILE
    if not path.exists():
        return None
    try:
        return _read(saved, path)
    except UserError as error:
        raise UserError(str(error.args[0]), setting="cross_layer", value=True) from error


def tensors_metadata(saved: Saved) -> dict[str, str]:
    """The metadata of the tensor file of partners."""
    text = (saved.folder / PARTNERS_FILE).read_bytes()
    return {"projection": saved.fingerprint, "partners": hashlib.sha256(text).hexdigest()}


def _read(saved: Saved, path: Path) -> CrossLayerFacts:
    content, _ = read_json(path)
    content = upgraded(
        content,
        path,
        format_name=FORMAT,
        newest=FORMAT_VERSION,
        upgrades=UPGRADES,
        remedy=again(),
        if_foreign="move it elsewhere",
    )
    if content.get("projection") != saved.fingerprint:
        raise UserError(f"'{path}' does not belong to the {FACTS_FILE} next to it: {again()}")
    tensors = saved.folder / PARTNERS_TENSORS
    header = checked_header(tensors, saved.fingerprint)
    if header.metadata.get("partners") != tensors_metadata(saved)["partners"]:
        raise UserError(f"'{tensors}' does not belong to the {path.name} next to it: {again()}")
    try:
        facts = CrossLayerFacts.from_entry(Entry(content))
        _check_shapes(facts, saved.facts, header.shapes, header.kinds)
    except Wrong as error:
        raise UserError(f"'{path}' is damaged: {error}; {again()}") from error
    return facts


def _check_shapes(
    found: CrossLayerFacts,
    facts: Facts,
    shapes: Mapping[str, tuple[int, ...]],
    kinds: Mapping[str, str],
) -> None:
    """Raise ``Wrong`` if the tensors are not those of the projection's layers."""
    layers = tuple(each for each in facts.layers if map_name(each, SITE) in facts.maps)
    if found.layers != layers:
        raise Wrong(f"it has layers {found.layers}, but the projection has {SITE} of {layers}")
    for layer in layers:
        name = map_name(layer, SITE)
        shape = (facts.maps[name].n_neurons, found.n_partners)
        wanted: dict[str, tuple[tuple[int, ...], str]]
        wanted = {each: (shape, kind) for each, kind in LAYER_TENSORS.items()}
        if found.has_controls:
            wanted |= {each: (shape[:1], kind) for each, kind in CONTROL_TENSORS.items()}
        for each, (own_shape, kind) in wanted.items():
            own = f"{name}.{each}"
            if (shapes.get(own), kinds.get(own)) != (own_shape, kind):
                raise Wrong(f"{own} has shape {shapes.get(own)}, not {own_shape} and {kind}")
