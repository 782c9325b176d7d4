"""The Triton kernels: interpreted where there is no GPU, compiled where there is one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from projector.layouts.kernels import Correlations, Distances, MatrixFree, guttman_transforms
from projector.layouts.solving import Layout, solve_all
from projector.statistics.sampling import standardize
from tests.projector.layouts.kernels.reference import cases, check_against_formula, distances

_HAS_TRITON = importlib.util.find_spec("triton") is not None


@pytest.mark.skipif(not _HAS_TRITON, reason="needs Triton: pip install triton")
def test_the_kernels_in_the_interpreter() -> None:
    # In a process of its own: Triton decides when it is imported.
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    file = Path(__file__).with_name("interpreted_triton.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(file)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-5000:]


@pytest.mark.gpu
def test_the_kernels_on_a_gpu() -> None:
    for dim in (1, 2, 3, 8):
        of_dim = [case for case in cases().values() if case[0].shape[1] == dim]
        steps = guttman_transforms(
            [positions.cuda() for positions, _ in of_dim],
            [Correlations(rho.cuda()) for _, rho in of_dim],
        )
        for (positions, rho), step in zip(of_dim, steps, strict=True):
            check_against_formula(step.moved.cpu(), step.raw_stress, positions, distances(rho))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_correlations_of_activations_on_a_gpu(dtype: torch.dtype) -> None:
    rows, _ = standardize(torch.randn(700, 500), dtype)
    positions = torch.randn(500, 3)
    target = MatrixFree(rows).block(slice(0, 500), slice(0, 500)).clone().fill_diagonal_(0)
    (step,) = guttman_transforms([positions.cuda()], [MatrixFree(rows.cuda())])
    check_against_formula(step.moved.cpu(), step.raw_stress, positions, target)


@pytest.mark.gpu
def test_equal_runs_give_equal_bytes_on_a_gpu() -> None:
    correlations = [torch.corrcoef(torch.randn(n, 400)).cuda() for n in (300, 77, 300)]
    first, second = (solve_all(correlations, Layout()) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.positions, b.positions)


@pytest.mark.gpu
def test_float64_takes_the_tiled_form_on_a_gpu() -> None:
    positions, target = torch.randn(40, 3).double(), torch.rand(40, 40).double()
    target = (target + target.T).fill_diagonal_(0)
    (step,) = guttman_transforms([positions.cuda()], [Distances(target.cuda())])
    assert step.moved.dtype == torch.float64
    check_against_formula(step.moved.cpu(), step.raw_stress, positions, target)
