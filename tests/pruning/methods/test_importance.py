"""Scores of neurons: what a neuron's removal costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from projector.model.architecture.weights import MlpWeights
from pruning.calibration.moments import Moments
from pruning.methods import importance

N, H = 7, 5


def _moments() -> tuple[Moments, np.ndarray]:
    rows = np.random.default_rng(0).normal(0.7, 1.3, (50, N)) * np.arange(1, N + 1)
    tensor = torch.from_numpy(rows)
    return Moments(50, tensor.mean(dim=0), tensor.T @ tensor / 50), rows


def _weights(n_inputs: int = 2) -> MlpWeights:
    generator = torch.Generator().manual_seed(1)
    inputs = tuple(torch.randn(N, H, generator=generator) for _ in range(n_inputs))
    return MlpWeights(
        inputs, (None,) * n_inputs, torch.randn(H, N, generator=generator), torch.ones(H)
    )


def test_activation_is_the_root_of_the_mean_square() -> None:
    moments, rows = _moments()
    expected = [math.sqrt(sum(h * h for h in rows[:, j]) / len(rows)) for j in range(N)]
    assert importance.activation(moments).tolist() == pytest.approx(expected)


def test_wanda_sums_the_scores_of_a_column() -> None:
    moments, rows = _moments()
    output = _weights().output.tolist()
    expected = []
    for j in range(N):
        norm = math.sqrt(sum(h * h for h in rows[:, j]) / len(rows))
        expected.append(sum(abs(output[i][j]) * norm for i in range(H)))
    assert importance.wanda(moments, _weights()).tolist() == pytest.approx(expected)


def test_flap_is_the_variance_of_what_the_neuron_writes() -> None:
    moments, rows = _moments()
    output = _weights().output.double().numpy()
    # What is written is a vector for each token; summed over its coordinates.
    expected = [np.var(np.outer(rows[:, j], output[:, j]), axis=0).sum() for j in range(N)]
    assert importance.flap(moments, _weights()).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("n_inputs", [1, 2])
def test_magnitude_is_the_norm_of_all_weights_of_the_neuron(n_inputs: int) -> None:
    weights = _weights(n_inputs)
    expected = []
    for j in range(N):
        total = 0.0
        for matrix in (*weights.inputs, weights.output.T):
            total += sum(w * w for w in matrix[j].tolist())
        expected.append(math.sqrt(total))
    assert importance.magnitude(weights).tolist() == pytest.approx(expected)


def test_scores_are_float64_on_the_cpu_whatever_the_model_is() -> None:
    moments, _ = _moments()
    weights = _weights().to(torch.bfloat16)
    for scores in (
        importance.magnitude(weights),
        importance.wanda(moments, weights),
        importance.flap(moments, weights),
        importance.random_scores(N, torch.Generator().manual_seed(0)),
    ):
        assert scores.dtype == torch.float64
        assert scores.shape == (N,)


def test_random_scores_repeat_with_the_seed() -> None:
    def draw(seed: int) -> list[float]:
        return importance.random_scores(100, torch.Generator().manual_seed(seed)).tolist()

    assert draw(1) == draw(1) != draw(2)
    assert len(set(draw(1))) == 100


def test_standardized_scores_have_mean_0_and_spread_1_in_the_same_order() -> None:
    scores = torch.tensor([3.0, -1.0, 40.0, 7.0], dtype=torch.float64)
    result = importance.standardized(1e6 * scores - 5)
    assert float(result.mean()) == pytest.approx(0)
    assert float(result.std()) == pytest.approx(1)
    assert result.argsort().tolist() == scores.argsort().tolist()
    assert importance.standardized(torch.full((3,), 2.0)).tolist() == [0, 0, 0]
