"""The plane of a map's top two singular directions, before and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.sparse.linalg import svds
from torch import Tensor

from projector.errors import SettingError
from projector.model.capture import collect
from projector.residual.basis.controls import (
    N_DRAWS,
    beside,
    orthant_share,
    random_matrix_share,
    random_rank_share,
    share_in,
    share_in_plane,
)
from projector.residual.basis.maps import LinearMap
from projector.residual.basis.records import Matrix2, Pair, PlaneView, Share
from projector.residual.circuits.factors import random_axes
from projector.residual.subject import Subject

N_VALUES = 16
# Up to this side, all singular values are computed through the Gram matrix; beyond it, the top.
_MOST_EXACT = 1024
_ACCURACY = 1e-3
_N_VECTORS = 256


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The top k singular directions: W right[:, i] = values[i] · left[:, i].

    Attributes:
        left: (M, k) float32, orthonormal columns.
        values: (k,) float64, largest first.
        right: (N, k) float32, orthonormal columns, the largest entry of each positive.
    """

    left: Tensor
    values: Tensor
    right: Tensor


@torch.no_grad()
def find_spectrum(given: LinearMap, k: int = N_VALUES) -> Spectrum:
    """Compute the top singular values and directions of a map; fewer if its rank is lower.

    The Gram matrix of the smaller side is decomposed in float64 if it has at most 1,024 rows. For
    larger maps, a randomised method is used (Halko, Martinsson and Tropp 2011), and Lanczos
    iteration if ‖W v − σu‖ or ‖Wᵀu − σv‖ of the first two shows that it has not converged.
    """
    if given.right is not None:
        left_basis, left_core = torch.linalg.qr(given.left.double())
        right_basis, right_core = torch.linalg.qr(given.right.T.double())
        u, s, vt = torch.linalg.svd(left_core @ right_core.T)
        return _fixed((left_basis @ u)[:, :k], s[:k], (right_basis @ vt.T)[:, :k])
    k = min(k, *given.left.shape)
    if min(given.left.shape) <= _MOST_EXACT:
        return _exact(given.left, k)
    return _approximate(given.left, k)


def _exact(weight: Tensor, k: int) -> Spectrum:
    is_wide = weight.shape[1] > weight.shape[0]
    wide = weight.double()
    # In float64, for squaring halves the digits that small values have.
    squares, vectors = torch.linalg.eigh(wide @ wide.T if is_wide else wide.T @ wide)
    values = squares.flip(0)[:k].clamp_min(0).sqrt()
    # What rounding leaves of the square of a value that is 0.
    rounding = (torch.finfo(wide.dtype).eps * len(squares)) ** 0.5
    values = torch.where(values > rounding * values[0], values, 0.0)
    own = vectors.flip(1)[:, :k]
    # Their images are orthogonal; where the value is 0, any direction that is left will do.
    other, triangle = torch.linalg.qr((wide.T if is_wide else wide) @ own)
    signs = triangle.diagonal().sign()
    other = other * torch.where(signs == 0, 1.0, signs)
    return _fixed(own, values, other) if is_wide else _fixed(other, values, own)


def _approximate(weight: Tensor, k: int) -> Spectrum:
    with torch.random.fork_rng(devices=[weight.device] if weight.is_cuda else []):
        torch.manual_seed(0)
        left, values, right = torch.svd_lowrank(weight, q=k + 8, niter=4)
    # One of both holds whatever was found, by how the method projects: the other one tells.
    off = (weight @ right[:, :2] - left[:, :2] * values[:2]).norm()
    back = (weight.T @ left[:, :2] - right[:, :2] * values[:2]).norm()
    if float(torch.maximum(off, back)) > _ACCURACY * float(values[0]):
        u, s, vt = svds(
            weight.cpu().numpy(), k=k, v0=torch.ones(min(weight.shape)).numpy(), tol=1e-5
        )
        left, values, right = (
            torch.from_numpy(each.copy()) for each in (u[:, ::-1], s[::-1], vt[::-1].T)
        )
    return _fixed(left[:, :k], values[:k], right[:, :k])


def _fixed(left: Tensor, values: Tensor, right: Tensor) -> Spectrum:
    """The signs fixed, so that equal maps give equal pictures."""
    rows = right.abs().argmax(0)
    signs = right[rows, torch.arange(right.shape[1], device=right.device)].sign()
    signs = torch.where(signs == 0, 1.0, signs)
    return Spectrum((left * signs).float(), values.double().cpu(), (right * signs).float())


@torch.no_grad()
def read_points(
    subject: Subject, given: LinearMap, ids: Sequence[int], *, keep_first: bool = False
) -> tuple[Tensor, tuple[str, ...]]:
    """The inputs of a map on a prompt, one row per token, and the tokens' texts.

    The first token of a causal sequence is left out unless it is the only one, because most models
    give it a vector that is many times longer than that of any other token.

    Returns:
        (n, N) float32 on the CPU, and n texts.
    """
    tensor = collect(subject.model, {"": given.reads}, subject.inputs(list(ids)))[""]
    rows = tensor.reshape(-1, tensor.shape[-1]).float().cpu()
    rows = rows if given.columns is None else rows[:, given.columns]
    texts = token_texts(subject, ids)
    start = first_kept(subject, ids, keep_first=keep_first)
    return rows[start:], texts[start:]


def first_kept(subject: Subject, ids: Sequence[int], *, keep_first: bool = False) -> int:
    """The first position to include: 1 in a causal model, otherwise 0, or 0 on request."""
    return int(subject.architecture.is_causal and len(ids) > 1 and not keep_first)


def token_texts(subject: Subject, ids: Sequence[int]) -> tuple[str, ...]:
    """The text of each token, or its id if the model has no tokenizer."""
    if subject.loaded.tokenizer is None:
        return tuple(f"#{i}" for i in ids)
    return tuple(subject.pieces(list(ids)).texts(list(ids)))


@torch.no_grad()
def view_map(
    given: LinearMap,
    points: Tensor | None = None,
    labels: Sequence[str] = (),
    *,
    same_plane: bool = False,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> PlaneView:
    """Show the plane of the map's top two singular directions, before and after the map.

    In these directions the map only stretches: its matrix is diagonal, and its rotation is the
    change from one plane to the other. If x and y are in the same space, ``same_plane`` draws the
    plane before on both sides instead. Its matrix is then VᵀWV, which shows rotations and shears,
    and parts of points from outside the plane may enter it.

    Args:
        points: (n, N), inputs of the map, such as those from :func:`read_points`.
        labels: n texts.

    Raises:
        SettingError: on ``same_plane``, if x and y are in different spaces.
    """
    if same_plane and not given.is_one_space:
        raise SettingError(
            "same_plane",
            True,
            f"can't be drawn for {given.name}, which maps one space to another",
            "choose W_OV, or leave it out",
        )
    spectrum = find_spectrum(given)
    before = _two(spectrum.right)
    after = before if same_plane else _completed(_two(spectrum.left))
    image = given.apply(before.T).double()
    matrix = after.double().T @ image.T
    if not same_plane:
        matrix = torch.diag(matrix.diagonal())
    shares = [_top_share(given, spectrum)]
    if same_plane:
        shares.append(_staying_share(given, before, n_draws, seed))
    drawn = _draw_points(given, points, before, after, n_draws, seed)
    names = ("direction 1", "direction 2")
    return PlaneView(
        kind="map",
        title=given.title,
        matrix=_matrix(matrix),
        space_before=given.space_in,
        space_after=given.space_out,
        axes_before=names,
        axes_after=names,
        is_same_plane=same_plane,
        follows_matrix=not same_plane,
        singular_values=tuple(spectrum.values.tolist()),
        points_before=drawn.before,
        points_after=drawn.after,
        labels=tuple(labels),
        point_unit=drawn.unit,
        shares=(*shares, *drawn.shares),
        orthant_before=drawn.orthant_before,
        orthant_after=drawn.orthant_after,
        notes=(*given.notes, _note(same_plane)),
    )


def view_matrix(matrix: Matrix2, points: Sequence[Pair] = ()) -> PlaneView:
    """Show a 2 × 2 matrix as a view: the toy that a user rotates and drags."""
    own = torch.tensor(matrix, dtype=torch.float64)
    before = torch.tensor(list(points), dtype=torch.float64).reshape(-1, 2)
    after = before @ own.T
    return PlaneView(
        kind="toy",
        title="a 2 × 2 matrix",
        matrix=_matrix(own),
        space_before="plane",
        space_after="plane",
        axes_before=("x", "y"),
        axes_after=("x", "y"),
        is_same_plane=True,
        follows_matrix=True,
        singular_values=tuple(torch.linalg.svdvals(own).tolist()),
        points_before=pairs(before),
        points_after=pairs(after),
        labels=("",) * len(before),
        orthant_before=orthant_share(ORTHANT, before) if len(before) else None,
        orthant_after=orthant_share(ORTHANT, after) if len(before) else None,
        is_toy=True,
    )


ORTHANT = "points in the positive orthant"


@dataclass(frozen=True)
class DrawnPoints:
    """Points in a plane before and after, in a common unit, and the shares that the planes keep."""

    before: tuple[Pair, ...] = ()
    after: tuple[Pair, ...] = ()
    unit: float = 1.0
    shares: tuple[Share, ...] = ()
    orthant_before: Share | None = None
    orthant_after: Share | None = None


def place_points(before: Tensor, after: Tensor, shares: tuple[Share, ...]) -> DrawnPoints:
    """Scale points (n, 2) before and after by the root mean square length of those before."""
    unit = float(before.double().square().sum(1).mean().sqrt())
    unit = unit if unit > 0 else 1.0
    return DrawnPoints(
        pairs(before / unit),
        pairs(after / unit),
        unit,
        shares,
        orthant_share(ORTHANT, before),
        orthant_share(ORTHANT, after),
    )


def _draw_points(
    given: LinearMap,
    points: Tensor | None,
    before: Tensor,
    after: Tensor,
    n_draws: int,
    seed: int,
) -> DrawnPoints:
    if points is None or not len(points):
        return DrawnPoints()
    x = points.to(given.left)
    y = given.apply(x)
    shares = (
        share_in_plane(
            "squared length of the tokens in the plane before",
            x,
            before,
            n_draws=n_draws,
            seed=seed,
        ),
        _share_after(given, y, after, n_draws, seed),
    )
    return place_points(x @ before, y @ after, shares)


def _share_after(given: LinearMap, y: Tensor, after: Tensor, n_draws: int, seed: int) -> Share:
    """Its control is random vectors through the same map, whose directions favour any vector."""
    name, control = "squared length of the tokens in the plane after", "random vectors, same map"
    value = share_in(y, after)
    if value is None:
        return Share(name, None, None, None, None, control, 0, "the map takes every token to 0")
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(_N_VECTORS, given.n_inputs, generator=generator)
    # Of equal lengths, as many as there are tokens: drawn again from those that went through.
    out = given.apply(random / random.norm(dim=1, keepdim=True)).double().cpu()
    inside = (out @ after.double().cpu()).square().sum(1)
    whole = out.square().sum(1)
    chosen = torch.randint(_N_VECTORS, (n_draws, len(y)), generator=generator)
    return beside(name, value, inside[chosen].sum(1) / whole[chosen].sum(1), control)


def _top_share(given: LinearMap, spectrum: Spectrum) -> Share:
    name = "share of the squared Frobenius norm in its top two singular directions"
    whole = given.squared_norm()
    if given.right is None:
        control = "a random matrix of the same shape"
        draws = random_matrix_share(given.n_outputs, given.n_inputs)
    else:
        control = "a product of two random matrices of the same shapes"
        draws = random_rank_share(given.n_outputs, given.rank, given.n_inputs)
    if whole == 0:
        return Share(name, None, None, None, None, control, 0, "every weight is 0")
    value = min(1.0, float(spectrum.values[:2].square().sum()) / whole)
    return beside(name, value, draws, control)


def _staying_share(given: LinearMap, plane: Tensor, n_draws: int, seed: int) -> Share:
    """How much of what the map makes of the plane stays in it, beside random planes."""
    name, control = "squared length of the plane's image that stays in the plane", "a random plane"
    planes = random_axes((n_draws, given.n_inputs, 2), torch.Generator().manual_seed(seed))
    planes = planes.to(given.left)
    own = _staying(given, plane[None])
    if own is None:
        return Share(name, None, None, None, None, control, 0, "the map takes the plane to 0")
    draws = _staying(given, planes)
    assert draws is not None  # a random plane is in no null space
    return beside(name, float(own[0]), draws.cpu(), control)


def _staying(given: LinearMap, planes: Tensor) -> Tensor | None:
    """(n,) shares of planes (n, H, 2)."""
    image = given.apply(planes.transpose(1, 2).flatten(0, 1)).unflatten(0, (-1, 2)).double()
    whole = image.square().sum((1, 2))
    if not bool((whole > 0).all()):
        return None
    return (image @ planes.double()).square().sum((1, 2)) / whole


def _two(axes: Tensor) -> Tensor:
    """(n, 2): the first two axes, with zeros for one that there is not."""
    if axes.shape[1] >= 2:
        return axes[:, :2]
    return torch.cat([axes, torch.zeros_like(axes)], dim=1)[:, :2]


def _completed(axes: Tensor) -> Tensor:
    """(n, 2): where a direction is zero, as of a map of rank 1, any other one that fits."""
    axes = axes.clone()
    for k in range(2):
        if float(axes[:, k].norm()) < 0.5 and len(axes) > k:
            rest = torch.eye(len(axes), dtype=axes.dtype, device=axes.device)[:, :3]
            rest = rest - axes[:, :k] @ (axes[:, :k].T @ rest)
            best = rest[:, int(rest.norm(dim=0).argmax())]
            axes[:, k] = best / best.norm()
    return axes


def _matrix(matrix: Tensor) -> Matrix2:
    (a, b), (c, d) = matrix.tolist()
    return ((a, b), (c, d))


def pairs(points: Tensor) -> tuple[Pair, ...]:
    """Convert rows of (n, 2) to plain numbers."""
    return tuple((x, y) for x, y in points.double().tolist())


def _note(same_plane: bool) -> str:
    if same_plane:
        return (
            "The plane before is drawn on both sides. Tokens' vectors also have parts outside it, "
            "and the map brings some of these in."
        )
    return (
        "In its singular directions the map only stretches. Its rotation is the change from the "
        "plane before to the plane after. Either axis may be flipped without changing the map."
    )
