"""Changing activations while a model runs.

Hooks are in place only inside the ``with`` block and are removed even after an error; outside it
the model computes what it always did. To read activations, see :mod:`projector.model.capture`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from projector.errors import UserError
from projector.model.capture import Tap


class SplitsIntoHeads(Protocol):
    """A layer whose attention may split into heads, as the architecture tells it."""

    @property
    def heads_tap(self) -> Tap | None:
        """Where the heads lie side by side; None where they can't be split."""

    @property
    def heads_width(self) -> int:
        """How many coordinates pass there."""

    @property
    def n_heads(self) -> int | None: ...

    @property
    def reason(self) -> str | None:
        """Why nothing is known of this layer's attention."""


class Intervention(Protocol):
    """A change to what passes a tap."""

    @property
    def tap(self) -> Tap:
        """Where it is made."""

    def check(self) -> None:
        """Raise a ValueError if it can't be made to any tensor."""

    def apply(self, tensor: Tensor) -> Tensor:
        """What becomes of a tensor, which is left as it is; a ValueError if it does not fit."""


@dataclass(frozen=True)
class Replacement:
    """What some neurons of a tap are made to be, at every position.

    Attributes:
        tap: where they are read; see :attr:`projector.model.architecture.records.Block.taps`.
        neurons: (n,) int64, their numbers.
        values: (n,) float, what they become; one zero each for zero ablation, their means over a
            corpus for mean ablation (Wang et al. 2022, arXiv:2211.00593).
    """

    tap: Tap
    neurons: Tensor
    values: Tensor

    @classmethod
    def zero(cls, tap: Tap, neurons: Sequence[int] | Tensor) -> Replacement:
        """Zero ablation of some neurons."""
        chosen = torch.as_tensor(neurons, dtype=torch.int64)
        return cls(tap, chosen, torch.zeros(len(chosen)))

    @classmethod
    def heads(
        cls, block: SplitsIntoHeads, heads: Sequence[int], values: Tensor | None = None
    ) -> Replacement:
        """Ablation of attention heads: their slices of what the output projection reads.

        Args:
            block: the layer's; see :attr:`projector.residual.subject.Subject.layout`.
            heads: their numbers; one named twice counts once.
            values: (n_heads · d_head,), what stands in for all heads, of which the chosen ones'
                slices are taken: the mean over a corpus for mean ablation; None for zeros.

        Raises:
            UserError: if the layer has no such head, or none that can be split.
            ValueError: if there is not one value for each coordinate of the heads.
        """
        tap, n_heads, width = block.heads_tap, block.n_heads, block.heads_width
        if tap is None or n_heads is None:
            why = block.reason or "no attention that can be split into heads was found"
            raise UserError(f"this layer has no heads: {why}", setting="heads", value=list(heads))
        for head in heads:
            if not 0 <= head < n_heads:
                raise UserError(
                    f"this layer has no head {head}: it has heads 0 to {n_heads - 1}",
                    setting="heads",
                    value=head,
                )
        if values is not None and values.shape != (width,):
            raise ValueError(f"{tuple(values.shape)} values for heads of {width:,} coordinates")
        every = torch.arange(width).reshape(n_heads, -1)
        chosen = every[sorted(set(heads))].reshape(-1)
        if values is None:
            return cls.zero(tap, chosen)
        return cls(tap, chosen, values[chosen.to(values.device)])

    def check(self) -> None:
        """Raise a ValueError if a neuron is named twice, or has not one value."""
        if self.neurons.shape != self.values.shape or self.neurons.ndim != 1:
            raise ValueError(
                f"{tuple(self.neurons.shape)} neurons and {tuple(self.values.shape)} values: one "
                "value for each is needed"
            )
        if len(self.neurons.unique()) < len(self.neurons):
            raise ValueError("a neuron is replaced twice at one place")

    def apply(self, tensor: Tensor) -> Tensor:
        """(…, N) → (…, N), a copy; a ValueError if a neuron is not there."""
        width = tensor.shape[-1]
        if (
            len(self.neurons)
            and not 0 <= int(self.neurons.min()) <= int(self.neurons.max()) < width
        ):
            raise ValueError(
                f"there is no neuron {int(self.neurons.max()):,}: neurons are 0 to {width - 1:,}"
            )
        changed = tensor.clone()
        changed[..., self.neurons.to(tensor.device)] = self.values.to(tensor)
        return changed


@dataclass(frozen=True)
class Shift:
    """A vector added to what passes a tap, at each position: x becomes x + scale · vector.

    Added to the residual stream this is activation addition (Turner et al. 2023,
    arXiv:2308.10248).

    Attributes:
        tap: where it is added; that of ``resid_post`` or ``resid_pre`` for the stream itself.
        vector: (N,) float.
        scale: what multiplies it; negative to go the other way.
        most_norm: positions whose x is longer stay as they are; None for no limit. A model's first
            token can be a hundred times as long as others and serve all of them as a place to rest
            (Sun et al. 2024, arXiv:2402.17762); a change to it is a change to all.
    """

    tap: Tap
    vector: Tensor
    scale: float = 1.0
    most_norm: float | None = None

    def check(self) -> None:
        """Raise a ValueError unless this is one finite vector and a finite scale."""
        _check_vector(self.vector, "shift")
        if not math.isfinite(self.scale):
            raise ValueError(f"a shift's scale must be a finite number, not {self.scale}")

    def apply(self, tensor: Tensor) -> Tensor:
        """(…, N) → (…, N), of the same type; added in float32 at least."""
        _check_width(self.vector, tensor)
        wide = _wide(tensor)
        changed = wide + self.scale * self.vector.to(wide)
        return _spared(wide, changed, self.most_norm).to(tensor.dtype)


@dataclass(frozen=True)
class Ablation:
    """What passes a tap without its component along a direction, at each position.

    x becomes x − ⟨x, d⟩ d with d = direction / ‖direction‖: directional ablation (Arditi et al.
    2024, arXiv:2406.11717).

    Attributes:
        tap: where it is projected out.
        direction: (N,) float, of any length above 0.
        most_norm: positions whose x is longer stay as they are; see :class:`Shift`.
    """

    tap: Tap
    direction: Tensor
    most_norm: float | None = None

    def check(self) -> None:
        """Raise a ValueError unless this is one finite vector that is not 0."""
        _check_vector(self.direction, "ablation")
        if not bool(self.direction.any()):
            raise ValueError("a vector of zeros has no direction to project out")

    def apply(self, tensor: Tensor) -> Tensor:
        """(…, N) → (…, N), of the same type; projected in float32 at least."""
        _check_width(self.direction, tensor)
        wide = _wide(tensor)
        # In float64, and so a unit vector to the last digit of what it is applied to.
        exact = self.direction.double()
        unit = (exact / exact.norm()).to(wide)
        changed = wide - (wide @ unit)[..., None] * unit
        return _spared(wide, changed, self.most_norm).to(tensor.dtype)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _spared(plain: Tensor, changed: Tensor, most_norm: float | None) -> Tensor:
    """``changed``, but ``plain`` at positions whose norm exceeds ``most_norm``."""
    if most_norm is None:
        return changed
    is_long = torch.linalg.vector_norm(plain, dim=-1, keepdim=True) > most_norm
    return torch.where(is_long, plain, changed)


def _check_vector(vector: Tensor, kind: str) -> None:
    if vector.ndim != 1 or not bool(vector.isfinite().all()):
        raise ValueError(f"the vector of a {kind} must have one axis and finite numbers")


def _check_width(vector: Tensor, tensor: Tensor) -> None:
    if len(vector) != tensor.shape[-1]:
        raise ValueError(
            f"a vector of {len(vector):,} numbers does not fit {tensor.shape[-1]:,} that pass here"
        )


@contextmanager
def intervene(interventions: Sequence[Intervention]) -> Iterator[None]:
    """Run the model with what passes some taps changed; at one tap, in the order of the sequence.

    The tensor that passes a tap is copied before it is changed: the model may use it elsewhere too.

    Raises:
        ValueError: if an intervention can't be made (its ``check``); and, while the model runs, if
            it does not fit what passes its tap, or no tensor passes there.
    """
    for each in interventions:
        each.check()

    def input_hook(each: Intervention) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            for i, value in enumerate(args):
                if isinstance(value, Tensor):
                    return (*args[:i], each.apply(value), *args[i + 1 :]), kwargs
            for name, value in kwargs.items():
                if isinstance(value, Tensor):
                    return args, {**kwargs, name: each.apply(value)}
            raise ValueError(f"no tensor is given to {type(module).__name__}")

        return hook

    def output_hook(each: Intervention) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, Tensor):
                return each.apply(output)
            if isinstance(output, Mapping):
                for name, value in output.items():
                    if isinstance(value, Tensor):
                        # Outputs of models are mappings with a class of their own, which is kept.
                        output[name] = each.apply(value)  # type: ignore[index]
                        return output
            if isinstance(output, (tuple, list)):
                for i, value in enumerate(output):
                    if isinstance(value, Tensor):
                        return type(output)((*output[:i], each.apply(value), *output[i + 1 :]))
            raise ValueError(f"{type(module).__name__} gives no tensor")

        return hook

    with ExitStack() as hooks:
        for each in interventions:
            handle = (
                each.tap.module.register_forward_pre_hook(input_hook(each), with_kwargs=True)
                if each.tap.side == "input"
                else each.tap.module.register_forward_hook(output_hook(each))
            )
            hooks.callback(handle.remove)
        yield
