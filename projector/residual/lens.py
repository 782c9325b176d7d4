"""The logit lens: what the model's own final norm and head say of the stream at every layer.

nostalgebraist 2020, "interpreting GPT: the logit lens". A reading is a layer and a place in its
block: before the first block (``resid_pre``), between attention and MLP (``resid_mid``), behind the
block (``resid_post``). The last reading is the model's own prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from projector.errors import SettingError, UserError, check_choice, check_least
from projector.model.architecture.records import Architecture
from projector.model.capture import Tap, capture, evaluating, token_rows
from projector.model.context import longest_sequence
from projector.progress import Progress, Silent
from projector.residual.outliers import describe_outliers
from projector.residual.readings.measuring import Measured, Reader
from projector.residual.readings.records import STREAMS, Lens, LensRow, Reading, Summary
from projector.residual.subject import Subject
from projector.residual.tokens import find_position

__all__ = ["STREAMS", "Lens", "LensRow", "Reading", "Summary", "Translator", "run_lens"]

# Of positions × vocabulary, at once. Three arrays of this size exist at a time, four where the
# model computes in half precision.
BUFFER_BYTES = 32 * 2**20
_LEAST_AT_ONCE = 16


class Translator(Protocol):
    """What is done to a stream before it is read; a tuned lens answers to it."""

    name: str

    def has(self, reading: Reading) -> bool:
        """Whether it knows this reading."""

    def translate(self, reading: Reading, stream: Tensor) -> Tensor:
        """(P, H) → (P, H), both of the model's type."""


@torch.no_grad()
def run_lens(
    subject: Subject,
    ids: Sequence[int],
    *,
    n_top: int = 5,
    positions: Sequence[int] | None = None,
    streams: Sequence[str] = STREAMS,
    tuned: Translator | None = None,
    n_at_once: int | None = None,
    progress: Progress | None = None,
) -> Lens:
    """Read a prompt at every layer through the model's final norm and head.

    Costs one forward pass, and one product with the head for each reading and position. The streams
    are held, readings × positions × H; of what is as wide as the vocabulary, no more than
    ``n_at_once`` positions of one reading.

    Args:
        ids: token ids of the prompt, see :meth:`Subject.encode`.
        n_top: tokens told at each reading and position.
        positions: which are read, counted from the end where negative; None for all.
        streams: of :data:`STREAMS`. ``resid_pre`` is read of layer 0 alone: that of a later layer
            is the ``resid_post`` before it.
        tuned: translates each stream before it is read; readings that it does not know are left
            out. The last reading is read as it is.
        n_at_once: positions read at a time; None for as many as :data:`BUFFER_BYTES` hold.

    Raises:
        UserError: for an encoder or a model without a head, an empty prompt or one beyond the
            model's context.
        SettingError: on ``n_top``, ``streams`` or ``positions``.
    """
    progress = progress or Silent()
    readout = subject.readout
    check_least("n_top", n_top, 1)
    check_least("n_at_once", n_at_once, 1)
    for stream in streams:
        check_choice("streams", stream, STREAMS)
    _check_prompt(subject, ids)
    chosen = sorted({find_position(len(ids), p) for p in positions or range(len(ids))})
    readings, missing = _choose_readings(subject.architecture, streams, tuned)
    last = Reading(len(subject.architecture.blocks) - 1, "resid_post")
    if not readings:
        raise SettingError("streams", ", ".join(streams), "has nothing to read", missing or "")
    kept, norms = _read_streams(subject, list(ids), chosen, [*readings, last])
    outliers = describe_outliers(norms)
    left_out = {each.position for each in outliers}
    is_counted = torch.tensor([position not in left_out for position in chosen])
    following = [ids[p + 1] if p + 1 < len(ids) else -1 for p in chosen]
    size = min(n_top, readout.n_vocabulary)
    sums = Measured(len(readings), len(chosen), size, readout.n_vocabulary)
    if n_at_once is None:
        n_at_once = max(_LEAST_AT_ONCE, BUFFER_BYTES // (4 * readout.n_vocabulary))
    progress.begin("Reading", len(chosen), "positions")
    for start in range(0, len(chosen), n_at_once):
        rows = slice(start, min(start + n_at_once, len(chosen)))
        target = torch.tensor(following[rows], device=kept[last].device)
        reader = Reader(readout, kept[last][rows], target, size)
        sums.add_final(reader, is_counted[rows])
        for s, reading in enumerate(readings):
            if reading == last:
                sums.add(s, rows, reader.final)
                continue
            read = kept[reading][rows]
            if tuned is not None:
                read = tuned.translate(reading, read)
            sums.add(s, rows, reader.read(read))
        progress.advance(rows.stop - rows.start)
    progress.end()
    sums.mark_last(following)
    wanted = torch.cat([sums.top_ids.reshape(-1), torch.tensor(list(ids))]).unique()
    return Lens(
        model=subject.loaded.identifier,
        lens="logit lens" if tuned is None else tuned.name,
        ids=tuple(int(i) for i in ids),
        positions=tuple(chosen),
        readings=tuple(readings),
        kl=sums.kl,
        entropy=sums.entropy,
        probability=sums.probability,
        rank=sums.rank,
        top_ids=sums.top_ids,
        top_probabilities=sums.top_probabilities,
        baseline=sums.baseline(),
        outliers=outliers,
        missing=missing,
        pieces=subject.pieces(wanted.tolist()),
    )


def _check_prompt(subject: Subject, ids: Sequence[int]) -> None:
    if not ids:
        raise UserError("the prompt is empty: give at least one token")
    most = longest_sequence(subject.model)
    if most is not None and len(ids) > most:
        raise UserError(
            f"the prompt has {len(ids):,} tokens, and the model takes {most:,}: shorten it"
        )


def _choose_readings(
    architecture: Architecture, streams: Sequence[str], tuned: Translator | None
) -> tuple[list[Reading], str | None]:
    """What is read, in the order of the stream; and why ``resid_mid`` is not, where it is asked
    for."""
    found, missing = [], None
    for layer, block in enumerate(architecture.blocks):
        for stream in STREAMS:
            if stream not in streams or (stream == "resid_pre" and layer):
                continue
            if stream not in block.taps:
                missing = missing or block.missing[stream]
                continue
            reading = Reading(layer, stream)
            is_last = layer == len(architecture.blocks) - 1 and stream == "resid_post"
            if is_last or tuned is None or tuned.has(reading):
                found.append(reading)
    return found, missing


def _read_streams(
    subject: Subject, ids: list[int], positions: list[int], readings: Sequence[Reading]
) -> tuple[dict[Reading, Tensor], Tensor]:
    """The streams (P, H) of the positions, of the model's type; and norms (n, T) of whole streams.

    The model is stopped behind its last block: its own head would give T × V numbers at once.
    """
    inputs = subject.inputs(ids)
    shape = inputs["input_ids"].shape
    taps: dict[Reading, Tap] = {
        each: subject.architecture.blocks[each.layer].taps[each.stream] for each in readings
    }
    kept: dict[Reading, Tensor] = {}
    norms: dict[Reading, Tensor] = {}

    def keep(reading: Reading, tensor: Tensor) -> None:
        rows = token_rows(tensor, shape)
        norms[reading] = rows.float().norm(dim=-1).cpu()
        kept[reading] = rows[torch.tensor(positions, device=rows.device)]

    with evaluating(subject.model), capture(taps, keep, then_stop=True):
        subject.model(**inputs)
    return kept, torch.stack([norms[each] for each in kept])
