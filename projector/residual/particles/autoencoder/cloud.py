"""The particles of prompts: what an autoencoder makes of their states in each frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from projector.residual.particles.autoencoder.artifact import Trained
from projector.residual.particles.records import Cloud, Frame, Owner


@torch.no_grad()
def particle_cloud(
    trained: Trained, states: Sequence[Tensor], *, chosen: Sequence[int] | None = None
) -> Cloud:
    """K particles a prompt in each frame.

    Args:
        states: of each prompt (F, T, H) in all F frames of the model, T of any length.
        chosen: which of these frames are shown; None for all.

    Returns:
        The particles of the first prompt, then those of the second. A particle's token is the one
        that it attends to most in the last frame that is shown.

    Raises:
        ValueError: if the states are of other frames or another width than the autoencoder's.
    """
    shown = list(range(trained.normaliser.n_frames) if chosen is None else chosen)
    vectors, owners = [], []
    for prompt, each in enumerate(states):
        if (
            each.shape[0] != trained.normaliser.n_frames
            or each.shape[2] != trained.network.n_hidden
        ):
            raise ValueError(f"states {tuple(each.shape)} are not those of the autoencoder's model")
        normal = trained.normaliser.apply(each)[shown]
        vectors.append(trained.network.encode(normal))
        tokens = trained.network.attention(normal[-1:])[0].argmax(dim=-1)
        owners += [Owner(prompt, int(token), None, "query") for token in tokens]
    joined = torch.cat(vectors, dim=1)
    n_particles = joined.shape[1]
    return Cloud(
        tuple(Frame.of(at - 1 if at else None) for at in shown),
        tuple(owners),
        joined,
        torch.zeros(n_particles, dtype=torch.int64),
        torch.zeros(n_particles, dtype=torch.bool),
    )
