"""Controls for shares: random planes, random subspaces, random matrices and random rotations."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.linalg import eigvalsh_tridiagonal
from scipy.stats import beta
from torch import Tensor

from projector.residual.basis.records import Share
from projector.residual.circuits.factors import random_axes

N_DRAWS = 100
_N_MATRICES = 20
_N_TURNS = 360
_TINY = 1e-30


def share_in(vectors: Tensor, axes: Tensor) -> float | None:
    """Share of the squared length of vectors (n, N) within the span of orthonormal ``axes`` (N, r);
    None if all vectors are zero.
    """
    vectors = vectors.double()
    whole = float(vectors.square().sum())
    if whole <= _TINY:
        return None
    return min(1.0, float((vectors @ axes.to(vectors)).square().sum()) / whole)


def share_in_plane(
    name: str, vectors: Tensor, axes: Tensor, *, n_draws: int = N_DRAWS, seed: int = 0
) -> Share:
    """Share of the vectors' squared length in a plane, compared with random planes of the same
    space.

    Args:
        vectors: (n, N).
        axes: (N, 2), orthonormal.
    """
    control = "a random plane"
    value = share_in(vectors, axes)
    if value is None:
        return Share(name, None, None, None, None, control, 0, "every vector is zero")
    # All that matters of many vectors is their square; a plane then costs N² or n·N products.
    planes = random_axes((n_draws, vectors.shape[1], 2), torch.Generator().manual_seed(seed))
    flat = planes.movedim(0, 1).flatten(1).to(vectors.device)
    inside = (vectors.float() @ flat).square().sum(0).reshape(n_draws, 2).sum(1)
    return beside(name, value, inside.cpu() / float(vectors.double().square().sum()), control)


def beside(name: str, value: float, draws: Tensor, control: str) -> Share:
    """A share with the draws (n,) of its control."""
    low, high = torch.quantile(draws.double(), torch.tensor([0.05, 0.95]).double()).tolist()
    return Share(name, value, float(draws.double().mean()), low, high, control, len(draws))


def share_in_subspace(name: str, vector: Tensor, axes: Tensor) -> Share:
    """Share of a vector's (H,) squared length in a subspace, compared with random subspaces of the
    same dimension.

    The share in a random subspace of r of H dimensions has a Beta distribution with parameters r/2
    and (H − r)/2, so no random subspace is drawn.

    Args:
        axes: (H, r), orthonormal.
    """
    n_wide, rank = axes.shape
    control = f"a random subspace of {rank} of {n_wide} dimensions"
    value = share_in(vector[None], axes)
    if value is None:
        return Share(name, None, None, None, None, control, 0, "the vector is zero")
    if rank == n_wide:
        return Share(name, value, 1.0, 1.0, 1.0, control)
    low, high = beta.ppf([0.05, 0.95], rank / 2, (n_wide - rank) / 2)
    return Share(name, value, rank / n_wide, float(low), float(high), control)


def random_matrix_share(n_outputs: int, n_inputs: int, k: int = 2, *, seed: int = 0) -> Tensor:
    """Shares of the squared norm in the top ``k`` singular values of Gaussian matrices.

    The singular values of a Gaussian matrix have the distribution of those of a bidiagonal matrix
    with independent chi-distributed entries (Dumitriu and Edelman 2002), so no large matrix is
    needed.

    Returns:
        (20,) float64, one share per draw.
    """
    rng = np.random.default_rng(seed)
    most, least = max(n_outputs, n_inputs), min(n_outputs, n_inputs)
    found = []
    for _ in range(_N_MATRICES):
        diagonal = np.sqrt(rng.chisquare(most - np.arange(least)))
        below = np.sqrt(rng.chisquare(np.arange(least - 1, 0, -1))) if least > 1 else np.zeros(0)
        main = diagonal**2
        main[1:] += below**2
        first = max(0, least - k)
        top = eigvalsh_tridiagonal(
            main, diagonal[:-1] * below, select="i", select_range=(first, least - 1)
        )
        found.append(min(1.0, float(top.sum() / main.sum())))
    return torch.tensor(found, dtype=torch.float64)


def random_rank_share(n_outputs: int, rank: int, n_inputs: int, k: int = 2) -> Tensor:
    """The same for products of two Gaussian matrices, (M, d) and (d, N), such as a head's W_OV."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(_N_MATRICES):
        # The triangles of their QR decompositions hold their spectrum, and are d × d.
        left, right = (
            torch.linalg.qr(torch.randn(n, rank, generator=generator), mode="r").R
            for n in (n_outputs, n_inputs)
        )
        values = torch.linalg.svdvals(left @ right.T).double().square()
        found.append(float(values[:k].sum() / values.sum()))
    return torch.tensor(found, dtype=torch.float64)


def orthant_share(name: str, points: Tensor) -> Share:
    """The share of points (n, 2) in the positive orthant, which a ReLU leaves unchanged.

    The control rotates the same points about the origin by 360 angles: a quarter on average.
    """
    control = "the same points rotated at random"
    if not len(points):
        return Share(name, None, None, None, None, control, 0, "there are no points")
    points = points.double().cpu()
    angles = torch.arange(_N_TURNS, dtype=torch.float64) * (2 * math.pi / _N_TURNS)
    cosines, sines = angles.cos()[:, None], angles.sin()[:, None]
    x = cosines * points[:, 0] - sines * points[:, 1]
    y = sines * points[:, 0] + cosines * points[:, 1]
    draws = ((x > 0) & (y > 0)).double().mean(1)
    value = float(((points[:, 0] > 0) & (points[:, 1] > 0)).double().mean())
    return beside(name, value, draws, control)
