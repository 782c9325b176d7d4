"""Means and variances of two sets: planted Gaussians are found, intervals cover, nulls hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from projector.residual.contrast.measures import Draws, cosine_of_means, measure_means
from projector.residual.contrast.records import PointMeasures

N, WIDTH = 60, 8


def gaussians(seed: int, cosine: float, n: int = N) -> tuple[Tensor, Tensor, Tensor]:
    """Two sets about means of this cosine, (n, H) each, and the standard deviations (H,)."""
    random = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.5, 2, WIDTH)
    first, second = torch.zeros(2, WIDTH)
    first[0], second[0], second[1] = 6.0, 6 * cosine, 6 * (1 - cosine**2) ** 0.5
    sides = [mean + spread * torch.randn(n, WIDTH, generator=random) for mean in (first, second)]
    return sides[0], sides[1], spread


def lacking(found: PointMeasures) -> set[str]:
    """The figures that are None; each has its reason, and nothing else has one."""
    missing = {name for name, value in vars(found).items() if value is None}
    assert missing == set(found.reasons)
    return missing


def draws(n: int = N, m: int = N, seed: int = 0, n_draws: int = 100) -> Draws:
    return Draws(range(n), range(n, n + m), n_draws=n_draws, seed=seed)


def test_figures_are_those_of_numpy() -> None:
    a, b, _ = gaussians(0, 0.4, 41)
    b = b[:30]
    drawn = draws(41, 30, n_draws=20)
    found = measure_means(a, b, drawn)
    x, y = a.double().numpy(), b.double().numpy()

    def cosine(u: np.ndarray, v: np.ndarray) -> float:
        u, v = u.mean(axis=0), v.mean(axis=0)
        return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))

    assert found.cosine is not None
    assert found.split_half is not None
    assert found.permuted is not None
    assert found.cosine.value == pytest.approx(cosine(x, y), rel=1e-9)
    assert found.cosine.value == pytest.approx(cosine_of_means(a, b), rel=1e-9)
    assert found.variance_mean_positive is not None
    assert found.variance_max_negative is not None
    assert found.variance_mean_positive.value == pytest.approx(x.var(axis=0, ddof=1).mean())
    assert found.variance_max_negative.value == pytest.approx(y.var(axis=0, ddof=1).max())
    gap = np.linalg.norm(x.mean(axis=0) - y.mean(axis=0))
    assert found.difference_norm == pytest.approx(float(gap))
    both = np.concatenate([x, y])
    permuted = [cosine(both[labels], both[~labels]) for labels in drawn.permuted]
    halves = [
        cosine(side[half], side[~half])
        for side, chosen in zip((x, y), drawn.halves, strict=True)
        for half in chosen
    ]
    for null, values in ((found.permuted, permuted), (found.split_half, halves)):
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        assert (null.low, null.value, null.high) == pytest.approx((low, middle, high))
    # Each draw is what it is said to be.
    assert {int(labels.sum()) for labels in drawn.permuted} == {41}
    assert [{int(h.sum()) for h in each} for each in drawn.halves] == [{20}, {15}]
    assert len({labels.tobytes() for labels in drawn.permuted}) == 20


def test_sets_that_part_leave_the_nulls() -> None:
    a, b, _ = gaussians(1, 0.3)
    found = measure_means(a, b, draws())
    assert found.cosine is not None
    assert found.split_half is not None
    assert found.permuted is not None
    assert found.cosine.value == pytest.approx(0.3, abs=0.1)
    assert found.cosine.low < found.cosine.value < found.cosine.high
    assert found.cosine.high < min(found.permuted.low, found.split_half.low)
    assert found.difference_permuted is not None
    assert found.difference_norm is not None
    assert found.difference_norm > 3 * found.difference_permuted.high
    # Equal arguments give equal figures.
    assert measure_means(a, b, draws()) == found
    assert measure_means(a, b, draws(seed=1)) != found


def test_intervals_cover_at_their_rate() -> None:
    drawn = draws()
    covered = np.zeros(3)
    n_runs = 150
    for seed in range(n_runs):
        a, b, spread = gaussians(seed, 0.5)
        found = measure_means(a, b, drawn)
        truths = 0.5, float(spread.square().mean()), float(spread.square().mean())
        measured = found.cosine, found.variance_mean_positive, found.variance_mean_negative
        for i, (interval, truth) in enumerate(zip(measured, truths, strict=True)):
            assert interval is not None
            covered[i] += interval.low <= truth <= interval.high
    # 95 %, and a bootstrap of 60 covers a little less; 4 standard deviations of 150 runs below.
    assert all(0.87 <= share <= 0.99 for share in covered / n_runs), covered / n_runs


def test_sets_that_do_not_differ_stay_within_the_nulls() -> None:
    drawn = draws()
    below = apart = 0
    n_runs = 150
    for seed in range(n_runs):
        a, b, _ = gaussians(seed, 1.0)
        found = measure_means(a, b, drawn)
        assert found.cosine is not None
        assert found.permuted is not None
        below += found.cosine.value < found.permuted.low
        apart += found.cosine.high < found.permuted.low
    # 5 % by chance.
    assert 1 <= below <= 18
    assert apart <= 3


def test_prompts_that_belong_together_are_drawn_together() -> None:
    a, b, _ = gaussians(3, 0.5, 20)
    # Each prompt three times: no more is known of the means.
    groups = [i for i in range(20) for _ in range(3)]
    tripled = a.repeat_interleave(3, dim=0), b.repeat_interleave(3, dim=0)
    single = measure_means(a, b, draws(20, 20)).cosine
    together = measure_means(*tripled, Draws(groups, [i + 20 for i in groups])).cosine
    apart = measure_means(*tripled, draws(60, 60)).cosine
    assert single is not None
    assert together is not None
    assert apart is not None

    def width(interval: object) -> float:
        return float(interval.high - interval.low)  # type: ignore[attr-defined]

    assert width(together) == pytest.approx(width(single), rel=0.15)
    assert width(apart) < 0.7 * width(single)
    # A statement and its negation swap their labels, and stay one of each set.
    paired = Draws(range(20), range(20))
    assert (paired.permuted[:, :20] ^ paired.permuted[:, 20:]).all()


def test_halves_keep_clusters_whole_so_that_clustering_is_no_parting() -> None:
    # Both sets are of one population, of 16 clusters each that hardly vary inside.
    random = torch.Generator().manual_seed(0)
    clusters = torch.randn(2, 16, 64, generator=random).repeat_interleave(16, dim=1)
    noise = 0.1 * torch.randn(2, 256, 64, generator=random)
    a, b = clusters + noise + 0.1 * torch.randn(64, generator=random)
    groups = [i for i in range(16) for _ in range(16)]
    others = [i + 16 for i in groups]
    found = measure_means(a, b, Draws(groups, others))
    assert found.cosine is not None
    assert found.split_half is not None
    assert found.split_half.low <= found.cosine.value <= found.split_half.high
    # Prompts dealt one by one leave the same clusters in both halves.
    single = measure_means(a, b, draws(256, 256)).split_half
    assert single is not None
    assert single.low > 0.5


def test_halves_of_one_set_compare_with_halves_across_the_sets() -> None:
    drawn = Draws([0, 0, 1, 2, 3, 3, 4], [0, 1, 1, 5, 6, 6], n_draws=40)
    first, second = drawn.halves
    for i, group in enumerate([0, 0, 1, 2, 3, 3, 4]):
        for j, other in enumerate([0, 1, 1, 5, 6, 6]):
            assert group != other or (first[:, i] == second[:, j]).all()
    assert len({row.tobytes() for row in np.hstack(drawn.halves)}) == 8
    # Few noisy prompts: the sets are of one population, and the halves of one set and of both are
    # as near to each other; a shared template of couples adds to neither.
    above = 0.0
    for seed in range(40):
        a, b, _ = gaussians(seed, 1.0, 16)
        template = 3 * gaussians(seed + 1000, 1.0, 16)[0]
        found = measure_means(a + template, b + template, Draws(range(16), range(16), n_draws=20))
        assert found.split_half is not None
        assert found.across_halves is not None
        above += (found.across_halves.value - found.split_half.value) / 40
    assert above == pytest.approx(0, abs=0.01)
    a, b, _ = gaussians(1, 0.3)
    parted = measure_means(a, b, draws())
    assert parted.across_halves is not None
    assert parted.split_half is not None
    assert parted.across_halves.high < parted.split_half.low


def test_what_can_not_be_given_has_a_reason() -> None:
    a, b, _ = gaussians(4, 0.5)
    same = a[:1].expand(N, -1)
    found = measure_means(same, b, draws())
    assert found.variance_mean_positive is not None
    assert (found.variance_mean_positive.value, found.variance_mean_positive.high) == (0, 0)
    assert not found.reasons
    assert found.cosine is not None
    both = measure_means(same, same, draws())
    assert both.cosine is not None
    assert both.permuted is not None
    assert (both.cosine.value, both.cosine.low) == pytest.approx((1, 1))
    assert both.permuted.value == pytest.approx(1)
    zero = measure_means(torch.zeros(N, WIDTH), b, draws())
    assert zero.cosine is None
    assert zero.permuted is None
    assert cosine_of_means(torch.zeros(N, WIDTH), b) is None
    assert lacking(zero) == {"cosine", "split_half", "across_halves", "permuted"}
    one = measure_means(a, b, Draws([0] * N, range(1, N + 1)))
    assert lacking(one) == {"across_halves"}
    none = measure_means(a, b, Draws([0] * N, [1] * N))
    assert lacking(none) == {"split_half", "across_halves"}
    broken = measure_means(a.clone().fill_(float("nan")), b, draws())
    assert broken.cosine is None
    assert broken.variance_mean_negative is None
    assert len(lacking(broken)) == 12
