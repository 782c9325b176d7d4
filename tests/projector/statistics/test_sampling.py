"""Samples of tokens: what is drawn, what is made of it, and what it costs in accuracy."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from projector.fitting.placing import PlacedMap, place_map
from projector.layouts.kernels import MatrixFree
from projector.layouts.solving import Layout
from projector.projection.faithfulness import Faithfulness
from projector.statistics.sampling import TokenSample, evenly_drawn, sampling_error, standardize
from tests.projector.statistics.test_correlations import activations


def test_standardizing_leaves_out_what_has_no_correlation() -> None:
    seen = activations()
    seen[:, 4] = 1.1
    seen[3, 7] = torch.inf
    seen[5, 9] = torch.nan
    rows, is_alive = standardize(seen)
    assert (~is_alive).nonzero()[:, 0].tolist() == [4, 7, 9]
    assert rows.shape == (87, 150)
    assert torch.allclose(rows.mean(dim=1), torch.zeros(87), atol=1e-5)
    assert torch.allclose(rows.square().mean(dim=1), torch.ones(87), atol=1e-5)


def test_the_sampling_error_of_independent_tokens_is_the_one_they_have() -> None:
    # Gaussians: (1 − ρ²)/√T is exact to 1/T.
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, 60, generator=generator)
    truth = torch.corrcoef(mixing.T)
    seen = torch.randn(2000, 8, generator=generator) @ mixing
    error = sampling_error(MatrixFree(standardize(seen)[0]), 10**9)
    upper = torch.triu_indices(60, 60, offset=1)
    covariance = mixing.T @ mixing
    spread = covariance.diagonal().sqrt()
    truth = covariance / spread[:, None] / spread
    actual = (torch.corrcoef(seen.T) - truth)[upper[0], upper[1]].square().mean().sqrt()
    assert error.n_tokens == 2000
    assert error.n_pairs == 60 * 59 // 2
    assert error.if_independent == pytest.approx(float(actual), rel=0.25)
    assert error.measured == pytest.approx(error.if_independent, rel=0.25)


def test_the_sampling_error_counts_what_neighbouring_tokens_share() -> None:
    # Every token four times in a row: a quarter of the tokens it seems to have.
    generator = torch.Generator().manual_seed(1)
    seen = torch.randn(500, 60, generator=generator).repeat_interleave(4, dim=0)
    error = sampling_error(MatrixFree(standardize(seen)[0]), 10**9)
    assert error.if_independent == pytest.approx(1 / math.sqrt(2000), rel=0.05)
    assert error.measured == pytest.approx(1 / math.sqrt(500), rel=0.15)


def test_sampling_error_of_too_little() -> None:
    one = sampling_error(MatrixFree(torch.randn(1, 50)), 10**9)
    assert one.n_pairs == 0
    assert math.isnan(one.measured)


def test_nothing_is_off_where_all_tokens_were_drawn() -> None:
    target = MatrixFree(standardize(activations())[0])
    error = sampling_error(target, target.n_tokens)
    assert error.measured == error.if_independent == 0


@pytest.mark.parametrize("share", [2, 10])
def test_the_sampling_error_is_what_an_even_sample_is_off_by(share: int) -> None:
    """Of a corpus whose first half is of another kind than its second."""
    generator = torch.Generator().manual_seed(2)
    kinds = []
    for _ in range(2):
        factors = torch.randn(10_000, 6, generator=generator)
        mixed = factors @ torch.randn(6, 40, generator=generator)
        kinds.append(mixed + torch.randn(10_000, 40, generator=generator))
    seen = torch.cat(kinds)
    places = evenly_drawn(len(seen), len(seen) // share)
    error = sampling_error(MatrixFree(standardize(seen[places])[0]), len(seen))
    upper = torch.triu_indices(40, 40, offset=1)
    off = (torch.corrcoef(seen[places].T) - torch.corrcoef(seen.T))[upper[0], upper[1]]
    assert error.measured == pytest.approx(float(off.square().mean().sqrt()), rel=0.3)


def test_places_are_even() -> None:
    places = evenly_drawn(1000, 300)
    # One of each stretch of three or four.
    stretches = torch.arange(301) * 1000 // 300
    assert torch.equal(torch.bucketize(places, stretches, right=True), torch.arange(1, 301))
    assert torch.equal(evenly_drawn(1000, 300), places)
    assert evenly_drawn(10, 50).tolist() == list(range(10))
    # Not always the same place of a sequence, whatever its length.
    assert len((evenly_drawn(255_000, 3_000) % 255).unique()) == 255


def drawn(rows: Tensor, sizes: list[int], n_drawn: int, own: int | None = None) -> TokenSample:
    """A sample of ``rows`` (T, N), shown in batches in which every third position is padding.

    Args:
        own: show only every second batch: those of this remainder.
    """
    sample = TokenSample(rows.shape[1], len(rows), n_drawn, rows.dtype)
    begin = number = 0
    while begin < len(rows):
        batch = rows[begin : begin + sizes[number % len(sizes)]]
        n_positions = len(batch) + len(batch) // 2
        kept = torch.tensor([i for i in range(n_positions + 1) if i % 3][: len(batch)])
        every = torch.full((int(kept[-1]) + 1, rows.shape[1]), -7.0, dtype=rows.dtype)
        every[kept] = batch
        is_first = torch.zeros(len(every), dtype=torch.bool)
        is_first[kept] = (torch.arange(begin, begin + len(batch)) // 10) % 2 == 0
        if own is None or number % 2 == own:
            sample.update(every, kept, begin, is_first)
        begin, number = begin + len(batch), number + 1
    return sample


@pytest.mark.parametrize("sizes", [[400], [7, 31], [1]])
def test_a_sample_is_what_stood_at_its_places_whatever_the_batches(sizes: list[int]) -> None:
    rows = activations(400, 5)
    sample = drawn(rows, sizes, 90)
    places = evenly_drawn(400, 90)
    assert torch.equal(sample.rows, rows[places])
    first, second = sample.halves()
    assert torch.equal(first, (places // 10) % 2 == 0)
    assert torch.equal(second, ~first)


def test_samples_of_several_processes_add_up() -> None:
    class Both:
        """The other process, as this one sees it."""

        def __init__(self, other: dict[str, Tensor]) -> None:
            self.other = iter(other.values())

        def summed(self, tensor: Tensor) -> Tensor:
            return tensor + next(self.other)

        def stacked(self, tensor: Tensor) -> Tensor:
            raise NotImplementedError

    rows = activations(300, 4).bfloat16()
    mine, other, whole = (drawn(rows, [17, 40], 70, own) for own in (0, 1, None))
    mine.reduce(Both(other.state()))
    for name, tensor in whole.state().items():
        assert torch.equal(mine.state()[name], tensor), name


def test_what_is_nan_or_infinite_is_counted_and_lost_tokens_are_none_of_it() -> None:
    rows = activations(60, 4)
    rows[3, 1] = torch.nan
    rows[9, 1] = torch.inf
    rows[20] = torch.nan
    is_lost, counts = drawn(rows, [25], 60).undefined()
    assert is_lost.nonzero()[:, 0].tolist() == [20]
    assert counts.tolist() == [0, 2, 0, 0]


def test_only_the_chosen_tokens_are_standardized() -> None:
    seen = activations()
    chosen = torch.arange(150) % 3 > 0
    rows, is_alive = standardize(seen, chosen=chosen)
    expected, _ = standardize(seen[chosen])
    assert torch.equal(rows, expected)
    rows, is_alive = standardize(seen, chosen=torch.zeros(150, dtype=torch.bool))
    assert rows.numel() == 0
    assert not is_alive.any()


LAYOUT = Layout()


def trust(placed: PlacedMap) -> Faithfulness:
    return placed.placements[LAYOUT.name].figures.trust


def sample_of(rows: Tensor, is_first: Tensor) -> TokenSample:
    """All in one batch, and all drawn."""
    sample = TokenSample(rows.shape[1], len(rows), len(rows), rows.dtype)
    sample.update(rows, torch.arange(len(rows)), 0, is_first)
    return sample


def test_a_map_of_a_sample_with_lost_tokens_and_broken_and_dead_neurons() -> None:
    rows, turns = activations(200, 40), torch.arange(200) % 2 == 0
    clean = place_map("layers.0.mlp_post", sample_of(rows, turns), [LAYOUT])
    rows[:, 5], rows[7, 9] = 3.25, torch.inf
    rows = torch.cat([rows, torch.full((1, 40), torch.nan)])
    found = place_map("layers.0.mlp_post", sample_of(rows, torch.cat([turns, turns[:1]])), [LAYOUT])
    assert found.facts.dead_neurons == (5,)
    assert found.facts.nonfinite_neurons == {9: 1}
    assert found.facts.n_tokens_left_out == 1
    assert found.facts.n_tokens == 200
    assert found.placements[LAYOUT.name].positions.isnan().any(dim=1).nonzero()[:, 0].tolist() == [
        5,
        9,
    ]
    assert trust(found).stress == pytest.approx(trust(clean).stress, rel=0.1)
    assert trust(found).stability > 2 * trust(found).chance_overlap


def test_a_map_of_a_sample_without_a_second_half() -> None:
    rows = activations(200, 40)
    found = place_map(
        "layers.0.mlp_post", sample_of(rows, torch.ones(200, dtype=torch.bool)), [LAYOUT]
    )
    assert found.placements[LAYOUT.name].positions.isfinite().all()
    assert trust(found).stability is None
    assert "halves" in trust(found).reasons["stability"]


def test_a_sample_of_which_nothing_is_left() -> None:
    rows = torch.full((150, 20), torch.nan)
    found = place_map("layers.0.mlp_post", sample_of(rows, torch.arange(150) % 2 == 0), [LAYOUT])
    assert found.placements[LAYOUT.name].positions.isnan().all()
    assert found.facts.n_tokens_left_out == 150
    figures = found.placements[LAYOUT.name].figures.as_dict()
    json.dumps(found.facts.as_dict() | figures, allow_nan=False)
