"""Memory that calibration takes besides the loaded model, in bytes."""

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
    """Bytes of a layer's two sums: over the tokens of the fit, and over the held-out tokens."""
    return 2 * 8 * packed_numel(n_neurons, device)


def streams_bytes(corpus: Corpus, n_hidden: int, itemsize: int) -> int:
    """Bytes of the residual stream of all tokens, before and after a block."""
    return 2 * len(corpus.ids) * n_hidden * itemsize


def batch_bytes(n_tokens: int, n_neurons: int, n_hidden: int) -> int:
    """Bytes of one block's activations on a batch, and of the float32 rows that are added to the
    sums: six times the neurons (gate, up, their product, the rows that count, the same rows
    centred, and a product's working memory), and twelve times the stream.
    """
    return 4 * n_tokens * (6 * n_neurons + 12 * n_hidden)


def pruning_memory(architecture: Architecture) -> AbstractContextManager[None]:
    """Turn an out-of-memory error of calibrating, planning or refitting into a one-line error."""
    widest = max(mlp.n_neurons for mlp in mlps_of(architecture))
    return out_of_memory(
        f": one matrix of {widest:,} × {widest:,} neurons takes {size_text(8 * widest**2)}: free "
        f"memory, or give fewer {named('n_workers')} or fewer {named('n_sequences')}"
    )
