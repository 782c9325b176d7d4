"""The readout of a model: from the last block's output to the logits of the next token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from projector.errors import UserError
from projector.model.architecture.records import Architecture
from projector.model.architecture.stream.norms import NormForm
from projector.model.architecture.trial import is_matrix, trial_inputs
from projector.model.architecture.weights import resident
from projector.model.capture import Tap, capture, evaluating
from projector.model.context import input_embedding
from projector.model.intervention import Replacement, intervene

_N_TRIAL_TOKENS = 6
# Raw logits that a model is given to see what it makes of them: some so small that a cap does not
# show, some far beyond any cap.
_SMALL, _HUGE = 1e-3, 3e4
_BETWEEN = (-300.0, -40.0, -7.0, -1.5, -0.3, 0.0, 0.4, 2.0, 9.0, 50.0, 200.0)


class Factor(nn.Module):
    """Multiplication by a number, as in some models between the final norm and the head."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@dataclass(frozen=True, eq=False)
class Readout:
    """The map from the output of the last block, of width H, to the logits of V tokens.

    ``logits = softcap · tanh(scale · head(between(norm(stream))) / softcap)``; without a cap,
    ``scale · head(…)``.

    Attributes:
        norm: the final norm; None if there is none.
        form: the norm as a linear map once each token's scale is frozen; None if there is no norm,
            or it doesn't have this form.
        between: modules between the norm and the head, in order, such as a projection to the width
            of the embedding.
        head: the unembedding matrix W_U.
        input_axis: the axis of ``head.weight`` that runs over its inputs.
        scale: the factor of the raw logits.
        softcap: the bound of the logits; None if there is none.
        n_hidden, n_vocabulary: H and V.
    """

    norm: nn.Module | None
    form: NormForm | None
    between: tuple[nn.Module, ...]
    head: nn.Module
    input_axis: int
    scale: float
    softcap: float | None
    n_hidden: int
    n_vocabulary: int

    def normed(self, stream: Tensor) -> Tensor:
        """The head's input, (…, H'), for a stream (…, H), both in the model's dtype."""
        x = stream if self.norm is None else self.norm(stream)
        for module in self.between:
            x = module(x)
        return x

    def raw(self, stream: Tensor) -> Tensor:
        """The head's output, (…, V), in the model's dtype, before scale and softcap."""
        given: Tensor = self.head(self.normed(stream))
        return given

    def finish(self, raw: Tensor) -> Tensor:
        """The logits, (…, V) float32, from the head's output; ``raw`` is not modified."""
        logits = raw.float()
        if self.scale != 1:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits

    def finish_(self, raw: Tensor) -> Tensor:
        """Like :meth:`finish`, without gradients, and in place if ``raw`` is float32."""
        logits = raw.float()
        if self.scale != 1:
            logits.mul_(self.scale)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def logits(self, stream: Tensor) -> Tensor:
        """The logits, (…, V) float32, of a stream (…, H); for the last block's output, they are the
        model's own. A stream with a wider dtype than the model's is rounded to the model's.
        """
        return self.finish(self.raw(stream))

    def unembedding(self, ids: Iterable[int] | Tensor | None = None) -> Tensor:
        """Rows of W_U, (n, H), in the model's dtype: the stream after the norm times a row is the
        raw logit of a token. Linear modules between norm and head are included in the rows.

        Args:
            ids: the tokens, in this order; None for all.

        Raises:
            UserError: if a module between norm and head isn't linear.
        """
        rows = self.head_rows(ids)
        return rows if self._linear is None else rows @ self._linear[0].to(rows)

    def head_bias(self, ids: Iterable[int] | Tensor | None = None) -> Tensor:
        """The constant added to the raw logits of tokens, (n,).

        Raises:
            UserError: as for :meth:`unembedding`.
        """
        rows = self.head_rows(ids)
        bias = resident(self.head, "bias")
        found = rows.new_zeros(len(rows)) if bias is None else _taken(bias, ids)
        return found if self._linear is None else found + rows @ self._linear[1].to(rows)

    def head_rows(self, ids: Iterable[int] | Tensor | None = None) -> Tensor:
        """The head's own rows, (n, H'), of tokens, without the modules before the head."""
        weight = resident(self.head)
        assert weight is not None  # what makes it a matrix
        by_token = weight if self.input_axis == 1 else weight.T
        return _taken(by_token, ids)

    @cached_property
    def _linear(self) -> tuple[Tensor, Tensor] | None:
        """The matrix (H', H) and shift (H',) of what stands between norm and head."""
        if not self.between:
            return None
        weight: Any = resident(self.head)
        eye = torch.eye(self.n_hidden, dtype=weight.dtype, device=weight.device)
        probe = torch.randn(4, self.n_hidden, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            x = torch.cat([torch.zeros_like(eye[:1]), eye, probe.to(eye)])
            for module in self.between:
                x = module(x)
        shift, matrix, got = x[0], (x[1 : self.n_hidden + 1] - x[0]).T, x[self.n_hidden + 1 :]
        expected = probe.to(eye) @ matrix.T + shift
        if not _is_close(expected, got, 1e-4 if weight.dtype == torch.float32 else 5e-2):
            raise UserError(
                "this model isn't linear between its final norm and its head, so a logit isn't a "
                "sum of contributions to the stream"
            )
        return matrix, shift


@torch.no_grad()
def find_readout(model: nn.Module, architecture: Architecture) -> Readout:
    """Find how a causal language model turns its last block's output into logits.

    The model is run on six tokens, and the tensors after the blocks are traced to the head. A
    second run, with the head's output replaced by known numbers, shows how the model changes it.
    Both results are checked against the model's own logits.

    Raises:
        UserError: for an encoder, a model without a head over its vocabulary, or a readout that has
            another form.
    """
    name = type(model).__name__
    if not architecture.is_causal:
        raise UserError(
            f"{name} is an encoder: each position reads the whole text, so it predicts no next "
            "token and has no logits to read; give a causal model"
        )
    embedding: Any = input_embedding(model)
    table: Tensor = embedding.weight
    inputs = trial_inputs(model, 1, _N_TRIAL_TOKENS)
    ids = inputs["input_ids"][0]
    last = architecture.blocks[-1].module
    with evaluating(model):
        passed, order, logits = _run(model, architecture, inputs)
        if logits is None or logits.shape[:-1] != ids[None].shape:
            raise _without_head(name, "it returns no logits for each position")
        if not table.shape[0] // 2 <= logits.shape[-1] <= 2 * table.shape[0]:
            raise _without_head(
                name,
                f"its head returns {logits.shape[-1]:,} logits, and its vocabulary has "
                f"{table.shape[0]:,} tokens",
            )
        stream = passed[last, "output"]
        found = _follow(stream, passed, order, logits.shape[-1], _tolerance(stream.dtype))
        if found is None:
            raise UserError(
                f"{name} isn't supported: no head was found that computes its logits from its "
                "last block"
            )
        *between, head = found
        scale, softcap = _find_finish(model, head, inputs, logits.shape[-1])
        norm = between[0] if between and not is_matrix(between[0]) else None
        if isinstance(norm, Factor):
            norm = None
        readout = Readout(
            norm=norm,
            form=None if norm is None else NormForm.of(norm, stream.shape[-1]),
            between=tuple(between[norm is not None :]),
            head=head,
            input_axis=_input_axis(head, passed),
            scale=scale,
            softcap=softcap,
            n_hidden=stream.shape[-1],
            n_vocabulary=logits.shape[-1],
        )
        own = readout.logits(stream).reshape(logits.shape)
        if not _is_close(own, logits, 100 * _tolerance(stream.dtype)):
            raise UserError(
                f"{name} isn't supported: the final norm and head that were found don't reproduce "
                "its logits, so it has another step after its last block"
            )
    return readout


def _without_head(name: str, reason: str) -> UserError:
    return UserError(
        f"{name} has no head for the next token: {reason}; give a causal language model"
    )


def _run(
    model: nn.Module, architecture: Architecture, inputs: dict[str, Tensor]
) -> tuple[dict[tuple[nn.Module, str], Tensor], list[nn.Module], Tensor | None]:
    """What passed every module outside the blocks at its last call, in the order of the calls
    behind the last block; and the model's logits."""
    last = architecture.blocks[-1].module
    inside = {m for block in architecture.blocks for m in block.module.modules()} - {last}
    passed: dict[tuple[nn.Module, str], Tensor] = {}
    order: list[nn.Module] = []

    def keep(key: tuple[nn.Module, str], tensor: Tensor) -> None:
        if key[1] == "input":
            order.append(key[0])
        passed[key] = tensor.detach().clone()

    taps: dict[tuple[nn.Module, str], Tap] = {}
    for module in model.modules():
        if module is not model and module not in inside:
            taps |= {(module, "input"): Tap(module, "input")}
            taps |= {(module, "output"): Tap(module, "output")}
    with capture(taps, keep, skip_empty=True):
        logits = getattr(model(**inputs), "logits", None)
    behind = order[len(order) - order[::-1].index(last) :]
    # A list has no call of its own, and what was called on nothing gave nothing to follow.
    called = [m for m in dict.fromkeys(behind) if (m, "output") in passed]
    return passed, called, logits if isinstance(logits, Tensor) else None


def _follow(
    x: Tensor,
    passed: dict[tuple[nn.Module, str], Tensor],
    order: Sequence[nn.Module],
    n_vocabulary: int,
    tolerance: float,
) -> list[nn.Module] | None:
    """The modules that turn ``x`` into the head's output, the head last; None if none do."""
    readers: list[tuple[bool, int, float]] = []
    for i, module in enumerate(order):
        factor = _factor(x, passed[module, "input"], tolerance)
        if factor:
            readers.append((factor != 1, -i, factor))
    # Those that read x as it is, before those that read a multiple of it; parts before wholes.
    for _, i, factor in sorted(readers):
        module = order[-i]
        before: list[nn.Module] = [] if factor == 1 else [Factor(factor)]
        given = passed[module, "output"]
        if is_matrix(module) and given.shape[-1] == n_vocabulary:
            return [*before, module]
        if given.shape == x.shape and given.equal(x):
            continue
        rest = _follow(given, passed, order[1 - i :], n_vocabulary, tolerance)
        if rest is not None:
            return [*before, module, *rest]
    return None


def _factor(x: Tensor, y: Tensor, tolerance: float) -> float:
    """What x is multiplied by to give y; 0 if nothing does."""
    if x.numel() != y.numel() or x.shape[-1] != y.shape[-1] or not y.is_floating_point():
        return 0.0
    a, b = x.reshape(-1).to("cpu", torch.float64), y.reshape(-1).to("cpu", torch.float64)
    if a.equal(b):
        return 1.0
    size = float(a @ a)
    factor = float(a @ b) / size if size else 0.0
    if not factor or float((b - factor * a).norm()) > tolerance * float(b.norm()):
        return 0.0
    return _rounded(factor, max(torch.finfo(x.dtype).eps, 1e-6))


def _rounded(value: float, precision: float) -> float:
    """A whole number, or one over it, where the value is that within its precision."""
    for candidate in (float(round(value)), 1 / round(1 / value) if abs(value) < 1 else 0.0):
        if candidate and abs(value - candidate) <= precision * abs(candidate):
            return candidate
    return value


def _input_axis(head: nn.Module, passed: dict[tuple[nn.Module, str], Tensor]) -> int:
    weight: Any = resident(head)
    x, y = passed[head, "input"], passed[head, "output"]
    if x.shape[-1] != y.shape[-1]:
        return 1 if weight.shape == (y.shape[-1], x.shape[-1]) else 0
    bias = resident(head, "bias")
    shift: Any = 0 if bias is None else bias
    errors = [(y - (x @ w + shift)).float().norm() for w in (weight, weight.T)]
    return int(errors[1] < errors[0])


def _find_finish(
    model: nn.Module, head: nn.Module, inputs: dict[str, Tensor], n_vocabulary: int
) -> tuple[float, float | None]:
    """Scale and softcap: what a model makes of numbers that take its head's output's place."""
    probes = torch.tensor([_SMALL, _HUGE, -_HUGE, *_BETWEEN])
    values = probes[torch.arange(n_vocabulary) % len(probes)]
    tap = Tap(head, "output")
    with intervene([Replacement(tap, torch.arange(n_vocabulary), values)]):
        got = model(**inputs).logits[0, 0].to("cpu", torch.float64)
    # Probes as the model's own type has them.
    dtype: Any = head.weight.dtype
    given = values.to(dtype).double()
    tolerance = _tolerance(dtype)
    precision = max(torch.finfo(dtype).eps, 1e-6)
    scale = _rounded(float(got[0] / given[0]), precision)
    is_capped = abs(float(got[1])) < 0.5 * abs(scale * _HUGE)
    softcap = _rounded(float(got[1]), precision) if is_capped else None
    expected = scale * given
    if softcap is not None:
        expected = softcap * torch.tanh(expected / softcap)
    # Beyond the range of a short type both are infinite.
    error = torch.where(got == expected, 0.0, (got - expected).abs())
    if not scale or not bool((error <= 1e-6 + tolerance * expected.abs()).all()):
        raise UserError(
            f"{type(model).__name__} changes its head's output by more than a factor and a "
            "softcap, which is not supported"
        )
    return scale, softcap


def _tolerance(dtype: torch.dtype) -> float:
    """The relative error that a few operations in a type may have."""
    return max(8 * torch.finfo(dtype).eps, 1e-6)


def _is_close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    a, b = a.to("cpu", torch.float64), b.to("cpu", torch.float64)
    return float((a - b).norm()) <= tolerance * float(b.norm()) + 1e-12


def _taken(tensor: Tensor, ids: Iterable[int] | Tensor | None) -> Tensor:
    if ids is None:
        return tensor
    chosen = ids if isinstance(ids, Tensor) else torch.tensor(list(ids), dtype=torch.int64)
    return tensor[chosen.to(tensor.device)]
