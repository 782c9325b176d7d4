"""Low-rank matrices, stored as two factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Factors:
    """A stack of matrices ``left @ right`` of rank at most d, which are never multiplied out.

    A head's W_OV (H × H) has rank d_head: ``left`` is W_O (H × d) and ``right`` W_V (d × H). Its
    W_QK has ``left`` W_Qᵀ and ``right`` W_K.

    Attributes:
        left: (…, M, d) floating point.
        right: (…, d, N) in the same dtype.
    """

    left: Tensor
    right: Tensor

    def __len__(self) -> int:
        """How many matrices the first axis stacks."""
        return len(self.left)

    def __getitem__(self, index: int | slice | Tensor) -> Factors:
        """Some of the stack, by its first axis."""
        return Factors(self.left[index], self.right[index])

    @property
    def rank(self) -> int:
        """Upper bound of the rank, d."""
        return self.left.shape[-1]

    @property
    def transposed(self) -> Factors:
        """``(left @ right)ᵀ``."""
        return Factors(self.right.transpose(-1, -2), self.left.transpose(-1, -2))

    def to(self, *args: Any) -> Factors:
        """Convert both factors to a device or dtype."""
        return Factors(self.left.to(*args), self.right.to(*args))

    def apply(self, x: Tensor) -> Tensor:
        """Multiply every row of ``x`` (…, n, N) by the matrix: (…, n, M)."""
        return (x @ self.right.transpose(-1, -2)) @ self.left.transpose(-1, -2)

    def norms(self) -> Tensor:
        """Frobenius norms, (…): ‖LR‖² = tr(LᵀL RRᵀ)."""
        left = self.left.transpose(-1, -2) @ self.left
        right = self.right @ self.right.transpose(-1, -2)
        return (left * right).sum((-1, -2)).clamp_min(0).sqrt()

    def singular_values(self) -> Tensor:
        """Singular values, (…, d), largest first, from the d × d core between orthonormal bases."""
        core = _triangle(self.left) @ _triangle(self.right.transpose(-1, -2)).transpose(-1, -2)
        return torch.linalg.svdvals(core)

    def eigenvalues(self) -> Tensor:
        """The non-zero eigenvalues of a square M × M matrix, (…, d) complex.

        They are those of ``right @ left``, because AB and BA have the same non-zero eigenvalues.
        """
        # On the CPU: a GPU's solver for matrices without symmetry is slower on many small ones.
        return torch.linalg.eigvals((self.right @ self.left).cpu())


def random_axes(shape: torch.Size | tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw d orthonormal columns, (…, M, d) float32, uniform over all directions."""
    axes, triangle = torch.linalg.qr(torch.randn(shape, generator=generator))
    # QR alone favours some signs; with those of its diagonal the columns are uniform.
    return axes * torch.diagonal(triangle, dim1=-2, dim2=-1).sign()[..., None, :]


def _triangle(tall: Tensor) -> Tensor:
    """R of the QR decomposition, (…, min(M, d), d)."""
    return torch.linalg.qr(tall, mode="r").R
