"""Growth of variance: its parts sum to it, and a direction that is shared shows."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from projector.errors import UserError
from projector.residual.circuits.factors import random_axes
from projector.residual.contrast import growth as room
from projector.residual.contrast.growth import Growth, average_growth, measure_growth
from projector.residual.contributions import collect_contributions
from tests.families import CLOSE_PER_BLOCK, FAMILIES, PARALLEL, subject_of

IDS = [0, 5, 9, 33, 71, 5, 120, 8, 44, 9]
SPLIT = (
    "attention_variance",
    "mlp_variance",
    "covariance_pre_attention",
    "covariance_pre_mlp",
    "covariance_attention_mlp",
    "rest",
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def total(growth: Growth) -> float:
    assert growth.pre is not None
    assert growth.update is not None
    assert growth.covariance is not None
    return growth.pre + growth.update + growth.covariance


def test_shares_are_those_of_the_covariance_matrices() -> None:
    x, a, m = normal(40, 12, seed=1), 0.7 * normal(40, 12, seed=2), 0.4 * normal(40, 12, seed=3)
    a = a + 0.5 * x
    found = measure_growth(x, a, m, x + a + m)

    def trace(p: Tensor, q: Tensor) -> float:
        p64, q64 = p.double().numpy(), q.double().numpy()
        return float(np.trace(np.cov(p64.T, q64.T)[:12, 12:]))

    y, u = x.double() + a + m, a.double() + m
    whole = trace(y, y)
    expected = {
        "variance_pre": trace(x, x) / 12,
        "variance_post": whole / 12,
        "ratio": whole / trace(x, x),
        "pre": trace(x, x) / whole,
        "update": trace(u, u) / whole,
        "covariance": 2 * trace(x, u) / whole,
        "correlation": trace(x, u) / (trace(x, x) * trace(u, u)) ** 0.5,
        "attention_variance": trace(a, a) / whole,
        "mlp_variance": trace(m, m) / whole,
        "covariance_pre_attention": 2 * trace(x, a) / whole,
        "covariance_pre_mlp": 2 * trace(x, m) / whole,
        "covariance_attention_mlp": 2 * trace(a, m) / whole,
        "rest": 0,
        "covariance_of_growth": 2 * trace(x, u) / (whole - trace(x, x)),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-5), name
    assert total(found) == pytest.approx(1, abs=1e-6)
    assert found.reasons == {}


def test_a_direction_that_the_update_shares_is_its_covariance() -> None:
    direction = torch.nn.functional.normalize(normal(64, seed=1), dim=0)
    sizes = normal(300, 1, seed=2)
    x, u = sizes * direction, 0.5 * sizes * direction
    found = measure_growth(x, None, None, x + u)
    # (1 + b)² = 1 + b² + 2 b with b = 0.5.
    assert found.pre == pytest.approx(1 / 2.25, abs=1e-5)
    assert found.update == pytest.approx(0.25 / 2.25, abs=1e-5)
    assert found.covariance == pytest.approx(1 / 2.25, abs=1e-5)
    assert found.correlation == pytest.approx(1, abs=1e-5)
    assert found.correlation_rotated is not None
    assert found.correlation_rotated < 0.3
    against = measure_growth(x, None, None, x - u)
    assert against.correlation == pytest.approx(-1, abs=1e-5)
    assert against.covariance_of_growth is None
    assert "grow" in against.reasons["covariance_of_growth"]


def test_the_band_holds_95_percent_of_rotations() -> None:
    # Few directions hold most, in x and in u, and the same ones: rotations must undo that alone.
    scales = torch.linspace(2, 0.1, 48) ** 2
    shared = normal(30, 48, seed=1)
    x, u = shared * scales, (shared + normal(30, 48, seed=2)) * scales
    found = measure_growth(x, None, None, x + u)
    assert found.correlation is not None
    assert found.correlation_rotated is not None
    assert found.correlation > 3 * found.correlation_rotated
    generator = torch.Generator().manual_seed(0)
    turned = [
        measure_growth(x, None, None, x + u @ random_axes((48, 48), generator)).correlation
        for _ in range(300)
    ]
    inside = [abs(each) <= found.correlation_rotated for each in turned if each is not None]
    assert 0.90 <= np.mean(inside) <= 0.99
    assert found.covariance_rotated is not None
    assert found.covariance is not None
    # The same figure on another scale.
    assert found.covariance_rotated / found.covariance == pytest.approx(
        found.correlation_rotated / found.correlation
    )


@pytest.mark.parametrize("n", [10, 50])
def test_the_band_with_fewer_and_with_more_samples_than_features(n: int) -> None:
    x, u = normal(n, 20, seed=1).double(), normal(n, 20, seed=2).double()
    found = measure_growth(x, None, None, x + u).correlation_rotated
    x, u = x - x.mean(dim=0), u - u.mean(dim=0)
    deviation = (x.T @ u).norm() / 20**0.5 / (x.norm() * u.norm())
    assert found == pytest.approx(1.959964 * float(deviation), rel=1e-5)


def test_a_large_common_vector_does_not_spoil_the_identity() -> None:
    x = normal(50, 16, seed=1) + 3e4 * normal(16, seed=2)
    u = 0.1 * normal(50, 16, seed=3)
    found = measure_growth(x, None, None, x + u)
    assert total(found) == pytest.approx(1, abs=1e-6)


def test_an_identity_that_does_not_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x, u = normal(20, 8, seed=1), normal(20, 8, seed=2)
    measure_growth(x, None, None, x + u)
    monkeypatch.setattr(room, "_sum", lambda a, b: float((a * b).sum().bfloat16()))
    with pytest.raises(UserError):
        measure_growth(x, None, None, x + u)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str) -> None:
    subject = subject_of(family)
    run = collect_contributions(subject, IDS)
    for block in run.blocks:
        attention, mlp = (
            None if each is None else sum(each.terms(), start=torch.zeros(()))
            for each in (block.attention_written, block.mlp_written)
        )
        found = measure_growth(block.pre, attention, mlp, block.post)
        assert total(found) == pytest.approx(1, abs=1e-6)
        if family in CLOSE_PER_BLOCK:
            assert all(getattr(found, name) is None for name in SPLIT)
            assert set(SPLIT) <= set(found.reasons)
            continue
        assert found.rest == pytest.approx(0, abs=1e-5)
        assert found.attention_variance is not None
        assert found.attention_variance > 0
        assert (block.mid is None) == (family in PARALLEL)
        if block.mid is not None:
            step = measure_growth(block.pre, attention, None, block.mid)
            assert step.attention_variance == pytest.approx(step.update, abs=1e-5)
            assert step.covariance_pre_attention == pytest.approx(step.covariance, abs=1e-5)
            assert step.mlp_variance is None
            assert "mlp_variance" in step.reasons
    json.dumps(found.as_dict(), allow_nan=False)


def test_half_precision_leaves_what_it_rounds_off() -> None:
    x, a, m = (normal(60, 32, seed=seed) for seed in (1, 2, 3))
    post = ((x.bfloat16() + a.bfloat16()) + m.bfloat16()).float()
    found = measure_growth(x.bfloat16().float(), a.bfloat16().float(), m.bfloat16().float(), post)
    assert total(found) == pytest.approx(1, abs=1e-6)
    assert found.rest is not None
    assert 0 < abs(found.rest) < 1e-2


def test_samples_that_do_not_differ() -> None:
    x, u = normal(1, 8, seed=1).expand(20, 8), normal(20, 8, seed=2)
    starts = measure_growth(x, u, None, x + u)
    assert (starts.pre, starts.covariance) == (0, 0)
    assert starts.update == pytest.approx(1)
    assert starts.ratio is None
    assert "before" in starts.reasons["ratio"]
    assert starts.correlation is None
    assert "correlation" in starts.reasons
    still = measure_growth(x, None, None, x + 1)
    assert still.pre is still.update is still.covariance is still.ratio is None
    assert set(SPLIT) | {"pre", "update", "covariance", "ratio"} <= set(still.reasons)
    alone = measure_growth(u[:1], None, None, u[:1] + 1)
    assert alone.variance_pre is None
    assert "two samples" in alone.reasons["variance_pre"]
    for each in (starts, still, alone):
        json.dumps(each.as_dict(), allow_nan=False)


def test_parts_that_do_not_sum_to_the_update_are_not_shown() -> None:
    x, a, m = (normal(20, 8, seed=seed) for seed in (1, 2, 3))
    found = measure_growth(x, a, m, x + a + 2 * m)
    assert total(found) == pytest.approx(1, abs=1e-6)
    assert all(getattr(found, name) is None and name in found.reasons for name in SPLIT)


def test_numbers_that_are_not_finite_are_refused() -> None:
    x = normal(20, 8, seed=1)
    broken = x.clone()
    broken[3, 2] = float("nan")
    with pytest.raises(UserError):
        measure_growth(x, None, None, broken)


def test_the_average_of_two_sets() -> None:
    x, u = normal(20, 8, seed=1), normal(20, 8, seed=2)
    one, other = measure_growth(x, u, None, x + u), measure_growth(u, x, None, x + u)
    both = average_growth([one, other])
    assert one.pre is not None
    assert other.pre is not None
    assert both.n == 40
    assert both.pre == pytest.approx((one.pre + other.pre) / 2)
    assert total(both) == pytest.approx(1, abs=1e-6)
    still = measure_growth(x[:1].expand(20, 8), None, None, x[:1].expand(20, 8) + 1)
    lacking = average_growth([one, still])
    assert lacking.pre is None
    assert lacking.reasons["pre"] == still.reasons["pre"]
