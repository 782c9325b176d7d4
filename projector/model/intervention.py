"""Changing activations while a model runs.

Hooks are in place only inside the ``with`` block and are removed even after an error; outside it
the model computes what it always did. To read activations, see :mod:`projector.model.capture`.
"""

from __future__ import annotations

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


@contextmanager
def intervene(replacements: Sequence[Replacement]) -> Iterator[None]:
    """Run the model with neurons replaced.

    The tensor that passes a tap is copied before it is changed: the model may use it elsewhere too.

    Raises:
        ValueError: if a replacement names a neuron twice, or has not one value each; and, while the
            model runs, if it names one that is not there, or no tensor passes its tap.
    """
    for each in replacements:
        if each.neurons.shape != each.values.shape or each.neurons.ndim != 1:
            raise ValueError(
                f"{tuple(each.neurons.shape)} neurons and {tuple(each.values.shape)} values: one "
                "value for each is needed"
            )
        if len(each.neurons.unique()) < len(each.neurons):
            raise ValueError("a neuron is replaced twice at one place")

    def replaced(each: Replacement, tensor: Tensor) -> Tensor:
        width = tensor.shape[-1]
        if (
            len(each.neurons)
            and not 0 <= int(each.neurons.min()) <= int(each.neurons.max()) < width
        ):
            raise ValueError(f"neuron {int(each.neurons.max()):,} of {width:,} is not there")
        changed = tensor.clone()
        changed[..., each.neurons.to(tensor.device)] = each.values.to(tensor)
        return changed

    def input_hook(each: Replacement) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            for i, value in enumerate(args):
                if isinstance(value, Tensor):
                    return (*args[:i], replaced(each, value), *args[i + 1 :]), kwargs
            for name, value in kwargs.items():
                if isinstance(value, Tensor):
                    return args, {**kwargs, name: replaced(each, value)}
            raise ValueError(f"no tensor is given to {type(module).__name__}")

        return hook

    def output_hook(each: Replacement) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, Tensor):
                return replaced(each, output)
            if isinstance(output, Mapping):
                for name, value in output.items():
                    if isinstance(value, Tensor):
                        # Outputs of models are mappings with a class of their own, which is kept.
                        output[name] = replaced(each, value)  # type: ignore[index]
                        return output
            if isinstance(output, (tuple, list)):
                for i, value in enumerate(output):
                    if isinstance(value, Tensor):
                        return type(output)((*output[:i], replaced(each, value), *output[i + 1 :]))
            raise ValueError(f"{type(module).__name__} gives no tensor")

        return hook

    with ExitStack() as hooks:
        for each in replacements:
            handle = (
                each.tap.module.register_forward_pre_hook(input_hook(each), with_kwargs=True)
                if each.tap.side == "input"
                else each.tap.module.register_forward_hook(output_hook(each))
            )
            hooks.callback(handle.remove)
        yield
