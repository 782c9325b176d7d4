"""A trial run of a model on a few tokens with autograd, and the dependencies in its graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from projector.errors import UserError
from projector.model.architecture.records import Matrix
from projector.model.architecture.weights import resident
from projector.model.capture import Tap, capture
from projector.model.context import input_embedding
from projector.model.loading import input_device

_N_TRIAL_TOKENS = 6


@dataclass
class Trial:
    """The inputs and outputs of the recorded modules in one run, in the order of their calls."""

    names: dict[nn.Module, str]
    inputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    outputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    n_calls: Counter[nn.Module] = field(default_factory=Counter)
    # What passed at the time, by module and side: a model may change its tensors in place.
    copies: dict[tuple[nn.Module, str], Tensor] = field(default_factory=dict)


def run_trial(model: nn.Module, *, with_copies: bool = False) -> Trial:
    """Run the model on six tokens and record the input and output of each module.

    Args:
        with_copies: also keep copies, in case the model changes a tensor in place.

    Raises:
        UserError: if the model can't be run, or doesn't read tokens.
    """
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    members = {member for each in lists for member in each}
    names = {module: name for name, module in model.named_modules()}
    # Leaves, blocks and experts: all that can be a matrix, a norm or a member of the block list,
    # and the modules between them, of which a mixture of experts is one.
    trial = Trial(names)
    taps = {
        (module, side): Tap(module, side)
        for module in names
        if module is not model and (module in members or not isinstance(module, nn.ModuleList))
        for side in ("input", "output")
    }

    def keep(key: tuple[nn.Module, str], tensor: Tensor) -> None:
        module, side = key
        if with_copies and (module, side) not in trial.copies:
            trial.copies[module, side] = tensor.detach().clone()
        if side == "input":
            trial.n_calls[module] += 1
            # Kept in the order of the calls, which dicts preserve.
            trial.inputs.setdefault(module, tensor)
        else:
            trial.outputs.setdefault(module, tensor)

    table = _token_embedding(model)
    inputs = trial_inputs(model, 1, _N_TRIAL_TOKENS)
    # Each module has a flag of its own: part of a model in training may be set to evaluate.
    were_training = [module for module in model.modules() if module.training]
    required_grad = table.requires_grad
    model.eval()
    table.requires_grad_(True)
    try:
        with capture(taps, keep, skip_empty=True):
            model(**inputs)
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(
            f"{type(model).__name__} could not be run on {_N_TRIAL_TOKENS} tokens: "
            f"{one_line(error)}"
        ) from error
    finally:
        table.requires_grad_(required_grad)
        for module in were_training:
            module.training = True
    return trial


def trial_inputs(model: nn.Module, n_sequences: int, n_tokens: int) -> dict[str, Tensor]:
    """Ids of ordinary tokens and a mask that keeps them all, (B, T) each, on the model's input
    device.

    Raises:
        UserError: if the model has no token embedding.
    """
    ids = torch.arange(n_sequences * n_tokens, device=input_device(model)) * 7 + 11
    ids = (ids % _token_embedding(model).shape[0]).reshape(n_sequences, n_tokens)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _token_embedding(model: nn.Module) -> Tensor:
    table = getattr(input_embedding(model), "weight", None)
    if not isinstance(table, Tensor):
        raise UserError(
            f"{type(model).__name__} has no token embedding, so it is not a transformer language "
            "model"
        )
    return table


def is_matrix(module: nn.Module) -> bool:
    """Whether a module multiplies by a two-dimensional weight and isn't an embedding."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(module, nn.Embedding)


def is_norm(module: nn.Module) -> bool:
    """Whether a module has a one-dimensional weight."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 1


def describe_matrix(module: nn.Module, trial: Trial) -> Matrix:
    """Describe a module that :func:`is_matrix` accepts, with the input axis of its weight."""
    x, y = trial.inputs[module].detach(), trial.outputs[module].detach()
    weight, bias = resident(module), resident(module, "bias")
    assert weight is not None  # what makes it a matrix
    input_axis = 1 if weight.shape == (y.shape[-1], x.shape[-1]) else 0
    if weight.shape[0] == weight.shape[1]:
        # The shape of a square matrix does not tell which axis is which; what it computes does. It
        # is run again: the model may have changed in place what it gave in the trial.
        shift: Tensor | int = 0 if bias is None else bias
        with torch.no_grad():
            y = module(x).to(weight.device)
            x = x.to(weight.device)
            errors = [(y - (x @ w + shift)).float().norm() for w in (weight, weight.T)]
        input_axis = int(errors[1] < errors[0])
    return Matrix(trial.names[module], module, x.shape[-1], y.shape[-1], input_axis)


def depends_on_positions(tensor: Tensor, stream: Tensor, reader: int) -> bool:
    """Whether ``tensor`` at position ``reader`` depends on ``stream`` at any other position."""
    row = tensor.reshape(-1, tensor.shape[-1])[reader]
    # Random weights, for a plain sum may be constant (a normalised row sums to nothing).
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(row.shape, generator=generator).to(row)
    (gradient,) = torch.autograd.grad(row @ probe, stream, retain_graph=True, allow_unused=True)
    if gradient is None:
        return False
    by_position = gradient.reshape(-1, gradient.shape[-1]).abs().amax(dim=1)
    by_position[reader] = 0
    return bool((by_position > 0).any())


def on_which_depends(tensor: Tensor, sources: Sequence[Tensor]) -> list[bool]:
    """For each source, whether ``tensor`` depends on it in the graph."""
    with_graph = [source for source in sources if source.requires_grad]
    if not with_graph:
        return [False] * len(sources)
    gradients = torch.autograd.grad(
        tensor.float().sum(), with_graph, retain_graph=True, allow_unused=True
    )
    connected = {
        id(source)
        for source, gradient in zip(with_graph, gradients, strict=True)
        if gradient is not None
    }
    return [id(source) in connected for source in sources]


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
