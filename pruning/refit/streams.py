"""Streams of the dense model on the calibration text, block by block."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from projector.corpus.batches import Corpus
from projector.model.architecture.records import Architecture
from projector.model.capture import Call, evaluating
from pruning.calibration.streams import Beginnings, run_block
from pruning.calibration.walk import DEFAULT_BATCH

_MOST_KEPT_BYTES = 2_000_000_000


@dataclass(frozen=True)
class DenseBlock:
    """The dense model on one batch and block: the MLP's output, and the stream after the block."""

    out: Tensor
    after: Tensor


class DenseStreams:
    """The dense model on the calibration text, batch by batch and block by block.

    Kept for the next pruned model if that takes at most :data:`_MOST_KEPT_BYTES`; else run again.

    Args:
        is_shared: whether another pruned model follows.
    """

    def __init__(
        self,
        model: nn.Module,
        architecture: Architecture,
        corpus: Corpus,
        *,
        batch_size: int = DEFAULT_BATCH,
        is_shared: bool = True,
    ) -> None:
        self.model, self.architecture = model, architecture
        self.batches = list(corpus.batches(batch_size))
        self._starts: list[tuple[dict[int, Call], Tensor]] = []
        self._beginnings = Beginnings(model, architecture)
        self._blocks: dict[tuple[int, int], DenseBlock] = {}
        self._keeps = is_shared and kept_bytes(architecture, corpus) > 0

    def run(self) -> None:
        """Run the text through the model now, if the result is kept."""
        if not self._keeps or self._blocks:
            return
        with evaluating(self.model):
            for index in range(len(self.batches)):
                before: Tensor | None = None
                for layer in range(len(self.architecture.blocks)):
                    before = self.block(index, layer, before).after

    def start(self, index: int) -> tuple[dict[int, Call], Tensor]:
        """The calls of a batch's blocks, and the stream before the first block."""
        while len(self._starts) <= index:
            self._starts.append(self._beginnings.of(self.batches[len(self._starts)]))
        return self._starts[index]

    def block(self, index: int, layer: int, before: Tensor | None) -> DenseBlock:
        """Run a block on a batch, with the stream ``before``."""
        known = self._blocks.get((index, layer))
        if known is not None:
            return known
        block = self.architecture.blocks[layer]
        calls, first = self.start(index)
        assert block.mlp is not None
        stream = first if before is None else before
        after, seen = run_block(calls[layer], block.module, block.mlp, stream)
        found = DenseBlock(seen["out"], after)
        if self._keeps:
            self._blocks[index, layer] = found
        return found


def kept_bytes(architecture: Architecture, corpus: Corpus) -> int:
    """Bytes that :class:`DenseStreams` keeps for the next pruned model; 0 if that is too much."""
    n_bytes = 4 * 2 * len(architecture.blocks) * len(corpus.ids) * architecture.n_hidden
    return n_bytes if n_bytes <= _MOST_KEPT_BYTES else 0
