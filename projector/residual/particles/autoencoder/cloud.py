"""The particles of prompts, from an autoencoder of their states in each frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from projector.residual.particles.autoencoder.artifact import Trained
from projector.residual.particles.records import Cloud, Frame, Owner

_PLACED = (
    "A particle is placed by its output in the stream, which is normalised in each frame, "
    "and not by its own numbers, because their directions differ between particles."
)


@torch.no_grad()
def particle_cloud(
    trained: Trained, states: Sequence[Tensor], *, chosen: Sequence[int] | None = None
) -> tuple[Cloud, tuple[str, ...]]:
    """The outputs of the particles of each prompt in the stream, in each frame.

    All H coordinates are directions of the stream, the same for every particle, so that distances
    are meaningful. Vectors are in units of each frame's scale; see :class:`Normaliser`.

    Args:
        states: for each prompt, (F, T, H) in all F frames of the model, with any T.
        chosen: the frames to show; None for all.

    Returns:
        The cloud of the particles of the first prompt, then of the second, H numbers each; and
        notes for the user. A short prompt has fewer than K particles, only those that its tokens
        need; see :meth:`Autoencoder.needed`. A particle's token is the one that it attends to most
        in the last shown frame.

    Raises:
        ValueError: if the states have other frames or another width than the autoencoder.
    """
    shown = list(range(trained.normaliser.n_frames) if chosen is None else chosen)
    vectors, owners, notes = [], [], [_PLACED]
    network = trained.network
    for prompt, each in enumerate(states):
        if each.shape[0] != trained.normaliser.n_frames or each.shape[2] != network.n_hidden:
            raise ValueError(f"states {tuple(each.shape)} are not those of the autoencoder's model")
        normal = trained.normaliser.apply(each)[shown]
        n_tokens = each.shape[1]
        written = network.written(network.encode(normal), n_tokens)
        needed = network.needed(n_tokens)
        vectors.append(written[:, needed])
        tokens = network.attention(normal[-1:])[0].argmax(dim=-1)
        owners += [
            Owner(prompt, int(tokens[i]), None, "query", query=int(i))
            for i in needed.nonzero()[:, 0]
        ]
        if not bool(needed.all()):
            of = f" of prompt {'AB'[prompt]}" if len(states) > 1 else ""
            notes.append(_left_out(written, needed, network.copies(n_tokens), network.n_whole, of))
    joined = torch.cat(vectors, dim=1)
    n_particles = joined.shape[1]
    cloud = Cloud(
        tuple(Frame.of(at - 1 if at else None) for at in shown),
        tuple(owners),
        joined,
        torch.zeros(n_particles, dtype=torch.int64),
        torch.zeros(n_particles, dtype=torch.bool),
    )
    return cloud, tuple(notes)


def _left_out(written: Tensor, needed: Tensor, copies: Tensor, n_whole: int, of: str) -> str:
    """What is not shown of a short prompt, and how much it is.

    Args:
        written: (F, K, H).
        needed, copies: (K,) bool.
    """
    squares = written.double().square().sum(dim=(0, 2))
    others = ~needed & ~copies
    share = float(squares[others].sum() / squares[~copies].sum().clamp(min=1e-30))
    found = (
        f"{int(needed.sum()):,} of {len(needed):,} particles{of} are shown, because {n_whole} are "
        "enough to write a whole token."
    )
    if bool(copies.any()):
        found += f" {int(copies.sum()):,} other particles are copies of earlier ones."
    if bool(others.any()):
        found += (
            f" {int(others.sum()):,} other particles read the same tokens again, and write "
            f"{share:.2%} of the sum of squares."
        )
    return found
