"""The input of a part of a block: the stream after the block's own norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from projector.model.architecture.records import Architecture
from projector.model.architecture.stream.norms import NormForm
from projector.model.architecture.stream.records import BlockStream, FrozenPath, StreamLayout
from projector.model.architecture.trial import trial_inputs
from projector.model.capture import Tap, capture, evaluating

_N_TRIAL_TOKENS = 6


@dataclass(frozen=True)
class NormPath:
    """The path from the stream to the input of a block's matrices.

    Attributes:
        stream: the stream that is read, (…, H).
        norms: the norms on the path, in order; empty if the stream is read directly.
        read: the tap that reads the input of the matrices.
    """

    stream: Tap
    norms: tuple[tuple[nn.Module, NormForm], ...]
    read: Tap

    def freeze(self, stream: Tensor, normed: tuple[Tensor, ...]) -> FrozenPath:
        """The path as a linear map of each token.

        Args:
            stream: (T, H), the tensor at :attr:`stream`.
            normed: (T, H) each, the output of each norm.
        """
        scales = []
        for (_, form), given in zip(self.norms, normed, strict=True):
            scales.append(form.scale(stream, given))
            stream = given
        return FrozenPath(tuple(form for _, form in self.norms), tuple(scales), 1.0)

    @torch.no_grad()
    def scaled(self, vectors: Tensor) -> Tensor:
        """Multiply each vector by the scale that the norms compute for it.

        Args:
            vectors: (n, H) in the model's dtype, on its device.

        Returns:
            (n, H) float32. Multiplied by the weights from :meth:`fold`, they equal the original
            weights applied to the normed vectors, except for biases.
        """
        given, normed = vectors, []
        for module, _ in self.norms:
            given = module(given[None])[0]
            normed.append(given)
        scale = self.freeze(vectors, tuple(normed)).scale()
        return vectors.float() if scale is None else vectors.to(scale) * scale

    def fold(self, weights: Tensor) -> Tensor:
        """Fold the norms into weights, (…, H), giving float32 weights on the stream, without scales
        and biases.
        """
        weights = weights.float()
        for _, form in reversed(self.norms):
            weights = form.pull(weights)
        return weights


def find_norm_paths(
    model: nn.Module,
    architecture: Architecture,
    read: Mapping[int, Tap],
    streams: Mapping[int, Tap] | None = None,
) -> dict[int, NormPath | str]:
    """Find how each block reads its stream, or the reason why this was not found.

    Tensors recorded in one short run are traced back from the input of the matrices to the stream.

    Args:
        read: for each layer, the tap of the input.
        streams: for each layer, the tap of the stream it comes from; the block's input by default.

    Raises:
        UserError: if the model has no token embedding.
    """
    inputs = trial_inputs(model, 1, _N_TRIAL_TOKENS)
    passed: dict[tuple[nn.Module, str], Tensor] = {}

    def keep(key: tuple[nn.Module, str], tensor: Tensor) -> None:
        passed[key] = torch.atleast_2d(tensor.detach()).flatten(0, -2).clone()

    blocks = {layer: architecture.blocks[layer].module for layer in read}
    bases = {
        layer: Tap(block, "input") if streams is None else streams[layer]
        for layer, block in blocks.items()
    }
    taps = {
        (module, side): Tap(module, side)
        for block in blocks.values()
        for module in block.modules()
        for side in ("input", "output")
    }
    with torch.no_grad(), evaluating(model), capture(taps, keep, skip_empty=True):
        model(**inputs)
    found: dict[int, NormPath | str] = {}
    for layer, block in blocks.items():
        target, base = passed[read[layer].module, read[layer].side], bases[layer]
        norms = _follow_back(target, passed[base.module, base.side], block, passed)
        found[layer] = (
            NormPath(base, norms, read[layer])
            if norms is not None
            else "the stream passes through other modules than norms before it is read"
        )
    return found


def _follow_back(
    target: Tensor,
    stream: Tensor,
    block: nn.Module,
    passed: Mapping[tuple[nn.Module, str], Tensor],
) -> tuple[tuple[nn.Module, NormForm], ...] | None:
    """The norms that turn the stream to the target; None if others do."""
    if _same(target, stream):
        return ()
    for module in block.modules():
        given, taken = passed.get((module, "output")), passed.get((module, "input"))
        if given is None or taken is None or not _same(given, target):
            continue
        if taken.shape != target.shape or _same(taken, target):
            continue
        form = NormForm.of(module, target.shape[-1])
        before = None if form is None else _follow_back(taken, stream, block, passed)
        if form is not None and before is not None:
            return (*before, (module, form))
    return None


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a, b))


@dataclass(frozen=True)
class BlockReads:
    """How a block's MLP reads the stream, and which norms the stream itself goes through.

    Attributes:
        mlp: the path from the stream between attention and MLP, or the block's input, to the MLP's
            input; None if ``reason`` is set.
        before_mlp: the norms that the stream itself goes through before the MLP adds to it; empty
            except in post-norm models.
        behind_mlp: the norms that it goes through after that, up to the block's output.
        reason: why the path to the MLP was not found; None if it was.
    """

    mlp: NormPath | None
    before_mlp: tuple[NormForm, ...]
    behind_mlp: tuple[NormForm, ...]
    reason: str | None = None

    @property
    def on_the_way(self) -> tuple[NormForm, ...]:
        """All norms applied to the stream itself between the block's input and its output."""
        return (*self.before_mlp, *self.behind_mlp)


def push(direction: Tensor, forms: tuple[NormForm, ...]) -> Tensor:
    """Map directions (…, H) to float32 directions after the norms, with all scales set to 1."""
    for form in forms:
        direction = form.apply(direction, torch.ones_like(direction[..., :1]))
    return direction


def find_reads(
    model: nn.Module, architecture: Architecture, layout: StreamLayout
) -> tuple[BlockReads, ...]:
    """Find how each block's MLP reads the stream, with three forward passes over six tokens."""
    blocks = {
        layer: (block, layout.blocks[layer])
        for layer, block in enumerate(architecture.blocks)
        if block.mlp is not None and layout.blocks[layer].mlp is not None
    }

    def ways(read: Mapping[int, Tap], streams: Mapping[int, Tap]) -> dict[int, NormPath | str]:
        return find_norm_paths(model, architecture, read, streams) if read else {}

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
    read: NormPath | str | None,
    before: NormPath | str | None,
    behind: NormPath | str | None,
) -> BlockReads:
    if read is None:
        return BlockReads(None, (), (), stream.reason or "no MLP was found in its blocks")
    for way in (read, before, behind):
        if isinstance(way, str):
            return BlockReads(None, (), (), way)
    assert isinstance(read, NormPath)
    return BlockReads(read, _forms(before), _forms(behind))


def _forms(way: NormPath | str | None) -> tuple[NormForm, ...]:
    return tuple(form for _, form in way.norms) if isinstance(way, NormPath) else ()
