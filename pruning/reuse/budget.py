"""Memory that an experiment on reuse takes besides the loaded model, reported before it begins.

For the widest layer, with N neurons, P partners in earlier layers in all rows of a seed and share,
and a stream of width H:

    sums       8 (N + P)²                                   the upper triangles of both sums
    fitting    8 (max(3 (N + P)², 11 N²) + 3 H (N + P))     what a refit reads, and works with

Sums of several layers are gathered in one pass if they fit; the rows' fitted layers are on disk. P
is at most what all rows of a share reuse. A share s of all MLPs' operations is a larger share s' of
those behind the first layer, for which s' c / (c − H) N neurons take the values of chosen partners,
as many the values of random ones, as many again in reuse where it pays and in its control, and s' N
write early; no more than earlier layers have. There are two rows with k partners, each with k s' c
/ (c − H − k) N.

A scored model with weights of b bytes takes, with T positions of V logits at once,

    model      b (Σ c N + Σ H N) + 16 H N       its MLPs, what they were made of, and early columns
    scoring    (b + 4) V T + 4 T max(6 N + 12 H)    logits, and what a block makes

Partners that no projection holds are found before that; the pruning method is planned after it, and
its model scored. The peak is the largest of all these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import psutil
from torch import nn

from projector.corpus.batches import Corpus
from projector.errors import UserError, named
from projector.memory import enough_text, size_text
from projector.model.architecture.records import Architecture
from pruning.layerwise.budget import needs_of
from pruning.layerwise.recipes import Recipe
from pruning.refit.closed_form import LEAST_SQUARES
from pruning.reuse.replacing.moments import DEFAULT_BYTES
from pruning.reuse.replacing.operations import (
    LayerOperations,
    dense_operations,
    summed,
    total_of,
)
from pruning.reuse.settings import ReuseSettings
from pruning.scoring.perplexity import batch_size_of
from pruning.scoring.windows import EvaluationText

# Matrices of a refit: for all moments, and for those of kept neurons and columns.
_READ, _WORKING = 3, 11
# Share of the free memory that is used where no budget is given.
_SHARE_OF_FREE = 0.9


@dataclass(frozen=True)
class ReuseNeeds:
    """Bytes that an experiment takes besides the loaded model and the libraries.

    Attributes:
        layer: the layer that takes most; ``n_neurons``: its number of neurons; ``n_partners``: most
            partners in earlier layers that are read with them.
        sums, fitting, model, scoring: see the formulas of this module; ``sums`` of one layer, or of
            all layers that are gathered at once.
        all_sums: sums of all layers of a seed and share.
        chapter: bytes that the pruning method takes.
        partners: bytes that finding partners takes; 0 if a projection holds them.
    """

    layer: int
    n_neurons: int
    n_partners: int
    sums: int
    fitting: int
    all_sums: int
    chapter: int
    partners: int
    model: int
    scoring: int

    @property
    def total(self) -> int:
        """The peak, in bytes."""
        scored = self.model + self.scoring
        return max(self.sums + self.fitting, self.chapter, self.partners, scored)

    def within(self, budget: int | None) -> ReuseNeeds:
        """The same needs, with sums of as many layers at once as fit.

        Args:
            budget: bytes that may be taken besides the loaded model; None for free memory, less a
                margin.
        """
        room = room_of(budget) - self.fitting
        return replace(self, sums=max(self.sums, min(self.all_sums, DEFAULT_BYTES, room)))


def needs_of_reuse(
    model: nn.Module,
    architecture: Architecture,
    corpus: Corpus,
    text: EvaluationText,
    settings: ReuseSettings,
    *,
    partners: int = 0,
) -> ReuseNeeds:
    """Memory that these settings need for this model, with sums of one layer at once.

    Args:
        corpus: the sequences that one seed draws; ``text``: the text to score.
        partners: bytes that finding partners takes.
    """
    dense = dense_operations(architecture)
    behind = total_of(dense) / total_of(dense[1:])
    n_earlier, widths = 0, [(dense[0].n_computed, 0)]
    for each in dense:
        if n_earlier:
            read = max(_n_read(each, share * behind, settings) for share in settings.shares)
            widths.append((each.n_computed, min(read, n_earlier)))
        n_earlier += each.n_computed
    layer = max(range(1, len(widths)), key=lambda i: sum(widths[i]))
    n, both = widths[layer][0], sum(widths[layer])
    recipes = [
        Recipe(settings.pruning_method, LEAST_SQUARES.name, share)
        for share in settings.shares
        if share > 0
    ]
    n_hidden = architecture.n_hidden
    fitting = max(_READ * both**2, _WORKING * n**2) + 3 * n_hidden * both
    itemsize = next(model.parameters()).element_size()
    most = max(each.n_computed for each in dense)
    made = sum(each.total + n_hidden * each.n_computed for each in dense)
    own = itemsize * made + 16 * n_hidden * most
    vocabulary = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    n_positions = text.n_positions * batch_size_of(model, text.n_positions)
    scoring = (itemsize + 4) * vocabulary * n_positions
    scoring += 4 * n_positions * (6 * most + 12 * n_hidden)
    return ReuseNeeds(
        layer,
        n,
        both - n,
        8 * both**2,
        8 * fitting,
        sum(8 * sum(each) ** 2 for each in widths[1:]),
        needs_of(model, architecture, corpus, recipes).least,
        partners,
        own,
        scoring,
    )


def _n_read(layer: LayerOperations, share: float, settings: ReuseSettings) -> int:
    """Most partners of a layer in rows that are made together."""

    def reused(n_partners: int) -> int:
        column = layer.n_hidden + summed(n_partners)
        ratio = layer.neuron / max(1, layer.neuron - column)
        return min(layer.n_computed, ceil(layer.n_computed * share * ratio)) * n_partners

    n_partners = settings.n_partners
    several = 2 * reused(n_partners) if n_partners > 1 else 0
    return max(4 * reused(1) + ceil(layer.n_computed * share), several)


def room_of(budget: int | None) -> int:
    """Bytes that may be taken besides the loaded model.

    Args:
        budget: the given budget; None for the free memory, less a margin.
    """
    free = int(psutil.virtual_memory().available)
    return int(_SHARE_OF_FREE * free) if budget is None else budget


def check_needs(needs: ReuseNeeds, budget: int | None) -> None:
    """Raise a UserError if one layer takes more memory than the budget.

    Args:
        budget: bytes that may be taken besides the loaded model; None for free memory, less a
            margin.
    """
    room = room_of(budget)
    if needs.total <= room:
        return
    limit = f"the budget is {size_text(room)}: raise {named('memory_budget')}"
    if budget is None:
        limit = f"{size_text(room)} of the free memory may be used: free some"
    parts = (
        f"{enough_text(needs.sums + needs.fitting)} for layer {needs.layer}, of "
        f"{needs.n_neurons:,} neurons and up to {needs.n_partners:,} partners",
        f"{enough_text(needs.chapter)} for the pruning method",
        f"{enough_text(needs.model + needs.scoring)} for a scored model",
        *([f"{enough_text(needs.partners)} to find partners"] if needs.partners else []),
    )
    raise UserError(
        f"out of memory: reuse needs {enough_text(needs.total)} in addition to the model "
        f"({', '.join(parts)}), and {limit}",
        setting="memory_budget",
        value=budget,
        expected=f"{needs.total} or more",
    )
