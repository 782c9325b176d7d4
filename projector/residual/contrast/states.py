"""Collect one vector per prompt at every point of the stream, in one run over both sets."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from projector.errors import check_choice
from projector.model.capture import Tap, capture, evaluating, token_rows
from projector.model.loading import input_device
from projector.progress import Progress, Silent
from projector.residual.contrast.prompts import PromptSets, encode_sets
from projector.residual.contrast.records import STREAMS, OutlierToken, Pair, Point, Updates
from projector.residual.contrast.settings import AT
from projector.residual.contributions import (
    BlockContributions,
    EmbeddingContributions,
    check_additivity,
    watch_contributions,
)
from projector.residual.outliers import describe_outliers

if TYPE_CHECKING:
    from projector.residual.subject import Subject

__all__ = ["States", "collect_states"]

# More is held in a file that is gone once nothing reads it: 1 GiB of float32.
_NUMBERS_IN_MEMORY = 2**28
# Of one batch, at all places: 256 MB of float32.
_NUMBERS_AT_ONCE = 2**26
_MOST_TOKENS_AT_ONCE = 4096
_MOST_OUTLIERS = 50
_PARTS = ("attention", "mlp")
# A place of the stream or, of a layer, what one part adds.
Slot = tuple[int, str]


@dataclass(frozen=True, eq=False)
class States:
    """One vector per prompt at each point of one model's stream.

    Attributes:
        values: (n_positive + n_negative, H) float32 on the CPU, for each (layer, stream) that was
            read and for the updates of each (layer, "attention") and (layer, "mlp"), biases
            included. ``resid_pre`` is stored for layer 0 only, because a later layer's is the
            previous ``resid_post``.
        n_positive: number of rows of the first set, which come first.
        n_layers: number of layers of the model.
        missing: stream → reason why it can't be read.
        parts_reason: why the updates of attention and the MLP are unknown; None if they are known.
        outliers: tokens with a norm many times their prompt's median, the most extreme first.
        n_outlying: number of outliers, including first tokens that don't count.
        n_left_out: number of outliers left out of means.
        n_outlying_last: number of prompts with an outlier as the last token, if that token is read.
        additivity_error: the largest error of the sums of parts; None if there are none.
    """

    values: Mapping[Slot, Tensor]
    n_positive: int
    n_layers: int
    missing: Mapping[str, str] = field(default_factory=dict)
    parts_reason: str | None = None
    outliers: tuple[OutlierToken, ...] = ()
    n_outlying: int = 0
    n_left_out: int = 0
    n_outlying_last: int = 0
    additivity_error: float | None = None

    @property
    def points(self) -> tuple[Point, ...]:
        """Every point that was read, in the order of the stream; a point with two names occurs
        twice.
        """
        every = (Point(layer, stream) for layer in range(self.n_layers) for stream in STREAMS)
        return tuple(each for each in every if self._slot(each) in self.values)

    def at(self, point: Point) -> Pair:
        """(n_positive, H) and (n_negative, H) float32 on the CPU.

        Raises:
            KeyError: if the model's stream was not read at this point.
        """
        return self._pair(self._slot(point))

    def update(self, layer: int) -> Pair:
        """The update of the whole block: its ``resid_post`` − its ``resid_pre``."""
        pre, post = (self.at(Point(layer, stream)) for stream in ("resid_pre", "resid_post"))
        return post[0] - pre[0], post[1] - pre[1]

    def updates(self, layer: int) -> Updates:
        """The updates of its attention and its MLP, if they are known."""
        found = [
            self._pair((layer, part)) if (layer, part) in self.values else None for part in _PARTS
        ]
        reason = self.parts_reason
        if reason is None and None in found:
            reason = f"layer {layer} has no such part"
        return Updates(found[0], found[1], reason if None in found else None)

    def first_name(self, point: Point) -> Point:
        """The name under which a point is stored; a later layer's ``resid_pre`` is stored under
        another name.
        """
        return Point(*self._slot(point))

    def _slot(self, point: Point) -> Slot:
        if point.stream == "resid_pre" and point.layer:
            return point.layer - 1, "resid_post"
        return point.layer, point.stream

    def _pair(self, slot: Slot) -> Pair:
        values = self.values[slot]
        return values[: self.n_positive], values[self.n_positive :]


def collect_states(
    subject: Subject,
    sets: PromptSets,
    *,
    at: str = "last",
    keep_outliers: bool = False,
    progress: Progress | None = None,
) -> States:
    """Run both sets once, and keep one vector per prompt at every point of the stream.

    If the parts of a block are known, they are checked to sum to the stream at the tokens that are
    kept.

    Args:
        at: "last", the last token's vector; "mean", the mean over a prompt's tokens, in float64,
            without a causal model's first token, unless it is the only one.
        keep_outliers: whether a mean includes tokens with a norm many times their prompt's median
            anywhere in the stream. A last token always counts.

    Raises:
        SettingError: on ``at``.
        UserError: as for :func:`encode_sets`; or if a sum doesn't close.
    """
    check_choice("at", at, AT)
    progress = progress or Silent()
    prompts = [ids for side in encode_sets(subject, sets) for ids in side]
    reader = _Reader(subject, prompts, at, keep_outliers)
    progress.begin("Running the model", len(prompts), "prompts")
    for chosen in reader.batches():
        reader.run(chosen)
        progress.advance(len(chosen))
    progress.end()
    return reader.states(len(sets.positive))


class _Reader:
    """Runs batches of prompts, and folds what passes into one vector a prompt and place."""

    def __init__(
        self, subject: Subject, prompts: Sequence[list[int]], at: str, keep_outliers: bool
    ) -> None:
        self.subject, self.prompts, self.at = subject, prompts, at
        self.keep_outliers = keep_outliers
        self.taps: dict[Slot, Tap] = {}
        self.missing: dict[str, str] = {}
        for layer, block in enumerate(subject.architecture.blocks):
            for stream in STREAMS:
                if stream == "resid_pre" and layer:
                    continue
                if stream in block.taps:
                    self.taps[layer, stream] = block.taps[stream]
                else:
                    self.missing.setdefault(stream, block.missing[stream])
        self.parts_reason = self._why_no_parts()
        slots = list(self.taps)
        if self.parts_reason is None:
            for layer, written in enumerate(subject.layout.blocks):
                slots += [(layer, part) for part in _PARTS if part in written.additions()]
        n_hidden = subject.architecture.n_hidden
        held = _room(len(slots), len(prompts), n_hidden)
        self.values = {slot: held[i] for i, slot in enumerate(slots)}
        self.per_token = len(slots) * n_hidden
        self.found: dict[tuple[int, bool], OutlierToken] = {}
        self.n_outlying = self.n_left_out = self.n_outlying_last = 0
        self.error: float | None = None

    def _why_no_parts(self) -> str | None:
        layout = self.subject.layout
        if layout.closes_per_block:
            return f"in this model {layout.reason}"
        reasons = ((i, b.reason) for i, b in enumerate(layout.blocks) if b.reason is not None)
        return next((f"layer {i} can't be written as a sum: {why}" for i, why in reasons), None)

    def batches(self) -> Iterator[list[int]]:
        """Numbers of prompts that run together: those of like length, within a bound of tokens."""
        most = max(1, min(_MOST_TOKENS_AT_ONCE, _NUMBERS_AT_ONCE // self.per_token))
        order = sorted(range(len(self.prompts)), key=lambda i: (len(self.prompts[i]), i))
        batch: list[int] = []
        for i in order:
            if batch and len(self.prompts[i]) * (len(batch) + 1) > most:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def run(self, chosen: Sequence[int]) -> None:
        """Run some prompts, padded on the right, and keep their vectors."""
        lengths = [len(self.prompts[i]) for i in chosen]
        ids = torch.zeros(len(chosen), max(lengths), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(chosen):
            ids[row, : lengths[row]] = torch.tensor(self.prompts[i])
            mask[row, : lengths[row]] = 1
        batch = _Batch(ids.shape, mask, at_last=self.at == "last")
        device = input_device(self.subject.model)
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        with torch.no_grad(), evaluating(self.subject.model):
            # The watch stops the model, and its hooks run behind those of the outer capture.
            if self.parts_reason is None:
                with capture(self.taps, batch.read_stream):
                    check = watch_contributions(
                        self.subject, inputs, batch.read_parts, only=batch.is_last
                    )
                check_additivity(check)
                self.error = max(self.error or 0.0, check.additivity_error)
            else:
                with capture(self.taps, batch.read_stream, then_stop=True):
                    self.subject.model(**inputs)
        self._fold(chosen, lengths, batch)

    def _fold(self, chosen: Sequence[int], lengths: Sequence[int], batch: _Batch) -> None:
        streams = list(self.taps)
        norms = torch.stack([batch.norms[each] for each in streams])
        start = 0
        for row, (i, length) in enumerate(zip(chosen, lengths, strict=True)):
            end = start + length
            counts = torch.ones(length, dtype=torch.bool)
            counts[0] = not self.subject.architecture.is_causal or length == 1
            is_out = self._note(self.prompts[i], norms[:, start:end], streams, counts)
            if self.at == "last":
                self.n_outlying_last += int(is_out[-1])
                for slot, values in self.values.items():
                    values[i] = batch.rows[slot][row]
            else:
                # All where none would be left.
                kept = counts if self.keep_outliers else counts & ~is_out
                kept = kept if bool(kept.any()) else counts
                self.n_left_out += int((counts & ~kept).sum())
                for slot, values in self.values.items():
                    values[i] = batch.rows[slot][start:end][kept].double().mean(dim=0).float()
            start = end

    def _note(
        self, ids: Sequence[int], norms: Tensor, streams: Sequence[Slot], counts: Tensor
    ) -> Tensor:
        """(T,) bool: which tokens of a prompt are outlying; they are noted by token."""
        is_out = torch.zeros(len(ids), dtype=torch.bool)
        for each in describe_outliers(norms):
            is_out[each.position] = True
            key = (ids[each.position], not each.position)
            before = self.found.get(key)
            n = 1 if before is None else before.n + 1
            if before is None or _times(before.times_usual) < _times(each.times_usual):
                place = streams[each.reading]
                self.found[key] = OutlierToken(key[0], "", key[1], *place, each.times_usual, n)
            else:
                self.found[key] = replace(before, n=n)
        self.n_outlying += int((is_out & counts).sum())
        return is_out

    def states(self, n_positive: int) -> States:
        furthest = sorted(self.found.values(), key=lambda e: (-_times(e.times_usual), e.token))
        furthest = furthest[:_MOST_OUTLIERS]
        pieces = self.subject.pieces([each.token for each in furthest])
        return States(
            values=self.values,
            n_positive=n_positive,
            n_layers=len(self.subject.architecture.blocks),
            missing=self.missing,
            parts_reason=self.parts_reason,
            outliers=tuple(replace(each, text=pieces.text(each.token)) for each in furthest),
            n_outlying=self.n_outlying,
            n_left_out=self.n_left_out,
            n_outlying_last=self.n_outlying_last,
            additivity_error=self.error,
        )


class _Batch:
    """What passes in one run: rows of the tokens that are not padding, or of last tokens alone."""

    def __init__(self, shape: torch.Size, mask: Tensor, *, at_last: bool) -> None:
        self.shape = shape
        self.real = mask.reshape(-1).nonzero()[:, 0]
        # Among the tokens that are not padding.
        self.last: Tensor | None = None
        # (B, T), in the batch itself: of no other token parts are formed and their sums checked.
        self.is_last: Tensor | None = None
        if at_last:
            lengths = mask.sum(dim=1)
            self.last = lengths.cumsum(dim=0) - 1
            self.is_last = torch.arange(mask.shape[1]) == lengths[:, None] - 1
        self.rows: dict[Slot, Tensor] = {}
        self.norms: dict[Slot, Tensor] = {}

    def read_stream(self, slot: Slot, tensor: Tensor) -> None:
        rows = token_rows(tensor, self.shape)[self.real.to(tensor.device)].float()
        self.norms[slot] = rows.norm(dim=-1).cpu()
        self.rows[slot] = (rows if self.last is None else rows[self.last.to(rows.device)]).cpu()

    def read_parts(self, found: BlockContributions | EmbeddingContributions) -> None:
        if isinstance(found, EmbeddingContributions):
            return
        for part, written in zip(_PARTS, (found.attention_written, found.mlp_written), strict=True):
            if written is not None:
                first, *others = written.terms()
                self.rows[found.layer, part] = sum(others, start=first).cpu()


def _room(n_slots: int, n_rows: int, width: int) -> Tensor:
    """(n_slots, n_rows, width) float32: in memory, or in a file that no one else sees."""
    shape = (n_slots, n_rows, width)
    if math.prod(shape) <= _NUMBERS_IN_MEMORY:
        return torch.zeros(shape)
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=shape))


def _times(times_usual: float | None) -> float:
    return math.inf if times_usual is None else times_usual
