"""What making layers takes beside the loaded model, told before it begins.

Of the widest layer, of N neurons of which K stay, between streams that are H wide, over T tokens:

    sums        8 N²            both sums, of each the upper triangle
    planning    8 (p N² + 3 H N)    p working matrices in float64, see ``_PLANNING``
    refitting   8 (r K² + 3 H N), or 8 (3 N² + 3 H N)    r: 8, or 11 where a bias absorbs means
    batch       4 B (6 N + 12 H)    of the B tokens that run at once
    streams     2 T H b         in front of a block and behind it, of b bytes a number; or on disk
    training    4 (8 T H + 24 H N)    what one MLP reads and gives, and its weights as Adam has them

The peak is the sums, the greatest of planning, refitting and batch, and the streams; where a refit
trains, it is that or the training with the streams, whichever is more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
from torch import nn

from projector.corpus.batches import Corpus
from projector.errors import UserError, named
from projector.memory import enough_text, size_text
from projector.model.architecture.records import Architecture
from projector.model.architecture.widths import can_have_bias
from pruning.calibration.budget import batch_bytes, streams_bytes, sums_bytes
from pruning.calibration.mlps import mlps_of
from pruning.calibration.walk import DEFAULT_BATCH
from pruning.layerwise.recipes import Recipe

# Working matrices of N × N by what a method reads most of.
_PLANNING = {"regular moments": 6.5, "moments": 3, "activations": 3, "weights": 1}
# Of K × K, where moments are about zero and where they are about the mean; of N × N before that.
_REFITTING, _REFITTING_CENTRED, _TAKING = 8, 11, 3
# Of what is free, what is taken where no budget is given.
_SHARE_OF_FREE = 0.9


@dataclass(frozen=True)
class Needs:
    """Bytes beside the loaded model and the libraries; of the layer that takes most.

    Attributes:
        layer: which layer that is; ``n_neurons``: how many it has.
        sums, working, streams, training: see the formulas of this module; ``working`` is the
            greatest of planning, refitting and batch.
        spilled: whether the streams are on disk.
    """

    layer: int
    n_neurons: int
    sums: int
    working: int
    streams: int
    training: int
    spilled: bool = False

    @property
    def least(self) -> int:
        """With the streams on disk."""
        return max(self.sums + self.working, self.training)

    @property
    def total(self) -> int:
        """As it is to be."""
        return self.least + (0 if self.spilled else self.streams)

    def parts(self) -> str:
        """For a person, what it consists of."""
        where = "on disk" if self.spilled else "in memory"
        told = [f"{size_text(self.sums)} for sums", f"{size_text(self.working)} to work with"]
        if self.training:
            told.append(f"{size_text(self.training)} to train an MLP after that")
        return f"{', '.join(told)}; streams of {size_text(self.streams)} {where}"


def needs_of(
    model: nn.Module, architecture: Architecture, corpus: Corpus, recipes: Sequence[Recipe]
) -> Needs:
    """What these recipes take of this model and text."""
    first = next(model.parameters())
    n_hidden = architecture.n_hidden
    n_at_once = min(corpus.n_sequences, DEFAULT_BATCH) * _longest(corpus)
    widths = [mlp.n_neurons for mlp in mlps_of(architecture)]
    layer = max(range(len(widths)), key=lambda each: widths[each])
    n = widths[layer]
    weights = 3 * 8 * n_hidden * n
    working = batch_bytes(n_at_once, n, n_hidden)
    training = 0
    refits = [recipe for recipe in recipes if recipe.of_refit.output is not None]
    matrices = _REFITTING
    if refits and can_have_bias(model, architecture):
        matrices = _REFITTING_CENTRED
    for recipe in recipes:
        reads = recipe.of_method.reads
        planning = max((_PLANNING.get(what, 0) for what in reads), default=0)
        working = max(working, int(8 * planning * n**2) + weights)
        if recipe.of_refit.output is not None and recipe.of_refit.needs_regular_moments:
            n_kept = recipe.uniform_widths([n])[0] if recipe.allocation == "uniform" else n
            squares = max(matrices * n_kept**2, _TAKING * n**2)
            working = max(working, 8 * squares + weights)
        if recipe.of_refit.trains:
            training = 4 * (8 * len(corpus.ids) * n_hidden + 24 * n_hidden * n)
    streams = streams_bytes(corpus, n_hidden, first.element_size())
    return Needs(layer, n, sums_bytes(n, first.device), working, streams, training)


def _longest(corpus: Corpus) -> int:
    return int((corpus.starts[1:] - corpus.starts[:-1]).max())


def within(needs: Needs, budget: int | None, *, n_at_once: int = 1) -> Needs:
    """The same, the streams on disk where memory is short.

    Args:
        n_at_once: processes that share the memory.
        budget: bytes that may be taken beside the loaded model; None for what is free, less a
            margin.

    Raises:
        UserError: if one layer does not fit.
    """
    free = int(psutil.virtual_memory().available)
    room = (int(_SHARE_OF_FREE * free) if budget is None else budget) // n_at_once
    spilled = Needs(**{**vars(needs), "spilled": needs.total > room})
    if spilled.total <= room:
        return spilled
    limit = f"of {size_text(free)} that are free {size_text(room)} may be taken"
    if n_at_once > 1:
        limit = f"each of {n_at_once} processes may take {size_text(room)}"
    remedy = f"make memory free, or take fewer {named('n_sequences')}"
    if budget is not None:
        limit = f"the budget is {size_text(budget)}"
        remedy = f"raise {named('memory_budget')}"
    raise UserError(
        f"out of memory: layer {needs.layer}, of {needs.n_neurons:,} neurons, alone takes "
        f"{enough_text(spilled.total)} beside the model ({spilled.parts()}), and {limit}: {remedy}",
        setting="memory_budget",
        value=budget,
        expected=f"{spilled.total} or more",
    )
