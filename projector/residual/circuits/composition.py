"""How strongly a later head reads what an earlier one writes, by their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from projector.residual.circuits.factors import Factors, random_axes

KINDS = ("Q", "K", "V")


@dataclass(frozen=True)
class Composition:
    """A later head that reads an earlier one.

    Attributes:
        kind: what of the later head reads it: ``Q`` its queries, ``K`` its keys, ``V`` its values.
        later, earlier: layer and head of each.
        strength: ‖W₂ W₁‖ / (‖W₂‖ ‖W₁‖), from 0 to 1.
        null_mean, null_std: of the same for random matrices with the same singular values.
        percentile: share of those that are weaker, in percent.
        times_typical: strength over the median of all pairs of this kind. Trained heads share
            directions of the stream, so most pairs exceed their null; this tells which exceed
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
        n_random: how many random pairs the percentile is among.
    """

    earlier: Tensor
    later: Tensor
    strength: Tensor
    null_mean: Tensor
    null_std: Tensor
    percentile: Tensor
    n_random: int

    def strongest(self, n: int, kind: str | None = None) -> list[Composition]:
        """The ``n`` pairs of the greatest strength above their null's mean, of one kind or all."""
        chosen = KINDS if kind is None else (kind,)
        rows = [KINDS.index(each) for each in chosen]
        excess = (self.strength - self.null_mean)[rows]
        n_pairs = excess.shape[1]
        order = excess.flatten().argsort(descending=True, stable=True)[:n].tolist()
        return [self._at(rows[i // n_pairs], i % n_pairs) for i in order]

    def share_above(self, percentile: float = 99.0) -> dict[str, float]:
        """For each kind, the share of pairs beyond a percentile of their null."""
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


def compose(later: Factors, earlier: Factors) -> Tensor:
    """‖W₂ W₁‖ / (‖W₂‖ ‖W₁‖), Frobenius norms, for each later W₂ and each earlier W₁.

    By products of d × H and H × d matrices: W₂ W₁ (H × H) is never built.

    Args:
        later: (A₂, M, d₂) and (A₂, d₂, H).
        earlier: (A₁, H, d₁) and (A₁, d₁, N).

    Returns:
        (A₂, A₁) of their type; 0 where a matrix is zero.
    """
    reading, writing = _reading(later), _writing(earlier)
    # ‖L₂R₂L₁R₁‖ = ‖(T₂R₂)(L₁T₁ᵀ)‖ with the triangles T of L₂ and R₁ᵀ: their bases are orthonormal.
    n_later, n_earlier = len(later), len(earlier)
    products = reading.flatten(0, 1) @ writing.transpose(0, 1).flatten(1)
    squares = products.square().view(n_later, reading.shape[1], n_earlier, -1).sum((1, 3))
    sizes = reading.flatten(1).norm(dim=1)[:, None] * writing.flatten(1).norm(dim=1)
    return squares.sqrt() / sizes.clamp_min(torch.finfo(sizes.dtype).tiny)


def compose_heads(
    qk: Sequence[Factors], ov: Sequence[Factors], *, n_random: int = 256, seed: int = 0
) -> Compositions:
    """Composition of every head with every head of an earlier layer, through Q, K and V.

    W₁ is the earlier head's W_OV; W₂ is the later head's W_QKᵀ for Q, its W_QK for K, its W_OV for
    V. With norms folded into them, only what varies by token (a norm's scale) is left out.

    Args:
        qk, ov: one stack of heads a layer, on the stream's width; W_QK has queries on the left.
        n_random: how many random pairs each null draws. They are the same for all pairs, but for
            the singular values.
    """
    n_layers = len(ov)
    sizes = [len(each) for each in ov]
    starts = [sum(sizes[:layer]) for layer in range(n_layers)]
    names = [(layer, head) for layer, size in enumerate(sizes) for head in range(size)]
    blocks: list[list[Tensor]] = []
    spectra = _Null(qk, ov, n_random, seed)
    pairs: list[tuple[int, int]] = []
    for layer in range(1, n_layers):
        # The queries of W_QK stand on its left: what they read is read by its transpose.
        readers = (qk[layer].transposed, qk[layer], ov[layer])
        strength = torch.stack(
            [torch.cat([compose(each, ov[below]) for below in range(layer)], 1) for each in readers]
        ).cpu()
        blocks.append([strength, *spectra.of(layer, strength)])
        for head in range(sizes[layer]):
            pairs += [(starts[layer] + head, below) for below in range(starts[layer])]
    if not blocks:
        nowhere, none = torch.zeros(0, 2, dtype=torch.int64), torch.zeros(len(KINDS), 0)
        return Compositions(nowhere, nowhere, none, none, none, none, n_random)
    strength, mean, std, percentile = (
        torch.cat([block[k].flatten(1) for block in blocks], 1) for k in range(4)
    )
    later, earlier = torch.tensor(pairs).T
    at = torch.tensor(names)
    return Compositions(at[earlier], at[later], strength, mean, std, percentile, n_random)


class _Null:
    """Composition of random matrices with the singular values of given ones.

    With random axes, ‖W₂ W₁‖² = Σ s₂ᵢ² Qᵢⱼ² s₁ⱼ², where Q (d × d) is the corner of a random
    orthogonal H × H matrix: whatever the singular values, its mean is ‖W₂‖² ‖W₁‖² / H.
    """

    def __init__(
        self, qk: Sequence[Factors], ov: Sequence[Factors], n_random: int, seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        width, rank = ov[0].left.shape[-2], max(each.rank for each in (*qk, *ov))
        corners = [
            random_axes((width, min(rank, width)), generator)[:rank].square()
            for _ in range(n_random)
        ]
        self._squares = torch.stack(corners)
        self._qk = [_shares(each) for each in qk]
        self._ov = [_shares(each) for each in ov]

    def of(self, layer: int, strength: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, standard deviation and percentile for (3, A₂, A₁) strengths of a layer's heads."""
        found = []
        for later, given in zip(
            (self._qk[layer], self._qk[layer], self._ov[layer]), strength, strict=True
        ):
            drawn = torch.cat(
                [
                    (later @ self._squares[:, : later.shape[1], : below.shape[1]] @ below.T)
                    for below in self._ov[:layer]
                ],
                2,
            ).sqrt()
            weaker = (drawn < given).float().mean(0) * 100
            found.append((drawn.mean(0), drawn.std(0), weaker))
        mean, std, percentile = (torch.stack(each) for each in zip(*found, strict=True))
        return mean, std, percentile


def _shares(factors: Factors) -> Tensor:
    """(A, d): each squared singular value over their sum."""
    squares = factors.singular_values().square().cpu().float()
    return squares / squares.sum(1, keepdim=True).clamp_min(torch.finfo(squares.dtype).tiny)


def _reading(factors: Factors) -> Tensor:
    """(A, d, H) with the norms of ``left @ right`` times anything on the right."""
    return torch.linalg.qr(factors.left, mode="r").R @ factors.right


def _writing(factors: Factors) -> Tensor:
    """(A, H, d) with the norms of anything on the left times ``left @ right``."""
    triangle = torch.linalg.qr(factors.right.transpose(-1, -2), mode="r").R
    return factors.left @ triangle.transpose(-1, -2)
