"""What calibration takes beside the loaded model, in bytes."""

from __future__ import annotations

from contextlib import AbstractContextManager

import psutil
import torch

from projector.corpus.batches import Corpus
from projector.errors import UserError, named
from projector.memory import out_of_memory, size_text
from projector.model.architecture.records import Architecture
from projector.statistics.covariance import packed_numel
from pruning.calibration.mlps import mlps_of
from pruning.calibration.walk import sums_on


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


def check_memory(architecture: Architecture, device: torch.device) -> None:
    """Raise a UserError if the moments of all layers at once do not fit into memory.

    And, while one layer after another is planned, a few matrices.
    """
    free = psutil.virtual_memory().available
    widths = [mlp.n_neurons for mlp in mlps_of(architecture)]
    widest = max(widths)
    n_bytes = 6 * 8 * widest**2
    if sums_on(sum(8 * n**2 for n in widths), device).type == "cpu":
        n_bytes += sum(sums_bytes(n, device) for n in widths)
    if n_bytes > free:
        raise UserError(
            f"out of memory: the moments of {len(widths)} layers of up to {widest:,} "
            f"neurons take {size_text(n_bytes)}, and {size_text(free)} are free"
        )


def pruning_memory(architecture: Architecture) -> AbstractContextManager[None]:
    """Turn what a full memory raises while calibrating, planning or refitting into one line."""
    widest = max(mlp.n_neurons for mlp in mlps_of(architecture))
    return out_of_memory(
        f": one matrix of {widest:,} × {widest:,} neurons takes {size_text(8 * widest**2)}: make "
        f"memory free, or take fewer {named('n_workers')} or fewer {named('n_sequences')}"
    )
