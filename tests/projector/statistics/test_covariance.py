"""Streamed statistics against one-pass float64 ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from projector.statistics.covariance import (
    RunningCovariance,
    SequenceCorrelation,
    correlation_from_covariance,
)


def mixed_activations(n_tokens: int, n_neurons: int, seed: int = 0) -> Tensor:
    """Correlated neurons of very different spreads and means, some with means ≫ spread."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(n_tokens, 5, generator=generator)
    loads = torch.randn(5, n_neurons, generator=generator)
    rows = factors @ loads + torch.randn(n_tokens, n_neurons, generator=generator)
    scale = 10.0 ** torch.linspace(-4, 3, n_neurons)
    shift = torch.where(torch.arange(n_neurons) % 2 == 0, 1000.0, 0.0)
    return (rows + shift) * scale


def stream(rows: Tensor, sizes: list[int]) -> RunningCovariance:
    running = RunningCovariance(rows.shape[1])
    start = 0
    i = 0
    while start < len(rows):
        running.update(rows[start : start + sizes[i % len(sizes)]])
        start += sizes[i % len(sizes)]
        i += 1
    return running


@pytest.mark.parametrize("sizes", [[100_000], [4096], [1, 3, 977], [50_000, 7]])
def test_equals_corrcoef_over_100000_tokens_whatever_the_batches(sizes: list[int]) -> None:
    n_tokens = 100_000 if sizes != [1, 3, 977] else 20_000
    rows = mixed_activations(n_tokens, 48)
    running = stream(rows, sizes)
    exact = np.corrcoef(rows.double().numpy().T)
    assert np.abs(running.correlation().numpy() - exact).max() <= 1e-5
    exact_covariance = np.cov(rows.double().numpy().T, bias=True)
    spread = np.sqrt(np.diag(exact_covariance))
    error = np.abs(running.covariance().numpy() - exact_covariance) / np.outer(spread, spread)
    assert error.max() <= 1e-5
    off_by = (running.mean - rows.double().mean(dim=0)).abs().numpy()
    assert (off_by / spread).max() <= 1e-7
    assert running.n_tokens == n_tokens


def test_bf16_activations_over_100000_tokens() -> None:
    # The reference sees the very tensors that were captured, rounded to bf16 as they are.
    rows = mixed_activations(100_000, 32).bfloat16()
    exact = np.corrcoef(rows.double().numpy().T)
    assert np.abs(stream(rows, [4096]).correlation().numpy() - exact).max() <= 1e-4


def test_a_mean_that_drifts_far_beyond_the_spread() -> None:
    # A fixed shift taken from the first batch would lose the digits of the later ones.
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(8000, 6, generator=generator) * 1e-2
    rows[:, 1] += 0.7 * rows[:, 0]
    rows += torch.linspace(0, 50, 8000)[:, None]
    exact = np.corrcoef(rows.double().numpy().T)
    assert np.abs(stream(rows, [500]).correlation().numpy() - exact).max() <= 1e-5


def test_a_mean_that_jumps_by_more_than_a_square_holds() -> None:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(4096, 3, generator=generator)
    rows[:2048, 0] *= 1e18
    rows[:2048, 0] += 3e18
    rows[:, 1] += rows[:, 2]
    running = stream(rows, [1024])
    exact = np.corrcoef(rows.double().numpy().T)
    assert not running.is_broken.any()
    assert np.abs(running.correlation().numpy() - exact).max() <= 1e-5


def test_merging_equals_seeing_both_streams() -> None:
    rows = mixed_activations(5000, 20)
    rows[17, 3] = torch.nan
    rows[4000, 7] = torch.inf
    whole = stream(rows, [512])
    first, second = stream(rows[:1700], [300]), stream(rows[1700:], [450])
    first.merge(second)
    assert first.n_tokens == whole.n_tokens == 5000
    assert torch.equal(first.n_nonfinite, whole.n_nonfinite)
    torch.testing.assert_close(
        first.correlation(), whole.correlation(), atol=1e-6, rtol=0, equal_nan=True
    )
    empty = RunningCovariance(20)
    empty.merge(whole)
    assert torch.equal(empty.scatter, whole.scatter)
    whole.merge(RunningCovariance(20))
    assert torch.equal(empty.scatter, whole.scatter)


def test_dead_and_broken_neurons_are_named_and_poison_nothing() -> None:
    clean = mixed_activations(3000, 10)
    rows = clean.clone()
    rows[:, 2] = 0.1  # a constant that no binary fraction holds
    rows[100, 4] = torch.nan
    rows[200, 4] = -torch.inf
    rows[300, 6] = torch.inf
    running = stream(rows, [257])
    assert running.is_dead.nonzero()[:, 0].tolist() == [2]
    assert running.is_broken.nonzero()[:, 0].tolist() == [4, 6]
    assert running.n_nonfinite.tolist() == [0, 0, 0, 0, 2, 0, 1, 0, 0, 0]
    assert running.n_left_out == 0
    rest = [0, 1, 3, 5, 7, 8, 9]
    exact = np.corrcoef(clean[:, rest].double().numpy().T)
    assert np.abs(running.correlation()[rest][:, rest].numpy() - exact).max() <= 1e-5
    undefined = running.correlation()[[2, 4, 6]]
    assert undefined.isnan().all()
    assert running.covariance()[2, 2] == 0


def test_a_token_broken_on_every_neuron_is_left_out_alone() -> None:
    rows = mixed_activations(2000, 8)
    broken = rows.clone()
    broken[[5, 900]] = torch.nan
    running = stream(broken, [300])
    keep = torch.ones(2000, dtype=torch.bool)
    keep[[5, 900]] = False
    exact = np.corrcoef(rows[keep].double().numpy().T)
    assert running.n_left_out == 2
    assert running.n_tokens == 1998
    assert not running.is_broken.any()
    assert np.abs(running.correlation().numpy() - exact).max() <= 1e-5


def test_a_neuron_too_faint_for_float32_is_dead() -> None:
    rows = torch.randn(500, 3)
    rows[:, 1] *= 1e-25
    running = stream(rows, [100])
    assert running.is_dead.tolist() == [False, True, False]
    assert running.correlation()[1].isnan().all()


def test_state_restores_exactly() -> None:
    rows = mixed_activations(3000, 12)
    straight = stream(rows, [500])
    first = stream(rows[:1500], [500])
    second = RunningCovariance(12)
    second.load_state({name: t.clone() for name, t in first.state().items()})
    for start in range(1500, 3000, 500):
        second.update(rows[start : start + 500])
    for name, tensor in straight.state().items():
        assert torch.equal(tensor, second.state()[name]), name


def test_per_sequence_is_the_mean_of_each_sequences_own_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randn(n, 6, generator=generator) for n in (40, 7, 150, 3)]
    for sequence in sequences:
        sequence[:, 1] += sequence[:, 0]
    sequences[1][:, 3] = 2.5  # still in one sequence: its pairs count in the other three
    sequences.append(torch.randn(1, 6, generator=generator))  # one token has no correlation
    running = SequenceCorrelation(6)
    running.update(sequences[:2])
    running.update(sequences[2:])
    expected = np.zeros((6, 6))
    for i in range(6):
        for j in range(6):
            values = [
                np.corrcoef(s[:, i].numpy(), s[:, j].numpy())[0, 1]
                for s in sequences[:4]
                if s[:, i].std() > 0 and s[:, j].std() > 0
            ]
            expected[i, j] = np.mean(values)
    np.testing.assert_allclose(running.correlation().numpy(), expected, atol=1e-6)


def test_per_sequence_merges_restores_and_names_the_undefined() -> None:
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randn(20, 5, generator=generator) for _ in range(6)]
    for sequence in sequences:
        sequence[:, 4] = 1.0
    whole, first, second = (SequenceCorrelation(5) for _ in range(3))
    whole.update(sequences)
    first.update(sequences[:2])
    second.update(sequences[2:])
    first.merge(second)
    torch.testing.assert_close(first.correlation(), whole.correlation(), equal_nan=True)
    assert whole.correlation()[4].isnan().all()
    assert whole.correlation()[:4, :4].isfinite().all()
    restored = SequenceCorrelation(5)
    restored.load_state(whole.state())
    torch.testing.assert_close(
        restored.correlation(), whole.correlation(), rtol=0, atol=0, equal_nan=True
    )


def test_correlation_from_covariance_worked_by_hand() -> None:
    covariance = torch.tensor([[4.0, 3.0, 0.0], [3.0, 9.0, 0.0], [0.0, 0.0, 0.0]])
    correlation = correlation_from_covariance(covariance)
    assert correlation[0, 1] == pytest.approx(0.5)
    assert correlation[0, 0] == 1
    assert correlation[2].isnan().all()


def test_huge_activations_poison_nothing() -> None:
    # Squares of 1e17 and more leave float32 long before the activations do.
    rows = torch.randn(3000, 6)
    rows[:, 1] = rows[:, 0] + 0.5 * rows[:, 1]
    exact = np.corrcoef(rows.double().numpy().T)
    scaled = rows * torch.tensor([1e18, 1e17, 1.0, 1e-3, 1e20, 1.0])
    running = stream(scaled, [700])
    assert running.is_broken.tolist() == [False] * 4 + [True, False]
    rest = [0, 1, 2, 3, 5]
    found = running.correlation()[rest][:, rest].numpy()
    assert np.abs(found - exact[np.ix_(rest, rest)]).max() <= 1e-5
    assert running.covariance()[rest][:, rest].float().isfinite().all()


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_users_matmul_precision_is_kept_and_not_used(precision: str) -> None:
    rows = mixed_activations(5000, 16)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        running = stream(rows, [1000])
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    exact = np.corrcoef(rows.double().numpy().T)
    assert np.abs(running.correlation().numpy() - exact).max() <= 1e-5


@pytest.mark.gpu
def test_on_a_gpu_tf32_is_off() -> None:
    rows = mixed_activations(100_000, 64)
    torch.backends.cuda.matmul.allow_tf32 = True
    running = RunningCovariance(64, "cuda")
    for part in rows.split(4096):
        running.update(part.cuda())
    assert torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    exact = np.corrcoef(rows.double().numpy().T)
    assert np.abs(running.correlation().cpu().numpy() - exact).max() <= 1e-5
