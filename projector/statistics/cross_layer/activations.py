"""Activations of several layers over the same tokens, stored on disk in the model's dtype.

A file holds the activations of one layer in one batch. A batch is complete once the file of its
tokens exists, so an interrupted run resumes after the last complete batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from projector.storage.replacing import replacing_file
from projector.storage.tensors import TensorFile, write_tensors

# Below and above these, as in `projector/statistics/covariance.py`, there is no variance.
_LEAST_VARIANCE = torch.finfo(torch.float32).tiny
_GREATEST_VARIANCE = torch.finfo(torch.float32).max
# Tokens whose products are summed in float32 before float64 takes over.
ROWS_AT_ONCE = 4096
# Small batches are joined to at least so many tokens: each product is added to a whole tile.
LEAST_ROWS = 1024
# Neurons whose sums of squares are taken at once.
_NEURONS_AT_ONCE = 256
_NAME = "rows"


@dataclass(frozen=True)
class Standards:
    """The means and scales that standardise one layer's activations.

    Attributes:
        n_neurons: N, all neurons of the layer.
        alive: (n,) int64, the neurons that have correlations: finite on every token, and not
            constant.
        mean: (n,) float64.
        scale: (n,) float64, 1/σ over the tokens.
    """

    n_neurons: int
    alive: Tensor
    mean: Tensor
    scale: Tensor

    @property
    def n(self) -> int:
        """Number of neurons that have correlations."""
        return len(self.alive)

    def standardised(self, rows: Tensor, columns: Tensor | slice, device: torch.device) -> Tensor:
        """Standardise activations to mean 0 and mean square 1 over all tokens, in float32.

        The mean is subtracted in two float32 parts, so that no precision is lost if it is far
        larger than σ.

        Args:
            rows: (n_tokens, N), the model's activations.
            columns: indices among the n neurons that have correlations.

        Returns:
            (n_tokens, n_columns) on ``device``.
        """
        chosen = self.alive[columns]
        values = rows if len(chosen) == rows.shape[1] else rows.index_select(1, chosen)
        # A copy in any case: the caller's rows stay as they are.
        found = values.to(device, torch.float32, copy=True)
        mean = self.mean[columns].to(found.device)
        high = mean.float()
        found -= high
        found -= (mean - high.double()).float()
        found *= self.scale[columns].to(found.device).float()
        return found


class KeptActivations:
    """Activations of several layers over T tokens, stored in a folder.

    Args:
        folder: the folder of the files; it may hold other files too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, batch: int) -> bool:
        """Whether a batch is complete."""
        return self._tokens(batch).exists()

    def keep(self, batch: int, layer: int, rows: Tensor) -> Tensor:
        """Write one layer's activations for the tokens of a batch.

        Args:
            rows: (n_tokens, N), in any float dtype.

        Returns:
            (n_tokens,) bool, tokens on which every neuron is NaN or infinite.

        Raises:
            OSError: if the disk is full or not writable.
        """
        with replacing_file(self._layer(batch, layer)) as partial:
            write_tensors(partial, {_NAME: rows.detach()})
        return ~rows.isfinite().any(dim=1).cpu()

    def finish(self, batch: int, is_lost: Tensor) -> None:
        """Mark a batch as complete.

        Args:
            is_lost: (n_tokens,) bool, tokens on which every neuron of some layer is NaN or
                infinite.

        Raises:
            OSError: if the disk is full or not writable.
        """
        with replacing_file(self._tokens(batch)) as partial:
            write_tensors(partial, {_NAME: is_lost})
        self.__dict__.pop("_lost", None)

    @cached_property
    def _lost(self) -> tuple[Tensor, ...]:
        """Of each batch, the tokens that are left out of all layers."""
        found: list[Tensor] = []
        while self.has(len(found)):
            found.append(TensorFile(self._tokens(len(found)))[_NAME])
        return tuple(found)

    @property
    def n_tokens(self) -> int:
        """T, the number of tokens that count in every layer."""
        return sum(int((~lost).sum()) for lost in self._lost)

    @property
    def n_left_out(self) -> int:
        """Number of tokens on which every neuron of some layer is NaN or infinite."""
        return sum(int(lost.sum()) for lost in self._lost)

    def rows(self, layer: int) -> Iterator[Tensor]:
        """Yield one layer's activations in order, (up to ``ROWS_AT_ONCE``, N) at a time; batches
        with fewer than ``LEAST_ROWS`` tokens are combined.
        """
        joined: list[Tensor] = []
        last = len(self._lost) - 1
        for batch, lost in enumerate(self._lost):
            rows = TensorFile(self._layer(batch, layer))[_NAME]
            joined.append(rows[~lost] if bool(lost.any()) else rows)
            if batch < last and sum(map(len, joined)) < LEAST_ROWS:
                continue
            rows = joined[0] if len(joined) == 1 else torch.cat(joined)
            joined = []
            # Equal parts: a short last one would be slow to multiply.
            n_parts = max(1, -(-len(rows) // ROWS_AT_ONCE))
            yield from rows.tensor_split(n_parts)

    def standards(self, layer: int) -> Standards:
        """Mean and σ of every neuron in float64, in two passes over the layer's files."""
        total: Tensor | None = None
        for rows in self.rows(layer):
            if total is None:
                n_neurons = rows.shape[1]
                total = torch.zeros(n_neurons, dtype=torch.float64)
                least = torch.full((n_neurons,), torch.inf, dtype=torch.float64)
                greatest, is_finite = -least, torch.ones(n_neurons, dtype=torch.bool)
            is_finite &= rows.isfinite().all(dim=0)
            least = torch.minimum(least, rows.amin(dim=0).double())
            greatest = torch.maximum(greatest, rows.amax(dim=0).double())
            total += rows.sum(dim=0, dtype=torch.float64)
        if total is None:
            raise ValueError(f"no batch of layer {layer} is stored")
        mean = total / self.n_tokens
        squares = torch.zeros_like(total)
        for rows in self.rows(layer):
            for first in range(0, len(total), _NEURONS_AT_ONCE):
                some = slice(first, first + _NEURONS_AT_ONCE)
                squares[some] += (rows[:, some].double() - mean[some]).square().sum(dim=0)
        variance = squares / self.n_tokens
        # What rounding leaves of a neuron that never changes is not variance.
        is_alive = is_finite & (least < greatest)
        is_alive &= (variance >= _LEAST_VARIANCE) & (variance <= _GREATEST_VARIANCE)
        alive = is_alive.nonzero()[:, 0]
        return Standards(len(total), alive, mean[alive], variance[alive].rsqrt())

    def keep_shuffled(self, layer: int, standards: Standards, n_drawn: int, seed: int) -> None:
        """Write standardised activations of evenly drawn neurons, with their tokens in a random
        order.

        All neurons of a layer have the same random order. An existing file is kept.

        Args:
            n_drawn: largest number of neurons to draw.

        Raises:
            OSError: if the disk is full or not writable.
        """
        path = self._shuffled(layer)
        if path.exists():
            return
        n_drawn = min(n_drawn, standards.n)
        columns = torch.arange(n_drawn) * standards.n // max(n_drawn, 1)
        cpu = torch.device("cpu")
        parts = [standards.standardised(rows, columns, cpu) for rows in self.rows(layer)]
        generator = torch.Generator().manual_seed(_seed_of(seed, layer))
        order = torch.randperm(self.n_tokens, generator=generator)
        with replacing_file(path) as partial:
            write_tensors(partial, {_NAME: torch.cat(parts)[order]})

    def shuffled(self, layer: int) -> Tensor:
        """The activations that :meth:`keep_shuffled` wrote, (T, m) float32."""
        return TensorFile(self._shuffled(layer))[_NAME]

    def _layer(self, batch: int, layer: int) -> Path:
        return self.folder / f"activations-{batch:05}-{layer:03}.safetensors"

    def _tokens(self, batch: int) -> Path:
        return self.folder / f"tokens-{batch:05}.safetensors"

    def _shuffled(self, layer: int) -> Path:
        return self.folder / f"shuffled-{layer:03}.safetensors"


def _seed_of(seed: int, layer: int) -> int:
    """Each layer has a draw of its own."""
    return seed * 10_000 + layer
