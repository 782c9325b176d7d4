"""Whether the direct path's logit of b after a equals that of a after b, and what breaks the
symmetry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from projector.model.context import input_embedding
from projector.residual.bigrams.alone import streams_alone

if TYPE_CHECKING:
    from projector.residual.subject import Subject

# The largest asymmetry that rounding explains: of float32, and of types of 16 bits.
_SYMMETRIC, _SHORT_SYMMETRIC = 1e-4, 1e-2
# How far rows of the head may be from those of the table, up to one factor.
_TIED = 1e-4
EMBEDDING, CENTRING = "steps after the embeddings", "the mean that the final norm subtracts"
NORM_BIAS, HEAD_BIAS = "the final norm's bias", "the head's bias"


@dataclass(frozen=True)
class Symmetry:
    """How symmetric the direct path's logits M between some tokens are, without each token's scale
    of the final norm.

    Attributes:
        tied: whether the head's rows are the token embeddings, up to a factor.
        asymmetry: ‖M − Mᵀ‖ / ‖M + Mᵀ‖, off the diagonal: 0 if the logit of b after a equals that of
            a after b.
        shuffled: the same with shuffled rows of the head.
        symmetric: whether ``asymmetry`` is within rounding error.
        broken_by: if the rows are tied and M isn't symmetric, the causes, each with the asymmetry
            of E diag(w) Eᵀ with this cause alone.
    """

    tied: bool
    asymmetry: float
    shuffled: float
    symmetric: bool
    broken_by: dict[str, float]


@torch.no_grad()
def measure_symmetry(subject: Subject, ids: Tensor, embedded: Tensor) -> Symmetry:
    """Measure the symmetry of the direct path's logits between some tokens, before a softcap.

    Args:
        ids: (n,) int64.
        embedded: (n, H), the first block's input for each single token.
    """
    readout = subject.readout
    rows = readout.unembedding(ids).float()
    read, head_bias = embedded.float().to(rows), readout.head_bias(ids).float()
    weight, norm_bias = torch.ones_like(rows[0]), torch.zeros_like(rows[0])
    centres, scale = False, torch.ones_like(read[:, :1])
    form = readout.form
    if readout.norm is not None and form is not None:
        x = embedded.to(subject.model.dtype)
        weight, norm_bias, centres = form.weight.to(rows), form.bias.to(rows), form.centres
        scale = form.scale(x, readout.norm(x)).to(rows)
    elif readout.norm is not None:
        read = readout.norm(embedded.to(subject.model.dtype)).float().to(rows)

    def logits(
        x: Tensor, *, centred: bool = False, norm: bool = False, head: bool = False
    ) -> Tensor:
        x = x - x.mean(dim=-1, keepdim=True) if centred else x
        found = (x * weight) @ rows.T
        found = found + (norm_bias @ rows.T) / scale if norm else found
        return found + head_bias / scale if head else found

    whole = logits(read, centred=centres, norm=True, head=True)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))
    own, tied = asymmetry(whole), _is_tied(subject, ids)
    is_wide = subject.model.dtype in (torch.float32, torch.float64)
    limit = _SYMMETRIC if is_wide else _SHORT_SYMMETRIC
    broken_by: dict[str, float] = {}
    if tied and own > limit:
        plain = _embeddings(subject, ids).to(rows)
        each_alone = {
            EMBEDDING: logits(read),
            CENTRING: logits(plain, centred=centres),
            NORM_BIAS: logits(plain, norm=True),
            HEAD_BIAS: logits(plain, head=True),
        }
        alone = {what: asymmetry(matrix) for what, matrix in each_alone.items()}
        broken_by = {what: value for what, value in alone.items() if value > limit}
    return Symmetry(
        tied=tied,
        asymmetry=own,
        shuffled=asymmetry(whole[:, order.to(whole.device)]),
        symmetric=own <= limit,
        broken_by=broken_by,
    )


def asymmetry(matrix: Tensor) -> float:
    """Compute ‖M − Mᵀ‖ / ‖M + Mᵀ‖ off the diagonal: 0 for a symmetric matrix, about 1 for a random
    one.
    """
    off = matrix - matrix.diag().diag()
    whole = float((off + off.T).norm())
    return float((off - off.T).norm()) / whole if whole else 0.0


def _is_tied(subject: Subject, ids: Tensor) -> bool:
    """Whether the head's rows are the embedding table's, up to one factor."""
    table: Any = input_embedding(subject.model)
    rows = subject.readout.head_rows(ids).double()
    given = table.weight.detach()[ids.to(table.weight.device)].to(rows)
    if given.shape != rows.shape:
        return False
    factor = (given * rows).sum() / (given * given).sum().clamp_min(1e-30)
    return bool((factor * given - rows).norm() <= _TIED * rows.norm())


def _embeddings(subject: Subject, ids: Tensor) -> Tensor:
    """(n, H) float32: the token embeddings alone, before all that follows them."""
    source = subject.layout.embedding.sources[0]
    return streams_alone(subject, ids, {"": source.tap})[""].float() * source.factor
