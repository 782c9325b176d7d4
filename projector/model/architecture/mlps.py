"""A block's MLP: its matrices, its activation, and whether it is a mixture of experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from projector.model.architecture.blocks import Parts
from projector.model.architecture.records import Mlp
from projector.model.architecture.trial import Trial, describe_matrix, on_which_depends


def find_mlp(parts: Parts, trial: Trial) -> Mlp | None:
    """Find the MLP among the matrices outside the attention; None if the block has no MLP."""
    for output in reversed(parts.mlp_matrices):
        if trial.outputs[output].shape[-1] != parts.n_hidden:
            continue
        others = [m for m in parts.mlp_matrices if m is not output]
        feeds = on_which_depends(trial.inputs[output], [trial.outputs[m] for m in others])
        writers = [m for m, does in zip(others, feeds, strict=True) if does]
        n_neurons = trial.inputs[output].shape[-1]
        widths = [trial.outputs[m].shape[-1] for m in writers]
        fused = widths == [2 * n_neurons]
        # An adapter behind the MLP reads it, and with it matrices of other widths: go on before it.
        if fused or set(widths) == {n_neurons}:
            activation, gate = _find_activation(parts, writers, output, trial)
            return Mlp(
                inputs=tuple(describe_matrix(m, trial) for m in writers),
                output=describe_matrix(output, trial),
                n_neurons=n_neurons,
                fused=fused,
                activation=activation,
                gate=gate,
                adds_to_stream=_passes_unchanged(
                    trial.outputs[output], trial.outputs[parts.module]
                ),
            )
    return None


def _find_activation(
    parts: Parts, writers: Sequence[nn.Module], output: nn.Module, trial: Trial
) -> tuple[Callable[[Tensor], Tensor] | None, int]:
    """The function that turns the MLP's inputs to neurons, and which input it acts on.

    It is looked for among the block's modules without weights, and proved by its numbers.
    """
    neurons = trial.inputs[output].detach()
    given = [trial.outputs[m].detach() for m in writers]
    if len(given) == 1 and given[0].shape[-1] == 2 * neurons.shape[-1]:
        given = list(given[0].chunk(2, dim=-1))
    within = set(parts.module.modules())
    for module in trial.inputs:
        if module not in within or any(True for _ in module.parameters()) or len(given) > 2:
            continue
        for gate, inner in enumerate(given):
            if trial.inputs[module].shape[-1] != inner.shape[-1]:
                continue
            try:
                with torch.no_grad():
                    # A copy: some activations work in place.
                    expected = module(inner.clone())
            except Exception:
                # No function of one tensor, so not what is looked for.
                break
            if not isinstance(expected, Tensor):
                break
            if len(given) == 2:
                expected = expected * given[1 - gate]
            if expected.shape == neurons.shape and torch.allclose(
                expected.float(), neurons.float(), rtol=1e-3, atol=1e-5
            ):
                return module, gate
    return None, 0


def _passes_unchanged(source: Tensor, result: Tensor) -> bool:
    """Whether a change of ``source`` changes ``result`` by just as much."""
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(result.shape, generator=generator).to(result)
    (gradient,) = torch.autograd.grad(
        result, source, grad_outputs=probe, retain_graph=True, allow_unused=True
    )
    return gradient is not None and torch.allclose(
        gradient.reshape(-1).float(), probe.reshape(-1).float(), rtol=1e-3, atol=1e-4
    )


@dataclass(frozen=True)
class Mixture:
    """A mixture of experts, and the single module that returns its output, if there is one."""

    module: nn.Module | None
    n_experts: int


def find_mixture(parts: Parts, trial: Trial) -> Mixture | None:
    """Find the mixture of experts that replaces the MLP; None if there is none.

    Experts are either stacked in parameters of three axes (expert, rows, columns), one of the last
    two as wide as the residual stream, or are members of equal shape in a module list that don't
    read one another.
    """
    n_hidden = parts.n_hidden
    holders: list[str] = []
    n_experts = 0
    for name, parameter in parts.module.named_parameters():
        holder_name = name.rpartition(".")[0]
        if (
            parameter.ndim == 3
            and parameter.shape[0] > 1
            and n_hidden in parameter.shape[1:]
            and not isinstance(parts.module.get_submodule(holder_name), nn.Conv1d)
        ):
            holders.append(holder_name)
            n_experts = parameter.shape[0]
    for name, module in parts.module.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) > 1:
            shapes = {tuple(p.shape for p in member.parameters()) for member in module}
            if len(shapes) == 1 and next(iter(shapes)) and not _run_in_turn(list(module), trial):
                holders.append(name)
                n_experts = len(module)
    if not n_experts:
        return None
    top = holders[0].split(".")[0]
    holder = parts.module.get_submodule(top)
    return Mixture(None if isinstance(holder, nn.ModuleList) else holder, n_experts)


def _run_in_turn(members: list[nn.Module], trial: Trial) -> bool:
    """Whether each member reads what the one before it gave: a stack, as in MobileBERT."""
    return all(
        second in trial.inputs
        and first in trial.outputs
        and on_which_depends(trial.inputs[second], [trial.outputs[first]])[0]
        for first, second in pairwise(members)
    )
