"""Write a projection, and recognise its files in a folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from projector.errors import SettingError, UserError, named
from projector.projection.facts import FORMAT, LAYOUT_FORMAT, LAYOUT_FORMAT_VERSION, LayoutFacts
from projector.projection.overview import FACTS_FILE, LAYOUTS, POSITIONS_FILE, STATISTICS_FILE
from projector.statistics.cross_layer.records import FORMAT as PARTNERS_FORMAT
from projector.statistics.cross_layer.records import PARTNERS_FILE, PARTNERS_TENSORS
from projector.statistics.example_facts import EXAMPLES_FILE
from projector.statistics.example_facts import FORMAT as EXAMPLES_FORMAT
from projector.storage.additions import LOCK, finish_additions
from projector.storage.places import check_place
from projector.storage.replacing import STAGED
from projector.storage.tensors import write_tensors
from projector.storage.versions import json_text, read_json

# A line of the HTML of every picture that this program draws.
PICTURE_MARK = '<meta name="generator" content="transformer-projector">'
# Names that a user gave: what reads and writes them is in `projector/naming/names.py`.
NAMES_FILE, NAMES_FORMAT = "labels.json", "transformer-projection-labels"
# Formats of the JSON files that are added to a projection; the pruning package's poles among them.
_ADDED = (LAYOUT_FORMAT, NAMES_FORMAT, PARTNERS_FORMAT, "transformer-poles")
# How such a file begins, whole or cut.
_BEGINNING = re.compile(rb'\s*\{\s*"format"\s*:\s*"([^"]*)"')
_BEGINNING_BYTES = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def own_files(folder: Path) -> Iterator[str]:
    """Names of the files in a projection's folder that this program made, recognised by their
    content, because a user may give any name to other files.

    When the projection is replaced, all of them are removed.
    """
    added = ("poles.json", NAMES_FILE, PARTNERS_FILE)
    for name in (FACTS_FILE, POSITIONS_FILE, STATISTICS_FILE, *added):
        if (folder / name).is_file() and (name not in added or _is_added(folder / name)):
            yield name
            if name == PARTNERS_FILE and (folder / PARTNERS_TENSORS).is_file():
                yield PARTNERS_TENSORS
    if (folder / EXAMPLES_FILE).is_file() and _holds_examples(folder / EXAMPLES_FILE):
        yield EXAMPLES_FILE
    for path in sorted(folder.glob("*.html")):
        if path.is_file() and PICTURE_MARK.encode() in _beginning(path):
            yield path.name
    for path in sorted([*folder.glob(f"{LAYOUTS}/*.json"), *folder.glob("poles/*.json")]):
        if path.is_file() and _is_added(path):
            yield path.relative_to(folder).as_posix()
            tensors = path.with_suffix(".safetensors")
            if tensors.is_file():
                yield tensors.relative_to(folder).as_posix()


def _is_added(path: Path) -> bool:
    found = _BEGINNING.match(_beginning(path))
    return found is not None and found[1].decode(errors="replace") in _ADDED


def _holds_examples(path: Path) -> bool:
    """Whether this program wrote it: by its first bytes, for it may be cut."""
    return f'\\"{EXAMPLES_FORMAT}\\"'.encode() in _beginning(path)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_BEGINNING_BYTES)


def layout_text(layout: LayoutFacts, number: int, fingerprint: str) -> str:
    """The text of ``layouts/<name>.json``."""
    return json_text(
        {
            "format": LAYOUT_FORMAT,
            "format_version": LAYOUT_FORMAT_VERSION,
            "projection": fingerprint,
            "number": number,
            "settings": layout.settings.as_dict(),
            "maps": {name: figures.as_dict() for name, figures in layout.figures.items()},
            "versions": dict(layout.versions),
        }
    )


def write_layout(
    path_of: Callable[[str], Path],
    name: str,
    layout: LayoutFacts,
    positions: Mapping[str, Tensor],
    number: int,
    fingerprint: str,
) -> None:
    """Write the two files of a layout.

    Args:
        path_of: returns the path to write to for a file name relative to the projection's folder.
        positions: map name → (N, d) float32.
        number: its rank in the order of layouts.
        fingerprint: the fingerprint of its projection.
    """
    check_name(name)
    text = layout_text(layout, number, fingerprint)
    own = hashlib.sha256(text.encode()).hexdigest()
    path_of(f"{LAYOUTS}/{name}.json").write_text(text, encoding="utf-8")
    # The tensors name the texts that they belong to, so a mixture of two runs is seen.
    metadata = {"projection": fingerprint, "layout": own}
    write_tensors(path_of(f"{LAYOUTS}/{name}.safetensors"), positions, metadata)


def check_name(name: str) -> None:
    """Raise a SettingError if a layout can't have this name, which is used in file names."""
    if not _NAME.fullmatch(name):
        raise SettingError(
            "name",
            name,
            "can't be the name of a layout",
            "give letters, digits, dots, hyphens, plus signs and underscores, at most 100, a "
            "letter or digit first",
        )


def check_out(out: Path, *, force: bool, setting: str = "out") -> None:
    """Raise a UserError if a projection must not be written to ``out``.

    Args:
        setting: the setting or argument that names the folder.
    """
    check_place(out, setting)
    finish_additions(out)
    if not out.exists() or not any(p for p in out.iterdir() if p.name not in (STAGED, LOCK)):
        return
    path, elsewhere = out / FACTS_FILE, f"give another folder for {named(setting)}"
    if not path.exists():
        raise UserError(
            f"folder '{out}' holds files that don't belong to a projection: {elsewhere}",
            setting=setting,
            value=str(out),
        )
    if not force:
        raise UserError(
            f"folder '{out}' holds a projection already: add {named('force', True)} to replace "
            "it, or give another folder",
            setting="force",
            value=False,
        )
    try:
        content, _ = read_json(path)
    except UserError:
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"'{path}' was not made by this program, so it won't be replaced: {elsewhere}",
            setting=setting,
            value=str(out),
        )
    for name in (LAYOUTS, "poles"):
        if (out / name).is_file():
            raise UserError(
                f"'{out / name}' is a file where a projection has a folder: {elsewhere}",
                setting=setting,
                value=str(out),
            )
