"""The contributions of every part of a model to its residual stream in one run, with checks of
their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from projector.errors import UserError, named
from projector.model.architecture.stream.embeddings import spread
from projector.model.architecture.stream.records import Addition, FrozenPath
from projector.model.capture import Tap, capture, evaluating, token_rows
from projector.residual.parts import (
    BlockContributions,
    EmbeddingContributions,
    Part,
    Written,
)
from projector.residual.subject import Subject

__all__ = [
    "BlockContributions",
    "Contributions",
    "EmbeddingContributions",
    "Part",
    "StreamError",
    "SumCheck",
    "Written",
    "check_additivity",
    "collect_contributions",
    "watch_contributions",
]

# What is read before the first block, among the layers.
_BEFORE = -1
_SIDES: tuple[Literal["input", "output"], ...] = ("input", "output")
_WORDS = {"attention": "attention", "mlp": "MLP"}
_TINY = 1e-30


@dataclass(frozen=True)
class StreamError:
    """The relative error of the sum of parts for one stream, at the token with the largest error.

    Attributes:
        stream: "pre", "mid" or "post" of a layer.
        part: the last part added before it, such as "L3 MLP".
        error: ‖Σ parts − stream‖ / ‖stream‖ over all parts so far, without half-precision rounding.
            If the model has no running sum, over this sum alone.
        step: the same for this sum alone, from the stream before it.
    """

    layer: int
    stream: str
    part: str
    error: float
    step: float


@dataclass(frozen=True)
class SumCheck:
    """The errors of one run, in the order of the streams, and the largest allowed error.

    Attributes:
        is_rounded: whether the model adds in half precision.
    """

    errors: tuple[StreamError, ...]
    tolerance: float
    is_rounded: bool = False

    @property
    def additivity_error(self) -> float:
        """The largest ‖Σ parts − stream‖ / ‖stream‖ over tokens and streams, over all parts so far,
        without rounding.
        """
        return max((each.error for each in self.errors), default=0.0, key=_or_infinity)

    @property
    def step_error(self) -> float:
        """The largest error of a single sum, from the stream before it."""
        return max((each.step for each in self.errors), default=0.0, key=_or_infinity)

    @property
    def worst(self) -> str:
        """The part with the largest error of its own sum."""
        return max(self.errors, key=lambda each: _or_infinity(each.step)).part

    @property
    def closes(self) -> bool:
        return self.additivity_error <= self.tolerance and self.step_error <= self.tolerance


def check_additivity(check: SumCheck) -> None:
    """Raise a UserError if the parts don't sum to the stream.

    Raises:
        UserError: with the part that doesn't add up, and its error; or, if every single sum is
            within the bound, that half precision causes too much rounding.
    """
    if check.closes:
        return
    if check.is_rounded and check.step_error <= check.tolerance:
        raise UserError(
            "rounding adds up over the layers: the sum of all parts is off by "
            f"{check.additivity_error:.1e} of the stream, but at most {check.tolerance:.0e} is "
            f"accepted; choose {named('dtype', 'float32')}",
            setting="dtype",
        )
    error = check.step_error if check.is_rounded else check.additivity_error
    raise UserError(
        f"the parts of this model's stream do not sum to it: at {check.worst} the sum is off by "
        f"{error:.1e} of the stream, and rounding explains at most {check.tolerance:.0e}; so "
        "nothing is attributed to parts"
    )


def allowed_error(dtype: torch.dtype) -> float:
    """The largest allowed additivity error for ``dtype``: 1e-5, or 2e-2 for half precision."""
    return 1e-5 if dtype in (torch.float32, torch.float64) else 2e-2


def relative_error(off: Tensor, size: Tensor) -> Tensor:
    """The largest ‖off‖ / size over tokens, for (T, H) and (T,) float32; a scalar."""
    return (torch.linalg.vector_norm(off, dim=-1) / size.clamp_min(_TINY)).max()


def _or_infinity(error: float) -> float:
    """NaN counts as the worst."""
    return error if error == error else float("inf")


@dataclass(frozen=True, eq=False)
class Contributions:
    """Every part of one run, at some positions.

    Attributes:
        positions: (P,) int64, the tokens of the rows.
        check: errors of the sums, over all tokens.
        closes_per_block: whether the model has no running sum.
    """

    embedding: EmbeddingContributions
    blocks: tuple[BlockContributions, ...]
    positions: Tensor
    check: SumCheck
    closes_per_block: bool

    @property
    def additivity_error(self) -> float:
        """The largest ‖Σ parts − stream‖ / ‖stream‖ over tokens and streams, without ``rounding``
        parts.
        """
        return self.check.additivity_error

    @property
    def worst(self) -> str:
        """The part with the largest error."""
        return self.check.worst

    def parts(self, *, by_head: bool = False) -> list[Part]:
        """All terms in the order of the sum; each head separately if ``by_head``.

        They sum to the last block's output, except for a model that ``closes_per_block``; in half
        precision, only with the parts of kind ``rounding``.
        """
        found = list(self.embedding.parts)
        for block in self.blocks:
            found += block.parts(by_head=by_head)
        return found


def watch_contributions(
    subject: Subject,
    inputs: Mapping[str, Any],
    consume: Callable[[BlockContributions | EmbeddingContributions], None],
    *,
    on_logits: Callable[[Tensor], None] | None = None,
    only: Tensor | None = None,
) -> SumCheck:
    """Run the model once, and pass on each block's contributions as soon as it has run.

    The embedding comes first. Only one block's contributions are in memory at a time. The rows are
    the tokens that the attention mask keeps, in the order of the batch. The sums are checked, but
    no error is raised; see :func:`check_additivity`. The model stops after its last block unless
    its logits are needed.

    Args:
        inputs: the model's inputs: ids and mask, (B, T) each.
        on_logits: called at the end with the model's logits, (B, T, V).
        only: (B, T), the tokens to use as rows and to check, instead of all that the mask keeps.

    Raises:
        UserError: if a block's additions to the stream were not found, with the block and the
            reason.
    """
    for layer, block in enumerate(subject.layout.blocks):
        if block.reason is not None:
            raise UserError(f"layer {layer} can't be written as a sum: {block.reason}")
    watch = _Watch(subject, inputs, consume, only)
    with (
        torch.no_grad(),
        evaluating(subject.model),
        capture(watch.taps, watch.read, then_stop=on_logits is None),
    ):
        output = subject.model(**inputs)
        if on_logits is not None:
            on_logits(output.logits)
    return watch.check()


def collect_contributions(
    subject: Subject,
    ids: Sequence[int],
    positions: Sequence[int] | None = None,
    *,
    neurons: bool = False,
) -> Contributions:
    """Collect every part of one run over ``ids`` at some positions.

    The sums are checked at all positions, but no error is raised; see :func:`check_additivity`.

    Args:
        positions: positions of the tokens, where negative values count from the end; None for all.
        neurons: also keep each MLP's neurons, for ``project_neurons``.

    Raises:
        UserError: as for :func:`watch_contributions`.
    """
    everywhere = range(len(ids))
    chosen = everywhere if positions is None else positions
    rows = torch.tensor([everywhere[position] for position in chosen], dtype=torch.int64)
    embeddings: list[EmbeddingContributions] = []
    blocks: list[BlockContributions] = []

    def keep(each: BlockContributions | EmbeddingContributions) -> None:
        if isinstance(each, BlockContributions):
            blocks.append(each.take(rows, neurons=neurons))
        else:
            embeddings.append(each.take(rows))

    check = watch_contributions(subject, subject.inputs(list(ids)), keep)
    per_block = subject.layout.closes_per_block
    return Contributions(embeddings[0], tuple(blocks), rows, check, per_block)


class _Watch:
    """What passes while the model runs, until its block is complete."""

    def __init__(
        self,
        subject: Subject,
        inputs: Mapping[str, Any],
        consume: Callable[[BlockContributions | EmbeddingContributions], None],
        only: Tensor | None,
    ) -> None:
        self.layout, self.consume = subject.layout, consume
        mask = inputs.get("attention_mask") if only is None else only
        self.shape = inputs["input_ids"].shape
        # None where every token is kept, which spares a copy.
        self.kept = None if mask is None or bool(mask.all()) else mask.reshape(-1).bool()
        self.done = [Tap(block.module, "output") for block in subject.architecture.blocks]
        embedding = self.layout.embedding
        before = [each.tap for each in embedding.sources]
        before += [Tap(norm, side) for norm, _ in embedding.norms for side in _SIDES]
        chosen = [(_BEFORE, tap) for tap in (*before, embedding.stream)]
        for layer, block in enumerate(self.layout.blocks):
            for each in block.additions().values():
                chosen.append((layer, each.tap))
                chosen += [(layer, Tap(norm, "output")) for norm, _ in each.norms]
                chosen += [] if each.reads is None else [(layer, each.reads)]
            for total in block.sums:
                chosen += [(layer, total.base), (layer, total.end)]
            chosen.append((layer, self.done[layer]))
        self.taps = {key: key[1] for key in chosen}
        self.reads = {
            each.reads for block in self.layout.blocks for each in block.additions().values()
        }
        self.values: dict[Tap, Tensor] = {}
        # The parts so far, (T, H).
        self.total = torch.zeros(())
        self.is_rounded = False
        # As scalars on their device: to read them would wait for it.
        self.errors: list[tuple[int, str, str, Tensor, Tensor]] = []
        self.tolerance = 0.0

    def read(self, key: tuple[int, Tap], tensor: Tensor) -> None:
        layer, tap = key
        rows = self._rows(tensor.detach())
        # The model may change its own tensors in place; but nothing goes on to change what a
        # projection has read.
        is_own = self.kept is not None or tap in self.reads
        self.values[tap] = rows if is_own else rows.clone()
        if layer == _BEFORE and tap == self.layout.embedding.stream:
            self._finish_embedding()
        elif layer != _BEFORE and tap == self.done[layer]:
            self._finish_block(layer)

    def check(self) -> SumCheck:
        errors = [
            StreamError(layer, stream, part, float(error), float(step))
            for layer, stream, part, error, step in self.errors
        ]
        return SumCheck(tuple(errors), self.tolerance, self.is_rounded)

    def _rows(self, tensor: Tensor) -> Tensor:
        """The rows of the tokens that are kept: the model's own tensor if all are, else a copy."""
        if tensor.shape[:-1].numel() == self.shape.numel():
            rows = token_rows(tensor, self.shape)
        else:
            # Positions are looked up once for the whole batch.
            rows = spread(tensor, self.shape.numel())
        return rows if self.kept is None else rows[self.kept.to(rows.device)]

    def _finish_embedding(self) -> None:
        embedding = self.layout.embedding
        stream = self.values[embedding.stream]
        self.is_rounded = stream.dtype not in (torch.float32, torch.float64)
        self.tolerance = allowed_error(stream.dtype)
        scales = tuple(
            form.scale(self.values[Tap(norm, "input")], self.values[Tap(norm, "output")])
            for norm, form in embedding.norms
        )
        path = FrozenPath(tuple(form for _, form in embedding.norms), scales, 1.0)
        parts = [
            Part(
                each.name,
                "embedding",
                None,
                None,
                path.apply(self.values[each.tap].float() * each.factor),
            )
            for each in embedding.sources
        ]
        bias = path.bias(None)
        if bias is not None:
            values = bias.expand_as(parts[0].values)
            parts.append(Part("embedding norm bias", "bias", None, None, values))
        self.total = torch.stack([part.values for part in parts]).sum(dim=0)
        end = stream.float()
        off = end - self.total
        error = relative_error(off, torch.linalg.vector_norm(end, dim=-1))
        self.errors.append((0, "pre", "the embedding", error, error))
        if self.is_rounded:
            parts.append(Part("embedding rounding", "rounding", None, None, off))
        self.values = {}
        self.consume(EmbeddingContributions(tuple(parts), end))

    def _finish_block(self, layer: int) -> None:
        block = self.layout.blocks[layer]
        values, self.values = self.values, {}
        written = {name: self._written(each, values) for name, each in block.additions().items()}
        rounding: Tensor | None = None
        streams = []
        for i, each in enumerate(block.sums):
            base, end = values[each.base].float(), values[each.end].float()
            added = [part for name in each.parts for part in written[name].terms()]
            off = end - base
            for part in added:
                off = off - part
            size = torch.linalg.vector_norm(end, dim=-1)
            step = running = relative_error(off, size)
            if not self.layout.closes_per_block:
                self.total = sum(added, start=self.total.to(end.device))
                running = relative_error(end - self.total, size)
            name = f"L{layer} " + " and ".join(_WORDS[part] for part in each.parts)
            stream = "post" if i == len(block.sums) - 1 else "mid"
            self.errors.append((layer, stream, name, running, step))
            rounding = off if rounding is None else rounding + off
            streams.append(end)
        self.consume(
            BlockContributions(
                layer,
                values[block.sums[0].base].float(),
                streams[0] if block.has_mid else None,
                streams[-1],
                written.get("attention"),
                written.get("mlp"),
                block.n_heads,
                rounding if self.is_rounded else None,
            )
        )

    def _written(self, addition: Addition, values: Mapping[Tap, Tensor]) -> Written:
        normed = tuple(values[Tap(norm, "output")] for norm, _ in addition.norms)
        reads = None if addition.reads is None else values[addition.reads]
        return Written.of(addition, values[addition.tap], normed, reads)
