"""Whether a head raises the token that it reads, told by the eigenvalues of its whole circuit."""

from __future__ import annotations

import torch
from torch import Tensor

from projector.residual.circuits.factors import Factors

# Rows of the vocabulary that are turned to float32 at once.
_BLOCK = 16_384


def vocabulary_gram(embedding: Tensor, unembedding: Tensor) -> Tensor:
    """``W_Eᵀ W_U``, (H, H) float32: all that eigenvalues need of the vocabulary.

    Made once for all heads, block by block: V·H² products.

    Args:
        embedding: W_E, (V, H), one row a token.
        unembedding: W_U, (V, H), one row a token.
    """
    width = embedding.shape[1]
    gram = torch.zeros(width, unembedding.shape[1], device=embedding.device)
    for start in range(0, len(embedding), _BLOCK):
        rows = slice(start, start + _BLOCK)
        gram += embedding[rows].float().T @ unembedding[rows].float()
    return gram


def copying_scores(ov: Factors, gram: Tensor) -> Tensor:
    """How much heads copy: Σ Re λ / Σ |λ| over the eigenvalues λ of ``W_U W_OV W_Eᵀ``.

    That matrix (V × V) takes a source token to the logits of all tokens. A head that raises what it
    reads has eigenvalues of positive real part: 1 where all are positive, −1 where all are
    negative, near 0 for a random head. Here W_E and W_U are (V × H), and the eigenvalues that are
    not zero are those of ``W_V (W_Eᵀ W_U) W_O``, d × d: nothing of the vocabulary's size is built.

    Args:
        ov: a stack of heads' W_OV, (…, H, d) and (…, d, H).
        gram: (H, H), of :func:`vocabulary_gram`.

    Returns:
        (…) float32 on the CPU, from −1 to 1; 0 for a head whose eigenvalues are all zero.
    """
    values = copying_eigenvalues(ov, gram)
    size = values.abs().sum(-1)
    score = values.real.sum(-1) / size.clamp_min(torch.finfo(size.dtype).tiny)
    return torch.where(size > 0, score, torch.zeros_like(score)).clamp(-1, 1)


def copying_eigenvalues(ov: Factors, gram: Tensor) -> Tensor:
    """(…, d) complex64 on the CPU: the eigenvalues of :func:`copying_scores`."""
    gram = gram.to(ov.left)
    return Factors(gram @ ov.left, ov.right).eigenvalues()
