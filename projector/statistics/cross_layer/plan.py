"""Estimate the time, memory and disk space for finding partners across layers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from projector.corpus.batches import Corpus
from projector.errors import SettingError, UserError, named
from projector.memory import enough_text, size_text
from projector.statistics.cross_layer.activations import LEAST_ROWS, ROWS_AT_ONCE
from projector.statistics.cross_layer.records import N_SHUFFLED, SITE, layer_pairs
from projector.statistics.precision import full_float32
from projector.statistics.sampling import evenly_drawn

# Of what is free, what is taken unasked; and what libraries take whatever is computed.
_SHARE_OF_FREE, _LIBRARIES_BYTES = 0.9, 96 << 20
# Neurons of the later layer that a tile has at least, where the layer has as many.
_LEAST_COLUMNS = 64
# Bytes of each number of a tile: its float64 sum, and a product or what is found of it in float32,
# with a copy that is sorted.
_TILE_BYTES = 16
# Of each entry of a rotation: the axes of both layers with the products of one, and what a rotation
# is made of.
_ROTATION_BYTES, _MAKING_BYTES = 12, 16
# Of a number that is standardised: itself and a product's copy of it.
_ROW_BYTES = 8
# Of a trial: how many products, of how many tokens, and of how many neurons on each side at most.
_TRIAL_PRODUCTS, _TRIAL_ROWS, _TRIAL_NEURONS = 4, 1024, 1024


@dataclass(frozen=True)
class CrossLayerPlan:
    """The tokens to read, and the sizes of batches and tiles.

    Attributes:
        corpus: the sequences whose tokens are read.
        widths: layer → number of neurons.
        n_columns: number of neurons of the later layer per tile, including shuffled ones.
        n_positions: number of tokens per batch, padding included.
        itemsize: bytes per number in the model's dtype.
        batch_bytes: memory of a batch while the model runs.
        room: memory limit, in bytes.
    """

    corpus: Corpus
    widths: Mapping[int, int]
    n_columns: int
    n_positions: int
    itemsize: int
    batch_bytes: int
    room: int

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers to correlate, ascending."""
        return tuple(self.widths)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """All pairs of layers, the earlier layer first."""
        return layer_pairs(self.layers)

    @cached_property
    def operations(self) -> int:
        """Number of multiplications and additions in all products: pairs of layers with the
        shuffled columns, rotated tiles, and the rotations themselves.
        """
        n_tokens, total = self.corpus.n_tokens, 0
        for i, j in self.pairs:
            n, m = self.widths[i], self.widths[j]
            total += 2 * n_tokens * n * (m + min(m, N_SHUFFLED))
            # Both layers' neurons beside random axes of the other.
            total += 2 * n * m * (n + m)
        for layer in self.layers:
            n = self.widths[layer]
            total += 2 * n_tokens * n * n + 8 * n**3 // 3
        return total

    @property
    def disk_bytes(self) -> int:
        """Largest disk space during the run: all activations, one rotation per layer, and the
        results of the pairs.
        """
        numbers = sum(self.itemsize * n + 4 * min(n, N_SHUFFLED) for n in self.widths.values())
        found = sum(68 * (self.widths[i] + self.widths[j]) for i, j in self.pairs)
        rotations = sum(4 * n * n for n in self.widths.values())
        return self.corpus.n_tokens * numbers + found + rotations

    @property
    def kept_bytes(self) -> int:
        """Disk space of the results in the projection."""
        return 2 * (8 * 12 + 4) * sum(self.widths.values())

    @property
    def n_bytes(self) -> int:
        """Peak memory in addition to the model; see :func:`bytes_for`."""
        return self.bytes_for(self.n_columns)

    @property
    def least_bytes(self) -> int:
        """Peak memory with the smallest possible tiles."""
        return self.bytes_for(min(self.n_columns, _LEAST_COLUMNS))

    def bytes_for(self, n_columns: int) -> int:
        """Peak memory in bytes for a given number of columns per tile.

        With N neurons in the widest layer, T tokens, m shuffled columns, b columns in a tile and R
        tokens at a time, it is the maximum of: a batch in the model; 12·T·m, while tokens are
        shuffled; 16·N², while a rotation is drawn; and 12·N² + 16·N·b + 8·R·(N + b) + 4·T·m, while
        a tile is summed. Two layers' rows of a batch in the model's dtype (with small batches,
        ``LEAST_ROWS`` tokens more and a copy of one layer's rows) and the libraries are added to
        this.
        """
        n = max(self.widths.values())
        b = min(n_columns, n + min(n, N_SHUFFLED))
        # Small batches are joined, which holds a copy of one layer's.
        is_joined = self.n_positions < LEAST_ROWS
        most = self.n_positions + (LEAST_ROWS if is_joined else 0)
        rows = min(most, self.corpus.n_tokens, ROWS_AT_ONCE)
        tile = _ROTATION_BYTES * n * n + _TILE_BYTES * n * b + _ROW_BYTES * rows * (n + b)
        shuffled = self.corpus.n_tokens * min(n, N_SHUFFLED)
        tile += 4 * shuffled
        making = max(_MAKING_BYTES * n * n, 12 * shuffled)
        read = (3 if is_joined else 2) * self.itemsize * n * min(most, self.corpus.n_tokens)
        return max(self.batch_bytes, making, tile) + read + _LIBRARIES_BYTES

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that must match for one run to resume another."""
        return {
            "tokens": self.corpus.ids_sha256,
            "n_tokens": self.corpus.n_tokens,
            "layers": list(self.layers),
            "n_positions": self.n_positions,
        }


def plan_cross_layer(
    corpus: Corpus,
    widths: Mapping[int, int],
    *,
    most_tokens: int,
    n_positions: int,
    itemsize: int,
    widest: int,
    budget: int | None,
    free: int,
) -> CrossLayerPlan:
    """Choose the tokens to read, and the number of neurons of the later layer per tile.

    Args:
        corpus: the corpus of the fit.
        widths: layer → number of neurons, for layers that have MLP neurons.
        most_tokens: largest number of tokens to read; from a larger corpus, whole sequences are
            drawn evenly.
        n_positions: number of tokens per batch, padding included.
        itemsize: bytes per number in the model's dtype.
        widest: number of neurons of the model's widest site.
        budget: memory limit in bytes, in addition to the model; None for the free memory less a
            margin.
        free: free memory in bytes.

    Raises:
        SettingError: on ``layers``, if there are fewer than two.
        UserError: on ``memory_budget``, if a tile does not fit in memory.
    """
    if len(widths) < 2:
        raise SettingError(
            "layers",
            sorted(widths),
            f"has fewer than two layers with {SITE}",
            f"give two or more, or leave {named('cross_layer', True)} out",
        )
    room = int(_SHARE_OF_FREE * free) if budget is None else budget
    ordered = dict(sorted(widths.items()))
    n = max(ordered.values())
    whole = n + min(n, N_SHUFFLED)
    plan = CrossLayerPlan(
        some_sequences(corpus, most_tokens),
        ordered,
        whole,
        n_positions,
        itemsize,
        n_positions * widest * 20,
        room,
    )
    least = min(whole, _LEAST_COLUMNS)
    if plan.bytes_for(least) > room:
        given = f"only {size_text(free)} is free" if budget is None else size_text(budget)
        raise UserError(
            f"partners across layers need {enough_text(plan.bytes_for(least))} of memory for a "
            f"tile of {n:,} × {least} correlations, and {named('memory_budget')} is {given}: give "
            f"more, or lower {named('batch_size')} or {named('cross_layer_tokens')}",
            setting="memory_budget",
            value=budget,
        )
    # By halves, so that a little more or less of free memory changes nothing.
    columns = whole
    while columns > least and plan.bytes_for(columns) > room:
        columns = max(least, -(-columns // 2))
    return replace(plan, n_columns=columns)


def some_sequences(corpus: Corpus, most_tokens: int) -> Corpus:
    """Draw whole sequences of a corpus evenly, with about this many tokens that count; never more,
    unless the corpus has only one sequence.

    The model doesn't need to run over the remaining sequences, as it would if single tokens were
    drawn.
    """
    if corpus.n_tokens <= most_tokens:
        return corpus
    lengths = np.diff(corpus.starts)
    counts = np.maximum(lengths - corpus.skip_first, 0)
    n_drawn = max(1, int(corpus.n_sequences * most_tokens / corpus.n_tokens))
    while True:
        chosen = evenly_drawn(corpus.n_sequences, n_drawn).numpy()
        n_tokens = int(counts[chosen].sum())
        if n_tokens <= most_tokens or n_drawn == 1:
            break
        n_drawn -= 1
    parts = [corpus.ids[corpus.starts[i] : corpus.starts[i + 1]] for i in chosen]
    starts = np.concatenate([[0], np.cumsum(lengths[chosen])]).astype(corpus.starts.dtype)
    return replace(corpus, ids=np.concatenate(parts), starts=starts, n_tokens=n_tokens)


def seconds_of_products(plan: CrossLayerPlan, device: torch.device) -> float:
    """Estimate the time of the products by timing a small one on this device."""
    n = min(max(plan.widths.values()), _TRIAL_NEURONS)
    rows = torch.ones(_TRIAL_ROWS, n, device=device)
    with full_float32():
        # The first is slower: it loads kernels.
        for n_products in (1, _TRIAL_PRODUCTS):
            began = time.monotonic()
            for _ in range(n_products):
                # Waits until a GPU is done.
                float((rows.T @ rows)[0, 0])
    seconds = (time.monotonic() - began) / _TRIAL_PRODUCTS
    return plan.operations * seconds / (2 * _TRIAL_ROWS * n * n)
