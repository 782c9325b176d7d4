"""Virtual heads: the strongest paths of a prompt through two heads.

Two heads in a row are one product, ``(A₂ ⊗ W_OV₂)(A₁ ⊗ W_OV₁) = A₂A₁ ⊗ W_OV₂W_OV₁``: a head whose
pattern is A₂A₁ and whose circuit is W_OV₂W_OV₁ (Elhage et al. 2021). The norms on the path have
their scales on the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from projector.model.architecture.stream.patterns import watch_patterns
from projector.model.capture import Tap, capture
from projector.residual.circuits.factors import Factors
from projector.residual.circuits.goals import Goal, control_goals, find_goal
from projector.residual.circuits.paths import (
    HeadInputs,
    LayerReads,
    find_head_inputs,
    find_readers,
)
from projector.residual.circuits.vocabulary import token_ids, unembeddings
from projector.residual.circuits.weights import Circuits, LayerCircuits, find_circuits
from projector.residual.subject import Subject

_BLOCK = 8192


@dataclass(frozen=True)
class VirtualHead:
    """A path through two successive heads on a prompt.

    Attributes:
        first, second: layer and head of each.
        value: the path's contribution to the logit.
        share: share of Σ |value| over all paths through two heads; negative if it lowers the logit.
        share_of_second: share of the second head's total contribution.
        from_positions: the source tokens that contribute most, with their contributions.
        via_positions: the same for the tokens where the first head writes and the second reads.
        token_percentile: share of the vocabulary's tokens with a logit that the path raises less
            than this token's, in percent. Paths chosen for their strength are near 0 or 100, unless
            they raise all tokens equally. None for a difference of two tokens.
    """

    first: tuple[int, int]
    second: tuple[int, int]
    value: float
    share: float
    share_of_second: float
    from_positions: tuple[tuple[int, float], ...]
    via_positions: tuple[tuple[int, float], ...]
    token_percentile: float | None


@dataclass(frozen=True, eq=False)
class VirtualHeads:
    """The strongest paths through two heads to a logit, with a control.

    Attributes:
        inputs: every head's contribution, split by its input.
        rows: the paths, strongest first by absolute value.
        position: position of the logit, counted from the start.
        through_two: the total contribution of all pairs of heads.
        control: the absolute contribution of the strongest path to the logits of random tokens at
            the same position, one number per token.
        reasons: layer → reason why its heads are not among the second heads.
    """

    inputs: HeadInputs
    rows: tuple[VirtualHead, ...]
    position: int
    through_two: float
    control: tuple[float, ...]
    reasons: dict[int, str]

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        goal = self.inputs.goal
        return {
            "token": goal.token,
            "against": goal.against,
            "position": self.position,
            "logit": goal.logit,
            "from_stream": goal.from_stream,
            "closure_error": self.inputs.closure_error,
            "additivity_error": self.inputs.additivity_error,
            "through_two": self.through_two,
            "control": list(self.control),
            "left_out": {str(layer): reason for layer, reason in self.reasons.items()},
            "rows": [
                {
                    "first": list(each.first),
                    "second": list(each.second),
                    "value": each.value,
                    "share": each.share,
                    "share_of_second": each.share_of_second,
                    "from": [list(pair) for pair in each.from_positions],
                    "via": [list(pair) for pair in each.via_positions],
                    "token_percentile": each.token_percentile,
                }
                for each in self.rows
            ],
        }


def find_virtual_heads(
    subject: Subject,
    ids: Sequence[int],
    *,
    token: int | None = None,
    against: int | None = None,
    position: int = -1,
    n_paths: int = 15,
    n_positions: int = 3,
    n_control: int = 8,
    circuits: Circuits | None = None,
    also: Callable[[int, Tensor], None] | None = None,
) -> VirtualHeads:
    """Find the strongest paths of a prompt through two heads.

    This costs four forward passes, and for each logit one inner product for each token and pair of
    heads.

    Args:
        token, against, position: the logit, as for :func:`find_goal`.
        n_paths: number of paths.
        n_positions: number of source tokens, and of tokens on the path, for each path.
        n_control: number of random tokens for the control.
        circuits: the result of :func:`~projector.residual.circuits.weights.find_circuits`, if it
            was called before.
        also: called with the pattern of each layer in ``circuits``, for the prompt up to
            ``position``, as in
            :func:`~projector.model.architecture.stream.patterns.watch_patterns`.

    Raises:
        UserError: if the model has no causal head or no running sum, or sums don't close.
    """
    circuits = find_circuits(subject) if circuits is None else circuits
    goal = find_goal(subject, ids, token=token, against=against, position=position)
    goals = [goal, *control_goals(subject, goal, n_control)]
    readers = find_readers(subject, circuits, goals, also)
    inputs, *others = find_head_inputs(subject, readers, goals)
    is_head = [row for row, head in enumerate(inputs.part_heads) if head is not None]
    between = inputs.through_two()
    order = between.flatten().abs().argsort(descending=True, stable=True)[:n_paths].tolist()
    n, size = len(inputs.heads), float(between.abs().sum())
    chosen = [(is_head[i // n], i % n) for i in order if between.flatten()[i] != 0]
    pairs = [_Pair.of(inputs, readers[0], circuits, row, column) for row, column in chosen]
    _follow(subject, circuits, goal, pairs)
    percentiles = _percentiles(subject, goal, pairs)
    rows = tuple(
        VirtualHead(
            first=each.first,
            second=each.second,
            value=each.value,
            share=each.value / size if size else 0.0,
            share_of_second=each.value / each.own if each.own else 0.0,
            from_positions=_largest(each.flow.sum(0), n_positions),
            via_positions=_largest(each.flow.sum(1), n_positions),
            token_percentile=percentile,
        )
        for each, percentile in zip(pairs, percentiles, strict=True)
    )
    control = tuple(float(each.through_two().abs().max()) for each in others if between.numel())
    return VirtualHeads(
        inputs, rows, len(goal.ids) - 1, float(between.sum()), control, dict(circuits.reasons)
    )


@dataclass(eq=False)
class _Pair:
    """One path while it is followed: its numbers, then where it goes.

    Attributes:
        direction: (H,), what the second head passes on.
        weights: (T,), how much of each token it reads.
        flow: (T, T), what goes by each token on the way (rows) from each source token.
        written: (H,), what the first head writes, summed as the second head reads it.
    """

    first: tuple[int, int]
    second: tuple[int, int]
    value: float
    own: float
    direction: Tensor
    weights: Tensor
    second_ov: Factors
    flow: Tensor
    written: Tensor | None = None

    @classmethod
    def of(
        cls,
        inputs: HeadInputs,
        readers: Sequence[LayerReads],
        circuits: Circuits,
        row: int,
        column: int,
    ) -> _Pair:
        first, (layer, head) = inputs.part_heads[row], inputs.heads[column]
        assert first is not None
        reader = next(each for each in readers if each.layer == layer)
        return cls(
            first=first,
            second=(layer, head),
            value=float(inputs.values[row, column]),
            own=float(inputs.own[column]),
            direction=reader.directions[head],
            weights=reader.weights[head],
            second_ov=circuits.layer(layer).ov[head],
            flow=torch.zeros(0, 0),
        )


@torch.no_grad()
def _follow(subject: Subject, circuits: Circuits, goal: Goal, pairs: Sequence[_Pair]) -> None:
    """Fill in where each path goes, in one run of the model; one layer's patterns are held."""
    layers = {each.layer: each for each in circuits.layers}
    wanted = sorted({pair.first[0] for pair in pairs} & layers.keys())
    passed: dict[tuple[int, str, int], Tensor] = {}
    taps: dict[tuple[int, str, int], Tap] = {}
    for layer in wanted:
        addition = layers[layer].addition
        taps[layer, "read", 0] = layers[layer].weights.input
        taps[layer, "added", 0] = addition.tap
        for i, (module, _) in enumerate(addition.norms):
            taps[layer, "addition", i] = Tap(module, "output")

    def keep(key: tuple[int, str, int], tensor: Tensor) -> None:
        passed[key] = tensor.detach().reshape(-1, tensor.shape[-1]).clone()

    patterns: dict[int, dict[int, Tensor]] = {}

    def consume(layer: int, pattern: Tensor) -> None:
        heads = {pair.first[1] for pair in pairs if pair.first[0] == layer}
        patterns[layer] = {head: pattern[0, head].float().clone() for head in heads}

    if wanted:
        with capture(taps, keep):
            watch_patterns(
                subject.model,
                subject.architecture,
                subject.inputs(goal.ids),
                consume,
                taps=subject.patterns,
                layers=wanted,
            )
    for pair in pairs:
        layer, head = pair.first
        if layer in patterns:
            _follow_one(pair, layers[layer], patterns[layer][head], passed)


def _follow_one(
    pair: _Pair,
    circuits: LayerCircuits,
    pattern: Tensor,
    passed: dict[tuple[int, str, int], Tensor],
) -> None:
    layer, head = pair.first
    weights, addition = circuits.weights, circuits.addition
    group, left = weights.group[head], circuits.ov.left[head]
    values = passed[layer, "read", 0].to(left) @ weights.v[group].to(left).T
    if weights.v_bias is not None:
        values = values + weights.v_bias[group].to(left)
    behind = addition.freeze(
        passed[layer, "added", 0].float(),
        tuple(passed[layer, "addition", i] for i in range(len(addition.norms))),
    ).scale()
    along, pattern = pair.weights.to(left), pattern.to(left)
    if behind is not None:
        along = along * behind[:, 0].to(left)
    pair.flow = (along[:, None] * pattern * (values @ (pair.direction.to(left) @ left))).cpu()
    pair.written = left @ (along @ pattern @ values)


@torch.no_grad()
def _percentiles(subject: Subject, goal: Goal, pairs: Sequence[_Pair]) -> list[float | None]:
    """For each path, the share of the vocabulary whose logits it raises less than the token's."""
    followed = [pair for pair in pairs if pair.written is not None]
    if goal.against is not None or not followed:
        return [None] * len(pairs)
    at_token = unembeddings(subject, [goal.token])
    written = torch.stack(
        [
            p.second_ov.apply(p.written.to(p.second_ov.left)).to(at_token)
            for p in followed
            if p.written is not None
        ]
    )
    at_token = at_token @ written.T
    ids, n_less = token_ids(subject), torch.zeros(len(followed), device=written.device)
    for start in range(0, len(ids), _BLOCK):
        logits = unembeddings(subject, ids[start : start + _BLOCK]) @ written.T
        n_less += (logits < at_token).sum(0)
    shares = iter((n_less / max(len(ids), 1) * 100).tolist())
    return [None if pair.written is None else next(shares) for pair in pairs]


def _largest(values: Tensor, n: int) -> tuple[tuple[int, float], ...]:
    """The positions of the greatest magnitudes, and their values."""
    order = values.abs().argsort(descending=True, stable=True)[:n].tolist()
    return tuple((i, float(values[i])) for i in order)
