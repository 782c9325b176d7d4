"""Resumable state of a running fit, in a folder next to the projection.

It holds the gathered sums, in one file for each process of the fit, and the maps that were finished
since, in one file per write. Each file is replaced atomically and names the run that it belongs to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from projector.errors import UserError, named
from projector.fitting.placing import MapPlacement, PlacedMap
from projector.fitting.provenance import run_difference
from projector.projection.facts import MapFacts
from projector.projection.faithfulness import PlacementFigures
from projector.statistics.example_facts import MAP_TENSORS
from projector.storage.entries import Entry
from projector.storage.places import alone
from projector.storage.replacing import remove_folder, replacing_file
from projector.storage.tensors import TensorFile, read_metadata, write_tensors

FORMAT_VERSION = 4
_KEY = "checkpoint"
# What a checkpoint consists of, files that are being written among it.
_OURS = re.compile(r"\.?(gathered|placed)-\d+\.safetensors(\.partial)?")


class OtherRun(UserError):
    """A checkpoint belongs to a run with other settings, or with another model or corpus.

    Attributes:
        difference: the first difference between the two runs.
    """

    def __init__(self, folder: Path, difference: str) -> None:
        super().__init__(
            f"checkpoint '{folder}' belongs to another run: {difference}: repeat that run's "
            f"command, or add {named('force', True)} to start over",
            setting="resume",
            value=True,
        )
        self.difference = difference


@dataclass(frozen=True)
class Gathered:
    """Sums after ``n_batches`` batches of one pass over the corpus."""

    i_pass: int
    n_batches: int
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class State:
    """The state of a stopped fit.

    Attributes:
        choices: values that the run chose for settings that were left open, and that affect its
            results.
        gathered: the sums of the unfinished pass; None if none were written.
        placed: finished maps by name, in order.
    """

    choices: dict[str, Any]
    gathered: Gathered | None
    placed: dict[str, PlacedMap] = field(default_factory=dict)


def checkpoint_path(out: Path) -> Path:
    """The checkpoint folder of a fit into the folder ``out``, next to it."""
    return beside(out, "checkpoint")


def beside(out: Path, what: str) -> Path:
    """The paths that a fit into the folder ``out`` writes next to it."""
    if out.name in ("", ".."):
        # The folder one stands in, and those above it, have their names elsewhere.
        out = out.resolve()
    return out.parent / f"{out.name}.{what}"


def has_checkpoint(out: Path) -> bool:
    """Whether a stopped fit into the folder ``out`` can be resumed."""
    # One that was killed in its first write has left a part of a file only.
    return any(checkpoint_path(out).glob("*.safetensors"))


def check_checkpoint_place(out: Path) -> None:
    """Raise a UserError if the checkpoint path of a fit into ``out`` holds something else."""
    path = checkpoint_path(out)
    if path.exists() and not (
        path.is_dir() and all(_OURS.fullmatch(each.name) for each in path.iterdir())
    ):
        raise UserError(
            f"'{path}' is this fit's checkpoint folder, but it holds something else: give "
            f"another folder for {named('out')}",
            setting="out",
            value=str(out),
        )


class Checkpoint:
    """The checkpoint of a run, written and read by one of its processes.

    Args:
        folder: see :func:`checkpoint_path`.
        facts: the facts that must match for one run to resume from another's checkpoint.
        rank: the number of this process.
        names: words for the facts that are hashes.
    """

    def __init__(
        self,
        folder: Path,
        facts: Mapping[str, Any],
        rank: int = 0,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.names = folder, dict(names or {})
        self.facts: dict[str, Any] = json.loads(json.dumps(dict(facts)))
        self.choices: dict[str, Any] = {}
        self._gathered = folder / f"gathered-{rank}.safetensors"

    @property
    def is_begun(self) -> bool:
        """Whether there is something to resume."""
        return any(self.folder.glob("*.safetensors"))

    def save_gathered(self, gathered: Gathered) -> None:
        """Write the sums atomically: if the process is killed, the old or the new sums are left.

        Raises:
            OSError: if the disk is full or not writable.
        """
        self._write(
            self._gathered,
            gathered.tensors,
            {"i_pass": gathered.i_pass, "n_batches": gathered.n_batches},
        )

    def save_placed(self, maps_placed: Sequence[PlacedMap]) -> dict[str, PlacedMap]:
        """Write finished maps in addition to earlier ones; returns them with their tensors on disk.

        Raises:
            OSError: if the disk is full or not writable.
        """
        n_files = len(self._placed_files())
        path = self.folder / f"placed-{n_files:05}.safetensors"
        tensors: dict[str, Tensor] = {}
        maps: dict[str, Any] = {}
        for placed in maps_placed:
            tensors |= {**placed.statistics, **placed.examples}
            figures = {}
            for layout, placement in placed.placements.items():
                tensors[_positions_key(layout, placed.name)] = placement.positions
                figures[layout] = placement.figures.as_dict()
            maps[placed.name] = {"facts": placed.facts.as_dict(), "layouts": figures}
        self._write(path, tensors, {"maps": maps})
        return self._read_placed(path)

    def load(self) -> State:
        """Load the state of a stopped run with the same facts, and adopt its choices.

        Raises:
            UserError: if there is no state, it is damaged, or it belongs to another run.
        """
        with self._damages():
            # Those of other processes too: all are of one run.
            for path in sorted(self.folder.glob("*.safetensors")):
                self.choices = self._header(path)["choices"]
            placed: dict[str, PlacedMap] = {}
            for path in self._placed_files():
                placed |= self._read_placed(path)
            gathered = None
            if self._gathered.exists():
                header = self._header(self._gathered)
                # Copies: memory that maps a file is aligned otherwise, and products of it rounded.
                tensors = {k: t.clone() for k, t in TensorFile(self._gathered).items()}
                gathered = Gathered(header["i_pass"], header["n_batches"], tensors)
        return State(self.choices, gathered, placed)

    def load_choices(self) -> dict[str, Any]:
        """Load only the choices.

        Raises:
            UserError: as for :meth:`load`.
        """
        with self._damages():
            path = min(self.folder.glob("*.safetensors"))
            choices: dict[str, Any] = self._header(path)["choices"]
        return choices

    @contextmanager
    def _damages(self) -> Iterator[None]:
        try:
            yield
        except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, OSError) as error:
            raise UserError(
                f"checkpoint '{self.folder}' is damaged: delete it and start again"
            ) from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the checkpoint in this context against other fits.

        Raises:
            UserError: if another fit is using it.
        """
        path = self.folder.with_name(f".{self.folder.name}.lock")
        told = (
            f"another fit is running in '{self.folder}': wait for it, or give another folder for "
            f"{named('out')}"
        )
        with alone(path, patience_s=0, told=told):
            yield

    def remove(self) -> None:
        """Remove the state, at the end or the start of a run."""
        remove_folder(self.folder)

    def _placed_files(self) -> list[Path]:
        return sorted(self.folder.glob("placed-*.safetensors"))

    def _write(self, path: Path, tensors: Mapping[str, Tensor], more: Mapping[str, Any]) -> None:
        header = {"version": FORMAT_VERSION, "facts": self.facts, "names": self.names}
        header |= {"choices": self.choices, **more}
        with replacing_file(path) as partial:
            write_tensors(partial, tensors, {_KEY: json.dumps(header)})

    def _header(self, path: Path) -> dict[str, Any]:
        header: dict[str, Any] = json.loads(read_metadata(path)[_KEY])
        if header["version"] != FORMAT_VERSION:
            raise UserError(
                f"checkpoint '{self.folder}' has format version {header['version']}, but this "
                f"program reads {FORMAT_VERSION}: delete it and start again"
            )
        difference = run_difference(header["facts"], self.facts, header["names"], self.names)
        if difference is not None:
            raise OtherRun(self.folder, difference)
        return header

    def _read_placed(self, path: Path) -> dict[str, PlacedMap]:
        tensors = TensorFile(path)
        found = {}
        maps = Entry(self._header(path)["maps"], "maps")
        for name in maps:
            entry = maps.entry(name)
            figures = entry.entry("layouts")
            placements = {
                layout: MapPlacement(
                    tensors[_positions_key(layout, name)].clone(),
                    PlacementFigures.from_entry(figures.entry(layout)),
                )
                for layout in figures
            }
            own = [k for k in tensors if k.startswith(f"{name}.")]
            of_examples = [k for k in own if k.removeprefix(f"{name}.") in MAP_TENSORS]
            found[name] = PlacedMap(
                name,
                MapFacts.from_entry(entry.entry("facts")),
                placements,
                TensorFile(path, [k for k in own if k not in of_examples]),
                TensorFile(path, of_examples),
            )
        return found


def _positions_key(layout: str, name: str) -> str:
    """Of a map's positions among the tensors of a checkpoint; all others begin with its name."""
    return f"positions {layout} {name}"
