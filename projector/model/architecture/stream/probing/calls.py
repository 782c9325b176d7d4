"""Call a block's attention alone on chosen inputs, to see which outputs depend on which inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from projector.errors import UserError
from projector.model.architecture.records import Architecture, Matrix
from projector.model.architecture.stream.patterns import (
    PatternTap,
    PatternTaps,
    eager_attention,
    plain_run,
)
from projector.model.architecture.trial import (
    Trial,
    describe_matrix,
    is_matrix,
    one_line,
    trial_inputs,
)
from projector.model.architecture.weights import is_offloaded, replaceable, resident_tensors
from projector.model.capture import Call, Tap, capture, evaluating, watch_calls

_N_SEQUENCES, _N_TOKENS = 2, 7
# What a module of any family may raise on numbers that it does not expect.
_CALL_ERRORS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)


@dataclass(frozen=True)
class Run:
    """One call of an attention module with autograd on.

    Attributes:
        outputs: the output of each matrix, (B, T, n_outputs) each.
        z: (B, T, A·d_v), the input of the output projection.
        pattern: (B, A, T, T).
        passed: the outputs of the other modules inside, in the order of their calls.
    """

    outputs: list[Tensor]
    z: Tensor
    pattern: Tensor
    passed: dict[nn.Module, Tensor]

    def gradients(self, marks: Tensor) -> list[Tensor]:
        """The gradients of Σ marks · z with respect to each matrix's output; zeros if z doesn't
        depend on it.
        """
        found = torch.autograd.grad(
            self.z, self.outputs, marks, retain_graph=True, allow_unused=True
        )
        return [
            torch.zeros_like(output) if gradient is None else gradient
            for output, gradient in zip(self.outputs, found, strict=True)
        ]


@dataclass(frozen=True)
class Probe:
    """A block's attention module, and how the model calls it.

    Attributes:
        tap: the module, and the position of its pattern.
        output: the projection that reads z.
        matrices: the matrices inside that read the module's input, and that z depends on.
        calls: how it is called: with several tokens (``several``), with one (``single``), and, if
            the model accepts position ids, with several tokens all at position 0 (``still``).
        like: for each call, an example of the first tensor argument, with its shape, dtype and
            device.
        size: approximate size of random queries and keys with which patterns are neither flat nor
            concentrated on one token.
    """

    tap: PatternTap
    output: Matrix
    matrices: tuple[Matrix, ...]
    calls: dict[str, Call]
    like: dict[str, Tensor]
    model: nn.Module
    size: float = 0.7

    def run_single(self) -> Run:
        """Run with one token and random weights."""
        return self.run("single")

    def run_several(self) -> Run:
        """Run with several tokens and random weights."""
        return self.run("several")

    def run(self, kind: str, *, size: float | None = None, own_weights: bool = False) -> Run:
        """Call the module with a random input, in float32 for every model dtype.

        Args:
            size: approximate size of queries, keys and values; :attr:`size` by default.
            own_weights: keep the model's weights instead of random ones.
        """
        generator = torch.Generator().manual_seed(0)
        like = self.like[kind]
        first = torch.randn(like.shape, generator=generator).to(like.device).requires_grad_(True)
        weights = _wide(dict(resident_tensors(self.tap.module)))
        if not own_weights:
            weights |= self._random_weights(generator, size or self.size)
        if is_offloaded(self.tap.module):
            weights = {name: tensor.to(first.device) for name, tensor in weights.items()}
        args, kwargs = _wide(self.calls[kind].filled(first))
        within = {
            m: Tap(m, "output") for m in self.tap.module.modules() if m is not self.tap.module
        }
        z_tap = {self.output.module: Tap(self.output.module, "input")}
        passed: dict[nn.Module, Tensor] = {}
        read: list[Tensor] = []
        with (
            torch.enable_grad(),
            evaluating(self.model),
            eager_attention(self.model),
            replaceable(self.tap.module),
            capture(within, passed.__setitem__, skip_empty=True),
            capture(z_tap, lambda _, tensor: read.append(tensor)),
        ):
            given = functional_call(self.tap.module, weights, args, kwargs, strict=False)
        outputs = [passed.pop(each.module) for each in self.matrices]
        # An output projection that stands outside reads what the module gives.
        z = read[0] if read else given[0]
        shape = like.shape[:-1]
        return Run(outputs, z.reshape(*shape, z.shape[-1]), self.tap.read(given), passed)

    def _random_weights(self, generator: torch.Generator, size: float) -> dict[str, Tensor]:
        names = {module: name for name, module in self.tap.module.named_modules()}
        weights = {}
        for each in self.matrices:
            for name, parameter in each.module.named_parameters(recurse=False):
                scale = size / each.n_inputs**0.5 if parameter.ndim > 1 else size / 4
                values = torch.randn(parameter.shape, generator=generator) * scale
                weights[f"{names[each.module]}.{name}"] = (
                    values if parameter.is_meta else values.to(parameter.device)
                )
        return weights

    def check_values(self, module: nn.Module, index: Tensor, group: Sequence[int]) -> None:
        """Raise a UserError unless patterns times values equal the input of the output projection.

        Args:
            module: the matrix that computes the values.
            index: (G, d_v), the indices of its outputs.
            group: for each head, the row of ``index`` that it uses.
        """
        run = self.run("several", own_weights=True)
        number = [each.module for each in self.matrices].index(module)
        v = run.outputs[number].detach().float()[..., index[list(group)].to(run.z.device)]
        expected = torch.einsum("bats,bsad->btad", run.pattern.detach().float(), v).flatten(2)
        error = (run.z.detach().float() - expected).norm() / expected.norm().clamp(min=1e-30)
        if not float(error) < 1e-4:
            raise UserError(
                "patterns times values differ from the input of its output projection by "
                f"{float(error):.1%}"
            )


def _wide(value: Any) -> Any:
    """Floating point tensors in float32, however they are nested."""
    if isinstance(value, Tensor):
        is_number = value.is_floating_point() and value.dtype != torch.float64
        return value.float() if is_number else value
    if isinstance(value, dict):
        return {name: _wide(each) for name, each in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_wide(each) for each in value)
    return value


def record_attention(
    model: nn.Module, architecture: Architecture, layers: Sequence[int], taps: PatternTaps
) -> dict[int, Probe | str]:
    """Record how the model calls the attention module of each layer, or why it can't be called
    alone.

    This costs three forward passes over a few tokens.

    Raises:
        UserError: if the model can't be run.
    """
    several, single = trial_inputs(model, _N_SEQUENCES, _N_TOKENS), trial_inputs(model, 1, 1)
    still = several | {"position_ids": torch.zeros_like(several["input_ids"])}
    recorded: dict[int, dict[str, tuple[Call, Tensor]]] = {layer: {} for layer in layers}
    modules = {layer: taps.block(layer).module for layer in layers}
    for kind, inputs in {"several": several, "single": single, "still": still}.items():

        def keep(layer: int, call: Call, first: Tensor, output: Any, kind: str = kind) -> None:
            recorded[layer][kind] = (call, first.detach())

        try:
            with plain_run(model), watch_calls(modules, keep):
                model(**inputs, **taps.settings(), use_cache=False)
        except _CALL_ERRORS as error:
            if kind != "still":
                raise UserError(
                    f"{type(model).__name__} could not be run on a few tokens: {one_line(error)}"
                ) from error
    names = {module: name for name, module in model.named_modules()}
    found: dict[int, Probe | str] = {}
    for layer in layers:
        try:
            found[layer] = _probe(
                model, architecture, layer, taps.block(layer), recorded[layer], names
            )
        except _CALL_ERRORS as error:
            found[layer] = f"its attention can't be called alone: {one_line(error)}"
    return found


def _probe(
    model: nn.Module,
    architecture: Architecture,
    layer: int,
    tap: PatternTap,
    recorded: dict[str, tuple[Call, Tensor]],
    names: dict[nn.Module, str],
) -> Probe:
    output = architecture.blocks[layer].attention_output
    assert output is not None  # a block without attention has no pattern
    probe = Probe(
        tap=tap,
        output=output,
        matrices=(),
        calls={kind: call for kind, (call, _) in recorded.items()},
        like={kind: first for kind, (_, first) in recorded.items()},
        model=model,
    )
    within = [m for m in tap.module.modules() if is_matrix(m) and m is not output.module]
    trial = Trial(names)

    def keep(key: tuple[nn.Module, str], tensor: Tensor) -> None:
        (trial.inputs if key[1] == "input" else trial.outputs)[key[0]] = tensor

    watched = {(m, side): Tap(m, side) for m in within for side in ("input", "output")}
    with capture(watched, keep, skip_empty=True):
        run = probe.run("several", own_weights=True)
    shape = probe.like["several"].shape
    reading = [m for m in within if m in trial.inputs and trial.inputs[m].shape == shape]
    feeds = torch.autograd.grad(
        run.z.float().sum(), [trial.outputs[m] for m in reading], allow_unused=True
    )
    matrices = [m for m, gradient in zip(reading, feeds, strict=True) if gradient is not None]
    for module in matrices:
        # As the model itself calls it: the probe computes in float32.
        weight = module.get_parameter("weight")
        trial.inputs[module] = trial.inputs[module].to(weight.dtype)
    return replace(probe, matrices=tuple(describe_matrix(m, trial) for m in matrices))
