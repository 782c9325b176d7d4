"""Which neurons are reused or removed, and which neurons of earlier layers they take values from.

What is lost at an MLP's output where neuron j is replaced by its best linear prediction from a
partner p is

    (1 − ρ_jp²) Var(h_j) ‖w_j‖²,

with w_j the column that it writes by. The neurons that lose least are reused; with no partner, ρ is
0, and the same rule removes (FLAP's score, An et al. 2023, arXiv:2312.11983). Layers are gone
through from the first: a partner must itself be computed, so that what an earlier layer reuses is
no one's partner.

The first layer has no earlier one. All others save the same share of their own operations, such
that all MLPs together save what is asked for; a layer that saves a part of a neuron more leaves the
next so much less to save.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from projector.errors import named
from pruning.methods.plan import NotApplicable
from pruning.reuse.partners import LayerPartners
from pruning.reuse.replacing.operations import LayerOperations, summed


@dataclass(frozen=True)
class Choice:
    """What becomes of the N neurons of one layer.

    Attributes:
        n_neurons: N.
        kept: (K,) int64, neurons that are computed, ascending.
        replaced: (R,) int64, those that are not.
        column: (R,) int64, of each the column that is written in its place; −1 for none.
        partner_layer: (C, k) int64, of each column the layers of its partners.
        partner_neuron: (C, k) int64, their numbers there.
    """

    n_neurons: int
    kept: Tensor
    replaced: Tensor
    column: Tensor
    partner_layer: Tensor
    partner_neuron: Tensor

    @property
    def n_columns(self) -> int:
        """C."""
        return len(self.partner_layer)

    @property
    def n_partners(self) -> int:
        """k, of each column."""
        return self.partner_layer.shape[1]

    @classmethod
    def nothing(cls, n_neurons: int, n_partners: int = 1) -> Choice:
        """Every neuron is computed."""
        none = torch.zeros(0, dtype=torch.int64)
        pairs = torch.zeros(0, n_partners, dtype=torch.int64)
        return cls(n_neurons, torch.arange(n_neurons), none, none, pairs, pairs)

    def operations(
        self, dense: LayerOperations, *, writes_early: bool, has_new_constant: bool
    ) -> LayerOperations:
        """What its MLP computes.

        Args:
            writes_early: the partners write for the neurons, so that no column is left.
            has_new_constant: of layers that are changed.
        """
        n_columns = 0 if writes_early else self.n_columns
        return replace(
            dense,
            n_computed=len(self.kept),
            n_columns=n_columns,
            n_summed=summed(self.n_partners) if n_columns else 0,
            has_new_constant=has_new_constant and len(self.replaced) > 0,
        )


def targets_of(dense: Sequence[LayerOperations], share: float) -> list[float]:
    """Multiply-adds that each layer is to save; 0 for the first."""
    later = sum(layer.total for layer in dense[1:])
    total = share * (later + dense[0].total)
    return [0.0, *(total * layer.total / later for layer in dense[1:])]


def choose_neurons(
    powers: Sequence[Tensor],
    partners: LayerPartners | None,
    dense: Sequence[LayerOperations],
    share: float,
    *,
    n_partners: int = 1,
    writes_early: bool = False,
    has_new_constant: bool = False,
) -> tuple[Choice, ...]:
    """Who is replaced in each layer so that a share of all multiply-adds is saved.

    Args:
        powers: of each layer Var(h_j) ‖w_j‖², (N,) float64.
        partners: whom neurons can take their values from; None to remove them.
        dense: what the layers compute.
        n_partners: k, partners of each neuron: the k strongest that are computed. Neurons are
            ranked by the strongest.
        writes_early: the partners write for the neurons, so that a column costs nothing.
        has_new_constant: a layer that changes is given a constant, whose operations it has to save
            too.

    Raises:
        NotApplicable: if a layer can't save so much.
    """
    chosen = [Choice.nothing(len(powers[0]), n_partners)]
    if share == 0:
        return tuple(Choice.nothing(len(power), n_partners) for power in powers)
    owed = 0.0
    for layer, target in enumerate(targets_of(dense, share)):
        if layer == 0:
            continue
        operations = dense[layer]
        cost = 0 if writes_early else operations.n_hidden + summed(n_partners)
        need = owed + target + operations.n_hidden * has_new_constant
        candidates = (
            _removals(powers[layer])
            if partners is None
            else _reuses(powers[layer], partners, layer, chosen, n_partners)
        )
        choice, saved = _walk(candidates, need, operations.neuron, cost)
        if saved < need or len(choice.kept) == 0:
            raise NotApplicable(
                f"layer {layer} can save {saved / operations.total:.1%} of its operations, and "
                f"{need / operations.total:.1%} is asked of each layer but the first: give smaller "
                f"{named('shares')}",
                setting="shares",
                value=share,
            )
        owed = need - saved
        chosen.append(choice)
    return tuple(chosen)


def count_worth_reusing(
    partners: LayerPartners, dense: Sequence[LayerOperations]
) -> tuple[int, int]:
    """How many neurons lose less for each multiply-add by reuse than by removal, before any refit.

    Reuse loses (1 − ρ²) Var(h_j) ‖w_j‖² and saves c − H; removal loses Var(h_j) ‖w_j‖² and saves
    c. So the best partner has to explain more than H / c of a neuron's variance: a third where MLPs
    are gated, and a half where they are not.

    Returns:
        These neurons, and all that have a partner in an earlier layer.
    """
    n_worth = n_all = 0
    for known, operations in zip(partners.layers[1:], dense[1:], strict=True):
        squares = known.rho[:, 0].double() ** 2
        n_all += int((~squares.isnan()).sum())
        n_worth += int((squares > operations.n_hidden / operations.neuron).sum())
    return n_worth, n_all


def draw_partners(choices: Sequence[Choice], seed: int) -> tuple[Choice, ...]:
    """The same neurons, their partners drawn at random among computed neurons of earlier layers.

    Neurons that share a partner share one here too, so that as much is computed.
    """
    found = [choices[0]]
    pool: list[tuple[int, int]] = []
    for layer, (before, choice) in enumerate(pairwise(choices), start=1):
        pool += [(layer - 1, int(neuron)) for neuron in before.kept]
        generator = torch.Generator().manual_seed(seed * 1009 + layer)
        n = choice.n_columns * choice.n_partners
        # Each once while there are enough.
        drawn = [torch.randperm(len(pool), generator=generator) for _ in range(-(-n // len(pool)))]
        rows = torch.tensor(pool)[torch.cat(drawn)[:n]] if n else torch.zeros(0, 2).long()
        shape = choice.partner_layer.shape
        found.append(
            replace(
                choice,
                partner_layer=rows[:, 0].reshape(shape),
                partner_neuron=rows[:, 1].reshape(shape),
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class _Candidates:
    """Neurons that can be replaced, those that lose least first.

    Attributes:
        neurons: (M,) int64.
        partners: of each, (k, 2) layers and numbers; None for no column.
    """

    n_neurons: int
    n_partners: int
    neurons: Tensor
    partners: tuple[Tensor | None, ...]


def _removals(power: Tensor) -> _Candidates:
    order = power.argsort(stable=True)
    return _Candidates(len(power), 1, order, (None,) * len(order))


def _reuses(
    power: Tensor, partners: LayerPartners, layer: int, before: Sequence[Choice], k: int
) -> _Candidates:
    known = partners.layers[layer]
    rho, layers, numbers = known.rho.double(), known.layer.long(), known.neuron.long()
    width = max(each.n_neurons for each in before)
    computed = torch.zeros(len(before), width, dtype=torch.bool)
    for i, each in enumerate(before):
        computed[i, each.kept] = True
    usable = (layers >= 0) & (numbers >= 0) & ~rho.isnan()
    usable &= computed[layers.clamp(min=0), numbers.clamp(min=0)]
    # The usable ones first, in their order.
    order = (~usable).int().argsort(dim=1, stable=True)[:, :k]
    has_partners = usable.sum(dim=1) >= k
    strongest = rho.gather(1, order)[:, 0]
    # A neuron that never changes is a constant, and needs none.
    is_constant = power == 0
    loss = torch.where(has_partners, (1 - strongest**2).clamp(min=0) * power, torch.inf)
    loss[is_constant] = 0
    ranked = loss.argsort(stable=True)[: int(loss.isfinite().sum())]
    pairs = torch.stack([layers.gather(1, order), numbers.gather(1, order)], dim=2)
    return _Candidates(
        len(power),
        k,
        ranked,
        tuple(None if is_constant[j] else pairs[j] for j in ranked.tolist()),
    )


def _walk(candidates: _Candidates, need: float, neuron: int, column: int) -> tuple[Choice, float]:
    """The first candidates that together save what is needed, or all; and what they save."""
    columns: dict[tuple[int, ...], int] = {}
    replaced: list[int] = []
    of: list[int] = []
    saved = 0
    for j, pairs in zip(candidates.neurons.tolist(), candidates.partners, strict=True):
        if saved >= need:
            break
        replaced.append(j)
        saved += neuron
        if pairs is None:
            of.append(-1)
            continue
        # Sums of several partners differ from neuron to neuron; what one gives does not.
        key = tuple(pairs.flatten().tolist()) + ((j,) if candidates.n_partners > 1 else ())
        if key not in columns:
            columns[key] = len(columns)
            saved -= column
        of.append(columns[key])
    k = candidates.n_partners
    rows = torch.tensor([key[: 2 * k] for key in columns], dtype=torch.int64).reshape(-1, k, 2)
    is_kept = torch.ones(candidates.n_neurons, dtype=torch.bool)
    is_kept[replaced] = False
    return (
        Choice(
            candidates.n_neurons,
            is_kept.nonzero()[:, 0],
            torch.tensor(replaced, dtype=torch.int64),
            torch.tensor(of, dtype=torch.int64),
            rows[:, :, 0],
            rows[:, :, 1],
        ),
        float(saved),
    )
