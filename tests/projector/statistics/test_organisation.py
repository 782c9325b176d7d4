"""How organised a map is, against the whole spectrum, a simulation of chance, and words."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from projector.statistics.correlations import Matrix, MatrixFree, as_correlation
from projector.statistics.organisation import (
    Organisation,
    independent_tokens,
    measure_organisation,
    most_organised,
)
from projector.statistics.sampling import standardize
from tests.refused import lacking

FIGURES = ("effective_dimension", "leading_share", "partnered_share")


def correlated(n_tokens: int, n: int, n_axes: int = 3, seed: int = 0) -> Tensor:
    """Activations (T, N) of neurons that share a few axes, each less than the one before."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.randn(n_tokens, n_axes, generator=generator) * torch.tensor([2.0, 1.0, 0.5])
    rows = axes @ torch.randn(n_axes, n, generator=generator)
    return rows + 2 * torch.randn(n_tokens, n, generator=generator)


def measured(rho: Tensor, n_tokens: int) -> Organisation:
    found = measure_organisation(rho, n_tokens)
    assert found is not None
    return found


@pytest.mark.parametrize("n", [2, 60, 700])
def test_figures_are_those_of_the_whole_spectrum(n: int) -> None:
    rho = torch.corrcoef(correlated(900, n).T)
    found = measured(rho, 900)
    spectrum = torch.linalg.eigvalsh(rho.double())
    assert found.n_neurons == n
    assert found.leading_share == pytest.approx(float(spectrum[-1]) / n, rel=1e-5)
    expected = float(spectrum.sum() ** 2 / spectrum.square().sum())
    assert found.effective_dimension == pytest.approx(expected, rel=1e-5)
    others = rho - torch.eye(n)
    partnered = float((others.abs().amax(dim=1) >= 0.3).double().mean())
    assert found.partnered_share == pytest.approx(partnered)


def test_undefined_neurons_do_not_count_and_a_sample_tells_the_same() -> None:
    rows = correlated(500, 40)
    rows[:, 7] = 1.0
    rho = torch.corrcoef(rows.T)
    rho[7] = rho[:, 7] = torch.nan
    found = measured(rho, 500)
    alive = torch.arange(40) != 7
    assert found == measured(rho[alive][:, alive], 500)
    assert found.n_neurons == 39
    sample = as_correlation(MatrixFree(standardize(rows)[0]))
    by_sample = measure_organisation(sample, 500)
    assert by_sample is not None
    for figure in FIGURES:
        assert getattr(by_sample, figure) == pytest.approx(getattr(found, figure), rel=1e-4)


@pytest.mark.parametrize(("n", "n_tokens"), [(60, 300), (300, 150), (400, 2000)])
def test_chance_is_what_independent_neurons_give(n: int, n_tokens: int) -> None:
    generator = torch.Generator().manual_seed(3)
    draws = [torch.randn(n_tokens, n, generator=generator) for _ in range(6)]
    found = [measured(torch.corrcoef(draw.T), n_tokens) for draw in draws]
    expected = found[0]
    for figure, tolerance in zip(FIGURES, (0.02, 0.05, None), strict=True):
        by_simulation = sum(getattr(each, figure) for each in found) / len(found)
        by_chance = getattr(expected, f"{figure}_by_chance")
        if tolerance is None:
            assert by_chance == pytest.approx(by_simulation, abs=0.03)
        else:
            assert by_chance == pytest.approx(by_simulation, rel=tolerance)


def test_chance_of_a_mean_over_sequences_is_that_of_fewer_tokens() -> None:
    generator = torch.Generator().manual_seed(4)
    draws = torch.randn(60, 25, 80, generator=generator)
    rho = torch.stack([torch.corrcoef(draw.T) for draw in draws]).mean(dim=0)
    n_tokens = independent_tokens(60 * 25, 60)
    assert n_tokens == 60 * 24 + 1
    found = measured(rho, n_tokens)
    for figure, tolerance in (("effective_dimension", 0.02), ("leading_share", 0.05)):
        chance = getattr(found, f"{figure}_by_chance")
        assert getattr(found, figure) == pytest.approx(chance, rel=tolerance)
    assert independent_tokens(500, None) == 500


def test_extremes() -> None:
    alike = measured(torch.ones(30, 30), 1000)
    assert alike.effective_dimension == pytest.approx(1)
    assert alike.leading_share == pytest.approx(1)
    assert alike.partnered_share == 1
    apart = measured(torch.eye(30), 1000)
    assert apart.effective_dimension == pytest.approx(30)
    assert apart.leading_share == pytest.approx(1 / 30)
    assert apart.partnered_share == 0
    # Two blocks that share nothing: the greater eigenvalue is found whichever is larger.
    blocks = torch.block_diag(torch.ones(2, 2), torch.full((10, 10), 0.5).fill_diagonal_(1))
    assert measured(blocks, 1000).leading_share == pytest.approx(5.5 / 12)
    one = measured(torch.ones(1, 1), 1000)
    assert (one.effective_dimension, one.leading_share, one.partnered_share) == (1, 1, 0)
    assert one.leading_share_by_chance == 1
    assert measure_organisation(torch.full((3, 3), torch.nan), 1000) is None
    assert measure_organisation(torch.eye(3), 3) is None
    assert measure_organisation(Matrix(torch.eye(3)), 1000) == measured(torch.eye(3), 1000)


def test_one_sentence_names_the_most_organised_map() -> None:
    usual = measured(torch.corrcoef(correlated(2000, 100, seed=1).T), 2000)
    # Of fewer neurons, and more of them independent.
    narrow = replace(usual, effective_dimension=15.0, effective_dimension_by_chance=20.0)
    strong = replace(usual, effective_dimension=3.0, leading_share=0.55)
    maps = {(0, "mlp_post"): usual, (4, "attn_out"): strong, (5, "mlp_out"): narrow, (6, "x"): None}
    sentence = most_organised(maps)
    assert sentence is not None
    assert lacking(sentence, "attention output", "layer 4") == []
    assert "55%" in sentence
    assert most_organised({(1, "mlp_out"): None}) is None
    chance = replace(usual, effective_dimension=usual.effective_dimension_by_chance)
    nothing = most_organised({(2, "mlp_out"): chance})
    assert nothing is not None
    assert nothing.startswith("No map")
