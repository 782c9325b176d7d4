"""Who is replaced: those that lose least, as many as save what is asked for."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from projector.statistics.cross_layer.partners import PartnerList
from pruning.methods.plan import NotApplicable
from pruning.reuse.partners import LayerPartners, Scales
from pruning.reuse.replacing.choosing import (
    Choice,
    choose_neurons,
    count_worth_reusing,
    draw_partners,
)
from pruning.reuse.replacing.operations import LayerOperations, total_of
from tests.refused import refused

N, L, H = 60, 4, 10


def made_partners(seed: int = 0, n_layers: int = L, n: int = N) -> LayerPartners:
    """Eight made-up partners of every neuron, the strongest first."""
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for layer in range(n_layers):
        rho = torch.rand(n, 8, generator=generator).sort(dim=1, descending=True).values
        of = torch.randint(0, max(1, layer), (n, 8), generator=generator, dtype=torch.int32)
        number = torch.randint(0, n, (n, 8), generator=generator, dtype=torch.int32)
        if layer == 0:
            rho, of, number = rho * torch.nan, of - 1, number * 0 - 1
        layers.append(PartnerList(rho, of, number))
    return LayerPartners(tuple(layers), 100)


def powers() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(N, generator=generator, dtype=torch.float64) for _ in range(L)]


@pytest.mark.parametrize("n_made_by", [1, 2])
@pytest.mark.parametrize("n_partners", [1, 3])
def test_every_method_saves_the_share_and_partners_are_computed(
    n_made_by: int, n_partners: int
) -> None:
    dense = [LayerOperations(H, n_made_by, N) for _ in range(L)]
    partners = made_partners()
    kinds = {
        "reuse": {"n_partners": n_partners},
        "removal": {},
        "early": {"n_partners": n_partners, "writes_early": True},
    }
    n_replaced = {}
    for name, options in kinds.items():
        own = None if name == "removal" else partners
        choices = choose_neurons(powers(), own, dense, 0.1, has_new_constant=True, **options)
        early = name == "early"
        operations = [
            choice.operations(each, writes_early=early, has_new_constant=True)
            for choice, each in zip(choices, dense, strict=True)
        ]
        saved = total_of(dense) - total_of(operations)
        assert 0.1 * total_of(dense) <= saved < 0.1 * total_of(dense) + dense[0].neuron
        assert len(choices[0].replaced) == 0
        for layer, choice in enumerate(choices):
            # Each is either computed or replaced, and no partner is replaced.
            both = torch.cat([choice.kept, choice.replaced]).sort().values
            assert torch.equal(both, torch.arange(N))
            for of, number in zip(
                choice.partner_layer.flatten(), choice.partner_neuron.flatten(), strict=True
            ):
                assert of < layer
                assert number in choices[of].kept
        n_replaced[name] = sum(len(choice.replaced) for choice in choices)
    # Nearly (n + 1) / n as many, for a column of n + 1 vectors stays.
    assert n_replaced["removal"] == n_replaced["early"] < n_replaced["reuse"]
    assert n_replaced["reuse"] >= (n_made_by + 1) / n_made_by * n_replaced["removal"] - 12


def test_those_that_lose_least_go_and_what_never_changes_needs_no_partner() -> None:
    dense = [LayerOperations(H, 2, N) for _ in range(L)]
    given, partners = powers(), made_partners()
    given[1][7] = 0
    choices = choose_neurons(given, partners, dense, 0.05)
    # The first layer computes all, so that each neuron of the second can have its strongest.
    loss = (1 - partners.layers[1].rho[:, 0].double() ** 2) * given[1]
    replaced = choices[1].replaced
    assert replaced[0] == 7
    assert choices[1].column[0] == -1
    assert loss[replaced[1:]].max() <= loss[choices[1].kept].min()
    strongest = partners.layers[1].neuron[replaced[1:], 0].long()
    assert torch.equal(choices[1].partner_neuron[choices[1].column[1:], 0], strongest)
    removed = choose_neurons(given, None, dense, 0.05)
    for power, choice in zip(given[1:], removed[1:], strict=True):
        assert power[choice.replaced].max() <= power[choice.kept].min()


def predicted(choice: Choice, power: torch.Tensor, rho: torch.Tensor) -> float:
    """What a layer loses where each neuron takes its strongest partner."""
    left = torch.where(choice.column >= 0, 1 - rho[choice.replaced].double() ** 2, 1.0)
    return float((left * power[choice.replaced]).sum())


@pytest.mark.parametrize("n_made_by", [1, 2])
@pytest.mark.parametrize("n_earlier", [5, N])
def test_reuse_where_it_pays_never_loses_by_what_is_predicted(
    n_made_by: int, n_earlier: int
) -> None:
    dense = [LayerOperations(H, n_made_by, n) for n in (n_earlier, N)]
    n_mixed = 0
    for seed in range(12):
        # Few neurons to take values from: many share a partner, and its column.
        partners = made_partners(seed, n_layers=2)
        known = partners.layers[1]
        given = LayerPartners(
            (
                made_partners(n_layers=1, n=n_earlier).layers[0],
                PartnerList(known.rho**3, known.layer, known.neuron % n_earlier),
            ),
            100,
        )
        rho = given.layers[1].rho[:, 0]
        power = torch.rand(N, generator=torch.Generator().manual_seed(seed)).double() ** 4
        own = [torch.ones(n_earlier).double(), power]
        for share in (0.03, 0.15, 0.3):
            removal = choose_neurons(own, None, dense, share)
            reuse = choose_neurons(own, given, dense, share)
            mixed = choose_neurons(own, given, dense, share, may_remove=True)
            choice = mixed[1]
            saved = total_of(dense) - total_of(
                [
                    each.operations(of, writes_early=False, has_new_constant=False)
                    for each, of in zip(mixed, dense, strict=True)
                ]
            )
            need = share * total_of(dense)
            assert need <= saved < need + dense[0].neuron
            loss = predicted(choice, power, rho)
            assert loss <= predicted(removal[1], power, rho) + 1e-12
            assert loss <= predicted(reuse[1], power, rho) + 1e-12
            n_mixed += choice.n_reused > 0 and choice.n_removed > 0
        # Where nothing is correlated, nothing is reused.
        none = LayerPartners(
            (given.layers[0], PartnerList(rho[:, None] * 0, known.layer, known.neuron * 0)), 100
        )
        alone = choose_neurons(own, none, dense, 0.15, may_remove=True)[1]
        assert alone.n_reused == 0
        assert torch.equal(alone.kept, choose_neurons(own, None, dense, 0.15)[1].kept)
    assert n_mixed > 6


def test_without_a_bias_partners_are_ranked_by_cosine() -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(200, 9, generator=generator).double() + torch.linspace(-3, 3, 9)
    rho = torch.corrcoef(h.T)[0, 1:]
    order = rho.abs().argsort(descending=True)
    of = torch.zeros(1, 8, dtype=torch.int32)
    nothing = made_partners(n=8, n_layers=1).layers
    found = LayerPartners(
        (*nothing, PartnerList(rho[order][None], of, order[None].int())), 200
    ).about_zero([Scales(each.mean(0), each.var(0, correction=0)) for each in (h[:, 1:], h[:, :1])])
    own = found.layers[1]
    expected = torch.nn.functional.cosine_similarity(h[:, :1], h[:, 1:], dim=0)
    torch.testing.assert_close(own.rho[0], expected[own.neuron[0].long()])
    assert torch.equal(own.neuron[0].long(), expected.abs().argsort(descending=True))
    assert bool((found.layers[0].layer == -1).all())


def test_random_partners_take_the_place_of_the_others_column_by_column() -> None:
    dense = [LayerOperations(H, 2, N) for _ in range(L)]
    choices = choose_neurons(powers(), made_partners(), dense, 0.2)
    drawn = [draw_partners(choices, seed) for seed in (0, 0, 1)]
    for before, after in zip(choices, drawn[0], strict=True):
        assert torch.equal(before.kept, after.kept)
        assert torch.equal(before.column, after.column)
        assert before.partner_layer.shape == after.partner_layer.shape
    for layer, choice in enumerate(drawn[0][1:], start=1):
        of_columns = torch.cat([choice.partner_layer, choice.partner_neuron], dim=1).tolist()
        pairs = {(of, number) for of, number in of_columns}
        assert len(pairs) == choice.n_columns
        assert all(of < layer and n in choices[of].kept for of, n in pairs)
    assert torch.equal(drawn[0][2].partner_neuron, drawn[1][2].partner_neuron)
    assert not torch.equal(drawn[0][2].partner_neuron, drawn[2][2].partner_neuron)


def test_a_layer_that_can_not_save_enough_says_so() -> None:
    dense = [LayerOperations(H, 2, N) for _ in range(L)]
    with refused("shares", 0.74) as caught:
        choose_neurons(powers(), made_partners(), dense, 0.74)
    assert isinstance(caught.value, NotApplicable)
    for a, b in pairwise(choose_neurons(powers(), made_partners(), dense, 0.0)):
        assert len(a.replaced) == len(b.replaced) == 0


@pytest.mark.parametrize(("n_made_by", "least"), [(1, 1 / 2), (2, 1 / 3)])
def test_worth_reusing_is_who_saves_more_for_what_it_loses(n_made_by: int, least: float) -> None:
    dense = [LayerOperations(H, n_made_by, N) for _ in range(L)]
    partners = made_partners()
    best = torch.cat([layer.rho[:, 0] for layer in partners.layers[1:]]).double() ** 2
    assert count_worth_reusing(partners, dense) == (int((best > least).sum()), (L - 1) * N)
    # Of a neuron that just is, both lose as much for each multiply-add.
    neuron = dense[0].neuron
    assert (1 - least) / (neuron - H) == pytest.approx(1 / neuron)
