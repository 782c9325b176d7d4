"""The directions in which the output weights of attention and the MLP write to the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from projector.model.architecture.stream.records import Addition, FrozenPath
from projector.residual.contrast.sharing.directions import top_directions

if TYPE_CHECKING:
    from projector.residual.subject import Subject

__all__ = ["SUBLAYERS", "notes_on_weights", "output_directions"]

SUBLAYERS = ("attention", "mlp")
_WORDS = {"attention": "attention", "mlp": "MLP"}


def output_directions(subject: Subject, layer: int, sublayer: str, k: int) -> Tensor | str:
    """Find the k directions of the stream in which a sublayer's output weight writes most.

    These are the top left singular directions of the weight, (H, n), including the weights and the
    centring of norms after it. A norm's scale varies by token, but it multiplies all directions
    equally, and so changes none.

    Args:
        sublayer: "attention" or "mlp".

    Returns:
        (H, k) float64, orthonormal; or the reason why there are none.
    """
    block = subject.layout.blocks[layer]
    if block.reason is not None:
        return f"layer {layer}: {block.reason}"
    addition = block.attention if sublayer == "attention" else block.mlp
    if addition is None:
        return f"layer {layer} has no {_WORDS[sublayer]}"
    if addition.matrix is None:
        return f"the {_WORDS[sublayer]} of layer {layer} has no single output matrix"
    found = top_directions(_written(addition), k)
    if found.shape[1] < k:
        return f"the {_WORDS[sublayer]} of layer {layer} writes in fewer than {k} directions"
    return found


def notes_on_weights(subject: Subject) -> tuple[str, ...]:
    """Remarks about the path from this model's output weights to the stream."""
    layout = subject.layout
    notes = []
    if any(each.norms for block in layout.blocks for each in block.additions().values()):
        notes.append(
            "Norms follow this model's output weights: their directions are taken through the "
            "norms' weights, and without each token's scale, which changes no direction."
        )
    if layout.closes_per_block:
        notes.append(
            "This model's norms change the whole stream after each sum: output weights are "
            "compared as they write, before these norms."
        )
    return tuple(notes)


def _written(addition: Addition) -> Tensor:
    """(n, H) float32: what each input of the output weight adds to the stream."""
    rows = addition.weight().T
    forms = tuple(form for _, form in addition.norms)
    ones = tuple(torch.ones(1, 1, device=rows.device) for _ in forms)
    return FrozenPath(forms, ones, addition.factor).apply(rows)
