"""How parts of a block read the stream: which norm stands before them, if any.

Found from one run on six tokens, by numbers: the norm before a part is the one that gave what the
part reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from projector.errors import UserError
from projector.model.architecture.records import Architecture, Block
from projector.model.architecture.stream.norms import NormForm
from projector.model.capture import Tap, capture, evaluating
from projector.model.context import input_embedding

_N_TRIAL_TOKENS = 6


@dataclass(frozen=True)
class BlockReads:
    """How a block reads its stream.

    Attributes:
        mlp: the norm before the MLP; None where it reads the stream as it is.
        behind: the norm that the block's output comes from, as in post-norm models: what is added
            to the stream goes through it before the next block reads it. None where there is none.
        reason: why it is not known how the MLP reads the stream; None where it is.
    """

    mlp: NormForm | None
    behind: NormForm | None
    reason: str | None = None


@torch.no_grad()
def find_reads(model: nn.Module, architecture: Architecture) -> tuple[BlockReads, ...]:
    """How each block's MLP reads the stream. Costs one forward pass over six tokens."""
    passed: dict[tuple[nn.Module, str], Tensor] = {}

    def keep(key: tuple[nn.Module, str], tensor: Tensor) -> None:
        # A copy, for what is added in place later.
        passed.setdefault(key, tensor.detach().clone())

    taps = {
        (module, side): Tap(module, side)
        for block in architecture.blocks
        for module in _watched(block)
        for side in ("input", "output")
    }
    table = getattr(input_embedding(model), "weight", None)
    if not isinstance(table, Tensor):
        raise UserError(f"{type(model).__name__} has no token embedding")
    ids = (torch.arange(_N_TRIAL_TOKENS, device=table.device) * 7 + 11) % table.shape[0]
    with evaluating(model), capture(taps, keep, skip_empty=True):
        model(input_ids=ids[None], attention_mask=torch.ones_like(ids[None]))
    return tuple(_reads(block, architecture.n_hidden, passed) for block in architecture.blocks)


def _watched(block: Block) -> Iterator[nn.Module]:
    """Modules without parts, of which norms are some, the block, and what reads its middle."""
    yield block.module
    if "resid_mid" in block.taps:
        yield block.taps["resid_mid"].module
    yield from (m for m in block.module.modules() if not any(True for _ in m.children()))


def _reads(block: Block, n_hidden: int, passed: dict[tuple[nn.Module, str], Tensor]) -> BlockReads:
    behind = _norm_that_gave(passed[block.module, "output"], block, n_hidden, passed)
    if block.mlp is None:
        return BlockReads(None, behind, "no MLP was found in its blocks")
    read = passed[block.mlp.inputs[0].module, "input"]
    norm = _norm_that_gave(read, block, n_hidden, passed)
    if norm is not None:
        return BlockReads(norm, behind)
    streams = [passed[block.module, "input"]]
    if "resid_mid" in block.taps:
        tap = block.taps["resid_mid"]
        streams.append(passed[tap.module, tap.side])
    if any(_same(stream, read) for stream in streams):
        return BlockReads(None, behind)
    return BlockReads(None, behind, "what stands between the stream and its MLP is no known norm")


def _norm_that_gave(
    tensor: Tensor, block: Block, n_hidden: int, passed: dict[tuple[nn.Module, str], Tensor]
) -> NormForm | None:
    """The norm of a block whose output this is."""
    for module in block.module.modules():
        key = (module, "output")
        if key not in passed or module is block.module or any(True for _ in module.children()):
            continue
        if not _same(passed[key], tensor) or _same(passed[module, "input"], tensor):
            continue
        form = NormForm.of(module, n_hidden)
        if form is not None:
            return form
    return None


def _same(a: Tensor, b: Tensor) -> bool:
    return a.numel() == b.numel() and torch.equal(a.reshape(-1), b.reshape(-1))
