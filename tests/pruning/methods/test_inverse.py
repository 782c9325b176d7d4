"""Inverses by halves are inverses."""

from __future__ import annotations

import pytest
import torch

from pruning.methods import inverse
from pruning.methods.inverse import inverse_of


def _regular(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    rows = torch.randn(2 * n, n, generator=generator, dtype=torch.float64)
    return rows.T @ rows / n


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13, 31, 64])
@pytest.mark.parametrize("by_columns", [False, True])
def test_an_inverse_is_that_of_lapack(
    n: int, by_columns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverse, "_SMALL", 3)
    matrix = _regular(n)
    given = matrix.T.contiguous().T if by_columns else matrix
    found = inverse_of(given)
    torch.testing.assert_close(found, torch.linalg.inv(matrix), rtol=1e-9, atol=1e-9)
    assert torch.equal(found, found.T)
    assert found.is_contiguous()
    assert torch.equal(given, matrix)


def test_an_indefinite_one_is_inverted_too_and_a_singular_one_is_not() -> None:
    matrix = _regular(6)
    matrix[2, 2] = -5
    found = inverse_of(matrix)
    torch.testing.assert_close(found @ matrix, torch.eye(6, dtype=torch.float64))
    with pytest.raises(RuntimeError):
        inverse_of(torch.zeros(3, 3, dtype=torch.float64))
