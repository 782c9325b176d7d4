"""The contribution of each head to a logit, split by the parts of its input.

A head at position p adds ⟨u, f(W_O Σ_s A[p, s] (W_V n(x_s) + b_V))⟩ to the logit of a token, where
u is the direction that the logit reads from the stream, n the norm before the head, and f the norms
and factors after it. With the norms' scales frozen, this is linear in the stream x_s, which is a
sum of parts. The head's contribution is therefore a sum as well, and each term is a path: part →
head → logit. If the part is a head of an earlier layer, the two form a *virtual head*.

Only vectors of the stream's width are propagated back through a head: one per head, for any number
of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from projector.errors import UserError
from projector.model.architecture.stream.attention import HeadWeights
from projector.model.architecture.stream.patterns import watch_patterns
from projector.model.capture import Tap, capture
from projector.residual.circuits.goals import Goal
from projector.residual.circuits.weights import Circuits, LayerCircuits
from projector.residual.contributions import (
    BlockContributions,
    EmbeddingContributions,
    check_additivity,
    watch_contributions,
)
from projector.residual.subject import Subject

# Inner products held at once: 16 MiB of float32.
_MOST_PRODUCTS = 1 << 22
_CLOSES_IN_FLOAT32, _CLOSES_IN_SHORT_TYPES = 1e-4, 5e-2


@dataclass(frozen=True, eq=False)
class LayerReads:
    """All heads of a layer as readers of the stream, with their contributions to the goal.

    Attributes:
        layer: index of the block.
        directions: (A, H) float32, the direction in the stream that each head passes on to the
            goal, without the token's scale.
        weights: (A, T) float32, the attention from the last position to each token, times the
            norm's scale at that token.
        bias: (A,) float32, the constant contribution of biases on the path.

    All tensors are on the device of the goal's direction, even if the layer is on another.
    """

    layer: int
    directions: Tensor
    weights: Tensor
    bias: Tensor


@dataclass(frozen=True, eq=False)
class HeadInputs:
    """The contribution of every head to a logit, split by the parts of its input.

    Attributes:
        goal: the logit.
        heads: layer and head of the n readers.
        parts: names of the m parts, in the order of the sum.
        part_heads: layer and head of each part that is a head; None for all other parts.
        values: (m, n) float32, the contribution of a part through a head; 0 if the part comes
            later.
        own: (n,) float32, the head's total contribution, from its own output.
        closure_error: the largest |Σ parts − own| of a head, divided by its Σ |parts|. Because
            rounding dominates in heads that add almost nothing, the divisor is at least a hundredth
            of the mean over all heads.
        additivity_error: error of the run's sums; see
            :class:`~projector.residual.contributions.SumCheck`.
    """

    goal: Goal
    heads: list[tuple[int, int]]
    parts: list[str]
    part_heads: list[tuple[int, int] | None]
    values: Tensor
    own: Tensor
    closure_error: float
    additivity_error: float

    def through_two(self) -> Tensor:
        """The contribution of each part that is a head through each head, (m₁, n), in the order of
        parts.
        """
        return self.values[[row for row, head in enumerate(self.part_heads) if head is not None]]


def find_readers(
    subject: Subject,
    circuits: Circuits,
    goals: Sequence[Goal],
    also: Callable[[int, Tensor], None] | None = None,
) -> list[list[LayerReads]]:
    """Find, for each goal, every head as a reader of the stream, layer by layer.

    This takes one run of the model.

    Args:
        goals: of the same sequence.
        also: called with each layer's number and pattern, as in
            :func:`~projector.model.architecture.stream.patterns.watch_patterns`.

    Raises:
        UserError: if the model has no attention patterns.
    """
    at_end: dict[int, Tensor] = {}
    passed: dict[tuple[int, str, int], Tensor] = {}
    taps: dict[tuple[int, str, int], Tap] = {}
    for each in circuits.layers:
        taps[each.layer, "stream", 0] = each.reading.stream
        taps[each.layer, "added", 0] = each.addition.tap
        for name, norms in (("reading", each.reading.norms), ("addition", each.addition.norms)):
            taps |= {
                (each.layer, name, i): Tap(module, "output") for i, (module, _) in enumerate(norms)
            }

    def keep(key: tuple[int, str, int], tensor: Tensor) -> None:
        rows = tensor.detach().reshape(-1, tensor.shape[-1])
        passed[key] = (rows[-1:] if key[1] in ("added", "addition") else rows).clone()

    def consume(layer: int, pattern: Tensor) -> None:
        at_end[layer] = pattern[0, :, -1].float().clone()
        if also is not None:
            also(layer, pattern)

    with capture(taps, keep):
        watch_patterns(
            subject.model,
            subject.architecture,
            subject.inputs(goals[0].ids),
            consume,
            taps=subject.patterns,
            layers=[each.layer for each in circuits.layers],
        )
    return [
        [_readers_of(each, goal, at_end[each.layer], passed) for each in circuits.layers]
        for goal in goals
    ]


@torch.no_grad()
def _readers_of(
    circuits: LayerCircuits,
    goal: Goal,
    attention: Tensor,
    passed: dict[tuple[int, str, int], Tensor],
) -> LayerReads:
    layer, weights = circuits.layer, circuits.weights
    reading = circuits.reading.freeze(
        passed[layer, "stream", 0],
        tuple(passed[layer, "reading", i] for i in range(len(circuits.reading.norms))),
    )
    addition = circuits.addition.freeze(
        passed[layer, "added", 0].float(),
        tuple(passed[layer, "addition", i] for i in range(len(circuits.addition.norms))),
    )
    behind, home = addition.scale(), goal.direction.device
    # ov.left is W_O with what stands behind it, but for the scale at the last position.
    heads = goal.direction.to(circuits.ov.left) @ circuits.ov.left
    if behind is not None:
        heads = heads * behind[0, 0].to(heads)
    directions = (heads[:, None] @ circuits.ov.right)[:, 0]
    scale, attention = reading.scale(), attention.to(heads)
    weighted = attention if scale is None else attention * scale[:, 0].to(heads)
    bias = _bias_of(weights, heads, reading.bias(None), attention)
    return LayerReads(layer, directions.to(home), weighted.to(home), bias.to(home))


def _bias_of(
    weights: HeadWeights, heads: Tensor, read_bias: Tensor | None, attention: Tensor
) -> Tensor:
    """(A,): what the norm's bias and the values' bias add through each head."""
    group = torch.tensor(weights.group, device=heads.device)
    total = torch.zeros_like(heads[:, 0])
    if read_bias is not None:
        values = torch.einsum(
            "ad,adh,th->at", heads, weights.v.to(heads)[group], read_bias.to(heads)
        )
        total = total + (values * attention).sum(1)
    if weights.v_bias is not None:
        total = total + (heads * weights.v_bias.to(heads)[group]).sum(1) * attention.sum(1)
    return total


@dataclass
class _Sums:
    """Terms as they come, block by block."""

    readers: list[LayerReads]
    goal: Goal
    names: list[str] = field(default_factory=list)
    part_heads: list[tuple[int, int] | None] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    own: list[Tensor] = field(default_factory=list)

    def take(self, each: BlockContributions | EmbeddingContributions) -> None:
        """Add what the embedding, or a block, passes on to the heads behind it."""
        if isinstance(each, EmbeddingContributions):
            for part in each.parts:
                self._add(part.name, None, self._through(part.values, -1))
            return
        layer = each.layer
        if layer in [readers.layer for readers in self.readers]:
            own = each.project_heads(self.goal.direction[None])[-1, :, 0]
            self.own.append(own.to(self.goal.direction.device))
        if each.attention is not None and each.n_heads is not None:
            for head, row in enumerate(self._through_heads(each)):
                self._add(f"L{layer} H{head}", (layer, head), row)
        elif each.attention is not None:
            self._add(f"L{layer} attention", None, self._through(each.attention, layer))
        for name, values in (
            ("attention bias", each.attention_bias),
            ("MLP", each.mlp),
            ("MLP bias", each.mlp_bias),
        ):
            if values is not None:
                self._add(f"L{layer} {name}", None, self._through(values, layer))

    def finish(self, additivity_error: float) -> HeadInputs:
        """What was added up, with the biases on the way as the last part."""
        self._add("biases on the way", None, torch.cat([each.bias for each in self.readers]))
        values, own = torch.stack(self.rows).cpu(), torch.cat(self.own).cpu()
        size = values.abs().sum(0)
        least = (size.mean() / 100).clamp_min(torch.finfo(values.dtype).tiny)
        return HeadInputs(
            self.goal,
            [(each.layer, head) for each in self.readers for head in range(len(each.bias))],
            self.names,
            self.part_heads,
            values,
            own,
            closure_error=float(((values.sum(0) - own).abs() / size.clamp_min(least)).max()),
            additivity_error=additivity_error,
        )

    def _add(self, name: str, head: tuple[int, int] | None, row: Tensor) -> None:
        self.names.append(name)
        self.part_heads.append(head)
        self.rows.append(row)

    def _through(self, values: Tensor, layer: int) -> Tensor:
        """(n,): what a part (T, H) of a layer adds through every head behind it."""
        values = values.to(self.goal.direction.device)
        return torch.cat(
            [
                (readers.weights * (readers.directions @ values.T)).sum(1)
                if readers.layer > layer
                else torch.zeros_like(readers.bias)
                for readers in self.readers
            ]
        )

    def _through_heads(self, block: BlockContributions) -> Tensor:
        """(A, n): what each head of a block adds through every head behind it."""
        n_heads = block.n_heads or 0
        found = []
        for readers in self.readers:
            if readers.layer <= block.layer:
                found.append(readers.bias.new_zeros(n_heads, len(readers.bias)))
                continue
            n_at_once = max(1, _MOST_PRODUCTS // (n_heads * readers.weights.shape[1]))
            for directions, weights in zip(
                readers.directions.split(n_at_once), readers.weights.split(n_at_once), strict=True
            ):
                products = block.project_heads(directions).to(weights.device)
                found.append(torch.einsum("tan,nt->an", products, weights))
        return torch.cat(found, 1)


def find_head_inputs(
    subject: Subject, readers: Sequence[list[LayerReads]], goals: Sequence[Goal]
) -> list[HeadInputs]:
    """Split the contribution of every head to each goal by the parts of the stream, in one run.

    Args:
        readers: for each goal, the result of :func:`find_readers`.
        goals: of the same sequence.

    Raises:
        UserError: if the model has no running sum, or a head's parts don't sum to its contribution.
    """
    if subject.layout.closes_per_block:
        raise UserError(
            "this model's stream isn't a running sum of its parts, so no path leads from one "
            f"head to another: {subject.layout.reason}"
        )
    sums = [_Sums(each, goal) for each, goal in zip(readers, goals, strict=True)]

    def take(each: BlockContributions | EmbeddingContributions) -> None:
        for one in sums:
            one.take(each)

    with torch.no_grad():
        check = watch_contributions(subject, subject.inputs(goals[0].ids), take)
    check_additivity(check)
    found = [each.finish(check.additivity_error) for each in sums]
    _check(max(each.closure_error for each in found), subject)
    return found


def _check(error: float, subject: Subject) -> None:
    dtype = next(subject.model.parameters()).dtype
    limit = _CLOSES_IN_FLOAT32 if dtype == torch.float32 else _CLOSES_IN_SHORT_TYPES
    if not error <= limit:
        raise UserError(
            f"the parts of a head's output don't sum to it: they differ by {error:.1e} of the sum "
            f"of their sizes, but rounding explains at most {limit:.0e}"
        )
