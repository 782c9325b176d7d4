"""The list of blocks, and a block split into attention and the rest."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from projector.errors import UserError
from projector.model.architecture.records import Matrix
from projector.model.architecture.trial import (
    Trial,
    depends_on_positions,
    describe_matrix,
    is_matrix,
    on_which_depends,
)


def find_block_list(model: nn.Module, trial: Trial) -> tuple[str, list[nn.Module]]:
    """The module list with the most parameters in which each member passes the residual stream
    on.
    """
    best: tuple[int, str, list[nn.Module]] | None = None
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) == 0:
            continue
        members = list(module)
        if not all(
            member in trial.inputs
            and member in trial.outputs
            and trial.inputs[member].shape == trial.outputs[member].shape
            and trial.inputs[member].is_floating_point()
            and any(child in trial.inputs for child in member.modules() if is_matrix(child))
            for member in members
        ):
            continue
        n_parameters = sum(p.numel() for p in module.parameters())
        # XLM keeps attention and MLPs in lists of their own: neither hands the stream on.
        if not all(_equal(trial.outputs[a], trial.inputs[b]) for a, b in pairwise(members)):
            continue
        if best is None or n_parameters > best[0]:
            best = (n_parameters, name, members)
    if best is None:
        raise UserError(
            f"{type(model).__name__} isn't a transformer: it has no list of transformer blocks"
        )
    _, name, members = best
    if any(trial.n_calls[member] > 1 for member in members):
        raise UserError(
            f"{type(model).__name__} runs the same block several times: layers that share their "
            "weights are not supported"
        )
    return name, members


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same, wherever they lie and be it NaN."""
    first, second = (t.detach().cpu().nan_to_num() for t in (a, b))
    return torch.equal(first, second)


@dataclass
class Parts:
    """A block split into parts: its matrices sorted into attention and MLP."""

    name: str
    module: nn.Module
    stream: Tensor
    attention_output: Matrix | None
    mlp_matrices: list[nn.Module]

    @property
    def n_hidden(self) -> int:
        """The width of the residual stream."""
        return self.stream.shape[-1]

    @classmethod
    def of(cls, name: str, block: nn.Module, trial: Trial) -> Parts:
        """Split one block into parts by what its trial run showed."""
        stream = trial.inputs[block]
        within = set(block.modules())
        matrices = [m for m in trial.inputs if m in within and is_matrix(m)]
        mixing = next(
            (m for m in matrices if depends_on_positions(trial.inputs[m], stream, reader=-1)),
            None,
        )
        # A state-space mixer moves information between positions too, by convolutions among others.
        if mixing is None or any(isinstance(m, nn.Conv1d) for m in within):
            return cls(name, block, stream, None, matrices)
        feeds = on_which_depends(trial.inputs[mixing], [trial.outputs[m] for m in matrices])
        # Attention mixes what matrices of its own gave, and writes to the stream. RWKV shifts its
        # tokens before any matrix; MobileBERT's attention works in a narrower stream.
        if not any(feeds) or trial.outputs[mixing].shape[-1] != stream.shape[-1]:
            return cls(name, block, stream, None, matrices)
        rest = [m for m, f in zip(matrices, feeds, strict=True) if m is not mixing and not f]
        return cls(name, block, stream, describe_matrix(mixing, trial), rest)
