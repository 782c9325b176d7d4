"""Particles in full space, with their owners and their vectors in each frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """One reading of the stream.

    Attributes:
        layer: the layer after which it is read; None for the embedding, before layer 0.
        name: "embedding", "layer 0", ….
    """

    layer: int | None
    name: str

    @classmethod
    def of(cls, layer: int | None) -> Frame:
        """Create the frame after a layer, or that of the embedding."""
        return cls(layer, "embedding" if layer is None else f"layer {layer}")

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {"layer": self.layer, "name": self.name}


@dataclass(frozen=True)
class Owner:
    """The owner of a particle.

    Attributes:
        prompt: index of the prompt, 0 or 1.
        token: position of the token in the prompt; −1 for no token.
        part: the part of the model that wrote it, such as "head 3.2"; None for a token's state.
        kind: "token", "head", "mlp", "embedding", "other" or "query".
        query: the index of an autoencoder's particle among its K; None for all other kinds.
    """

    prompt: int
    token: int
    part: str | None = None
    kind: str = "token"
    query: int | None = None


@dataclass(frozen=True, eq=False)
class Cloud:
    """Particles in full space: P of them in each of F frames.

    Attributes:
        frames: F.
        owners: P.
        vectors: float32 on the CPU, in units of the stream for W = hidden size: (F, P, W); or (P,
            W) for particles that don't change after their birth, such as contributions.
        born: (P,) int64, the frame from which a particle exists; 0 for tokens.
        outliers: (P,) bool, whether a particle's norm is many times the median.
    """

    frames: tuple[Frame, ...]
    owners: tuple[Owner, ...]
    vectors: Tensor
    born: Tensor
    outliers: Tensor

    @property
    def is_still(self) -> bool:
        """Whether particles don't change after their birth."""
        return self.vectors.ndim == 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """F, P and W."""
        return len(self.frames), len(self.owners), self.vectors.shape[-1]

    def is_born(self) -> Tensor:
        """Which particles exist in which frame, (F, P) bool."""
        return self.born[None] <= torch.arange(len(self.frames))[:, None]

    def is_finite(self) -> Tensor:
        """Which particles have finite vectors in which frame, (F, P) bool."""
        if self.is_still:
            return self.vectors.isfinite().all(dim=-1).expand(self.shape[:2])
        return torch.stack([each.isfinite().all(dim=-1) for each in self.vectors])

    def at(self, frame: int, chosen: Tensor) -> Tensor:
        """The vectors of chosen particles in a frame where they exist, (n, W); ``chosen`` is bool
        or int (P,).
        """
        return (self.vectors if self.is_still else self.vectors[frame])[chosen]

    def rows(self, chosen: Tensor) -> Tensor:
        """The chosen vectors, (n, W), frame by frame; ``chosen`` is bool (F, P), only where
        particles exist.
        """
        return self.vectors[chosen.nonzero()[:, 1]] if self.is_still else self.vectors[chosen]

    def frame(self, frame: int) -> Tensor:
        """The vectors of all particles in a frame, (P, W); 0 for particles that don't exist yet."""
        vectors = self.vectors if self.is_still else self.vectors[frame]
        return vectors.where((self.born <= frame)[:, None], 0.0)

    @property
    def norms(self) -> Tensor:
        """‖x‖ in full space, (F, P) float32; 0 for particles that don't exist yet."""
        if self.is_still:
            norms = self.vectors.norm(dim=-1).expand(self.shape[:2])
        else:
            norms = torch.stack([frame.norm(dim=-1) for frame in self.vectors])
        return norms.where(self.is_born(), 0.0)

    @property
    def displacements(self) -> Tensor:
        """‖x_f − x_{f−1}‖ in full space, (F, P) float32; 0 in the first frame and at birth."""
        moved = torch.zeros(self.shape[:2])
        if self.is_still:
            return moved
        # Frame by frame: differences of all frames would fill as much memory again.
        for f in range(1, len(moved)):
            step = (self.vectors[f] - self.vectors[f - 1]).norm(dim=-1)
            moved[f] = step.where(self.born < f, 0.0)
        return moved
