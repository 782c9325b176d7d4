"""Reading activations while a model runs.

Hooks are in place only inside the ``with`` block, are removed even after an error, and return
nothing, so the model's results are exactly the same as without them. On request, the model stops
after the last tensor that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

Key = TypeVar("Key", bound=Hashable)
# Where, in a recorded call, the first tensor stood.
_FIRST_TENSOR = object()


class _AllRead(BaseException):
    """Everything has passed: what called the model goes on behind its ``with`` block.

    No ``Exception``, so that no model's own code takes it for a mistake.
    """


@dataclass(frozen=True)
class Tap:
    """A place where a tensor is read: the input or the output of a module."""

    module: nn.Module
    side: Literal["input", "output"]


@contextmanager
def capture(
    taps: Mapping[Key, Tap],
    consume: Callable[[Key, Tensor], None],
    *,
    skip_empty: bool = False,
    then_stop: bool = False,
) -> Iterator[None]:
    """Call ``consume(key, tensor)`` with the tensor at each tap as soon as it is computed.

    No tensor is kept here: a consumer that adds each tensor to running sums needs memory for only
    one tensor, regardless of the model's depth. The tensor is the model's own; a consumer that
    keeps it must copy it, because the model may change it in place.

    Args:
        taps: the taps to read. If a module takes or returns several tensors, the first is read.
        consume: called with each tensor, which it must not change.
        skip_empty: skip taps that receive no tensor.
        then_stop: stop the model, and leave the ``with`` block, once every tap has been read. No
            block after the last one that is read computes anything, and the model returns nothing.
            Each module that is read must be called once per run.

    Raises:
        TypeError: while the model runs, if a tap receives no tensor and ``skip_empty`` is False.
    """
    left = set(taps)

    def read(key: Key, value: Any) -> None:
        tensor = _first_tensor(value)
        if tensor is not None:
            consume(key, tensor)
        elif not skip_empty:
            raise TypeError(f"expected a tensor here, not a {type(value).__name__}")
        left.discard(key)
        if then_stop and not left:
            # Told by what is left, for a reader within a reader stops its own run alone.
            raise _AllRead(left)

    def input_hook(key: Key) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            read(key, (*args, *kwargs.values()))

        return hook

    def output_hook(key: Key) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            read(key, output)

        return hook

    with ExitStack() as hooks:
        for key, tap in taps.items():
            handle = (
                tap.module.register_forward_pre_hook(input_hook(key), with_kwargs=True)
                if tap.side == "input"
                else tap.module.register_forward_hook(output_hook(key))
            )
            hooks.callback(handle.remove)
        try:
            yield
        except _AllRead as stop:
            if stop.args[0] is not left:
                raise


def collect(
    model: nn.Module, taps: Mapping[Key, Tap], inputs: Mapping[str, Tensor]
) -> dict[Key, Tensor]:
    """Run ``model`` once on ``inputs`` and return a copy of the tensor at each tap."""
    activations: dict[Key, Tensor] = {}

    def keep(key: Key, tensor: Tensor) -> None:
        activations[key] = tensor.detach().clone()

    with torch.no_grad(), capture(taps, keep):
        model(**inputs)
    return activations


@dataclass(frozen=True)
class Call:
    """The arguments of a module's call, except the first tensor, for calling it again."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def filled(self, tensor: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the call with ``tensor`` in place of the first tensor."""

        def fill(value: Any) -> Any:
            return tensor if value is _FIRST_TENSOR else value

        return tuple(map(fill, self.args)), {k: fill(v) for k, v in self.kwargs.items()}

    def again(self, module: nn.Module, tensor: Tensor) -> Tensor:
        """Call a module with ``tensor`` in place of the first tensor, and return its first output
        tensor.

        Raises:
            TypeError: if the module returns no tensor.
        """
        args, kwargs = self.filled(tensor)
        given = _first_tensor(module(*args, **kwargs))
        if given is None:
            raise TypeError(f"{type(module).__name__} returns no tensor")
        return given


def record_calls(
    model: nn.Module,
    modules: Mapping[Key, nn.Module],
    inputs: Mapping[str, Any],
    *,
    then_stop: bool = False,
) -> tuple[dict[Key, Call], Tensor]:
    """Run ``model`` once and record how each module was called, and the first module's first
    tensor.

    Key-value caches are left out of the calls: called again, a module would add to them.

    Args:
        then_stop: stop the model as soon as every module has been called; the last one computes
            nothing.
    """
    calls: dict[Key, Call] = {}
    first_given: list[Tensor] = []

    def hook(key: Key) -> Callable[..., None]:
        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            first = _first_tensor((*args, *kwargs.values()))
            if first is None:
                raise TypeError(f"{type(module).__name__} receives no tensor")
            if not first_given:
                first_given.append(first.detach().clone())
            calls[key] = _call_of(args, kwargs, first)
            if then_stop and len(calls) == len(modules):
                raise _AllRead(calls)

        return record

    with ExitStack() as hooks:
        for key, module in modules.items():
            handle = module.register_forward_pre_hook(hook(key), with_kwargs=True)
            hooks.callback(handle.remove)
        try:
            with torch.no_grad():
                model(**inputs)
        except _AllRead as stop:
            if stop.args[0] is not calls:
                raise
    return calls, first_given[0]


@contextmanager
def watch_calls(
    modules: Mapping[Key, nn.Module], consume: Callable[[Key, Call, Tensor, Any], None]
) -> Iterator[None]:
    """Call ``consume(key, call, first, output)`` after each call of one of ``modules``.

    ``first`` is the first tensor argument, ``call`` holds all other arguments, and ``output`` is
    the module's output; nothing is kept here. A consumer may call the module again; its own calls
    are not reported to it.
    """
    is_consuming = False

    def hook(key: Key) -> Callable[..., None]:
        def read(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
        ) -> None:
            nonlocal is_consuming
            first = _first_tensor((*args, *kwargs.values()))
            if is_consuming or first is None:
                return
            is_consuming = True
            try:
                consume(key, _call_of(args, kwargs, first), first, output)
            finally:
                is_consuming = False

        return read

    with ExitStack() as hooks:
        for key, module in modules.items():
            handle = module.register_forward_hook(hook(key), with_kwargs=True)
            hooks.callback(handle.remove)
        yield


def _call_of(args: tuple[Any, ...], kwargs: dict[str, Any], first: Tensor) -> Call:
    def blank(value: Any) -> Any:
        return _FIRST_TENSOR if value is first else None if _is_cache(value) else value

    return Call(tuple(map(blank, args)), {k: blank(v) for k, v in kwargs.items()})


def _is_cache(value: Any) -> bool:
    return hasattr(value, "get_seq_length") and hasattr(value, "update")


def kept_rows(activation: Tensor, keep: Tensor) -> Tensor:
    """Select the activations of the tokens that count, one row each.

    Args:
        activation: (B, T, N), or (B·T, N) from a model that flattens its batch.
        keep: (B, T) bool, the tokens that count.

    Returns:
        (n_kept, N), in the order of the batch.

    Raises:
        ValueError: if the activation doesn't have one row for each position of the batch.
    """
    return token_rows(activation, keep.shape)[keep.reshape(-1).to(activation.device)]


def token_rows(activation: Tensor, shape: torch.Size) -> Tensor:
    """Reshape to (B·T, N): one row for each position of a batch of ``shape`` (B, T), in order.

    Raises:
        ValueError: if the activation doesn't have one row for each position.
    """
    # The shape, not only the count: rows that lie time first would fit, and be mixed up.
    if tuple(activation.shape[:-1]) not in (tuple(shape), (shape.numel(),)):
        raise ValueError(
            f"an activation of shape {tuple(activation.shape)} does not fit a batch of "
            f"{shape[0]} × {shape[1]} tokens"
        )
    return activation.reshape(-1, activation.shape[-1])


def _first_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for part in value:
            if isinstance(part, Tensor):
                return part
    return None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode in this context, and restore training mode afterwards."""
    in_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in in_training:
            module.training = True
