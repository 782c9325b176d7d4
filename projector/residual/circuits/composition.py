"""Composition scores: how strongly a later head reads an earlier head's output, from their
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from projector.residual.circuits.factors import Factors, random_axes

KINDS = ("Q", "K", "V")
# Entries of matrices that are held at once: 64 MiB of float32.
_MOST_ENTRIES = 1 << 24


@dataclass(frozen=True)
class Composition:
    """A later head that reads an earlier one.

    Attributes:
        kind: the part of the later head that reads it: ``Q`` queries, ``K`` keys, ``V`` values.
        later, earlier: layer and head of each.
        strength: ‖W₂ W₁‖ / (‖W₂‖ ‖W₁‖), from 0 to 1.
        null_mean, null_std: mean and standard deviation of the strength for random matrices with
            the same singular values.
        percentile: share of the random matrices with a lower strength, in percent.
        times_typical: strength divided by the median of all pairs of this kind. Trained heads share
            directions of the stream, so most pairs exceed their null; this ratio shows which exceed
            other pairs.
    """

    kind: str
    later: tuple[int, int]
    earlier: tuple[int, int]
    strength: float
    null_mean: float
    null_std: float
    percentile: float
    times_typical: float


@dataclass(frozen=True, eq=False)
class Compositions:
    """All pairs of an earlier and a later layer's heads.

    Attributes:
        earlier, later: (P, 2) int64, layer and head.
        strength: (3, P) float32; rows are Q, K and V.
        null_mean, null_std, percentile: (3, P) float32, see :class:`Composition`.
        n_random: number of random pairs for the percentile.
    """

    earlier: Tensor
    later: Tensor
    strength: Tensor
    null_mean: Tensor
    null_std: Tensor
    percentile: Tensor
    n_random: int

    def strongest(self, n: int, kind: str | None = None) -> list[Composition]:
        """The ``n`` pairs with the largest strength above their null's mean, of one kind or of
        all.
        """
        chosen = KINDS if kind is None else (kind,)
        rows = [KINDS.index(each) for each in chosen]
        excess = (self.strength - self.null_mean)[rows]
        n_pairs = excess.shape[1]
        order = excess.flatten().argsort(descending=True, stable=True)[:n].tolist()
        return [self._at(rows[i // n_pairs], i % n_pairs) for i in order]

    def share_above(self, percentile: float = 99.0) -> dict[str, float]:
        """For each kind, the share of pairs above a percentile of their null."""
        shares = (self.percentile > percentile).float().mean(1)
        return dict(zip(KINDS, shares.tolist(), strict=True))

    def _at(self, row: int, pair: int) -> Composition:
        strength = float(self.strength[row, pair])
        later, earlier = self.later[pair].tolist(), self.earlier[pair].tolist()
        return Composition(
            kind=KINDS[row],
            later=(later[0], later[1]),
            earlier=(earlier[0], earlier[1]),
            strength=strength,
            null_mean=float(self.null_mean[row, pair]),
            null_std=float(self.null_std[row, pair]),
            percentile=float(self.percentile[row, pair]),
            times_typical=strength / max(float(self.strength[row].median()), 1e-12),
        )


def compose(later: Sequence[Factors], earlier: Sequence[Factors]) -> Tensor:
    """Compute ‖W₂ W₁‖ / (‖W₂‖ ‖W₁‖), with Frobenius norms, for each later W₂ and each earlier W₁.

    W₂ W₁ is never computed. With a d × H matrix X that has the norms of W₂ and an H × d matrix Y
    that has those of W₁, ‖W₂ W₁‖² = Σ (XᵀX)ᵢⱼ (YYᵀ)ᵢⱼ: one product of two A × H² matrices for all
    pairs of heads. It is summed over rows i and j ≥ i, so that only 64 MiB of each are in memory.

    Args:
        later: stacks (A₂, M, d₂) and (A₂, d₂, H).
        earlier: stacks (A₁, H, d₁) and (A₁, d₁, N).

    Returns:
        (ΣA₂, ΣA₁), in the dtype and on the device of the first layer's stack; 0 if a matrix is
        zero.
    """
    # A model may be spread over devices: layers meet where the first one is.
    home = later[0].left.device
    reading = [_reading(each).to(home) for each in later]
    writing = [_writing(each).to(home) for each in earlier]
    width, n_most = reading[0].shape[-1], max(sum(map(len, later)), sum(map(len, earlier)))
    squares: Tensor | float = 0.0
    n_rows = max(1, _MOST_ENTRIES // (n_most * width))
    for start in range(0, width, n_rows):
        rows, columns = slice(start, start + n_rows), slice(start, None)
        grams = torch.cat([x[..., rows].transpose(1, 2) @ x[..., columns] for x in reading])
        # The matrices are symmetric: what is right of the diagonal counts for what is left of it.
        counted = torch.ones(grams.shape[1:], dtype=grams.dtype, device=grams.device)
        grams *= counted.triu() + counted.triu(1)
        others = torch.cat([y[:, rows] @ y[:, columns].transpose(1, 2) for y in writing])
        squares = squares + grams.flatten(1) @ others.flatten(1).T
    assert isinstance(squares, Tensor)
    sizes = torch.cat([_size(x) for x in reading])[:, None] * torch.cat([_size(y) for y in writing])
    return squares.clamp_min(0).sqrt() / sizes.clamp_min(torch.finfo(sizes.dtype).tiny)


def compose_heads(
    qk: Sequence[Factors],
    ov: Sequence[Factors],
    *,
    layers: Sequence[int] | None = None,
    n_random: int = 256,
    seed: int = 0,
) -> Compositions:
    """Compute the composition of every head with every head of an earlier layer, through Q, K and
    V.

    W₁ is the earlier head's W_OV; W₂ is the later head's W_QKᵀ for Q, its W_QK for K, its W_OV for
    V. With norms folded into them, only a norm's scale, which varies by token, is left out.

    Args:
        qk, ov: one stack of heads per layer, of the stream's width; W_QK has queries on the left.
        layers: the index of each layer; counted from 0 by default.
        n_random: number of random pairs in each null. They are the same for all pairs of heads,
            except for the singular values.
    """
    numbers = range(len(ov)) if layers is None else layers
    names = torch.tensor(
        [(n, head) for n, each in zip(numbers, ov, strict=True) for head in range(len(each))]
    )
    is_pair = names[:, None, 0] > names[None, :, 0]
    later, earlier = is_pair.nonzero().T
    if not len(later):
        nowhere, none = torch.zeros(0, 2, dtype=torch.int64), torch.zeros(len(KINDS), 0)
        return Compositions(nowhere, nowhere, none, none, none, none, n_random)
    # The queries of W_QK stand on its left: what they read is read by its transpose.
    readers = ([each.transposed for each in qk], qk, ov)
    strength = torch.stack([compose(each, ov).cpu().float() for each in readers])
    null = _draw_null(qk, ov, strength, n_random, seed)
    values, mean, std, percentile = (each[:, later, earlier] for each in (strength, *null))
    return Compositions(names[earlier], names[later], values, mean, std, percentile, n_random)


def _draw_null(
    qk: Sequence[Factors], ov: Sequence[Factors], strength: Tensor, n_random: int, seed: int
) -> list[Tensor]:
    """Mean, standard deviation and percentile, (3, A, A) each, of random matrices' strengths.

    With random axes, ‖W₂ W₁‖² = Σ s₂ᵢ² Qᵢⱼ² s₁ⱼ², where Q (d × d) is the corner of a random
    orthogonal H × H matrix: whatever the singular values, its mean is ‖W₂‖² ‖W₁‖² / H.
    """
    generator = torch.Generator().manual_seed(seed)
    rank = max(each.rank for each in (*qk, *ov))
    width = max(ov[0].left.shape[-2], rank)
    both = [torch.cat([_shares(each, rank) for each in stack]) for stack in (qk, ov)]
    # Queries and keys have the same singular values, so the same null.
    kinds = (0, 0, 1)
    total, square, weaker = (torch.zeros_like(strength) for _ in range(3))
    for _ in range(n_random):
        corner = random_axes((width, rank), generator)[:rank].square() @ both[1].T
        drawn = torch.stack([(each @ corner).sqrt() for each in both])[kinds, :]
        total, square = total + drawn, square + drawn.square()
        weaker += drawn < strength
    mean = total / max(n_random, 1)
    spread = (square / max(n_random, 1) - mean.square()).clamp_min(0).sqrt()
    return [mean, spread, weaker * 100 / max(n_random, 1)]


def _shares(factors: Factors, rank: int) -> Tensor:
    """(A, rank): each squared singular value over their sum, and zeros behind."""
    squares = factors.singular_values().square().cpu().float()
    squares = squares / squares.sum(1, keepdim=True).clamp_min(torch.finfo(squares.dtype).tiny)
    return torch.nn.functional.pad(squares, (0, rank - squares.shape[1]))


def _reading(factors: Factors) -> Tensor:
    """(A, d, H) with the norms of ``left @ right`` times anything on the right."""
    return torch.linalg.qr(factors.left, mode="r").R @ factors.right


def _size(matrices: Tensor) -> Tensor:
    """(A,): Frobenius norms."""
    return matrices.flatten(1).norm(dim=1)


def _writing(factors: Factors) -> Tensor:
    """(A, H, d) with the norms of anything on the left times ``left @ right``."""
    triangle = torch.linalg.qr(factors.right.transpose(-1, -2), mode="r").R
    return factors.left @ triangle.transpose(-1, -2)
