"""How MLPs read the stream, and what becomes of the stream itself on its way through a block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from projector.model.architecture.records import Architecture
from projector.model.architecture.stream.norms import NormForm
from projector.model.architecture.stream.reading import Reading, find_readings
from projector.model.architecture.stream.records import BlockStream, StreamLayout
from projector.model.capture import Tap


@dataclass(frozen=True)
class BlockReads:
    """How a block's MLP reads the stream, and which norms the stream itself goes through.

    Attributes:
        mlp: from the stream between attention and MLP, or the block's input, to what the MLP reads;
            None where ``reason`` says why.
        before_mlp: the norms that the stream itself goes through before its MLP adds to it: none
            but in post-norm models.
        behind_mlp: those that it goes through after that, up to the block's output.
        reason: why it is not known how the MLP reads the stream; None where it is.
    """

    mlp: Reading | None
    before_mlp: tuple[NormForm, ...]
    behind_mlp: tuple[NormForm, ...]
    reason: str | None = None

    @property
    def on_the_way(self) -> tuple[NormForm, ...]:
        """All norms that change the stream itself between the block's input and its output."""
        return (*self.before_mlp, *self.behind_mlp)


def push(direction: Tensor, forms: tuple[NormForm, ...]) -> Tensor:
    """Directions (…, H) float32 of the stream behind norms whose scales are taken as 1."""
    for form in forms:
        direction = form.apply(direction, torch.ones_like(direction[..., :1]))
    return direction


def find_reads(
    model: nn.Module, architecture: Architecture, layout: StreamLayout
) -> tuple[BlockReads, ...]:
    """How each block's MLP reads the stream. Costs three forward passes over six tokens."""
    blocks = {
        layer: (block, layout.blocks[layer])
        for layer, block in enumerate(architecture.blocks)
        if block.mlp is not None and layout.blocks[layer].mlp is not None
    }

    def ways(read: Mapping[int, Tap], streams: Mapping[int, Tap]) -> dict[int, Reading | str]:
        return find_readings(model, architecture, read, streams) if read else {}

    inputs = {
        layer: Tap(block.mlp.inputs[0].module, "input")
        for layer, (block, _) in blocks.items()
        if block.mlp is not None
    }
    read = ways(inputs, {layer: _mlp_sum(stream) for layer, (_, stream) in blocks.items()})
    turned = {layer: stream for layer, (_, stream) in blocks.items() if stream.has_mid}
    before = ways(
        {layer: stream.sums[1].base for layer, stream in turned.items()},
        {layer: stream.sums[0].end for layer, stream in turned.items()},
    )
    behind = ways(
        {layer: Tap(block.module, "output") for layer, (block, _) in blocks.items()},
        {layer: stream.sums[-1].end for layer, (_, stream) in blocks.items()},
    )
    return tuple(
        _reads(layout.blocks[layer], read.get(layer), before.get(layer), behind.get(layer))
        for layer in range(len(architecture.blocks))
    )


def _mlp_sum(stream: BlockStream) -> Tap:
    """The stream that the MLP reads: what its sum starts from."""
    return next(each.base for each in stream.sums if "mlp" in each.parts)


def _reads(
    stream: BlockStream,
    read: Reading | str | None,
    before: Reading | str | None,
    behind: Reading | str | None,
) -> BlockReads:
    if read is None:
        return BlockReads(None, (), (), stream.reason or "no MLP was found in its blocks")
    for way in (read, before, behind):
        if isinstance(way, str):
            return BlockReads(None, (), (), way)
    assert isinstance(read, Reading)
    return BlockReads(read, _forms(before), _forms(behind))


def _forms(way: Reading | str | None) -> tuple[NormForm, ...]:
    return tuple(form for _, form in way.norms) if isinstance(way, Reading) else ()
