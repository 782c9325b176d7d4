"""Memory that making layers takes besides the loaded model, reported before it starts.

Of the widest layer, of N neurons of which K stay, between streams that are H wide, over T tokens:

    sums        8 N²            both sums, of each the upper triangle
    planning    8 (p N² + 3 H N)    p working matrices in float64, see :attr:`Method.matrices`
    refitting   8 (r K² + 3 H N), or 8 (3 N² + 3 H N)    r: 6.5, or 8.5 where a bias absorbs means
    batch       4 B (6 N + 12 H)    of the B tokens that run at once
    streams     2 T H b         in front of a block and behind it, of b bytes a number; or on disk
    beside      b Σ (3 H K)     cut weights of all layers, where none can be written over dense ones

The peak is the sums, the greatest of planning, refitting and batch, the streams, and what is
beside.

A refit that trains comes after that, when sums and streams are gone. Its own take

    tokens      T H (24 + 5 b)  what one MLP reads and is to give, and the streams of both models
    products    8 (t K²)        of its neurons, and the fit that training begins at; t: 6.5, or 8.5
    weights     96 H K + 4 S (8 K + 4 H)    as Adam has them, and a step of S tokens
    batch       as above
    models      b Σ (3 H K)     cut MLPs of all layers: the dense ones stay until all are trained

and the peak is the greater of the two. On disk, until the run is done, made layers take

    layers      Σ b H (K + 1)       over layers, and recipes whose refit gives an output
    plans       Σ (4 K + 16 R)      over layers and plans; R stand-ins, and 4 N more of averages

and streams that do not fit in memory. Each process of a sweep also holds the cut MLPs of one model,
and streams of the dense model for the next refit that trains.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
from pruning.methods.standins import MOST_STAND_INS
from pruning.refit.reconstruction import training_bytes
from pruning.refit.streams import kept_bytes
from pruning.surgery import can_cut_in_place

# N × N working matrices by what a method reads, for methods whose record does not give a number.
_PLANNING = {"regular moments": 5.5, "moments": 3, "activations": 3, "weights": 1}
# Of K × K, where moments are about zero and where they are about the mean; of N × N before that.
_REFITTING, _REFITTING_CENTRED, _TAKING = 6.5, 8.5, 3
# Share of the free memory that is used where no budget is given.
_SHARE_OF_FREE = 0.9


@dataclass(frozen=True)
class Needs:
    """Bytes that the layer with the highest need takes besides the loaded model and the libraries.

    Attributes:
        layer: number of that layer; ``n_neurons``: how many neurons it has.
        sums, working, streams, beside: see the formulas of this module; ``working`` is the
            greatest of planning, refitting and batch.
        after: bytes taken once the layers are made: by training, and by models of a sweep.
        disk: bytes of the layers that are made, until the run is done.
        spilled: whether the streams are on disk.
    """

    layer: int
    n_neurons: int
    sums: int
    working: int
    streams: int
    beside: int = 0
    after: int = 0
    disk: int = 0
    spilled: bool = False

    @property
    def least(self) -> int:
        """Bytes with the streams on disk."""
        return self.beside + max(self.sums + self.working, self.after)

    @property
    def total(self) -> int:
        """Bytes in the chosen arrangement of the streams."""
        streams = 0 if self.spilled else self.streams
        return self.beside + max(self.sums + self.working + streams, self.after)

    def parts(self) -> str:
        """The parts of the total, in words."""
        where = "on disk" if self.spilled else "in memory"
        told = [
            f"{size_text(self.sums)} for sums, {size_text(self.working)} to work with, streams of "
            f"{size_text(self.streams)} {where}"
        ]
        if self.beside:
            told.append(f"{size_text(self.beside)} for cut weights")
        if self.after:
            told.append(f"once layers are made, {size_text(self.after)} for cut models")
        if self.disk:
            told.append(f"{enough_text(self.disk)} on disk for layers, until the run is done")
        return "; ".join(told)


def needs_of(
    model: nn.Module,
    architecture: Architecture,
    corpus: Corpus,
    recipes: Sequence[Recipe],
    *,
    of_sweep: bool = False,
) -> Needs:
    """Memory that these recipes need for this model and text.

    Args:
        of_sweep: the model stays as it is, and a cut model is made for each recipe in turn.
    """
    first = next(model.parameters())
    n_hidden, itemsize = architecture.n_hidden, first.element_size()
    n_at_once = min(corpus.n_sequences, DEFAULT_BATCH) * _longest(corpus)
    mlps = mlps_of(architecture)
    widths = [mlp.n_neurons for mlp in mlps]
    layer = max(range(len(widths)), key=lambda each: widths[each])
    n = widths[layer]
    is_centred = can_have_bias(model, architecture)
    weights = 3 * 8 * n_hidden * n
    working = batch_bytes(n_at_once, n, n_hidden)
    beside = after = 0
    for recipe in recipes:
        planning = _planning_matrices(recipe)
        working = max(working, int(8 * planning * n**2) + weights)
        refit = recipe.of_refit
        kept = recipe.uniform_widths(widths) if recipe.allocation == "uniform" else widths
        n_kept = kept[layer]
        matrices = _REFITTING_CENTRED if is_centred else _REFITTING
        if refit.output is not None:
            squares = matrices * n_kept**2 if refit.needs_regular_moments else 0.0
            working = max(working, int(8 * max(squares, _TAKING * n**2)) + weights)
        cut = sum(
            (len(mlp.inputs) * (1 + mlp.fused) + 1) * n_hidden * each * itemsize
            for mlp, each in zip(mlps, kept, strict=True)
        )
        own = 0
        if refit.trains:
            own = training_bytes(len(corpus.ids), n_hidden, n_kept, matrices, itemsize)
            own += batch_bytes(n_at_once, n, n_hidden)
            if of_sweep:
                own += kept_bytes(architecture, corpus)
        if of_sweep or refit.trains:
            after = max(after, own + cut)
        elif not all(can_cut_in_place(mlp) for mlp in mlps):
            beside = max(beside, cut)
    streams = streams_bytes(corpus, n_hidden, itemsize)
    applied = [each for each in recipes if is_centred or not each.of_refit.needs_bias]
    disk = _layers_bytes(applied, widths, n_hidden, itemsize)
    return Needs(layer, n, sums_bytes(n, first.device), working, streams, beside, after, disk)


def _layers_bytes(
    recipes: Sequence[Recipe], widths: Sequence[int], n_hidden: int, itemsize: int
) -> int:
    """Bytes of made layers on disk; approximate where layers give unequal shares."""
    total = 0
    plans: set[tuple[str, float, bool]] = set()
    for recipe in recipes:
        method, refit = recipe.of_method, recipe.of_refit
        key = (method.name, recipe.sparsity, refit.changes_weights)
        is_new = key not in plans
        plans.add(key)
        for n, kept in zip(widths, recipe.uniform_widths(widths), strict=True):
            if refit.output is not None:
                total += itemsize * n_hidden * (kept + 1)
            if is_new:
                total += 4 * kept + (4 * n if method.averages else 0)
                stand_ins = min(MOST_STAND_INS, kept) if method.hands_on else 0
                total += 16 * stand_ins * (n - kept)
    return total


def _planning_matrices(recipe: Recipe) -> float:
    method = recipe.of_method
    if method.matrices is not None:
        return method.matrices
    return max((_PLANNING.get(what, 0) for what in method.reads), default=0)


def _longest(corpus: Corpus) -> int:
    return int((corpus.starts[1:] - corpus.starts[:-1]).max())


def within(needs: Needs, budget: int | None, *, n_at_once: int = 1) -> Needs:
    """The same needs, with the streams on disk if memory is short.

    Args:
        n_at_once: number of processes that share the memory.
        budget: bytes that may be taken besides the loaded model; None for the free memory, less a
            margin.

    Raises:
        UserError: if one layer does not fit.
    """
    free = int(psutil.virtual_memory().available)
    room = (int(_SHARE_OF_FREE * free) if budget is None else budget) // n_at_once
    spilled = replace(needs, spilled=needs.total > room)
    if spilled.total <= room:
        return spilled
    limit = f"the {size_text(room)} that the run may take of {size_text(free)} free memory"
    if n_at_once > 1:
        limit = f"the {size_text(room)} that each of {n_at_once} processes may take"
    remedy = f"free some memory, or give fewer {named('n_sequences')}"
    if budget is not None:
        share = f", {size_text(room)} for each of {n_at_once} processes" if n_at_once > 1 else ""
        limit = f"the budget of {size_text(budget)}{share}"
        enough = "that much" if n_at_once == 1 else enough_text(spilled.total * n_at_once)
        remedy = f"raise {named('memory_budget')} to {enough}"
    whose = f"layer {needs.layer}, of {needs.n_neurons:,} neurons,"
    if needs.after > needs.sums + needs.working:
        whose = "a cut model"
    raise UserError(
        f"{whose} needs {enough_text(spilled.total)} of memory in addition to the model "
        f"({spilled.parts()}), more than {limit}: {remedy}",
        setting="memory_budget",
        value=budget,
        expected=f"{spilled.total * n_at_once} or more",
    )


def check_disk(needs: Needs, folder: Path, *, n_at_once: int = 1) -> None:
    """Raise a UserError if made layers and streams don't fit on the disk of ``folder``.

    Args:
        folder: where they will be written; files that are there already are counted.
        n_at_once: number of processes, each with its own streams.
    """
    existing = folder.resolve()
    while not existing.exists():
        existing = existing.parent
    there = sum(path.stat().st_size for path in folder.glob("**/*.safetensors"))
    wanted = needs.disk + (n_at_once * needs.streams if needs.spilled else 0)
    free = shutil.disk_usage(existing).free
    if wanted > free + there:
        raise UserError(
            f"no space left: layers take up to {enough_text(wanted)} in '{folder}' until the run "
            f"is done, and {size_text(free)} is free: free some space, or give a folder on "
            f"another disk for {named('out')}",
            setting="out",
            value=str(folder),
        )
