"""Find a model's architecture from what its modules do: the entry point of this package."""

from __future__ import annotations

import torch
from torch import nn

from projector.errors import UserError
from projector.model.architecture.blocks import Parts, find_block_list
from projector.model.architecture.records import Architecture
from projector.model.architecture.sites import describe_block
from projector.model.architecture.trial import Trial, depends_on_positions, one_line, run_trial


@torch.enable_grad()
def find_architecture(model: nn.Module) -> Architecture:
    """Find the blocks and sites of a Hugging Face transformer that reads token ids.

    This costs one forward pass over six tokens and a few short backward passes. No gradient is
    kept, and the model is left unchanged.

    Raises:
        UserError: if the model isn't a transformer over token ids, or is an encoder-decoder model.
    """
    config = getattr(model, "config", None)
    if getattr(model, "main_input_name", "input_ids") != "input_ids":
        raise UserError(
            f"{type(model).__name__} reads {model.main_input_name}, not text: "
            "give a transformer language model"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"{type(model).__name__} is an encoder-decoder model, which is not supported: "
            "give an encoder or a decoder"
        )
    trial = run_trial(model)
    name, members = find_block_list(model, trial)
    stream = trial.inputs[members[0]]
    if stream.ndim == 3 and stream.shape[0] != 1:
        raise UserError(
            f"{type(model).__name__} has its position axis before its batch axis, which is not "
            "supported"
        )
    try:
        return _describe(name, members, trial)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{type(model).__name__} can't be split into parts, because autograd can't trace it: "
            f"{one_line(error)}"
        ) from error


def _describe(name: str, members: list[nn.Module], trial: Trial) -> Architecture:
    parts = [Parts.of(f"{name}.{i}", member, trial) for i, member in enumerate(members)]
    first = parts[0]
    return Architecture(
        blocks=tuple(describe_block(part, trial) for part in parts),
        is_causal=not depends_on_positions(trial.outputs[first.module], first.stream, reader=0),
        n_hidden=first.n_hidden,
    )
