"""What finding partners across layers takes of time, memory and disk, before it begins."""

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
    """Which tokens are read, and what is held at a time.

    Attributes:
        corpus: the sequences whose tokens are read.
        widths: layer → its neurons.
        n_columns: neurons of the later layer in a tile, shuffled ones among them.
        n_positions: tokens of a batch, padding included.
        itemsize: bytes of a number that the model computes.
        batch_bytes: what a batch takes while the model runs.
        room: bytes that all of it may take.
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
        """Layers whose neurons are correlated, ascending."""
        return tuple(self.widths)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every two of them, the earlier one first."""
        return layer_pairs(self.layers)

    @cached_property
    def operations(self) -> int:
        """Multiplications and additions of all products: pairs of layers with the shuffled columns,
        rotated tiles, and the rotations themselves."""
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
        """What is on disk until it is done, at most: all activations, a rotation of each layer, and
        what pairs gave."""
        numbers = sum(self.itemsize * n + 4 * min(n, N_SHUFFLED) for n in self.widths.values())
        found = sum(68 * (self.widths[i] + self.widths[j]) for i, j in self.pairs)
        rotations = sum(4 * n * n for n in self.widths.values())
        return self.corpus.n_tokens * numbers + found + rotations

    @property
    def kept_bytes(self) -> int:
        """What the projection keeps of it."""
        return 2 * (8 * 12 + 4) * sum(self.widths.values())

    @property
    def n_bytes(self) -> int:
        """The most that is held at one time beside the model: see :func:`bytes_for`."""
        return self.bytes_for(self.n_columns)

    @property
    def least_bytes(self) -> int:
        """The same, with tiles as small as they may be."""
        return self.bytes_for(min(self.n_columns, _LEAST_COLUMNS))

    def bytes_for(self, n_columns: int) -> int:
        """The most at one time, in bytes, where a tile has so many columns.

        With N neurons in the widest layer, T tokens, m shuffled columns, b columns in a tile and R
        tokens at once it is the most of: a batch under way; 12·T·m, while tokens are shuffled;
        16·N², while a rotation is made; and 12·N² + 16·N·b + 8·R·(N + b) + 4·T·m, while a tile is
        summed. To any of these come two layers' rows of a batch as the model gave them, where
        batches are small of ``LEAST_ROWS`` tokens more and a copy of one layer's, and the
        libraries.
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
        """What two runs must share for one to resume the other."""
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
    """Which tokens are read, and how many neurons of the later layer a tile has.

    Args:
        corpus: all that the fit reads.
        widths: layer → its neurons, of layers that have MLP neurons.
        most_tokens: most tokens to read; of a larger corpus, whole sequences, evenly drawn.
        n_positions: tokens of a batch, padding included.
        itemsize: bytes of a number that the model computes.
        widest: neurons of the model's widest site.
        budget: bytes that it may take beside the model; None for what is free, less a margin.
        free: bytes that are free.

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
    """Whole sequences of a corpus, evenly drawn, of about so many tokens that count, and no more
    where it has more than one sequence.

    The model need not run over the others, as it would were single tokens drawn.
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
    """How long the products take, by a trial of a small one on this device."""
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
