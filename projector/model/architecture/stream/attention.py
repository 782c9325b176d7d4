"""The weights of each attention head, found by numbers.

Each block's attention is called alone, with random weights, and its gradients show which outputs of
which matrix are queries, keys and values, whether Q, K and V are separate, fused or interleaved.
For a single token, a head's output is that token's value: its pattern is 1, so the gradient is 1
for V and 0 for Q and K. For several tokens, a head's output at the last position depends on the
query at that position alone, but on the keys of earlier positions too. Heads that use the same keys
and values form a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from projector.errors import UserError
from projector.model.architecture.records import Architecture, Matrix
from projector.model.architecture.stream.patterns import PatternTaps, find_patterns
from projector.model.architecture.stream.probing.calls import Probe, record_attention
from projector.model.architecture.stream.probing.logits import describe_logits
from projector.model.architecture.stream.probing.windows import find_windows
from projector.model.architecture.weights import resident
from projector.model.capture import Tap


@dataclass(frozen=True)
class Rows:
    """The outputs of a matrix that belong to attention heads, d per head.

    Attributes:
        matrix: the module that multiplies by the matrix.
        index: (n_heads, d) int64 on the CPU, the index of each output.
    """

    matrix: Matrix
    index: Tensor

    @property
    def weight(self) -> Tensor:
        """(n_heads, d, H), the weights of each output; a view, not a copy, if the outputs are
        evenly spaced, as they are in every usual layout.
        """
        return _take(_by_output(self.matrix), self.index)

    @property
    def bias(self) -> Tensor | None:
        """The bias, (n_heads, d); None if the matrix has none."""
        whole = resident(self.matrix.module, "bias")
        return None if whole is None else whole[self.index.to(whole.device)]

    def of(self, outputs: Tensor) -> Tensor:
        """Split the matrix's output, (…, n_outputs), by head: (…, n_heads, d)."""
        return outputs[..., self.index.to(outputs.device)]


def _by_output(matrix: Matrix) -> Tensor:
    """The weight as (outputs, inputs)."""
    weight = resident(matrix.module)
    assert weight is not None  # what makes it a matrix
    return weight if matrix.input_axis == 1 else weight.T


def _take(weight: Tensor, index: Tensor) -> Tensor:
    """Rows of a (n, H) weight, (heads, d, H); a view where the index is even."""
    first = int(index[0, 0])
    by_head = int(index[1, 0]) - first if len(index) > 1 else 0
    by_row = int(index[0, 1]) - first if index.shape[1] > 1 else 0
    heads, rows = (torch.arange(n) for n in index.shape)
    if (
        by_head >= 0
        and by_row >= 0
        and index.equal(first + heads[:, None] * by_head + rows * by_row)
    ):
        step, along = weight.stride()
        return weight.as_strided(
            (*index.shape, weight.shape[1]),
            (by_head * step, by_row * step, along),
            weight.storage_offset() + first * step,
        )
    return weight[index.to(weight.device)]


@dataclass(frozen=True)
class HeadWeights:
    """The A attention heads of a block, in G groups that share keys and values.

    With x (T, H) the input of the matrices, and A the pattern of head h: q = x W_Qᵀ + bias, the
    attention logits are ``scale`` · q kᵀ except for the terms that ``left_out`` names, and the head
    adds A x W_Vᵀ W_Oᵀ = (A ⊗ W_O W_V) x (Elhage et al. 2021, "A Mathematical Framework for
    Transformer Circuits").

    Attributes:
        q_rows: (A, d) outputs that are queries.
        k_rows: (G, d) outputs that are keys; key component i is multiplied by query component i.
        v_rows: (G, d_v) outputs that are values.
        output: the output projection; it reads the concatenated heads.
        group: for each head, the index of the keys and values it uses.
        scale: the factor of q kᵀ, 1/√d in most models; None if it was not found.
        left_out: names of the terms of the attention logits that q kᵀ from the weights alone leaves
            out, such as "rotary position embedding".
        input: the tap that reads x.
    """

    layer: int
    q_rows: Rows
    k_rows: Rows
    v_rows: Rows
    output: Matrix
    group: tuple[int, ...]
    scale: float | None
    left_out: tuple[str, ...]
    input: Tap

    @property
    def n_heads(self) -> int:
        """The number of heads, A."""
        return len(self.group)

    @property
    def n_groups(self) -> int:
        """The number of sets of keys and values, G."""
        return len(self.k_rows.index)

    @property
    def q(self) -> Tensor:
        """Query weights, (A, d, H)."""
        return self.q_rows.weight

    @property
    def k(self) -> Tensor:
        """Key weights, (G, d, H); head h uses ``k[group[h]]``."""
        return self.k_rows.weight

    @property
    def v(self) -> Tensor:
        """Value weights, (G, d_v, H); head h uses ``v[group[h]]``."""
        return self.v_rows.weight

    @property
    def o(self) -> Tensor:
        """Output weights, (A, H, d_v): a head adds o · z to the attention's output."""
        return _by_output(self.output).unflatten(1, (self.n_heads, -1)).movedim(1, 0)

    @property
    def q_bias(self) -> Tensor | None:
        """Query biases, (A, d)."""
        return self.q_rows.bias

    @property
    def k_bias(self) -> Tensor | None:
        """Key biases, (G, d)."""
        return self.k_rows.bias

    @property
    def v_bias(self) -> Tensor | None:
        """Value biases, (G, d_v)."""
        return self.v_rows.bias

    @property
    def o_bias(self) -> Tensor | None:
        """Bias of the output projection, (H,)."""
        return resident(self.output.module, "bias")


@torch.enable_grad()
def find_attentions(
    model: nn.Module,
    architecture: Architecture,
    layers: Sequence[int] | None = None,
    *,
    taps: PatternTaps | None = None,
) -> dict[int, HeadWeights | str]:
    """Find the attention heads of each block, or the reason why they can't be separated.

    The result is checked with the model's own weights: patterns times values must equal the input
    of the output projection. This costs three short forward passes, regardless of the number of
    layers, and a short backward pass through each head's attention.

    Args:
        layers: the layers to search; all by default.
        taps: the result of :func:`~projector.model.architecture.stream.patterns.find_patterns`, if
            it was called before.

    Raises:
        UserError: if the model can't be run.
    """
    chosen = list(range(len(architecture.blocks)) if layers is None else layers)
    taps = taps or find_patterns(model, architecture)
    found: dict[int, HeadWeights | str] = {
        layer: tap for layer in chosen if isinstance(tap := taps.blocks[layer], str)
    }
    probes = record_attention(model, architecture, [n for n in chosen if n not in found], taps)
    for layer, probe in probes.items():
        try:
            found[layer] = probe if isinstance(probe, str) else _find_heads(layer, probe)
        except UserError as error:
            found[layer] = str(error)
    windows = find_windows(model, architecture, list(probes))
    for layer, window in windows.items():
        each = found[layer]
        if isinstance(each, HeadWeights):
            found[layer] = replace(each, left_out=(*each.left_out, window))
    return {layer: found[layer] for layer in chosen}


def _find_heads(layer: int, probe: Probe) -> HeadWeights:
    value_of, v_indices = _find_values(probe)
    n_heads = probe.tap.n_heads
    sets = list(dict.fromkeys(v_indices))
    group = tuple(sets.index(each) for each in v_indices)
    queries, keys = _find_queries_and_keys(probe, value_of, v_indices)
    q_matrix, q_index = _arrange(queries, list(range(n_heads)), "queries")
    k_matrix, k_index = _arrange(keys, list(group), "keys")
    if q_index.shape[1] != k_index.shape[1]:
        raise UserError(
            f"its queries have {q_index.shape[1]} numbers per head, and its keys {k_index.shape[1]}"
        )
    form = describe_logits(probe, (q_matrix, q_index), (k_matrix, k_index), group)
    weights = HeadWeights(
        layer=layer,
        q_rows=Rows(probe.matrices[q_matrix], q_index),
        k_rows=Rows(probe.matrices[k_matrix], k_index),
        v_rows=Rows(probe.matrices[value_of], torch.tensor(sets)),
        output=probe.output,
        group=group,
        scale=form.scale,
        left_out=form.left_out,
        input=Tap(probe.matrices[value_of].module, "input"),
    )
    probe.check_values(weights.v_rows.matrix.module, weights.v_rows.index, group)
    return weights


def _find_values(probe: Probe) -> tuple[int, list[tuple[int, ...]]]:
    """The matrix that gives values, and for each head the outputs that are its."""
    run = probe.run_single()
    width = run.z.shape[-1] // probe.tap.n_heads
    matrices: set[int] = set()
    found: list[tuple[int, ...]] = []
    for head in range(probe.tap.n_heads):
        # Distinct numbers, exact in any type: each output that is a value shows which.
        marks = torch.zeros_like(run.z)
        low, high = (torch.arange(width, device=marks.device) % 128, torch.arange(width) // 128)
        gradients = []
        for mark in (low, high.to(marks.device)):
            marks[..., head * width : (head + 1) * width] = (mark + 1).to(marks)
            gradients.append([g.flatten(0, -2)[0] for g in run.gradients(marks)])
        index: list[tuple[int, int, int]] = []
        for number, (first, second) in enumerate(zip(*gradients, strict=True)):
            for output in first.nonzero().flatten().tolist():
                place = round(float(first[output])) - 1 + 128 * (round(float(second[output])) - 1)
                index.append((place, number, output))
        index.sort()
        if [place for place, _, _ in index] != list(range(width)):
            raise UserError("its values are not outputs of one matrix that reads the stream")
        matrices |= {number for _, number, _ in index}
        found.append(tuple(output for _, _, output in index))
    if len(matrices) != 1:
        raise UserError("its values are not outputs of one matrix that reads the stream")
    return matrices.pop(), found


# For each head, the outputs of each matrix: (matrix, output), in order.
_Outputs = list[list[tuple[int, int]]]


def _find_queries_and_keys(
    probe: Probe, value_of: int, values: list[tuple[int, ...]]
) -> tuple[_Outputs, _Outputs]:
    run = probe.run_several()
    width = run.z.shape[-1] // probe.tap.n_heads
    generator = torch.Generator().manual_seed(1)
    queries: _Outputs = []
    keys: _Outputs = []
    are_values = {(value_of, output) for each in values for output in each}
    for head in range(probe.tap.n_heads):
        marks = torch.zeros_like(run.z)
        weights = torch.randn(width, generator=generator)
        marks[:, -1, head * width : (head + 1) * width] = weights.to(marks)
        own, others = [], []
        for number, gradient in enumerate(run.gradients(marks)):
            by_position = gradient.float().abs().amax(0)
            reaches = by_position > 1e-6 * by_position.max()
            behind = reaches[:-1].any(0)
            own += [(number, j) for j in (reaches[-1] & ~behind).nonzero().flatten().tolist()]
            others += [(number, j) for j in behind.nonzero().flatten().tolist()]
        queries.append(own)
        keys.append([each for each in others if each not in are_values])
    return queries, keys


def _arrange(found: _Outputs, group: list[int], what: str) -> tuple[int, Tensor]:
    """The matrix and (groups, d) outputs of each group of heads.

    Where a norm over all heads lets each head's queries reach the others, all are found for every
    head; heads then lie one after the other in them.
    """
    matrices = {matrix for each in found for matrix, _ in each}
    if len(matrices) != 1:
        raise UserError(f"its {what} are not outputs of one matrix that reads the stream")
    n_groups = max(group) + 1
    outputs = [tuple(output for _, output in each) for each in found]
    by_group: list[tuple[int, ...]] = [outputs[group.index(g)] for g in range(n_groups)]
    agree = all(each == by_group[g] for each, g in zip(outputs, group, strict=True))
    every = sorted({output for each in by_group for output in each})
    if len(every) % n_groups:
        raise UserError(
            f"its {len(every)} outputs for {what} can't be divided evenly among the heads"
        )
    width = len(every) // n_groups
    if agree and sum(map(len, by_group)) == len(every) and all(len(e) == width for e in by_group):
        return matrices.pop(), torch.tensor(by_group)
    return matrices.pop(), torch.tensor(every).reshape(n_groups, width)
