"""Where the stream is read, and what passes there in one run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from projector.errors import SettingError
from projector.model.architecture.records import Architecture
from projector.model.capture import Tap, capture, evaluating, token_rows
from projector.residual.readings.records import STREAMS, Reading
from projector.residual.subject import Subject

_BY_NAME = re.compile(r"L?(\d{1,6})[ ,:](?:resid_)?(pre|mid|post)", re.ASCII | re.IGNORECASE)


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


def find_reading(architecture: Architecture, until: tuple[int, str] | str) -> Reading:
    """A place where a lens reads the stream, by layer and stream or as text, such as ``3 mid``.

    ``resid_pre`` is a place in every layer: in a later one it is the ``resid_post`` before it.

    Raises:
        SettingError: on ``until``, if the model has no such place.
    """
    n_layers = len(architecture.blocks)
    if isinstance(until, str):
        shown, parts = until, _BY_NAME.fullmatch(until.strip())
        layer, stream = (-1, "") if parts is None else (int(parts[1]), f"resid_{parts[2]}")
    else:
        shown, (layer, stream) = f"{until[0]} {until[1]}", until
    if not 0 <= layer < n_layers or stream not in STREAMS:
        raise SettingError(
            "until",
            shown,
            "isn't a place in the stream",
            f"give a layer from 0 to {n_layers - 1:,} and pre, mid or post, such as "
            f"'{n_layers // 2} mid'",
        )
    block = architecture.blocks[layer]
    if stream not in block.taps:
        raise SettingError("until", shown, "can't be read", block.missing[stream])
    return Reading(layer, stream)


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
