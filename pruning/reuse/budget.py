"""What an experiment on reuse takes beside the loaded model, told before it begins.

Of the widest layer, of N neurons, with P partners of earlier layers in any row of a seed, between
streams that are H wide:

    sums       8 (N + P)²                                   the upper triangles of both sums
    fitting    8 (max(3 (N + P)², 11 N²) + 3 H (N + P))     what a refit reads, and works with

P is at most what all rows reuse. A share s of all MLPs' operations is a larger share s' of those
behind the first layer, for which s' c / (c − H) N neurons take the values of chosen partners, as
many those of random ones, and s' N write early; each with k partners, and no more than earlier
layers have. Partners that no projection holds are found before that, and the method of the pruning
chapter is planned after it: the peak is the greatest of the three.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from pruning.reuse.replacing.operations import dense_operations, total_of
from pruning.reuse.settings import ReuseSettings

# Matrices of a refit: of all moments, and of those of neurons and columns that stay.
_READ, _WORKING = 3, 11
# Of what is free, what is taken where no budget is given.
_SHARE_OF_FREE = 0.9


@dataclass(frozen=True)
class ReuseNeeds:
    """Bytes beside the loaded model and the libraries.

    Attributes:
        layer: the one that takes most; ``n_neurons``: how many it has; ``n_partners``: how many of
            earlier layers are read with them, at most.
        sums, fitting: see the formulas of this module.
        chapter: what the method of the pruning chapter takes.
        partners: what finding partners takes; 0 where a projection holds them.
    """

    layer: int
    n_neurons: int
    n_partners: int
    sums: int
    fitting: int
    chapter: int
    partners: int

    @property
    def total(self) -> int:
        """The peak."""
        return max(self.sums + self.fitting, self.chapter, self.partners)


def needs_of_reuse(
    model: nn.Module,
    architecture: Architecture,
    corpus: Corpus,
    settings: ReuseSettings,
    *,
    partners: int = 0,
) -> ReuseNeeds:
    """What these settings take of this model.

    Args:
        corpus: what one seed draws.
        partners: bytes that finding partners takes.
    """
    dense = dense_operations(architecture)
    behind = total_of(dense) / total_of(dense[1:])
    n_earlier, widest = 0, (0, 0, 0)
    for layer, each in enumerate(dense):
        if layer:
            n = each.n_computed
            ratio = each.neuron / (each.neuron - each.n_hidden)
            read = sum(
                settings.n_partners * ceil(n * share * behind * (2 * ratio + 1))
                for share in settings.shares
            )
            widest = max(widest, (n + min(read, n_earlier), layer, n))
        n_earlier += each.n_computed
    both, layer, n = widest
    recipes = [
        Recipe(settings.pruning_method, LEAST_SQUARES.name, share)
        for share in settings.shares
        if share > 0
    ]
    fitting = max(_READ * both**2, _WORKING * n**2) + 3 * architecture.n_hidden * both
    return ReuseNeeds(
        layer,
        n,
        both - n,
        8 * both**2,
        8 * fitting,
        needs_of(model, architecture, corpus, recipes).least,
        partners,
    )


def check_needs(needs: ReuseNeeds, budget: int | None) -> None:
    """Raise a UserError if one layer takes more than there is.

    Args:
        budget: bytes that may be taken beside the loaded model; None for what is free, less a
            margin.
    """
    free = int(psutil.virtual_memory().available)
    room = int(_SHARE_OF_FREE * free) if budget is None else budget
    if needs.total <= room:
        return
    limit = f"the budget is {size_text(room)}: raise {named('memory_budget')}"
    if budget is None:
        limit = f"of {size_text(free)} that are free {size_text(room)} may be taken: make some free"
    parts = (
        f"{enough_text(needs.sums + needs.fitting)} for layer {needs.layer}, of "
        f"{needs.n_neurons:,} neurons and up to {needs.n_partners:,} partners",
        f"{enough_text(needs.chapter)} for the method of pruning",
        *([f"{enough_text(needs.partners)} to find partners"] if needs.partners else []),
    )
    raise UserError(
        f"out of memory: {enough_text(needs.total)} are needed beside the model ({', '.join(parts)}"
        f"), and {limit}",
        setting="memory_budget",
        value=budget,
        expected=f"{needs.total} or more",
    )
