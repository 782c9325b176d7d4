"""The residual stream on its way through the calibration text, block by block."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from projector.corpus.batches import Batch
from projector.model.architecture.records import Architecture, Mlp
from projector.model.capture import Call, Tap, capture, evaluating, record_calls
from pruning.calibration import Calibration

_MOST_KEPT_BYTES = 2_000_000_000


@dataclass(frozen=True)
class DenseBlock:
    """Of one batch and block, in the dense model: what the MLP gave and the stream behind."""

    out: Tensor
    after: Tensor


class DenseStreams:
    """What the dense model does with the calibration text, batch by batch and block by block.

    Kept for the next pruned model where that takes at most :data:`_MOST_KEPT_BYTES`; else run anew.
    """

    def __init__(
        self, model: nn.Module, architecture: Architecture, calibration: Calibration
    ) -> None:
        self.model, self.architecture = model, architecture
        self.batches = list(calibration.batches())
        self._starts: list[tuple[dict[int, Call], Tensor]] = []
        self._blocks: dict[tuple[int, int], DenseBlock] = {}
        n_numbers = 2 * len(architecture.blocks) * len(calibration.corpus.ids)
        self._keeps = 4 * n_numbers * architecture.n_hidden <= _MOST_KEPT_BYTES

    def run(self) -> None:
        """Run the text through the model now, where what it does is kept."""
        if not self._keeps or self._blocks:
            return
        with evaluating(self.model):
            for index in range(len(self.batches)):
                before: Tensor | None = None
                for layer in range(len(self.architecture.blocks)):
                    before = self.block(index, layer, before).after

    def start(self, index: int) -> tuple[dict[int, Call], Tensor]:
        """How a batch's blocks are called, and the stream before the first."""
        while len(self._starts) <= index:
            self._starts.append(_begin(self.model, self.architecture, self.batches[index]))
        return self._starts[index]

    def block(self, index: int, layer: int, before: Tensor | None) -> DenseBlock:
        """What a block does with a batch, the stream before it being ``before``."""
        known = self._blocks.get((index, layer))
        if known is not None:
            return known
        block = self.architecture.blocks[layer]
        calls, first = self.start(index)
        assert block.mlp is not None
        stream = first if before is None else before
        after, seen = run_block(calls[layer], block.module, block.mlp, stream)
        found = DenseBlock(seen["out"], after)
        if self._keeps:
            self._blocks[index, layer] = found
        return found


def _begin(
    model: nn.Module, architecture: Architecture, batch: Batch
) -> tuple[dict[int, Call], Tensor]:
    trunk: Any = getattr(model, "base_model", model)
    device = next(model.parameters()).device
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids.to(device),
        "attention_mask": batch.attention_mask.to(device),
    }
    if "use_cache" in inspect.signature(trunk.forward).parameters:
        inputs["use_cache"] = False
    blocks = {layer: block.module for layer, block in enumerate(architecture.blocks)}
    calls, first = record_calls(trunk, blocks, inputs)
    return calls, first


def run_block(
    call: Call, module: nn.Module, mlp: Mlp, hidden: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The stream behind the block; and what its MLP read, its neurons "h", and what it gave."""
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
