"""Reading activations while a model runs.

Hooks are in place only inside the ``with`` block, are removed even after an error, and return
nothing, so the model computes exactly what it would compute without them; or, where a reader asks
for that, exactly what comes before the last thing that is read, and nothing behind it.
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
    """Where a tensor is read: what a module takes in, or what it gives out."""

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
    """Call ``consume(key, tensor)`` with what passes each tap, as soon as it passes.

    Nothing is kept here: a consumer that folds each tensor into running sums needs room for one
    tensor only, whatever the depth of the model. The tensor is the model's own; a consumer that
    keeps it copies it first, for the model may go on to change it in place.

    Args:
        taps: what to read. Where a module takes or gives several tensors, the first is read.
        consume: what to do with it. It must not change the tensor.
        skip_empty: pass over a tap where no tensor passes.
        then_stop: stop the model, and leave the ``with`` block, once something has passed every
            tap. No block behind the last one that is read computes anything, and the model gives
            nothing back. Each module that is read must be called once in a run.

    Raises:
        TypeError: while the model runs, if no tensor passes a tap and it is not to be skipped.
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
    """Run ``model`` once on ``inputs`` and give a copy of what passed each tap."""
    activations: dict[Key, Tensor] = {}

    def keep(key: Key, tensor: Tensor) -> None:
        activations[key] = tensor.detach().clone()

    with torch.no_grad(), capture(taps, keep):
        model(**inputs)
    return activations


@dataclass(frozen=True)
class Call:
    """What a module was called with, but for the first tensor, so that it can be called again."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def filled(self, tensor: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What a module is to be called with, ``tensor`` in the first tensor's place."""

        def fill(value: Any) -> Any:
            return tensor if value is _FIRST_TENSOR else value

        return tuple(map(fill, self.args)), {k: fill(v) for k, v in self.kwargs.items()}

    def again(self, module: nn.Module, tensor: Tensor) -> Tensor:
        """Call a module with ``tensor`` in the first tensor's place; the first tensor it gives.

        Raises:
            TypeError: if it gives none.
        """
        args, kwargs = self.filled(tensor)
        given = _first_tensor(module(*args, **kwargs))
        if given is None:
            raise TypeError(f"{type(module).__name__} gives no tensor")
        return given


def record_calls(
    model: nn.Module,
    modules: Mapping[Key, nn.Module],
    inputs: Mapping[str, Any],
    *,
    then_stop: bool = False,
) -> tuple[dict[Key, Call], Tensor]:
    """Run ``model`` once: how each module was called, and the first tensor the first one was given.

    Key-value caches are left out of the calls: called again, a module would add to them.

    Args:
        then_stop: stop the model as soon as each module is called: the last one computes nothing.
    """
    calls: dict[Key, Call] = {}
    first_given: list[Tensor] = []

    def hook(key: Key) -> Callable[..., None]:
        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            first = _first_tensor((*args, *kwargs.values()))
            if first is None:
                raise TypeError(f"no tensor is given to {type(module).__name__}")
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
    """Call ``consume(key, call, first, output)`` each time one of ``modules`` was called.

    ``first`` is the first tensor that it was given, ``call`` all else that it was called with, and
    ``output`` whatever it gave; nothing is kept here. A consumer may call the module again: it is
    told of no call that it makes itself.
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
    """The activations of the tokens that count, one row each.

    Args:
        activation: (B, T, N), or (B·T, N) from a family that flattens its batch.
        keep: (B, T) bool, the tokens that count.

    Returns:
        (n_kept, N), in the order of the batch.

    Raises:
        ValueError: if the activation does not hold one row for each position of the batch.
    """
    return token_rows(activation, keep.shape)[keep.reshape(-1).to(activation.device)]


def token_rows(activation: Tensor, shape: torch.Size) -> Tensor:
    """(B·T, N): one row for each position of a batch of ``shape`` (B, T), in its order.

    Raises:
        ValueError: if the activation does not hold one row for each.
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
    """Dropout off while open; what was in training is so again afterwards."""
    in_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in in_training:
            module.training = True
