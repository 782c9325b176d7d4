"""Whether a head raises the logit of the token that it reads, from the eigenvalues of its
circuit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from projector.residual.circuits.factors import Factors


def copying_scores(ov: Factors, gram: Tensor) -> Tensor:
    """Copying scores of heads: Σ Re λ / Σ |λ| over the eigenvalues λ of ``W_U W_OV W_Eᵀ``.

    This matrix (V × V) maps a source token to the logits of all tokens. A head that raises the
    tokens it reads has eigenvalues with positive real part. The score is 1 if all are positive, −1
    if all are negative, and near 0 for a random head. W_E and W_U are (V × H), and the non-zero
    eigenvalues are those of ``W_V (W_Eᵀ W_U) W_O``, d × d, so no matrix of the vocabulary's size is
    computed.

    Args:
        ov: a stack of heads' W_OV, (…, H, d) and (…, d, H).
        gram: (H, H), W_Eᵀ W_U; see :class:`~projector.residual.circuits.vocabulary.Grams`.

    Returns:
        (…) float32 on the CPU, from −1 to 1; 0 for a head with only zero eigenvalues.
    """
    values = copying_eigenvalues(ov, gram)
    size = values.abs().sum(-1)
    score = values.real.sum(-1) / size.clamp_min(torch.finfo(size.dtype).tiny)
    return torch.where(size > 0, score, torch.zeros_like(score)).clamp(-1, 1)


def copying_eigenvalues(ov: Factors, gram: Tensor) -> Tensor:
    """The eigenvalues of :func:`copying_scores`, (…, d) complex64 on the CPU."""
    gram = gram.to(ov.left)
    return Factors(gram @ ov.left, ov.right).eigenvalues()
