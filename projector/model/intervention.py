"""Changing activations while a model runs.

Hooks are in place only inside the ``with`` block and are removed even after an error; outside the
block the model is unchanged. To read activations, see :mod:`projector.model.capture`.
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
    """A layer with attention that may split into heads, as described by the architecture."""

    @property
    def heads_tap(self) -> Tap | None:
        """The tap of the concatenated heads; None if they can't be split."""

    @property
    def heads_width(self) -> int:
        """The number of coordinates at ``heads_tap``."""

    @property
    def n_heads(self) -> int | None: ...

    @property
    def reason(self) -> str | None:
        """The reason why this layer's attention was not found."""


class Intervention(Protocol):
    """A change to the tensor at a tap."""

    @property
    def tap(self) -> Tap:
        """The tap where the change is made."""

    def check(self) -> None:
        """Raise a ValueError if the change is invalid for every tensor."""

    def apply(self, tensor: Tensor) -> Tensor:
        """Return the changed tensor, without modifying the argument; a ValueError if it doesn't
        fit.
        """


@dataclass(frozen=True)
class Replacement:
    """Replace the values of some neurons of a tap at every position.

    Attributes:
        tap: the tap of the neurons; see :attr:`projector.model.architecture.records.Block.taps`.
        neurons: (n,) int64, indices of the neurons.
        values: (n,) float, their new values: zeros for zero ablation, their means over a corpus for
            mean ablation (Wang et al. 2022, arXiv:2211.00593).
    """

    tap: Tap
    neurons: Tensor
    values: Tensor

    @classmethod
    def zero(cls, tap: Tap, neurons: Sequence[int] | Tensor) -> Replacement:
        """Create a zero ablation of some neurons."""
        chosen = torch.as_tensor(neurons, dtype=torch.int64)
        return cls(tap, chosen, torch.zeros(len(chosen)))

    @classmethod
    def heads(
        cls, block: SplitsIntoHeads, heads: Sequence[int], values: Tensor | None = None
    ) -> Replacement:
        """Create an ablation of attention heads: their slices of the output projection's input.

        Args:
            block: the layer's layout; see :attr:`projector.residual.subject.Subject.layout`.
            heads: indices of the heads; duplicates count once.
            values: (n_heads · d_head,), replacement values for all heads, from which the slices of
                the chosen heads are taken: the mean over a corpus for mean ablation; None for
                zeros.

        Raises:
            UserError: if the layer doesn't have such a head, or its heads can't be split.
            ValueError: if ``values`` doesn't have one value for each coordinate of the heads.
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
        """Raise a ValueError if a neuron occurs twice, or doesn't have exactly one value."""
        if self.neurons.shape != self.values.shape or self.neurons.ndim != 1:
            raise ValueError(
                f"{tuple(self.neurons.shape)} neurons and {tuple(self.values.shape)} values: one "
                "value for each is needed"
            )
        if len(self.neurons.unique()) < len(self.neurons):
            raise ValueError("a neuron is replaced twice at the same tap")

    def apply(self, tensor: Tensor) -> Tensor:
        """(…, N) → (…, N), a copy; raises a ValueError if a neuron doesn't exist."""
        width = tensor.shape[-1]
        if (
            len(self.neurons)
            and not 0 <= int(self.neurons.min()) <= int(self.neurons.max()) < width
        ):
            raise ValueError(
                f"neuron {int(self.neurons.max()):,} doesn't exist: neurons are 0 to {width - 1:,}"
            )
        changed = tensor.clone()
        changed[..., self.neurons.to(tensor.device)] = self.values.to(tensor)
        return changed


@dataclass(frozen=True)
class Shift:
    """Add a vector at a tap, at every position: x becomes x + scale · vector.

    Added to the residual stream this is activation addition (Turner et al. 2023,
    arXiv:2308.10248).

    Attributes:
        tap: the tap where it is added; for the stream itself, that of ``resid_post`` or
            ``resid_pre``.
        vector: (N,) float.
        scale: the factor of the vector; negative for the opposite direction.
        most_norm: positions where ‖x‖ is larger are left unchanged; None for no limit. The vector
            of a model's first token can be a hundred times as long as that of any other token and
            act as an attention sink for all of them (Sun et al. 2024, arXiv:2402.17762), so a
            change to it affects every token.
    """

    tap: Tap
    vector: Tensor
    scale: float = 1.0
    most_norm: float | None = None

    def check(self) -> None:
        """Raise a ValueError unless this is a single finite vector with a finite scale."""
        _check_vector(self.vector, "shift")
        if not math.isfinite(self.scale):
            raise ValueError(f"a shift's scale must be a finite number, not {self.scale}")

    def apply(self, tensor: Tensor) -> Tensor:
        """(…, N) → (…, N), in the same dtype; the sum is computed in float32 or wider."""
        _check_width(self.vector, tensor)
        wide = _wide(tensor)
        changed = wide + self.scale * self.vector.to(wide)
        return _spared(wide, changed, self.most_norm).to(tensor.dtype)


@dataclass(frozen=True)
class Ablation:
    """Remove the component along a direction at a tap, at every position.

    x becomes x − ⟨x, d⟩ d with d = direction / ‖direction‖: directional ablation (Arditi et al.
    2024, arXiv:2406.11717).

    Attributes:
        tap: the tap where the direction is projected out.
        direction: (N,) float, of any length above 0.
        most_norm: positions where ‖x‖ is larger are left unchanged; see :class:`Shift`.
    """

    tap: Tap
    direction: Tensor
    most_norm: float | None = None

    def check(self) -> None:
        """Raise a ValueError unless the direction is a single finite vector that isn't 0."""
        _check_vector(self.direction, "ablation")
        if not bool(self.direction.any()):
            raise ValueError("a vector of zeros has no direction to project out")

    def apply(self, tensor: Tensor) -> Tensor:
        """(…, N) → (…, N), in the same dtype; the projection is computed in float32 or wider."""
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
            f"a vector of length {len(vector):,} does not fit activations of width "
            f"{tensor.shape[-1]:,}"
        )


@contextmanager
def intervene(interventions: Sequence[Intervention]) -> Iterator[None]:
    """Apply interventions while the model runs; those at the same tap in the order of the sequence.

    The tensor at a tap is copied before it is changed, because the model may use it elsewhere too.

    Raises:
        ValueError: if an intervention is invalid (see its ``check``); and, while the model runs, if
            it doesn't fit the tensor at its tap, or the tap receives no tensor.
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
            raise ValueError(f"{type(module).__name__} receives no tensor")

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
            raise ValueError(f"{type(module).__name__} returns no tensor")

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
