"""Run a text through a model block by block, and keep the residual stream between blocks."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from projector.corpus.batches import Batch
from projector.model.architecture.records import Architecture, Mlp
from projector.model.capture import Call, Tap, capture, record_calls
from projector.storage.places import disk_errors

# Prefix of the names of folders that hold streams.
STREAMS = ".streams"


def run_block(
    call: Call, module: nn.Module, mlp: Mlp, hidden: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run one block: the stream after it, and its MLP's input "x", neurons "h" and output "out"."""
    seen: dict[str, Tensor] = {}
    taps = {
        "x": Tap(mlp.inputs[0].module, "input"),
        "h": Tap(mlp.output.module, "input"),
        "out": Tap(mlp.output.module, "output"),
    }

    def keep(key: str, tensor: Tensor) -> None:
        # Families that flatten their batch give it back in the stream's own shape.
        seen[key] = tensor.clone().reshape(*hidden.shape[:-1], tensor.shape[-1])

    with torch.no_grad(), capture(taps, keep):
        # A copy: some blocks change the stream in place.
        after = call.again(module, hidden.clone())
    return after, seen


class Shared:
    """Keeps equal tensors of many calls once: masks and positions of equally long batches."""

    def __init__(self) -> None:
        self._known: list[Tensor] = []

    def of(self, calls: dict[int, Call]) -> dict[int, Call]:
        """The same calls, in which tensors that are known already replace equal ones."""
        swapped: dict[int, Tensor] = {}
        return {
            layer: Call(
                tuple(self._swap(value, swapped) for value in call.args),
                {name: self._swap(value, swapped) for name, value in call.kwargs.items()},
            )
            for layer, call in calls.items()
        }

    def _swap(self, value: Any, swapped: dict[int, Tensor]) -> Any:
        if type(value) is tuple:
            return tuple(self._swap(part, swapped) for part in value)
        if not isinstance(value, Tensor):
            return value
        if id(value) not in swapped:
            equal = (
                known
                for known in self._known
                if known.shape == value.shape
                and known.dtype == value.dtype
                and torch.equal(known, value)
            )
            found = next(equal, None)
            if found is None:
                found = value
                self._known.append(value)
            swapped[id(value)] = found
        return swapped[id(value)]


@dataclass
class _Known:
    """Calls that a batch's blocks had; ``is_sure`` once a second batch had the same."""

    mask: Tensor
    calls: dict[int, Call]
    n_recorded: int = 1
    is_sure: bool = False


class Beginnings:
    """How batches enter a model: the stream before the first block, and how blocks are called.

    That takes a whole forward pass. If two batches with the same attention mask have equal calls,
    the calls do not depend on the text. Further batches with that mask then run only up to the
    first block, whose call must be equal again.
    """

    def __init__(self, model: nn.Module, architecture: Architecture) -> None:
        self._trunk: Any = getattr(model, "base_model", model)
        self._device = next(model.parameters()).device
        self._blocks = {layer: block.module for layer, block in enumerate(architecture.blocks)}
        self._shared = Shared()
        self._known: list[_Known] = []

    def of(self, batch: Batch) -> tuple[dict[int, Call], Tensor]:
        """The calls of a batch's blocks, by layer, and the stream before the first block."""
        mask = batch.attention_mask
        # Tensors of different shapes are not equal.
        known = next((each for each in self._known if torch.equal(each.mask, mask)), None)
        if known is not None and known.is_sure:
            calls, first = self._record(batch, then_stop=True)
            if all(_are_equal(call, known.calls[layer]) for layer, call in calls.items()):
                return known.calls, first
        calls, first = self._record(batch)
        if known is None:
            self._known.append(_Known(mask, calls))
            return calls, first
        known.n_recorded += 1
        known.is_sure = (
            known.n_recorded == 2
            and calls.keys() == known.calls.keys()
            and all(_are_equal(call, known.calls[layer]) for layer, call in calls.items())
        )
        return calls, first

    def _record(self, batch: Batch, *, then_stop: bool = False) -> tuple[dict[int, Call], Tensor]:
        """From a run of the model; of the first block alone where it is to stop there."""
        inputs: dict[str, Any] = {
            "input_ids": batch.input_ids.to(self._device),
            "attention_mask": batch.attention_mask.to(self._device),
        }
        if "use_cache" in inspect.signature(self._trunk.forward).parameters:
            inputs["use_cache"] = False
        blocks = {0: self._blocks[0]} if then_stop else self._blocks
        calls, first = record_calls(self._trunk, blocks, inputs, then_stop=then_stop)
        return self._shared.of(calls), first


def _are_equal(one: Any, other: Any) -> bool:
    """Whether two calls, or parts of them, are equal for certain.

    Tensors are those of :class:`Shared`, the same where they are equal.
    """
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, Call):
        return _are_equal(one.args, other.args) and _are_equal(one.kwargs, other.kwargs)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_are_equal(one[k], other[k]) for k in one)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_are_equal, one, other))
    return isinstance(one, (bool, int, float, str)) and one == other


@dataclass(frozen=True)
class _Stored:
    path: Path
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


class Store:
    """Keeps tensors by name, in memory or in files that are deleted with it.

    Args:
        folder: an existing folder for the files; None keeps the tensors in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._stack = ExitStack()
        self._folder: Path | None = None
        self._kept: dict[tuple[str, int], Tensor | _Stored] = {}
        if folder is not None:
            with disk_errors(folder):
                made = tempfile.TemporaryDirectory(prefix=STREAMS, dir=folder)
            self._folder = Path(self._stack.enter_context(made))

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.clear()
        self._stack.close()

    def put(self, name: str, index: int, tensor: Tensor) -> None:
        """Keep a tensor under a name and a batch's number; it replaces an earlier one."""
        if self._folder is None:
            self._kept[name, index] = tensor
            return
        path = self._folder / f"{name}-{index}"
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        with disk_errors(self._folder):
            flat.numpy().tofile(path)
        self._kept[name, index] = _Stored(path, tensor.shape, tensor.dtype, tensor.device)

    def get(self, name: str, index: int) -> Tensor:
        """The tensor that was kept under this name and batch number."""
        kept = self._kept[name, index]
        if isinstance(kept, Tensor):
            return kept
        flat = torch.frombuffer(bytearray(kept.path.read_bytes()), dtype=torch.uint8)
        return flat.view(kept.dtype).reshape(kept.shape).to(kept.device)


def run_through(
    call: Call,
    module: nn.Module,
    hidden: Tensor,
    tap: Tap | None,
    consume: Callable[[Tensor], None],
) -> Tensor:
    """Run a block and return the stream after it; ``consume`` gets the tensor at the tap."""
    taps = {} if tap is None else {0: tap}
    with torch.no_grad(), capture(taps, lambda _, tensor: consume(tensor)):
        # A copy: some blocks change the stream in place.
        return call.again(module, hidden.clone())
