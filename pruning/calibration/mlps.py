"""The MLPs whose neurons can be removed."""

from __future__ import annotations

from projector.errors import UserError
from projector.model.architecture.records import Architecture, Mlp


def mlps_of(architecture: Architecture) -> tuple[Mlp, ...]:
    """The MLP of every layer.

    Raises:
        UserError: if a layer has none whose neurons can be removed, with the reason.
    """
    mlps = []
    for layer, block in enumerate(architecture.blocks):
        if block.mlp is None:
            raise UserError(f"layer {layer} can't be pruned: {block.missing['mlp_post']}")
        mlps.append(block.mlp)
    return tuple(mlps)
