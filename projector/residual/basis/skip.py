"""The skip connection as a sum: the stream, the attention's addition, and both together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from projector.errors import UserError
from projector.residual.basis.controls import share_in_subspace
from projector.residual.basis.maps import check_head, check_layer
from projector.residual.basis.planes import token_texts
from projector.residual.basis.records import IDENTITY, Arrow, PlaneView, Share, SkipView
from projector.residual.contributions import BlockContributions, Written, watch_contributions
from projector.residual.subject import Subject
from projector.residual.tokens import find_position

_TINY = 1e-30


@torch.no_grad()
def view_skip(
    subject: Subject,
    ids: Sequence[int],
    layer: int,
    position: int = -1,
    *,
    head: int | None = None,
) -> SkipView:
    """Show the stream x at one token, the addition of attention (or of one head), and their sum.

    This takes one forward pass. The addition is taken after the norms and factors, and includes
    biases for attention as a whole. The sum is checked against the model's own stream.

    Args:
        position: position of the token; negative values count from the end.
        head: the head to add; None for all of attention.

    Raises:
        SettingError: on ``layer``, ``position`` or ``head``.
        UserError: if the block's additions to the stream were not found, or the sum doesn't close.
    """
    check_layer(subject, layer)
    at = find_position(len(ids), position)
    rows = torch.tensor([at])
    found: list[BlockContributions] = []

    def keep(each: object) -> None:
        if isinstance(each, BlockContributions) and each.layer == layer:
            found.append(each.take(rows, neurons=False))

    check = watch_contributions(subject, subject.inputs(list(ids)), keep)
    block = found[0]
    written = block.attention_written
    if written is None:
        raise UserError(f"layer {layer} has no attention that adds to the stream")
    whole = sum(written.terms(), start=torch.zeros_like(block.pre))[0]
    closure = None if block.mid is None else _error(block.pre[0] + whole, block.mid[0])
    if closure is not None and not closure <= check.tolerance:
        raise UserError(
            f"x plus the attention output of layer {layer} differs from the next stream by "
            f"{closure:.1e} of it; rounding explains at most {check.tolerance:.0e}"
        )
    added, spaces = whole, _spaces(block, written, head)
    if head is not None:
        if not block.has_heads or not block.n_heads:
            raise UserError(f"the heads of layer {layer} can't be read one by one")
        check_head(layer, head, block.n_heads)
        added = block.heads()[0, head]
    return describe_sum(
        block.pre[0].cpu(),
        added.cpu(),
        layer=layer,
        head=head,
        tokens=token_texts(subject, ids),
        position=at,
        spaces=spaces,
        closure_error=closure,
        has_mid=block.mid is not None,
    )


@dataclass(frozen=True, eq=False)
class ColumnSpace:
    """The column space of an output matrix: its name and (H, r) orthonormal axes."""

    name: str
    axes: Tensor


def describe_sum(
    x: Tensor,
    added: Tensor,
    *,
    layer: int = 0,
    head: int | None = None,
    tokens: tuple[str, ...] = ("",),
    position: int = 0,
    spaces: Sequence[ColumnSpace] = (),
    closure_error: float | None = None,
    has_mid: bool = True,
) -> SkipView:
    """Describe x and the addition, (H,) each, as a view.

    The plane is spanned by both: its first axis is along x, its second along the addition, less its
    part along x. The sum lies in it too.
    """
    x, added = x.double(), added.double()
    axes = _axes(x, added)
    total = x + added
    of_head = "attention" if head is None else f"head {head}"
    named = (("x", x), (f"added by {of_head}", added), ("their sum", total))
    arrows = tuple(_arrow(name, vector, axes) for name, vector in named)
    off = max(
        (float((v - axes @ (axes.T @ v)).norm() / v.norm()) for _, v in named if v.norm() > 0),
        default=0.0,
    )
    sizes = float(x.norm() * added.norm())
    cosine = float(x @ added) / sizes if sizes > _TINY else None
    shares = tuple(_shares(x, added, total, spaces))
    notes = ["x, the addition and their sum lie exactly in one plane."]
    if not has_mid:
        notes.append(
            "The model adds its attention and its MLP at once, so this sum is not itself a "
            "stream of the model."
        )
    for space in spaces:
        if space.axes.shape[1] == len(x):
            notes.append(f"{_upper(space.name)} is the whole stream, so every vector lies in it.")
    plane = PlaneView(
        kind="skip",
        title=f"layer {layer} · skip connection around {of_head}",
        matrix=IDENTITY,
        space_before="residual stream",
        space_after="residual stream",
        axes_before=("along x", "the addition, less its part along x"),
        axes_after=("along x", "the addition, less its part along x"),
        is_same_plane=True,
        follows_matrix=False,
        singular_values=(),
        arrows=arrows,
        shares=shares,
        notes=tuple(notes),
    )
    return SkipView(layer, head, tokens, position, plane, shares, cosine, off, closure_error)


def _arrow(name: str, vector: Tensor, axes: Tensor) -> Arrow:
    # Rounding leaves −0, which is 0.
    x, y = (vector @ axes + 0.0).tolist()
    return Arrow(name, x, y, float(vector.norm()))


def _axes(x: Tensor, added: Tensor) -> Tensor:
    """(H, 2): orthonormal, or with a zero axis where both vectors are on one line."""
    axes: list[Tensor] = []
    for vector in (x, added):
        rest = vector.clone()
        for _ in range(2):
            # Twice: the first time leaves what rounding makes of nearly parallel vectors.
            for axis in axes:
                rest = rest - (axis @ rest) * axis
        norm = rest.norm()
        if float(norm) > 1e-12 * max(float(vector.norm()), _TINY):
            axes.append(rest / norm)
    while len(axes) < 2:
        axes.append(torch.zeros_like(x))
    return torch.stack(axes, dim=1)


def _shares(x: Tensor, added: Tensor, total: Tensor, spaces: Sequence[ColumnSpace]) -> list[Share]:
    return [
        share_in_subspace(f"squared length of {what} in {space.name}", vector, space.axes.double())
        for space in spaces
        # Of the whole stream every vector has all: a note says it.
        if space.axes.shape[1] < len(x)
        for what, vector in (("x", x), ("the addition", added), ("their sum", total))
    ]


def _spaces(
    block: BlockContributions, written: Written, head: int | None
) -> tuple[ColumnSpace, ...]:
    """The output column spaces of the head, or of attention as a whole, in the stream.

    Norms behind the output projection are folded in with the scale they have at this token.
    """
    if written.reads is None:
        return ()
    weight = written.addition.weight()
    if head is not None:
        if not block.has_heads or block.n_heads is None or not 0 <= head < block.n_heads:
            return ()
        width = weight.shape[1] // block.n_heads
        weight = weight[:, head * width : (head + 1) * width]
    columns = written.path.apply(weight.T[:, None, :])[:, 0].T.double().cpu()
    u, s, _ = torch.linalg.svd(columns, full_matrices=False)
    rank = int((s > 1e-6 * s[0]).sum()) if float(s[0]) > 0 else 0
    if rank == 0:
        return ()
    name = "W_O's column space" if head is None else f"the column space of head {head}"
    return (ColumnSpace(name, u[:, :rank]),)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _error(given: Tensor, wanted: Tensor) -> float:
    return float((given - wanted).norm() / wanted.norm().clamp_min(_TINY))
