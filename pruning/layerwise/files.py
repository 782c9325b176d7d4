"""Keep made layers in one file each, so that a stopped run can resume from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from projector.errors import UserError, named
from projector.storage.places import alone, disk_errors, reason_of
from projector.storage.replacing import is_unfinished, make_folder, remove_folder, replacing_file
from projector.storage.resuming import told_difference
from projector.storage.tensors import TensorFile, read_metadata, write_tensors
from pruning.calibration.streams import STREAMS
from pruning.layerwise.recipes import MadeLayer, Recipe
from pruning.methods.plan import LayerPlan, StandIn

FORMAT_VERSION = 2
_KEY = "layer"


class LayerFiles:
    """A folder of layers that have been made, and of the costs of removals from them.

    Args:
        folder: its path; it is made when the first layer is written.
        facts: settings and data that two runs must share for one to resume from the other's layers.
        recipes: the recipes that every layer is made for.
        settings: names of facts that a user sets.
    """

    def __init__(
        self,
        folder: Path,
        facts: Mapping[str, Any],
        recipes: Sequence[Recipe],
        *,
        settings: Sequence[str] = (),
    ) -> None:
        self.folder, self._recipes, self._settings = folder, tuple(recipes), tuple(settings)
        self._facts: dict[str, Any] = json.loads(
            json.dumps({**facts, "recipes": [asdict(recipe) for recipe in recipes]})
        )

    @property
    def is_begun(self) -> bool:
        """Whether a run has left files here."""
        return any(self.folder.glob("*.safetensors"))

    def difference(self) -> str | None:
        """How the run that left these files differs from this one; None if it doesn't.

        Raises:
            UserError: if they are damaged or can't be read.
        """
        with self._reading():
            first = min(self.folder.glob("*.safetensors"))
            header = json.loads(read_metadata(first)[_KEY])
            if header["version"] != FORMAT_VERSION:
                return "another version of this program wrote it"
            return told_difference(header["facts"], self._facts, settings=self._settings)

    def check_place(self) -> None:
        """Raise a UserError if the folder holds other files."""
        ours = (".safetensors", ".partial")
        if self.folder.exists() and not (
            self.folder.is_dir()
            and all(
                path.suffix in ours or is_unfinished(path.name) or path.name.startswith(STREAMS)
                for path in self.folder.iterdir()
            )
        ):
            raise UserError(
                f"this run keeps its layers in '{self.folder}', which holds other files: give "
                f"another folder for {named('out')}",
                setting="out",
                value=str(self.folder),
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Context manager: no other run uses these files until it is left.

        Raises:
            UserError: if another run uses them.
        """
        path = self.folder.with_name(f".{self.folder.name}.lock")
        told = (
            f"another run is using '{self.folder}': wait until it ends, or give another folder for "
            f"{named('out')}"
        )
        with disk_errors(path), alone(path, patience_s=0, told=told):
            try:
                yield
            finally:
                if not self.is_begun:
                    self.remove()

    def begin(self) -> None:
        """Make the folder, and delete streams that a killed run left."""
        with disk_errors(self.folder):
            make_folder(self.folder)
            for path in self.folder.glob(f"{STREAMS}*"):
                remove_folder(path)

    def remove(self) -> None:
        """Delete the folder, when the run is done or starts over."""
        remove_folder(self.folder)

    def has(self, layer: int) -> bool:
        """Whether a layer has been made."""
        return self._path("layer", layer).exists()

    def write(self, layer: int, made: Mapping[Recipe, MadeLayer]) -> None:
        """Keep a layer; a kill at any moment leaves all of it or nothing."""
        plans: list[LayerPlan] = []
        plan_of: list[int] = []
        tensors: dict[str, Tensor] = {}
        for i, recipe in enumerate(self._recipes):
            each = made[recipe]
            tensors |= {f"{i}.{name}": tensor for name, tensor in each.tensors().items()}
            # Refits share plans.
            if each.plan not in plans:
                tensors |= _plan_tensors(each.plan, f"plan-{len(plans)}")
                plans.append(each.plan)
            plan_of.append(plans.index(each.plan))
        header = {
            "neurons": [plan.n_neurons for plan in plans],
            "plan_of": plan_of,
            "seconds": [made[recipe].seconds for recipe in self._recipes],
        }
        self._write(self._path("layer", layer), tensors, header)

    def read(self, layer: int, only: Recipe | None = None) -> dict[Recipe, MadeLayer]:
        """Read a layer that has been made.

        Args:
            only: the one recipe to read; None for all.

        Raises:
            UserError: if it is damaged or can't be read.
        """
        path = self._path("layer", layer)
        with self._reading():
            header, tensors = self._header(path), TensorFile(path)
            made = {}
            plans: dict[int, LayerPlan] = {}
            for i, recipe in enumerate(self._recipes):
                if only not in (None, recipe):
                    continue
                # Copies, because memory that maps a file is aligned differently.
                own = [
                    tensors[name].clone() if (name := f"{i}.{field}") in tensors else None
                    for field in ("output", "output_bias")
                ]
                j = int(header["plan_of"][i])
                if j not in plans:
                    plans[j] = _plan_of(int(header["neurons"][j]), tensors, f"plan-{j}")
                made[recipe] = MadeLayer(plans[j], own[0], own[1], float(header["seconds"][i]))
        return made

    def has_costs(self, layer: int) -> bool:
        """Whether the costs of removals from a layer are kept."""
        return self._path("costs", layer).exists()

    def write_costs(self, layer: int, costs: Mapping[tuple[str, bool], Tensor]) -> None:
        """Keep the costs of removals, by method and by whether moments are centred."""
        tensors = {f"{method}.{int(centred)}": each for (method, centred), each in costs.items()}
        self._write(self._path("costs", layer), tensors, {})

    def read_costs(self, layer: int) -> dict[tuple[str, bool], Tensor]:
        """Read the costs that :meth:`write_costs` saved."""
        with self._reading():
            tensors = TensorFile(self._path("costs", layer))
            found = {}
            for name in tensors:
                method, _, centred = name.rpartition(".")
                found[method, centred == "1"] = tensors[name].clone()
        return found

    def _path(self, what: str, layer: int) -> Path:
        return self.folder / f"{what}-{layer:05}.safetensors"

    def _write(self, path: Path, tensors: Mapping[str, Tensor], more: Mapping[str, Any]) -> None:
        header = {"version": FORMAT_VERSION, "facts": self._facts, **more}
        with disk_errors(self.folder), replacing_file(path) as partial:
            write_tensors(partial, tensors, {_KEY: json.dumps(header)})

    def _header(self, path: Path) -> dict[str, Any]:
        header: dict[str, Any] = json.loads(read_metadata(path)[_KEY])
        return header

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"the files of a stopped run in '{self.folder}' can't be read: {reason_of(error)}"
            ) from error
        except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"the files of a stopped run in '{self.folder}' are damaged: delete them and start "
                "again"
            ) from error


def _plan_tensors(plan: LayerPlan, name: str) -> dict[str, Tensor]:
    """A plan as tensors, without the layer's number of neurons."""
    columns = {
        "kept": torch.tensor(plan.kept, dtype=torch.int32),
        "groups": torch.tensor(plan.groups, dtype=torch.int32),
        "neuron": torch.tensor([each.neuron for each in plan.stand_ins], dtype=torch.int32),
        "by": torch.tensor([each.by for each in plan.stand_ins], dtype=torch.int32),
        "coefficient": torch.tensor(
            [each.coefficient for each in plan.stand_ins], dtype=torch.float64
        ),
    }
    return {f"{name}.{column}": tensor for column, tensor in columns.items()}


def _plan_of(n_neurons: int, tensors: Mapping[str, Tensor], name: str) -> LayerPlan:
    """The plan whose tensors :func:`_plan_tensors` gave."""

    def column(of: str) -> list[Any]:
        values: list[Any] = tensors[f"{name}.{of}"].tolist()
        return values

    columns = zip(column("neuron"), column("by"), column("coefficient"), strict=True)
    stand_ins = tuple(StandIn(*each) for each in columns)
    return LayerPlan(n_neurons, tuple(column("kept")), stand_ins, tuple(column("groups")))
