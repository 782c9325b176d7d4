"""Choose the neurons that are reused or removed, and the partners that they take values from.

If neuron j is replaced by its best linear prediction from a partner p, the loss at the MLP's output
is

    (1 − ρ_jp²) Var(h_j) ‖w_j‖²,

with its output column w_j. Neurons with the lowest loss are reused; without a partner, ρ is 0, and
the same rule removes neurons (FLAP's score, An et al. 2023, arXiv:2312.11983). If outputs can't
have a bias, nothing makes up for means: Var(h_j) is then E[h_j²], and ρ the cosine E[h_j h_p] /
√(E[h_j²] E[h_p²]). Layers are processed from the first: a partner must itself be computed, so
neurons that an earlier layer doesn't compute can't be partners.

Each replaced neuron takes a partner; or each is removed; or each takes the cheaper of the two
(:mod:`pruning.reuse.replacing.mixing`), which by this measure loses no more in any layer than reuse
or removal alone.

The first layer has no earlier layer. All other layers save the same share of their own operations,
so that all MLPs together save the requested share; a layer that saves a fraction of a neuron too
much leaves less to save for the next.
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
from pruning.reuse.replacing.mixing import mix
from pruning.reuse.replacing.operations import LayerOperations, summed


@dataclass(frozen=True)
class Choice:
    """The choice for the N neurons of one layer.

    Attributes:
        n_neurons: N.
        kept: (K,) int64, neurons that are computed, ascending.
        replaced: (R,) int64, neurons that are not computed.
        column: (R,) int64, the column that replaces each of these; −1 for none.
        partner_layer: (C, k) int64, the layers of each column's partners.
        partner_neuron: (C, k) int64, the partners' numbers in these layers.
    """

    n_neurons: int
    kept: Tensor
    replaced: Tensor
    column: Tensor
    partner_layer: Tensor
    partner_neuron: Tensor

    @property
    def n_columns(self) -> int:
        """C, the number of columns."""
        return len(self.partner_layer)

    @property
    def n_reused(self) -> int:
        """Number of neurons that take their values from partners."""
        return int((self.column >= 0).sum())

    @property
    def n_removed(self) -> int:
        """Number of neurons that are removed without a replacement."""
        return len(self.replaced) - self.n_reused

    @property
    def n_partners(self) -> int:
        """k, the number of partners of each column."""
        return self.partner_layer.shape[1]

    @classmethod
    def nothing(cls, n_neurons: int, n_partners: int = 1) -> Choice:
        """The choice in which every neuron is computed."""
        none = torch.zeros(0, dtype=torch.int64)
        pairs = torch.zeros(0, n_partners, dtype=torch.int64)
        return cls(n_neurons, torch.arange(n_neurons), none, none, pairs, pairs)

    def operations(
        self, dense: LayerOperations, *, writes_early: bool, has_new_constant: bool
    ) -> LayerOperations:
        """The operations of its MLP.

        Args:
            writes_early: the partners write for the neurons, so that no column is left.
            has_new_constant: whether changed layers get a constant.
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
    """Multiply-adds that each layer has to save; 0 for the first."""
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
    may_remove: bool = False,
    writes_early: bool = False,
    has_new_constant: bool = False,
) -> tuple[Choice, ...]:
    """Choose the replaced neurons in each layer so that a share of all multiply-adds is saved.

    Args:
        powers: Var(h_j) ‖w_j‖² for each layer, (N,) float64; with E[h_j²] if moments are taken
            about zero.
        partners: neurons that others can take their values from; None removes neurons instead.
        dense: operations of the layers.
        n_partners: k, the number of partners of each neuron: the k strongest that are computed.
            Neurons are ranked by their strongest partner.
        may_remove: remove or reuse each neuron, whichever costs less.
        writes_early: the partners write for the neurons, so that a column costs nothing.
        has_new_constant: changed layers get a constant, whose operations they have to save too.

    Raises:
        NotApplicable: if a layer can't save that much.
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
        offers = _offers(powers[layer], partners, layer, chosen, n_partners)
        plans = _plans(offers, partners is not None, may_remove, need, operations.neuron, cost)
        # The plan with the lowest loss of those that save enough; the first if several are equal.
        plan = min(plans, key=lambda each: (each.saved < need, each.loss))
        choice, saved = plan.choice(len(powers[layer]), n_partners), plan.saved
        if saved < need or len(choice.kept) == 0:
            raise NotApplicable(
                f"layer {layer} can save at most {saved / operations.total:.1%} of its operations, "
                f"but would have to save {need / operations.total:.1%}: give smaller "
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
    """Count the neurons that lose less per multiply-add by reuse than by removal, before any refit.

    Reuse loses (1 − ρ²) Var(h_j) ‖w_j‖² and saves c − H; removal loses Var(h_j) ‖w_j‖² and saves c.
    So the best partner has to explain more than H / c of a neuron's variance: a third in gated
    MLPs, and a half in other MLPs.

    Returns:
        The number of these neurons, and of all with a partner in an earlier layer.
    """
    n_worth = n_all = 0
    for known, operations in zip(partners.layers[1:], dense[1:], strict=True):
        squares = known.rho[:, 0].double() ** 2
        n_all += int((~squares.isnan()).sum())
        n_worth += int((squares > operations.n_hidden / operations.neuron).sum())
    return n_worth, n_all


def draw_partners(choices: Sequence[Choice], seed: int) -> tuple[Choice, ...]:
    """The same choice with partners drawn at random from computed neurons of earlier layers.

    Neurons that share a partner share one here too, so that the operations are equal.
    """
    found = [choices[0]]
    pool: list[tuple[int, int]] = []
    for layer, (before, choice) in enumerate(pairwise(choices), start=1):
        pool += [(layer - 1, int(neuron)) for neuron in before.kept]
        generator = torch.Generator().manual_seed(seed * 1009 + layer)
        n = choice.n_columns * choice.n_partners
        # Each once, as long as there are enough.
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
class _Offers:
    """What becomes of each neuron of a layer where it is not computed.

    Attributes:
        power: what removal loses, (N,) float64.
        loss: what reuse loses, (N,) float64; infinite where there are no partners.
        keys: of each neuron its column: layers and numbers of its partners, k pairs in a row, and
            where they are several, its own number too; None where it needs no column.
    """

    power: Tensor
    loss: Tensor
    keys: list[tuple[int, ...] | None]


@dataclass(frozen=True)
class _Plan:
    """Neurons that are not computed.

    Attributes:
        replaced: which, with the ``keys`` of their columns; None for none.
        saved: multiply-adds; ``loss``: by the measure of this module.
    """

    replaced: list[int]
    keys: list[tuple[int, ...] | None]
    saved: float
    loss: float

    def choice(self, n_neurons: int, k: int) -> Choice:
        """The choice as tensors."""
        columns = {key: i for i, key in enumerate(dict.fromkeys(filter(None, self.keys)))}
        rows = torch.tensor([key[: 2 * k] for key in columns], dtype=torch.int64).reshape(-1, k, 2)
        is_kept = torch.ones(n_neurons, dtype=torch.bool)
        is_kept[self.replaced] = False
        return Choice(
            n_neurons,
            is_kept.nonzero()[:, 0],
            torch.tensor(self.replaced, dtype=torch.int64),
            torch.tensor([-1 if key is None else columns[key] for key in self.keys]).long(),
            rows[:, :, 0],
            rows[:, :, 1],
        )


def _offers(
    power: Tensor,
    partners: LayerPartners | None,
    layer: int,
    before: Sequence[Choice],
    k: int,
) -> _Offers:
    nothing: list[tuple[int, ...] | None] = [None] * len(power)
    if partners is None:
        return _Offers(power, torch.full_like(power, torch.inf), nothing)
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
    loss = torch.where(has_partners, (1 - strongest**2).clamp(min=0) * power, torch.inf)
    # A neuron that never varies is a constant, and needs no partner.
    is_constant = power == 0
    loss[is_constant] = 0
    pairs = torch.stack([layers.gather(1, order), numbers.gather(1, order)], dim=2).flatten(1)
    needs_column = has_partners & ~is_constant
    # Sums of several partners differ between neurons; the value of a single partner doesn't.
    keys = [
        tuple(pair) + ((j,) if k > 1 else ()) if needs else None
        for j, (pair, needs) in enumerate(zip(pairs.tolist(), needs_column.tolist(), strict=True))
    ]
    return _Offers(power, loss, keys)


def _plans(
    offers: _Offers, reuses: bool, may_remove: bool, need: float, neuron: int, column: int
) -> list[_Plan]:
    """What can be done: of one kind alone, or of both and of each alone."""
    removal = replace(offers, loss=offers.power, keys=[None] * len(offers.keys))
    if not reuses:
        return [_walk(removal, need, neuron, column)]
    reuse = _walk(offers, need, neuron, column)
    if not may_remove:
        return [reuse]
    power, loss = offers.power.tolist(), offers.loss.tolist()
    replaced, is_reused, saved = mix(power, loss, offers.keys, need, neuron, column)
    keys = [
        offers.keys[j] if reused else None for j, reused in zip(replaced, is_reused, strict=True)
    ]
    lost = [loss[j] if reused else power[j] for j, reused in zip(replaced, is_reused, strict=True)]
    mixed = _Plan(replaced, keys, float(saved), sum(lost))
    return [mixed, _walk(removal, need, neuron, column), reuse]


def _walk(offers: _Offers, need: float, neuron: int, column: int) -> _Plan:
    """Those that lose least, one after the other, until all together save what is needed."""
    ranked = offers.loss.argsort(stable=True)[: int(offers.loss.isfinite().sum())]
    known: set[tuple[int, ...]] = set()
    replaced: list[int] = []
    saved = 0
    for j in ranked.tolist():
        if saved >= need:
            break
        replaced.append(j)
        saved += neuron
        key = offers.keys[j]
        if key is not None and key not in known:
            known.add(key)
            saved -= column
    keys = [offers.keys[j] for j in replaced]
    return _Plan(replaced, keys, float(saved), float(offers.loss[replaced].sum()))
