"""Random heads with the same spectra: what scores chance gives, in the same model.

A head's queries are W_Q x, its keys W_K x. The random head keeps the singular values of both, and
how its d coordinates are turned into one another; the directions of the stream that it reads are
drawn anew, orthonormal and uniform over all directions (Haar): W_Q = U S Vᵀ becomes U S Fᵀ, and W_K
likewise, with axes of its own. So W_QK has new axes on either side. A bias counts as the weight of
one more input that is always 1, and is drawn with the others: else it would be the same in every
random head.

The random head stands in the model's own attention, which is called with its weights: mask, rotary
positions, ALiBi, norms of queries and keys, scale and softcap stay what they are, and it reads the
model's own stream. What a head gets by position alone, such as attention to the first tokens under
a causal mask, the random head gets too.

For W_OV, both of its axes are drawn anew and its singular values kept. The same axes serve all
heads of a draw: that correlates heads within a draw, not the draws of one head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.func import functional_call

from projector.errors import UserError
from projector.model.architecture.stream.attention import HeadWeights, Rows
from projector.model.architecture.stream.patterns import PatternTap
from projector.model.capture import Call
from projector.residual.circuits.copying import copying_scores
from projector.residual.circuits.factors import Factors, random_axes


class Axes:
    """Random axes, the same for every head that asks with the same width and number."""

    def __init__(self, n_draws: int, seed: int) -> None:
        self.n_draws, self.seed = n_draws, seed
        self._kept: dict[tuple[int, int, str], Tensor] = {}

    def draw(self, width: int, n_axes: int, which: str) -> Tensor:
        """(n_draws, width, n_axes) float32, orthonormal columns.

        Args:
            which: draws of different names are independent.
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
    """A block's attention with its heads' axes drawn at random, draw by draw.

    Args:
        weights: the block's heads.
        tap: its attention module.
        axes: of all blocks.

    Raises:
        UserError: if its weights are of a type that can't be replaced, such as quantized ones.
    """

    def __init__(self, weights: HeadWeights, tap: PatternTap, axes: Axes) -> None:
        self._tap, self._axes = tap, axes
        names = {module: name for name, module in tap.module.named_modules()}
        self._parts: list[_Part] = []
        self._new: dict[str, Tensor] = {}
        for which, rows in {"queries": weights.q_rows, "keys": weights.k_rows}.items():
            module = rows.matrix.module
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.is_floating_point() or parameter.is_meta:
                    raise UserError(
                        f"weights of type {parameter.dtype} can't be replaced by random ones"
                    )
                self._new.setdefault(f"{names[module]}.{name}", parameter.detach().clone())
            self._parts.append(_Part(rows, names[module], which))

    def patterns(self, call: Call, first: Tensor) -> Iterator[Tensor]:
        """(B, A, T, T) of each draw: one call of the attention module each.

        Args:
            call: how the model called it.
            first: what it was given.
        """
        args, kwargs = call.filled(first)
        for number in range(self._axes.n_draws):
            for part in self._parts:
                part.fill(self._new, self._axes, number)
            with torch.no_grad():
                given = functional_call(self._tap.module, self._new, args, kwargs, strict=False)
            yield self._tap.read(given)


class _Part:
    """The rows of the queries or keys, and their spectra."""

    def __init__(self, rows: Rows, name: str, which: str) -> None:
        self._rows, self._name, self._which = rows, name, which
        weight, bias = rows.weight.float(), rows.bias
        self._has_bias = bias is not None
        if bias is not None:
            weight = torch.cat([weight, bias.float()[..., None]], dim=2)
        # W = C Qᵀ with orthonormal Q: C (n, d, d) has W's singular values, and Q is what is drawn.
        self._coordinates = torch.linalg.qr(weight.transpose(1, 2), mode="r").R.transpose(1, 2)
        self._width = weight.shape[2]

    def fill(self, new: dict[str, Tensor], axes: Axes, number: int) -> None:
        """Write draw ``number`` to the parameters."""
        drawn = axes.draw(self._width, self._coordinates.shape[2], self._which)[number]
        weight = self._coordinates @ drawn.T.to(self._coordinates)
        index = self._rows.index.flatten().to(weight.device)
        flat = weight.flatten(0, 1)
        target = new[f"{self._name}.weight"]
        if self._has_bias:
            bias = new[f"{self._name}.bias"]
            bias[index] = flat[:, -1].to(bias)
            flat = flat[:, :-1]
        if self._rows.matrix.input_axis == 1:
            target[index] = flat.to(target)
        else:
            target[:, index] = flat.T.to(target)


def random_copying(ov: Factors, gram: Tensor, axes: Axes, advance: Callable[[int], None]) -> Tensor:
    """(n_draws, A): the copying scores of random W_OV with the singular values of A heads.

    With W_OV = F S Gᵀ, F and G random axes, the eigenvalues are those of the d × d matrix
    S Gᵀ (W_Eᵀ W_U) F; it costs one eigenvalue problem a head and draw.

    Args:
        ov: the heads' W_OV.
        gram: of :func:`projector.residual.circuits.copying.vocabulary_gram`.
        advance: is told of each draw.
    """
    values = ov.singular_values().cpu().float()
    width, rank = ov.left.shape[-2], values.shape[-1]
    writing, reading = (axes.draw(width, rank, which) for which in ("writing", "reading"))
    eye = torch.eye(rank)
    scores = []
    for left, right in zip(writing, reading, strict=True):
        core = right.T @ (gram.cpu() @ left)
        scores.append(copying_scores(Factors(core * values[:, None, :], eye), eye))
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
    """How many heads of a draw are at least this high, and beyond all draws of the same head.

    Args:
        random: (n_draws, A).
    """
    ranks = torch.stack([percentiles(each, random) for each in random])
    beyond = (random >= least) & (ranks >= least_percentile)
    return float(beyond.float().sum(1).mean())
