"""Whether a head raises the token that it reads, by the eigenvalues of its whole circuit."""

from __future__ import annotations

import torch
from torch import Tensor

from projector.residual.circuits.factors import Factors


def copying_scores(ov: Factors, gram: Tensor) -> Tensor:
    """How much heads copy: Σ Re λ / Σ |λ| over the eigenvalues λ of ``W_U W_OV W_Eᵀ``.

    That matrix (V × V) takes a source token to the logits of all tokens. A head that raises what it
    reads has eigenvalues of positive real part: 1 where all are positive, −1 where all are
    negative, near 0 for a random head. Here W_E and W_U are (V × H), and the eigenvalues that are
    not zero are those of ``W_V (W_Eᵀ W_U) W_O``, d × d: nothing of the vocabulary's size is built.

    Args:
        ov: a stack of heads' W_OV, (…, H, d) and (…, d, H).
        gram: (H, H), W_Eᵀ W_U; see :class:`~projector.residual.circuits.vocabulary.Grams`.

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
