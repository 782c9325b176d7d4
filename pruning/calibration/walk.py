"""Calibration text through the model block by block: a layer's moments, then gone."""

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

    Its weights may be changed: the text has passed it already. :meth:`runs` is for before that.

    Attributes:
        index: which layer.
        moments: of its MLP's neurons.
    """

    index: int
    moments: LayerMoments
    _walk: Walk

    def runs(self) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
        """The text through this block once more: each batch, and what passed in it.

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
    """The sequences of a corpus on their way through a model's blocks.

    What is kept is the stream in front of a block and behind it, in the model's own type.

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
        """The sequences in order."""
        return self.corpus.batches(self._batch_size)

    def before(self, layer: int, i: int) -> Tensor:
        """The stream of a batch in front of the layer that the text has just passed."""
        assert self._store is not None
        return self._store.get(_side(layer), i)

    def layers(
        self, wanted: Collection[int] | None = None, *, stage: str = "Layer by layer"
    ) -> Iterator[WalkedLayer]:
        """Every layer as the text has passed it, from the first; each before the next is run.

        Costs one forward pass, and those of two batches, which show how blocks are called; where
        calls depend on the text, two. Of a layer that is let go before the next is asked for,
        nothing stays in memory.

        Args:
            wanted: layers to gather moments of; None for all. The others are only passed, and the
                walk ends with the last one.
            stage: what is told of the layers' progress.

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
        """Learn how each batch's blocks are called, and keep the stream before the first."""
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
        """The text through one block."""
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
    """Where the stream in front of a layer is kept: what lies two layers back is written over."""
    return "even" if layer % 2 == 0 else "odd"


def sums_on(n_bytes: int, device: torch.device) -> torch.device:
    """Where sums are kept: MPS has no float64, and a GPU may have no room beside the model.

    Args:
        n_bytes: of all sums that are kept at once.
        device: where the model is.
    """
    if device.type == "cuda":
        # While they are made into matrices, one after another, a matrix more; and activations.
        has_room = 4 * n_bytes < torch.cuda.mem_get_info(device)[0]
        return device if has_room else torch.device("cpu")
    return torch.device("cpu") if device.type == "mps" else device
