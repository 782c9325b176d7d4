"""Two correlation matrices are kept in one."""

from __future__ import annotations

import torch

from projector.statistics.halves import packed_halves, unpacked_halves


def test_both_halves_come_back() -> None:
    generator = torch.Generator().manual_seed(0)
    halves = []
    for undefined in ((3,), (3, 5, 0)):
        rho = torch.corrcoef(torch.randn(30, 40, generator=generator))
        for i in undefined:
            rho[i] = rho[:, i] = torch.nan
        halves.append(rho)
    packed = packed_halves(*halves)
    assert packed.dtype == torch.float16
    assert packed.shape == (30, 30)
    for exact, found in zip(halves, unpacked_halves(packed), strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found.isnan(), exact.isnan())
        assert torch.equal(found.nan_to_num(), found.T.nan_to_num())
        assert float((found - exact).nan_to_num().abs().max()) <= 2.5e-4
        defined = found.diagonal().isfinite()
        assert bool((found.diagonal()[defined] == 1).all())


def test_of_neurons_that_are_nowhere_defined_nothing_comes_back() -> None:
    nowhere = torch.full((4, 4), torch.nan)
    assert all(
        bool(half.isnan().all()) for half in unpacked_halves(packed_halves(nowhere, nowhere))
    )
