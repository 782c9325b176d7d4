"""Particles with known places in full space."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from projector.residual.particles.records import Cloud, Frame, Owner


def make_cloud(vectors: Tensor, *, born: Tensor | None = None, kind: str = "token") -> Cloud:
    """A cloud of these vectors (F, P, W), none of them outlying."""
    n_frames, n_particles = vectors.shape[:2]
    return Cloud(
        frames=tuple(Frame.of(None if f == 0 else f - 1) for f in range(n_frames)),
        owners=tuple(Owner(0, i, kind=kind) for i in range(n_particles)),
        vectors=vectors,
        born=torch.zeros(n_particles, dtype=torch.int64) if born is None else born,
        outliers=torch.zeros(n_particles, dtype=torch.bool),
    )


def random_walk(n_frames: int = 5, n_particles: int = 30, width: int = 16, seed: int = 0) -> Tensor:
    """(F, P, W) float32: particles that take a random step from frame to frame."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_frames, n_particles, width, generator=generator).cumsum(dim=0)


def with_outlier(cloud: Cloud, particle: int, times: float = 100.0) -> Cloud:
    """The cloud, one particle of which is many times as far out."""
    vectors, outliers = cloud.vectors.clone(), cloud.outliers.clone()
    vectors[:, particle] *= times
    outliers[particle] = True
    return replace(cloud, vectors=vectors, outliers=outliers)
