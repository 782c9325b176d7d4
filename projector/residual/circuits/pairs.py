"""The pairs of tokens that a circuit joins most strongly, found without a matrix of all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from projector.residual.circuits.factors import Factors, random_axes

# Scores held at once: 64 MiB of float32.
_MOST_SCORES = 1 << 24


@dataclass(frozen=True, eq=False)
class TopPairs:
    """The tokens that a circuit acts on most, each with the tokens that it joins them to.

    A score is given above the mean over all tokens on the other side: neither a softmax over keys
    nor one over logits sees what they all have in common.

    Attributes:
        from_ids: (n,) int64, the source tokens of OV, the query tokens of QK; strongest first.
        to_ids: (n, k) int64: for OV the tokens whose logit rises, for QK the tokens that are
            attended to; strongest first.
        scores: (n, k) float32.
        spread: standard deviation of the scores of all pairs.
        control: the greatest score if the head's d coordinates are turned at random between its two
            halves: all tokens keep their lengths, and nothing joins them.
    """

    from_ids: Tensor
    to_ids: Tensor
    scores: Tensor
    spread: float
    control: float

    def with_ids(self, ids: Sequence[int]) -> TopPairs:
        """The same, with the ids of the rows in place of their numbers."""
        named = torch.tensor(ids)
        return replace(self, from_ids=named[self.from_ids], to_ids=named[self.to_ids])

    def as_rows(self) -> list[dict[str, object]]:
        """One record a source or query token, for JSON."""
        return [
            {"from": source, "to": targets, "scores": scores}
            for source, targets, scores in zip(
                self.from_ids.tolist(), self.to_ids.tolist(), self.scores.tolist(), strict=True
            )
        ]


def ov_pairs(
    ov: Factors,
    read: Tensor,
    unembedding: Tensor,
    *,
    n_pairs: int = 10,
    n_to: int = 5,
    seed: int = 0,
) -> TopPairs:
    """Source tokens and the tokens whose logits one head raises: of ``u W_OV e``.

    Args:
        ov: one head's W_OV, (H, d) and (d, H).
        read: (n, H), what the head reads of each source token: the embedding through its norm.
        unembedding: (m, H), rows of W_U, with the final norm's weight folded.
        n_pairs: how many source tokens.
        n_to: how many tokens for each.

    Returns:
        Ids are row numbers of ``read`` and ``unembedding``.
    """
    sources = _times(read, ov.right.transpose(-1, -2))
    return strongest_pairs(
        sources, _times(unembedding, ov.left), n_pairs=n_pairs, n_to=n_to, seed=seed
    )


def qk_pairs(
    qk: Factors, read: Tensor, *, n_pairs: int = 10, n_to: int = 5, seed: int = 0
) -> TopPairs:
    """Query tokens and the tokens that they attend to, by one head's weights: of ``e W_QK e'``.

    Args:
        qk: one head's W_QK, (H, d) and (d, H); queries on the left.
        read: (n, H), what the head reads of each token: the embedding through its norm.

    Returns:
        Ids are row numbers of ``read``. Scores are not divided by √d.
    """
    queries = _times(read, qk.left)
    keys = _times(read, qk.right.transpose(-1, -2))
    return strongest_pairs(queries, keys, n_pairs=n_pairs, n_to=n_to, seed=seed)


def strongest_pairs(
    from_: Tensor, to: Tensor, *, n_pairs: int, n_to: int, seed: int = 0
) -> TopPairs:
    """The rows of ``from_`` with the greatest scores, and the rows of ``to`` they have them with.

    The score of a pair is the product of the two rows, above its mean over all of ``to``. Costs
    2·n·m·d products twice, the second time for the control, and holds 64 MiB of scores at most.

    Args:
        from_: (n, d) float32.
        to: (m, d) float32.
        seed: of the control's rotation.
    """
    to = to - to.mean(0)
    best = _best_of_each(from_, to)
    chosen = best.argsort(descending=True, stable=True)[:n_pairs]
    scores, targets = (from_[chosen] @ to.T).topk(min(n_to, len(to)), dim=1)
    turned = random_axes((to.shape[1],) * 2, torch.Generator().manual_seed(seed)).to(to)
    # Σ of all squared scores, by the d × d moments of either side; the mean over `to` is zero.
    square = ((from_.T @ from_) * (to.T @ to)).sum().clamp_min(0) / max(len(from_) * len(to), 1)
    return TopPairs(
        from_ids=chosen.cpu(),
        to_ids=targets.cpu(),
        scores=scores.cpu(),
        spread=float(square.sqrt()),
        control=float(_best_of_each(from_ @ turned, to).max()),
    )


def _best_of_each(from_: Tensor, to: Tensor) -> Tensor:
    """(n,): the greatest score of each row of ``from_``, block by block."""
    n_rows = max(1, _MOST_SCORES // max(len(to), 1))
    columns = to.T.contiguous()
    return torch.cat([(block @ columns).amax(1) for block in from_.split(n_rows)])


def _times(rows: Tensor, matrix: Tensor) -> Tensor:
    """``rows @ matrix`` in float32, block by block, whatever type the rows are of."""
    return torch.cat([block.float() @ matrix.float() for block in rows.split(16_384)])
