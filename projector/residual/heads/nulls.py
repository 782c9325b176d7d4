"""Random heads with the same spectra, for the chance levels of scores in the same model.

A head's queries are W_Q x, its keys W_K x. The random head keeps the singular values and the left
singular vectors of both. The directions of the stream that it reads are drawn at random,
orthonormal and uniform (Haar): W_Q = U S Vᵀ becomes U S Fᵀ, and W_K is changed in the same way with
other random axes. W_QK thus has new axes on both sides. A bias is treated as the weight of an
additional input that is always 1, and is randomised with the weights; otherwise it would be the
same in every random head.

The random weights are used in the model's own attention: mask, rotary positions, ALiBi, norms of
queries and keys, scale and softcap are unchanged, and the input is the model's own stream. Effects
of position alone, such as attention to the first tokens under a causal mask, occur in random heads
too.

For W_OV, the axes on both sides are random and the singular values are kept. All heads of a draw
use the same axes. This correlates heads within a draw, but not the draws of one head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from projector.errors import UserError
from projector.model.architecture.stream.attention import HeadWeights, Rows
from projector.model.architecture.stream.patterns import PatternTap
from projector.model.architecture.weights import (
    is_offloaded,
    replaceable,
    resident,
    resident_tensors,
)
from projector.model.capture import Call
from projector.residual.circuits.copying import copying_scores
from projector.residual.circuits.factors import Factors, random_axes


class Axes:
    """Random axes, the same for every head with the same width and number of axes."""

    def __init__(self, n_draws: int, seed: int) -> None:
        self.n_draws, self.seed = n_draws, seed
        self._kept: dict[tuple[int, int, str], Tensor] = {}

    def draw(self, width: int, n_axes: int, which: str) -> Tensor:
        """Draw axes, (n_draws, width, n_axes) float32, with orthonormal columns.

        Args:
            which: name of the draw; different names give independent draws.
        """
        key = (width, n_axes, which)
        if key not in self._kept:
            names = ("queries", "keys", "writing", "reading")
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + names.index(which))
            self._kept[key] = torch.stack(
                [random_axes((width, n_axes), generator) for _ in range(self.n_draws)]
            )
        return self._kept[key]


class RandomHeads:
    """A block's attention with random axes of its heads.

    With W = C Qᵀ, C (d × d) and Q orthonormal, a random head's queries are C (Fᵀ x). The block's
    module is therefore called with Fᵀ x instead of x and C instead of W, which gives the same
    pattern as W' = C Fᵀ with x, but multiplies by d columns instead of H. The first draw is
    computed in both ways; if they differ, or the module doesn't accept it, all draws are computed
    with W' and x.

    Args:
        weights: the block's heads.
        tap: its attention module.
        axes: the axes for all blocks.

    Raises:
        UserError: if its weights have a type that can't be replaced, such as quantized weights.
    """

    def __init__(self, weights: HeadWeights, tap: PatternTap, axes: Axes) -> None:
        self._tap, self._axes = tap, axes
        names = {module: name for name, module in tap.module.named_modules()}
        self._queries = _Part(weights.q_rows, names, axes, "queries")
        self._keys = _Part(weights.k_rows, names, axes, "keys")
        self._values, self._output = weights.v_rows.matrix, weights.output
        self._names = names

    def patterns(self, call: Call, first: Tensor) -> Iterator[Tensor]:
        """Yield the patterns (B, A, T, T) of each draw; call within :func:`plain_run`, like the
        recorded call.

        Args:
            call: how the model called the module.
            first: the module's input, (B, T, H).
        """
        wide, narrow = self._wide(), self._narrow(first)
        is_same = self._axes.n_draws > 0 and self._agree(call, first, wide, narrow)
        for number in range(self._axes.n_draws):
            if is_same:
                yield self._run(call, self._projected(first, number), narrow)
            else:
                self._draw(wide, number)
                yield self._run(call, first, wide)

    def _agree(
        self, call: Call, first: Tensor, wide: dict[str, Tensor], narrow: dict[str, Tensor]
    ) -> bool:
        """Whether both ways give the same pattern of the first draw."""
        self._draw(wide, 0)
        expected = self._run(call, first, wide).float()
        try:
            found = self._run(call, self._projected(first, 0), narrow).float()
        except (RuntimeError, TypeError, ValueError, LookupError, AttributeError):
            return False
        rounding = max(1e-4, 16 * torch.finfo(first.dtype).eps)
        return found.shape == expected.shape and bool(
            (found - expected).abs().sum(-1).mean() < rounding
        )

    def _run(self, call: Call, first: Tensor, weights: dict[str, Tensor]) -> Tensor:
        if is_offloaded(self._tap.module):
            weights = dict(resident_tensors(self._tap.module)) | weights
            weights = {name: tensor.to(first.device) for name, tensor in weights.items()}
        args, kwargs = call.filled(first)
        with torch.no_grad(), replaceable(self._tap.module):
            given = functional_call(self._tap.module, weights, args, kwargs, strict=False)
        return self._tap.read(given)

    def _wide(self) -> dict[str, Tensor]:
        """Copies of the weights, to be drawn."""
        return {
            name: parameter.detach().clone()
            for part in (self._queries, self._keys)
            for name, parameter in part.parameters()
        }

    def _draw(self, weights: dict[str, Tensor], number: int) -> None:
        for part in (self._queries, self._keys):
            drawn = part.coordinates @ part.axes(number).T
            bias = drawn[..., -1] if part.has_bias else None
            part.write(weights, drawn[..., : part.n_inputs], bias)

    def _projected(self, first: Tensor, number: int) -> Tensor:
        """(B, T, 2d): what random queries and keys read of the stream."""
        wide = first.float()
        return torch.cat(
            [part.project(wide, number) for part in (self._queries, self._keys)], dim=-1
        ).to(first)

    def _narrow(self, first: Tensor) -> dict[str, Tensor]:
        """Weights that take :meth:`_projected`: C for queries and keys, zeros for values."""
        parts = (self._queries, self._keys)
        width = sum(part.rank for part in parts)
        weights: dict[str, Tensor] = {}
        matrices = (self._values, *(part.rows.matrix for part in parts))
        for matrix in {each.module: each for each in matrices}.values():
            shape = (matrix.n_outputs, width)
            for name, _ in matrix.module.named_parameters(recurse=False):
                parameter = resident(matrix.module, name)
                assert parameter is not None
                zeros = shape if matrix.input_axis == 1 else shape[::-1]
                weights[f"{self._names[matrix.module]}.{name}"] = parameter.new_zeros(
                    zeros if parameter.ndim > 1 else parameter.shape
                )
        start = 0
        for part in parts:
            padded = part.coordinates.new_zeros(*part.coordinates.shape[:2], width)
            padded[..., start : start + part.rank] = part.coordinates
            part.write(weights, padded, None)
            start += part.rank
        # Nobody looks at what the output projection gives, so one number of it is enough.
        if self._output.input_axis == 1 and self._output.module in self._names:
            for name, _ in self._output.module.named_parameters(recurse=False):
                parameter = resident(self._output.module, name)
                assert parameter is not None
                weights[f"{self._names[self._output.module]}.{name}"] = parameter[:1]
        return weights


class _Part:
    """The rows that give queries or keys, and C of each head.

    Attributes:
        coordinates: (n, d, r) float32, C: W's singular values, and how heads hold them.
        n_inputs: H; ``has_bias`` tells whether the bias is one more input, that is 1.
    """

    def __init__(self, rows: Rows, names: dict[Any, str], axes: Axes, which: str) -> None:
        self.rows, self._name = rows, names[rows.matrix.module]
        self._axes, self._which = axes, which
        for _, parameter in self.parameters():
            if not parameter.is_floating_point():
                raise UserError(
                    f"weights of type {parameter.dtype} can't be replaced by random ones"
                )
        weight, bias = rows.weight.float(), rows.bias
        self.has_bias, self.n_inputs = bias is not None, weight.shape[2]
        if bias is not None:
            weight = torch.cat([weight, bias.float()[..., None]], dim=2)
        self.coordinates = torch.linalg.qr(weight.transpose(1, 2), mode="r").R.transpose(1, 2)

    @property
    def rank(self) -> int:
        return self.coordinates.shape[2]

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The matrix' own, by their names within the attention module."""
        for name, _ in self.rows.matrix.module.named_parameters(recurse=False):
            parameter = resident(self.rows.matrix.module, name)
            assert parameter is not None
            yield f"{self._name}.{name}", parameter

    def axes(self, number: int) -> Tensor:
        """F of a draw, (H, or H + 1 with a bias, r)."""
        width = self.n_inputs + self.has_bias
        return self._axes.draw(width, self.rank, self._which)[number].to(self.coordinates)

    def project(self, first: Tensor, number: int) -> Tensor:
        """Fᵀ x, (…, r) float32."""
        axes = self.axes(number)
        found = first @ axes[: self.n_inputs]
        return found + axes[-1] if self.has_bias else found

    def write(self, weights: dict[str, Tensor], rows: Tensor, bias: Tensor | None) -> None:
        """Put (n, d, inputs) rows, and (n, d) biases, in their places among parameters."""
        target = weights[f"{self._name}.weight"]
        index = self.rows.index.flatten().to(target.device)
        flat = rows.flatten(0, 1).to(target)
        if self.rows.matrix.input_axis == 1:
            target[index] = flat
        else:
            target[:, index] = flat.T
        if bias is not None:
            at = weights[f"{self._name}.bias"]
            at[index] = bias.flatten().to(at)


def random_copying(ov: Factors, gram: Tensor, axes: Axes, advance: Callable[[int], None]) -> Tensor:
    """The copying scores, (n_draws, A), of random W_OV with the singular values of A heads.

    With W_OV = F S Gᵀ, F and G random axes, the eigenvalues are those of the d × d matrix
    S Gᵀ (W_Eᵀ W_U) F, which is one eigenvalue problem per head and draw.

    Args:
        ov: the heads' W_OV.
        gram: (H, H), W_Eᵀ W_U of the vocabulary.
        advance: called after each draw.
    """
    values = ov.singular_values().cpu().float()
    width, rank = ov.left.shape[-2], values.shape[-1]
    writing, reading = (axes.draw(width, rank, which) for which in ("writing", "reading"))
    eye = torch.eye(rank)
    gram = gram.cpu()

    def score(left: Tensor, right: Tensor) -> Tensor:
        core = right.T @ (gram @ left)
        return copying_scores(Factors(core * values[:, None, :], eye), eye)

    scores = []
    # Eigenvalues of small matrices keep one core busy each.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for each in pool.map(score, writing, reading):
            scores.append(each)
            advance(1)
    return torch.stack(scores)


def percentiles(scores: Tensor, random: Tensor) -> Tensor:
    """The share of draws with a lower score, in percent; a tie counts half.

    Args:
        scores: (…).
        random: (n_draws, …).
    """
    lower = (random < scores).float() + 0.5 * (random == scores).float()
    return 100 * lower.mean(0)


def expected_count(random: Tensor, least: float, least_percentile: float) -> float:
    """The expected number of heads of a kind in a draw, each compared with the other draws.

    Args:
        random: (n_draws, A).
    """
    n_others = len(random) - 1
    if n_others < 1:
        return 0.0
    # A draw ties with itself, which percentiles count as half a lower one.
    lower = torch.stack([percentiles(each, random) for each in random]) * len(random) / 100 - 0.5
    ranks = 100 * lower / n_others
    beyond = (random >= least) & (ranks >= least_percentile)
    return float(beyond.float().sum(1).mean())
