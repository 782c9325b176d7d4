"""The pairs of tokens that a circuit connects most strongly, without a matrix of all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from projector.residual.circuits.factors import Factors, random_axes

# Scores held at once: 64 MiB of float32.
_MOST_SCORES = 1 << 24
# Rows that are tried first: their scores tell which others need not be.
_FIRST_ROWS = 256


@dataclass(frozen=True, eq=False)
class TopPairs:
    """The tokens that a circuit acts on most, each with the tokens it is connected to.

    Scores are relative to the mean over all tokens on the other side, because a softmax over keys
    or over logits ignores their common part.

    Attributes:
        from_ids: (n,) int64, source tokens for OV, query tokens for QK; strongest first.
        to_ids: (n, k) int64, for OV the tokens with a raised logit, for QK the tokens that are
            attended to; strongest first.
        scores: (n, k) float32.
        spread: standard deviation of the scores of all pairs.
        control: the largest score after a random rotation of the head's d coordinates between its
            two factors: all tokens keep their lengths, but the connection is lost.
    """

    from_ids: Tensor
    to_ids: Tensor
    scores: Tensor
    spread: float
    control: float

    def with_ids(self, ids: Sequence[int]) -> TopPairs:
        """Replace row indices by token ids."""
        named = torch.tensor(ids)
        return replace(self, from_ids=named[self.from_ids], to_ids=named[self.to_ids])


def ov_pairs(
    ov: Factors,
    read: Tensor,
    unembedding: Tensor,
    *,
    n_pairs: int = 10,
    n_to: int = 5,
    seed: int = 0,
) -> TopPairs:
    """Find source tokens and the tokens with logits that one head raises, by ``u W_OV e``.

    Args:
        ov: one head's W_OV, (H, d) and (d, H).
        read: (n, H), the head's input for each source token: the embedding after its norm.
        unembedding: (m, H), rows of W_U, with the final norm's weight folded in.
        n_pairs: number of source tokens.
        n_to: number of target tokens for each.

    Returns:
        The pairs, with row indices of ``read`` and ``unembedding`` as ids.
    """
    sources = _times(read, ov.right.transpose(-1, -2))
    return strongest_pairs(
        sources, _times(unembedding, ov.left), n_pairs=n_pairs, n_to=n_to, seed=seed
    )


def qk_pairs(
    qk: Factors, read: Tensor, *, n_pairs: int = 10, n_to: int = 5, seed: int = 0
) -> TopPairs:
    """Find query tokens and the tokens that they attend to, by one head's ``e W_QK e'``.

    Args:
        qk: one head's W_QK, (H, d) and (d, H); queries on the left.
        read: (n, H), the head's input for each token: the embedding after its norm.

    Returns:
        The pairs, with row indices of ``read`` as ids. Scores are not divided by √d.
    """
    queries = _times(read, qk.left)
    keys = _times(read, qk.right.transpose(-1, -2))
    return strongest_pairs(queries, keys, n_pairs=n_pairs, n_to=n_to, seed=seed)


def strongest_pairs(
    from_: Tensor, to: Tensor, *, n_pairs: int, n_to: int, seed: int = 0
) -> TopPairs:
    """Find the rows of ``from_`` with the largest scores, and the rows of ``to`` that give them.

    The score of a pair is the inner product of the two rows, minus its mean over all of ``to``. A
    score can't exceed the product of the rows' lengths, so pairs of short rows are skipped without
    missing any of the strongest pairs. This costs at most 2·n·m·d operations twice, the second time
    for the control; on trained heads, it is a small part of that. It stores 64 MiB of scores.

    Args:
        from_: (n, d) float32.
        to: (m, d) float32.
        seed: seed of the control's rotation.
    """
    to = to - to.mean(0)
    chosen = _strongest_rows(from_, to, n_pairs)
    scores, targets = (from_[chosen] @ to.T).topk(min(n_to, len(to)), dim=1)
    # Rows come in the order of their scores as they are shown: the last digit may differ above.
    order = scores[:, 0].argsort(descending=True, stable=True)
    chosen, scores, targets = chosen[order], scores[order], targets[order]
    turned = from_ @ random_axes((to.shape[1],) * 2, torch.Generator().manual_seed(seed)).to(to)
    control = turned[_strongest_rows(turned, to, 1)] @ to.T
    # Σ of all squared scores, by the d × d moments of either side; the mean over `to` is zero.
    square = ((from_.T @ from_) * (to.T @ to)).sum().clamp_min(0) / max(len(from_) * len(to), 1)
    return TopPairs(
        from_ids=chosen.cpu(),
        to_ids=targets.cpu(),
        scores=scores.cpu(),
        spread=float(square.sqrt()),
        control=float(control.max()),
    )


def _strongest_rows(from_: Tensor, to: Tensor, n: int) -> Tensor:
    """The numbers of the ``n`` rows of ``from_`` whose greatest score with any of ``to`` is
    greatest."""
    lengths, order = from_.norm(dim=1).sort(descending=True, stable=True)
    to_lengths, to_order = to.norm(dim=1).sort(descending=True, stable=True)
    to = to[to_order]
    n_rows = min(_FIRST_ROWS, max(1, _MOST_SCORES // max(len(to), 1)))
    best, start = torch.full((len(from_),), -torch.inf, device=to.device), 0
    while start < len(from_):
        rows = slice(start, start + n_rows)
        # No row from here on is longer than this: it needs a partner of at least that length.
        least = best[:start].topk(n).values[-1] if start >= n else -torch.inf
        needed = float(least) / max(float(lengths[start]), 1e-30)
        n_long = int((to_lengths >= needed * (1 - 1e-5)).sum())
        if n_long == 0:
            break
        best[rows] = (from_[order[rows]] @ to[:n_long].T).amax(1)
        start += n_rows
        n_rows = min(4 * _FIRST_ROWS, max(1, _MOST_SCORES // n_long))
    return order[best.topk(min(n, len(best))).indices]


def _times(rows: Tensor, matrix: Tensor) -> Tensor:
    """``rows @ matrix`` in float32, block by block, whatever type the rows are of."""
    return torch.cat([block.to(matrix.device).float() @ matrix for block in rows.split(16_384)])
