"""What calibration takes beside the loaded model, in bytes."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from projector.corpus.batches import Corpus
from projector.errors import named
from projector.memory import out_of_memory, size_text
from projector.model.architecture.records import Architecture
from projector.statistics.covariance import packed_numel
from pruning.calibration.mlps import mlps_of


def sums_bytes(n_neurons: int, device: torch.device) -> int:
    """A layer's two sums: over the tokens of the fit, and over the held-out ones."""
    return 2 * 8 * packed_numel(n_neurons, device)


def streams_bytes(corpus: Corpus, n_hidden: int, itemsize: int) -> int:
    """The residual stream in front of a block and behind it, of all tokens."""
    return 2 * len(corpus.ids) * n_hidden * itemsize


def batch_bytes(n_tokens: int, n_neurons: int, n_hidden: int) -> int:
    """What one block makes of a batch, and the rows of its neurons in float32 on their way into
    the sums: six times the neurons (gate, up, their product, the rows that count, the same
    centred, and what a product of them takes), and twelve times the stream."""
    return 4 * n_tokens * (6 * n_neurons + 12 * n_hidden)


def pruning_memory(architecture: Architecture) -> AbstractContextManager[None]:
    """Turn what a full memory raises while calibrating, planning or refitting into one line."""
    widest = max(mlp.n_neurons for mlp in mlps_of(architecture))
    return out_of_memory(
        f": one matrix of {widest:,} × {widest:,} neurons takes {size_text(8 * widest**2)}: make "
        f"memory free, or take fewer {named('n_workers')} or fewer {named('n_sequences')}"
    )
