"""Find the terms of a head's attention logits in addition to q kᵀ, from patterns of random
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from projector.model.architecture.stream.probing.calls import Probe, Run

ROTARY = "rotary position embedding"
ALIBI = "ALiBi, a bias by distance"
QK_NORM = "QK-norm, a norm of queries and keys"
BIASES = "biases of queries and keys"
SOFTCAP = "softcap of the attention logits"
UNKNOWN = "an unrecognised term"

# Patterns hold no more of a logit than this, and what is this small of the largest is noise.
_LEAST_SHARE = 1e-25
_TOLERANCE = 1e-3
# Queries and keys of this size give logits that no cap changes, and logits this large show one.
_SMALL, _LARGE = 0.2, 25.0


@dataclass(frozen=True)
class LogitForm:
    """How attention logits are computed from queries and keys.

    Attributes:
        scale: the factor of q kᵀ; None if it was not found.
        left_out: names of the other terms.
    """

    scale: float | None
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _Places:
    """Where queries and keys are: number of the matrix and (heads, d) outputs, and the groups."""

    q: tuple[int, Tensor]
    k: tuple[int, Tensor]
    group: Sequence[int]

    def dots(self, run: Run) -> tuple[Tensor, bool]:
        """(B, A, T, T) q kᵀ, behind the norms of queries and keys where there are any; and whether
        there are."""
        q, q_normed = _normed(run, *self.q)
        k, k_normed = _normed(run, *self.k)
        k = k[:, :, list(self.group)]
        return torch.einsum("btad,bsad->bats", q, k), q_normed or k_normed


def describe_logits(
    probe: Probe, q: tuple[int, Tensor], k: tuple[int, Tensor], group: Sequence[int]
) -> LogitForm:
    """Find the scale of attention logits, and their other terms, by fitting log patterns.

    Log patterns are the logits up to a constant for each row. They are fitted by q kᵀ alone; by q
    kᵀ and the distance (ALiBi); and by q kᵀ with all tokens at the same position (rotary positions,
    which then rotate nothing). Large logits show a softcap.

    Args:
        probe: the block's probe.
        q, k: the index of the matrix in the probe, and (heads or groups, d) the indices of its
            outputs.
        group: for each head, which keys it uses.
    """
    places = _Places(q, k, group)
    names: list[str] = []
    run = probe.run("several", size=_SMALL)
    dots, is_normed = places.dots(run)
    if is_normed:
        names.append(QK_NORM)
    kind, by_distance = "several", False
    scale = _fit(run.pattern, dots, by_distance=False)
    if scale is None:
        scale = _fit(run.pattern, dots, by_distance=True)
        by_distance = scale is not None
        names += [ALIBI] if by_distance else []
    if scale is None and "still" in probe.calls:
        kind = "still"
        run = probe.run(kind, size=_SMALL)
        dots, _ = places.dots(run)
        scale = _fit(run.pattern, dots, by_distance=False)
        names += [] if scale is None else [ROTARY]
    if scale is None:
        names.append(UNKNOWN)
    elif not is_normed:
        growth = (_LARGE / (scale * dots.float().std().clamp(min=1e-6))).sqrt()
        large = probe.run(kind, size=_SMALL * float(growth))
        if _fit(large.pattern, places.dots(large)[0], by_distance=by_distance) is None:
            names.append(SOFTCAP)
    modules = (probe.matrices[number].module for number, _ in (q, k))
    if any(getattr(module, "bias", None) is not None for module in modules):
        names.append(BIASES)
    return LogitForm(scale, tuple(names))


def _normed(run: Run, number: int, index: Tensor) -> tuple[Tensor, bool]:
    """Queries or keys, (B, T, heads, d) float32, behind their norm; and whether there is one."""
    outputs = run.outputs[number]
    plain = outputs[..., index.to(outputs.device)]
    shape = plain.shape
    found: Tensor | None = None
    for module, given in run.passed.items():
        if given.numel() != plain.numel() or not given.requires_grad:
            continue
        by_head = _by_head(given, shape)
        if by_head is None or next(module.parameters(), None) is None:
            continue
        # What depends on the pattern, such as the output projection, comes too late to shape it.
        everywhere = torch.arange(given.shape[-1])
        if _depends(run.pattern, given, everywhere) and _depends(given, outputs, index):
            found = by_head
    return (plain if found is None else found).detach().float(), found is not None


def _by_head(given: Tensor, shape: torch.Size) -> Tensor | None:
    """What a module gave as (B, T, heads, d), if it can be that."""
    n_sequences, n_tokens, n_heads, width = shape
    if given.shape == shape:
        return given
    if given.shape == (n_sequences, n_heads, n_tokens, width):
        return given.transpose(1, 2)
    if given.shape == (n_sequences, n_tokens, n_heads * width):
        return given.view(shape)
    return None


def _depends(given: Tensor, outputs: Tensor, index: Tensor) -> bool:
    """Whether a tensor depends on some numbers of another's last axis."""
    (gradient,) = torch.autograd.grad(
        given, outputs, torch.randn_like(given), retain_graph=True, allow_unused=True
    )
    return gradient is not None and bool(gradient[..., index.to(gradient.device)].any())


def _fit(pattern: Tensor, dots: Tensor, *, by_distance: bool) -> float | None:
    """The scale with which q kᵀ gives the log patterns of all heads; None if it does not.

    Args:
        by_distance: let each head have a bias for each position of distance too.
    """
    pattern, dots = pattern.detach().double(), dots.detach().double()
    allowed = pattern > _LEAST_SHARE
    n_tokens = pattern.shape[-1]
    at = torch.arange(n_tokens, device=pattern.device, dtype=pattern.dtype)
    distances = (at[:, None] - at).expand_as(pattern)

    def centred(values: Tensor) -> Tensor:
        kept = torch.where(allowed, values, torch.zeros_like(values))
        means = kept.sum(-1, keepdim=True) / allowed.sum(-1, keepdim=True).clamp(min=1)
        # (A, B·T·T): all that one head tells.
        return ((kept - means) * allowed).transpose(0, 1).flatten(1)

    logs = centred(pattern.clamp(min=_LEAST_SHARE).log())
    terms = [centred(dots)] + ([centred(distances)] if by_distance else [])
    design = torch.stack(terms, dim=2)
    solution = torch.linalg.lstsq(design.cpu(), logs.cpu()[..., None]).solution
    left = (logs.cpu()[..., None] - design.cpu() @ solution).norm()
    scales = solution[:, 0, 0]
    agree = (scales - scales.mean()).abs().max() <= 10 * _TOLERANCE * scales.mean().abs()
    fits = left <= _TOLERANCE * logs.norm()
    return float(scales.mean()) if bool(agree) and bool(fits) else None
