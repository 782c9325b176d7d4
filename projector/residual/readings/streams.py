"""Points where the stream is read, and reading them in one run."""

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
    """The model's own reading: the last block's output."""
    return Reading(len(architecture.blocks) - 1, "resid_post")


def find_readings(
    architecture: Architecture, streams: Sequence[str]
) -> tuple[list[Reading], str | None]:
    """Find the readings of some streams, in order, and the reason if one is missing.

    ``resid_pre`` is read for layer 0 only, because a later layer's is the previous ``resid_post``.
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
    """Find a point where a lens reads the stream, by layer and stream or as text, such as ``3
    mid``.

    ``resid_pre`` is valid for every layer: in a later layer it is the previous ``resid_post``.

    Raises:
        SettingError: on ``until``, if the model has no such point.
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
    """Run the model once on a batch (B, T) and copy the stream at some readings.

    The model stops after the last of them, because its own head would compute B × T × V numbers at
    once.

    Args:
        rows: (P,) int64, the tokens to keep out of B·T, in the order of the batch.

    Returns:
        For each reading, (P, H) in the model's dtype; and the norms (n_readings, B·T) float32 of
        all tokens, on the CPU, in the order of the readings.
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
