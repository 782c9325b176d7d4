"""Where the stream is read, and what passes there in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from projector.model.architecture.records import Architecture
from projector.model.capture import Tap, capture, evaluating, token_rows
from projector.residual.readings.records import STREAMS, Reading
from projector.residual.subject import Subject


def last_reading(architecture: Architecture) -> Reading:
    """What the model itself reads: the last block's output."""
    return Reading(len(architecture.blocks) - 1, "resid_post")


def find_readings(
    architecture: Architecture, streams: Sequence[str]
) -> tuple[list[Reading], str | None]:
    """The readings of some streams, in order; and why one of them is missing, where it is.

    ``resid_pre`` is read of layer 0 alone: that of a later layer is the ``resid_post`` before it.
    """
    found: list[Reading] = []
    missing: str | None = None
    for layer, block in enumerate(architecture.blocks):
        for stream in STREAMS:
            if stream not in streams or (stream == "resid_pre" and layer):
                continue
            if stream in block.taps:
                found.append(Reading(layer, stream))
            else:
                missing = missing or block.missing[stream]
    return found, missing


@torch.no_grad()
def read_streams(
    subject: Subject, inputs: Mapping[str, Tensor], readings: Sequence[Reading], rows: Tensor
) -> tuple[dict[Reading, Tensor], Tensor]:
    """Run the model once on a batch (B, T) and copy what passes some readings.

    The model is stopped behind the last of them: its own head would give B × T × V numbers at once.

    Args:
        rows: (P,) int64, which of the B·T tokens are kept, in the order of the batch.

    Returns:
        Of each reading (P, H), of the model's type; and the norms (n_readings, B·T) float32 of all
        tokens, on the CPU, in the order of the readings.
    """
    shape = inputs["input_ids"].shape
    blocks = subject.architecture.blocks
    taps: dict[Reading, Tap] = {each: blocks[each.layer].taps[each.stream] for each in readings}
    kept: dict[Reading, Tensor] = {}
    norms: dict[Reading, Tensor] = {}

    def keep(reading: Reading, tensor: Tensor) -> None:
        tokens = token_rows(tensor, shape)
        norms[reading] = tokens.float().norm(dim=-1).cpu()
        kept[reading] = tokens[rows.to(tokens.device)]

    with evaluating(subject.model), capture(taps, keep, then_stop=True):
        subject.model(**inputs)
    return kept, torch.stack([norms[each] for each in taps])
