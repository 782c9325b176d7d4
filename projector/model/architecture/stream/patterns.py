"""Attention patterns: find the module that computes them, and stream them layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from projector.errors import UserError
from projector.model.architecture.records import Architecture
from projector.model.architecture.trial import one_line, trial_inputs
from projector.model.capture import Call, Tap, capture, collect, evaluating, watch_calls

# Neither is likely to be a count of heads, and they differ.
_N_SEQUENCES, _N_TOKENS = 3, 7
# How far a block may be from itself with plain attention: what rounding explains.
_DIFFERS, _DIFFERS_IN_SHORT_TYPES = 1e-3, 2e-2


@dataclass(frozen=True)
class PatternTap:
    """The module with a block's attention probabilities in its output, and their position in it."""

    module: nn.Module
    index: int
    n_heads: int

    def read(self, output: Any) -> Tensor:
        """The probabilities, (B, A, T, T), from the module's output.

        Raises:
            UserError: if the output holds none.
        """
        pattern = output[self.index] if len(output) > self.index else None
        if not isinstance(pattern, Tensor):
            raise UserError(f"{type(self.module).__name__} gave no attention pattern")
        return pattern


@dataclass(frozen=True)
class PatternTaps:
    """Where each block's attention pattern is read, or why it has none.

    ``needs_asking`` is whether the model returns patterns only with ``output_attentions=True``.
    """

    blocks: tuple[PatternTap | str, ...]
    needs_asking: bool

    def block(self, layer: int) -> PatternTap:
        """Where a block's pattern is read.

        Raises:
            UserError: if the block has none, with the reason.
        """
        found = self.blocks[layer]
        if isinstance(found, str):
            raise UserError(f"layer {layer} has no attention pattern: {found}")
        return found

    def settings(self) -> dict[str, Any]:
        """Keyword arguments, in addition to the inputs, that make the model compute the
        patterns.
        """
        return {"output_attentions": True} if self.needs_asking else {}


@contextmanager
def eager_attention(model: nn.Module) -> Iterator[None]:
    """Compute attention step by step in this context, so that its probabilities exist as a tensor.

    Fused kernels never store them. The model's own settings are restored, even after an error.
    """
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    before = [
        (config, config._attn_implementation)
        for config in configs.values()
        if hasattr(config, "_attn_implementation")
    ]
    try:
        for config, _ in before:
            config._attn_implementation = "eager"
        yield
    finally:
        for config, value in before:
            # A config passes what it is set to on to its parts, which come after it.
            config._attn_implementation = value


@contextmanager
def plain_run(model: nn.Module) -> Iterator[None]:
    """Turn off gradients and dropout in this context, and compute attention step by step."""
    with torch.no_grad(), evaluating(model), eager_attention(model):
        yield


def find_patterns(model: nn.Module, architecture: Architecture) -> PatternTaps:
    """Find the module of each block that gives its attention pattern, by a run on a few tokens.

    It is the innermost module with an output tensor of shape (B, A, T, T) in which every row is a
    distribution. A block has no pattern if plain attention and the model's own attention give
    different outputs. This costs three or four forward passes over 21 tokens.
    """
    needs_asking = False
    found = _find(model, architecture, {})
    if not any(isinstance(tap, PatternTap) for tap in found):
        needs_asking, found = True, _find(model, architecture, {"output_attentions": True})
    for layer, error in _differences(model, architecture).items():
        if isinstance(found[layer], PatternTap):
            found[layer] = (
                f"{type(model).__name__} gives different outputs when its attention is computed "
                f"step by step (by {error:.1%}), so the pattern would not be its own"
            )
    return PatternTaps(tuple(found), needs_asking)


def _differences(model: nn.Module, architecture: Architecture) -> dict[int, float]:
    """The blocks that give something else with plain attention than with the model's own, and how
    far off they are."""
    inputs = trial_inputs(model, _N_SEQUENCES, _N_TOKENS)
    taps = {n: Tap(block.module, "output") for n, block in enumerate(architecture.blocks)}
    with evaluating(model):
        own = collect(model, taps, inputs)
        with eager_attention(model):
            plain = collect(model, taps, inputs)
    errors = {
        layer: float((plain[layer].float() - each.float()).norm() / each.float().norm())
        for layer, each in own.items()
    }
    return {
        layer: error
        for layer, error in errors.items()
        if not error <= (_DIFFERS if own[layer].dtype == torch.float32 else _DIFFERS_IN_SHORT_TYPES)
    }


def _find(
    model: nn.Module, architecture: Architecture, settings: Mapping[str, Any]
) -> list[PatternTap | str]:
    inputs = trial_inputs(model, _N_SEQUENCES, _N_TOKENS)
    found: dict[int, PatternTap] = {}

    def look(key: tuple[int, nn.Module], call: Call, first: Tensor, output: Any) -> None:
        layer, module = key
        if layer in found or not isinstance(output, (tuple, list)):
            return
        for index, value in enumerate(output):
            if _is_pattern(value):
                found[layer] = PatternTap(module, index, value.shape[1])
                return

    modules = {
        (layer, module): module
        for layer, block in enumerate(architecture.blocks)
        for module in block.module.modules()
        if next(module.children(), None) is not None
    }
    reason = f"no module of {type(model).__name__} gives its attention probabilities"
    try:
        with plain_run(model), watch_calls(modules, look):
            model(**inputs, **settings)
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        reason = f"{type(model).__name__} can't be run with plain attention: {one_line(error)}"
    none = "no attention was found in its blocks"
    return [
        none if block.attention_output is None else found.get(layer, reason)
        for layer, block in enumerate(architecture.blocks)
    ]


def _is_pattern(value: Any) -> bool:
    if not isinstance(value, Tensor) or value.ndim != 4 or not value.is_floating_point():
        return False
    if value.shape[0] != _N_SEQUENCES or value.shape[2:] != (_N_TOKENS, _N_TOKENS):
        return False
    sums = value.detach().float().sum(-1)
    is_mix = bool((value >= 0).all())
    return is_mix and bool(((sums - 1).abs() < 16 * torch.finfo(value.dtype).eps).all())


def watch_patterns(
    model: nn.Module,
    architecture: Architecture,
    inputs: Mapping[str, Any],
    consume: Callable[[int, Tensor], None],
    *,
    taps: PatternTaps | None = None,
    layers: Sequence[int] | None = None,
) -> None:
    """Run the model once and hand over each block's attention probabilities as they are computed.

    Attention is computed step by step during the run, without fused kernels, and the model's
    setting is restored afterwards, even after an error. The run stops after the last requested
    layer, so no logits are computed. Only one layer's pattern is in memory at a time, unless the
    model itself keeps them all (:attr:`PatternTaps.needs_asking`).

    Args:
        inputs: the model's inputs, ids and mask of (B, T).
        consume: called with a layer's number and its pattern, (B, A, T, T) in the model's dtype:
            how much each of A heads attends at position t (third axis) to position s (fourth axis).
        taps: the result of :func:`find_patterns`, if it was called before.
        layers: the layers to pass to ``consume``; all by default.

    Raises:
        UserError: if one of the layers gives no pattern, with the reason.
    """
    taps = taps or find_patterns(model, architecture)
    chosen = range(len(architecture.blocks)) if layers is None else layers
    places = {layer: taps.block(layer) for layer in chosen}
    modules = {layer: place.module for layer, place in places.items()}

    def hand_over(layer: int, call: Call, first: Tensor, output: Any) -> None:
        consume(layer, places[layer].read(output).detach())

    last = {"": Tap(architecture.blocks[max(chosen)].module, "output")} if places else {}
    with (
        plain_run(model),
        watch_calls(modules, hand_over),
        capture(last, lambda _, output: None, then_stop=True),
    ):
        model(**inputs, **taps.settings())
