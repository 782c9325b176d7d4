"""Run calibration text through the model block by block, with one layer's moments at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from projector.corpus.batches import Batch, Corpus
from projector.model.architecture.records import Architecture
from projector.model.capture import Call, evaluating, kept_rows
from projector.progress import Progress, Silent
from pruning.calibration.mlps import mlps_of
from pruning.calibration.moments import LayerMoments
from pruning.calibration.streams import Beginnings, Store, run_block, run_through
from pruning.calibration.text import is_held_out

DEFAULT_BATCH = 16


@dataclass(frozen=True)
class WalkedLayer:
    """A layer that the text has just passed.

    Its weights may be changed. Call :meth:`runs` before you change them.

    Attributes:
        index: number of the layer.
        moments: of its MLP's neurons.
    """

    index: int
    moments: LayerMoments
    _walk: Walk

    def runs(self) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
        """Run the text through this block once more: each batch, with the tensors in the block.

        See :func:`pruning.calibration.streams.run_block`.
        """
        walk = self._walk
        block = walk.architecture.blocks[self.index]
        assert block.mlp is not None
        for i, batch in enumerate(walk.batches()):
            stream = walk.before(self.index, i)
            _, seen = run_block(walk.calls[i][self.index], block.module, block.mlp, stream)
            yield batch, seen


class Walk:
    """Runs the sequences of a corpus through a model's blocks.

    It keeps the stream before and after one block, in the model's dtype.

    Args:
        spill: a folder for the streams; None to keep them in memory.
    """

    def __init__(
        self,
        model: nn.Module,
        architecture: Architecture,
        corpus: Corpus,
        *,
        batch_size: int = DEFAULT_BATCH,
        spill: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.architecture, self.corpus = model, architecture, corpus
        self.calls: list[dict[int, Call]] = []
        self._batch_size, self._spill = batch_size, spill
        self._progress = progress or Silent()
        self._store: Store | None = None

    def batches(self) -> Iterator[Batch]:
        """The batches of sequences, in order."""
        return self.corpus.batches(self._batch_size)

    def before(self, layer: int, i: int) -> Tensor:
        """A batch's stream before the layer that the text has just passed."""
        assert self._store is not None
        return self._store.get(_side(layer), i)

    def layers(
        self, wanted: Collection[int] | None = None, *, stage: str = "Layer by layer"
    ) -> Iterator[WalkedLayer]:
        """Yield every layer after the text has passed it, from the first; the next runs after that.

        Costs one forward pass, and another over two batches to record how blocks are called; two
        forward passes if the calls depend on the text. A layer's memory is free once the caller
        drops it.

        Args:
            wanted: layers to gather moments of; None for all. Other layers only run, and the walk
                ends with the last wanted layer.
            stage: receives the layers' progress.

        Raises:
            UserError: if a layer's moments are not finite.
        """
        mlps = mlps_of(self.architecture)
        wanted = range(len(mlps)) if wanted is None else wanted
        if not wanted:
            return
        device = next(self.model.parameters()).device
        with evaluating(self.model), Store(self._spill) as self._store:
            self._begin()
            self._progress.begin(stage, len(wanted), "layers")
            for layer in range(max(wanted) + 1):
                if layer not in wanted:
                    self._pass(layer, None)
                    continue
                n = mlps[layer].n_neurons
                moments = LayerMoments(n, sums_on(8 * n**2, device))
                self._pass(layer, moments)
                moments.check(layer)
                yield WalkedLayer(layer, moments, self)
                del moments
                self._progress.advance(1)
            self._progress.end()
        self._store, self.calls = None, []

    def _begin(self) -> None:
        """Record how each batch's blocks are called, and keep the stream before the first block."""
        assert self._store is not None
        beginnings = Beginnings(self.model, self.architecture)
        self.calls = []
        self._progress.begin("Calibrating", self.corpus.n_sequences, "sequences")
        for i, batch in enumerate(self.batches()):
            calls, first = beginnings.of(batch)
            self.calls.append(calls)
            self._store.put(_side(0), i, first)
            self._progress.advance(len(batch.input_ids))

    def _pass(self, layer: int, moments: LayerMoments | None) -> None:
        """Run the text through one block."""
        assert self._store is not None
        block = self.architecture.blocks[layer]
        tap = None if moments is None else block.taps["mlp_post"]
        for i, batch in enumerate(self.batches()):
            held_out = is_held_out(batch)

            def count(
                activation: Tensor, batch: Batch = batch, held_out: Tensor = held_out
            ) -> None:
                assert moments is not None
                for part in (False, True):
                    keep = batch.keep & (held_out == part)[:, None]
                    moments.update(kept_rows(activation, keep), held_out=part)

            call, stream = self.calls[i][layer], self.before(layer, i)
            after = run_through(call, block.module, stream, tap, count)
            self._store.put(_side(layer + 1), i, after)


def _side(layer: int) -> str:
    """The name of the stream before a layer; it overwrites the stream of two layers earlier."""
    return "even" if layer % 2 == 0 else "odd"


def sums_on(n_bytes: int, device: torch.device) -> torch.device:
    """The device of the sums: the CPU if there is no float64 (MPS) or they don't fit on the GPU.

    Args:
        n_bytes: of all sums that are kept at once.
        device: the model's device.
    """
    if device.type == "cuda":
        # One more matrix while sums become matrices, one after another; and activations.
        has_room = 4 * n_bytes < torch.cuda.mem_get_info(device)[0]
        return device if has_room else torch.device("cpu")
    return torch.device("cpu") if device.type == "mps" else device
