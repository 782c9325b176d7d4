"""Sums and a sample of all tokens tell the same of a map."""

from __future__ import annotations

import torch

from projector.statistics.gathering import HalfStatistics
from projector.statistics.sampling import TokenSample
from projector.statistics.summary import kept_statistics, summarize


def test_sums_and_a_sample_of_all_tokens_tell_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 4, generator=generator) @ torch.randn(4, 20, generator=generator)
    rows += torch.randn(300, 20, generator=generator)
    rows[:, 3], rows[7, 9] = 1.5, torch.inf
    rows[11] = torch.nan
    is_first = torch.arange(300) % 2 == 0
    first, second = (HalfStatistics.empty(20, "pooled", torch.device("cpu")) for _ in range(2))
    first.covariance.update(rows[is_first])
    second.covariance.update(rows[~is_first])
    sample = TokenSample(20, 300, 300, rows.dtype)
    sample.update(rows, torch.arange(300), 0, is_first)

    by_sums, by_sample = summarize((first, second)), summarize(sample)
    for found in (by_sums, by_sample):
        assert found.n_neurons == 20
        assert found.n_tokens == 299
        assert found.n_left_out == 1
        assert found.dead == (3,)
        assert found.nonfinite == {9: 1}
    assert by_sums.sampling is None
    assert by_sample.sampling is not None
    assert by_sums.whole.has_matrix
    assert not by_sample.whole.has_matrix
    pairs = [(by_sums.whole, by_sample.whole), *zip(by_sums.halves, by_sample.halves, strict=True)]
    chosen = by_sums.whole.is_defined & (torch.arange(20) > 5)
    for stored, sampled in pairs:
        stored.check()
        sampled.check()
        for absolute in (False, True):
            wanted, computed = (each.target(absolute, chosen) for each in (stored, sampled))
            n = int(chosen.sum())
            everyone = slice(0, n)
            assert wanted.n == computed.n == n
            assert torch.allclose(
                wanted.block(everyone, everyone), computed.block(everyone, everyone), atol=3e-3
            )
    kept = kept_statistics("map", (first, second))
    assert set(kept) == {"map.mean", "map.covariance", "map.halves"}
    assert kept_statistics("map", sample) == {}
