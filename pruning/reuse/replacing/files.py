"""Keep fitted layers on disk, so that memory holds the layers of one model only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from projector.storage.places import disk_errors
from projector.storage.tensors import TensorFile, write_tensors
from pruning.reuse.replacing.choosing import Choice
from pruning.reuse.replacing.fitting import FittedLayer, Values

_OF_CHOICE = ("kept", "replaced", "column", "partner_layer", "partner_neuron")
_OF_VALUES = ("coefficients", "shares", "r2")


@dataclass(frozen=True)
class FittedFiles:
    """The layers of one model, in one file each.

    Attributes:
        folder: used for these files only; made when the first layer is written.
        n_layers: number of layers of the model.
    """

    folder: Path
    n_layers: int

    def write(self, layer: int, fitted: FittedLayer) -> None:
        """Keep a layer.

        Raises:
            UserError: if the file can't be written.
        """
        tensors = {name: getattr(fitted.choice, name) for name in _OF_CHOICE}
        tensors |= {name: getattr(fitted.values, name) for name in _OF_VALUES}
        tensors |= {"output": fitted.output, "columns": fitted.columns}
        if fitted.bias is not None:
            tensors["bias"] = fitted.bias
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_tensors(self._path(layer), tensors)

    def read(self) -> list[FittedLayer | None]:
        """Read all layers; None for a layer that was not written, which stays dense."""
        return [self._layer(layer) for layer in range(self.n_layers)]

    def _layer(self, layer: int) -> FittedLayer | None:
        if not self._path(layer).exists():
            return None
        file = TensorFile(self._path(layer))
        # Copies, because memory that maps a file is aligned differently.
        tensors = {name: file[name].clone() for name in file}
        choice = [tensors[name] for name in _OF_CHOICE]
        n_neurons = len(tensors["kept"]) + len(tensors["replaced"])
        return FittedLayer(
            Choice(n_neurons, *choice),
            Values(*(tensors[name] for name in _OF_VALUES)),
            tensors["output"],
            tensors["columns"],
            tensors.get("bias"),
        )

    def _path(self, layer: int) -> Path:
        return self.folder / f"{layer:05}.safetensors"
