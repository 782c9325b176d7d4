"""Find how every block writes to the residual stream, from the numbers of a trial run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from projector.errors import UserError
from projector.model.architecture.records import Architecture, Block, Matrix
from projector.model.architecture.stream.embeddings import find_embedding
from projector.model.architecture.stream.norms import NormForm
from projector.model.architecture.stream.records import (
    Addition,
    BlockStream,
    StreamLayout,
    StreamSum,
)
from projector.model.architecture.trial import Trial, one_line, run_trial
from projector.model.capture import Tap

_MAX_NORMS = 3
_SUBLAYERS = {"attention": "attn_out", "mlp": "mlp_out"}
_SITE_READ = {"attention": "attn_z", "mlp": "mlp_post"}


@torch.enable_grad()
def find_stream(model: nn.Module, architecture: Architecture) -> StreamLayout:
    """Find each block's additions to the stream, and the terms of the first block's input.

    A sublayer's output, possibly after norms, is an addition if a change of it changes the sum by
    the same amount up to a factor. The sum of the additions must equal the model's own stream.

    This costs one forward pass over six tokens and a few short backward passes. The model is left
    unchanged.

    Raises:
        UserError: if the model can't be run, or autograd can't trace it.
    """
    trial = run_trial(model, with_copies=True)
    constants = _constants(model, architecture)
    try:
        blocks = tuple(
            _Search(block, trial, constants).describe(_n_heads(model, layer, block))
            for layer, block in enumerate(architecture.blocks)
        )
        embedding = find_embedding(model, architecture, trial, constants)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{type(model).__name__} can't be split into additions to its stream: autograd "
            f"can't trace it: {one_line(error)}"
        ) from error
    per_block = not all(
        stream.is_running(block.module)
        for stream, block in zip(blocks, architecture.blocks, strict=True)
        if stream.reason is None
    )
    return StreamLayout(
        blocks,
        embedding,
        per_block,
        "its norms change the whole stream after each sum, so the stream isn't a running sum: "
        "only each block's sums before these norms can be checked"
        if per_block
        else None,
    )


@dataclass(frozen=True)
class _Way:
    """From a sublayer's output to the sum: the norms on it, what comes out of them, the factor."""

    norms: tuple[tuple[nn.Module, NormForm], ...]
    added: Tensor
    factor: float


class _Search:
    """One block, looked through for its sums."""

    def __init__(self, block: Block, trial: Trial, constants: list[float]) -> None:
        self.block, self.trial, self.constants = block, trial, constants
        within = set(block.module.modules()) - {block.module}
        self.order = [m for m in trial.inputs if m in within]
        self.sources = {
            name: block.taps[site].module for name, site in _SUBLAYERS.items() if site in block.taps
        }
        self.dtype = trial.inputs[block.module].dtype
        # A step of the block's own type, of a sum's size, is what rounding may change of it.
        self.tolerance = 1e-5 if self.dtype in (torch.float32, torch.float64) else 3e-2

    def describe(self, n_heads: int | None) -> BlockStream:
        found = self._find_sums()
        if isinstance(found, str):
            return BlockStream(None, None, n_heads, (), found)
        ways, sums = found
        additions = {name: self._addition(name, way) for name, way in ways.items()}
        return BlockStream(additions.get("attention"), additions.get("mlp"), n_heads, sums)

    def _find_sums(self) -> tuple[dict[str, _Way], tuple[StreamSum, ...]] | str:
        if not self.sources:
            return self.block.missing["attn_out"]
        names = list(self.sources)
        # Together where both read the same stream. Which it is the graph alone can't tell: a model
        # may add the one to the other in place.
        plans = [[names]] if len(names) == 1 else [[[name] for name in names], [names]]
        lacking = ""
        for plan in plans:
            found = self._follow(plan)
            if not isinstance(found, str):
                return found
            lacking = lacking or found
        return lacking

    def _follow(self, plan: list[list[str]]) -> tuple[dict[str, _Way], tuple[StreamSum, ...]] | str:
        """The sums of a plan: of which sublayers each sum is, in turn."""
        ways: dict[str, _Way] = {}
        sums: list[StreamSum] = []
        base = Tap(self.block.module, "input")
        for i, group in enumerate(plan):
            found = self._find_sum(group, base, is_last=i == len(plan) - 1)
            if found is None:
                return f"the output of its {_WORDS[group[0]]} was not found in the stream"
            each, of_group = found
            sums.append(each)
            ways |= of_group
            base = each.end
        return ways, tuple(sums)

    def _find_sum(
        self, group: list[str], base: Tap, *, is_last: bool
    ) -> tuple[StreamSum, dict[str, _Way]] | None:
        """The sum of one or two sublayers: it ends where it is read, or where the block ends."""
        start = max(self.order.index(self.sources[name]) for name in group)
        ends = [Tap(m, "input") for m in self.order[start + 1 :]]
        if is_last:
            # A norm behind the last sum, as BERT has it, leaves that sum inside the block.
            ends.insert(0, Tap(self.block.module, "output"))
        for end in ends:
            value = self.trial.copies[end.module, end.side]
            if value.numel() != self.trial.copies[self.block.module, "input"].numel():
                continue
            graph = self._graph(end)
            if not graph.requires_grad or not graph.is_floating_point():
                continue
            ways: dict[str, _Way] = {}
            for name in group:
                way = self._find_way(name, graph)
                if way is None:
                    break
                ways[name] = way
            if len(ways) < len(group):
                continue
            start_at = self._find_base(ways, value, base)
            if start_at is not None:
                return StreamSum(start_at, tuple(group), end), ways
        return None

    def _find_base(self, ways: dict[str, _Way], end: Tensor, base: Tap) -> Tap | None:
        """What the additions are added to: the stream so far, or what a norm made of it."""
        rest = end.float()
        for way in ways.values():
            rest = rest - way.factor * way.added.to(rest).reshape(rest.shape)
        others = [Tap(m, "output") for m in self.order]
        for tap in (base, *others):
            value = self.trial.copies.get((tap.module, tap.side))
            if value is None or value.numel() != rest.numel() or not value.is_floating_point():
                continue
            if bool(rest.any()) and bool(
                self._error(rest, value.to(rest).reshape(rest.shape), end) <= self.tolerance
            ):
                return tap
        return None

    def _error(self, given: Tensor, expected: Tensor, end: Tensor) -> Tensor:
        """The largest difference of a token relative to its stream."""
        size = torch.maximum(end.float().norm(dim=-1), expected.norm(dim=-1))
        return ((given - expected).norm(dim=-1) / size.clamp_min(1e-30)).max()

    def _find_way(self, name: str, goal: Tensor) -> _Way | None:
        """How a sublayer's output comes to be in ``goal``; None if it is not by norms alone."""
        module = self.sources[name]
        norms: list[tuple[nn.Module, NormForm]] = []
        while True:
            added = self.trial.copies[module, "output"]
            factor = _proportion(goal, self.trial.outputs[module])
            if factor is not None:
                return _Way(tuple(norms), added, self._rounded(factor))
            if len(norms) == _MAX_NORMS:
                return None
            follower = self._norm_after(module, added)
            if follower is None:
                return None
            norms.append(follower)
            module = follower[0]

    def _norm_after(self, module: nn.Module, given: Tensor) -> tuple[nn.Module, NormForm] | None:
        for other in self.order[self.order.index(module) + 1 :]:
            read = self.trial.copies[other, "input"]
            result = self.trial.copies.get((other, "output"))
            if (
                result is None
                or read.numel() != given.numel()
                or result.numel() != given.numel()
                or not torch.equal(read.reshape(-1), given.reshape(-1).to(read))
                or torch.equal(result.reshape(-1), read.reshape(-1).to(result))
            ):
                continue
            form = NormForm.of(other, given.shape[-1])
            if form is not None:
                return other, form
        return None

    def _graph(self, tap: Tap) -> Tensor:
        kept = self.trial.inputs if tap.side == "input" else self.trial.outputs
        return kept[tap.module]

    def _rounded(self, factor: float) -> float:
        """1, or a number of the config's, where the factor found is as near as its type tells."""
        near = 4 * torch.finfo(torch.promote_types(self.dtype, torch.bfloat16)).eps
        if self.dtype not in (torch.float32, torch.float64):
            near = torch.finfo(self.dtype).eps
        for constant in (1.0, *sorted(self.constants, key=lambda c: abs(c - factor))):
            if abs(constant - factor) <= near * abs(constant):
                return constant
        return factor

    def _addition(self, name: str, way: _Way) -> Addition:
        module = self.sources[name]
        matrix = self._matrix(name)
        is_whole = matrix is not None and matrix.module is module
        return Addition(
            Tap(module, "output"),
            way.norms,
            way.factor,
            matrix if is_whole else None,
            self.block.taps.get(_SITE_READ[name]) if is_whole else None,
        )

    def _matrix(self, name: str) -> Matrix | None:
        if name == "attention":
            return self.block.attention_output
        return None if self.block.mlp is None else self.block.mlp.output


_WORDS = {"attention": "attention", "mlp": "MLP"}


def _proportion(goal: Tensor, source: Tensor) -> float | None:
    """f, where a change of ``source`` changes ``goal`` by f times as much, everywhere alike."""
    if not source.requires_grad:
        return None
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(goal.shape, generator=generator).to(goal)
    (gradient,) = torch.autograd.grad(
        goal, source, grad_outputs=probe, retain_graph=True, allow_unused=True
    )
    if gradient is None or gradient.numel() != probe.numel():
        return None
    given = gradient.reshape(-1).double()
    wanted = probe.reshape(-1).to(given)
    factor = float(given @ wanted / (wanted @ wanted))
    tolerance = max(1e-4, 2 * torch.finfo(goal.dtype).eps)
    is_proportional = (given - factor * wanted).norm() <= tolerance * given.norm()
    return factor if factor and bool(is_proportional) else None


def _config(model: nn.Module) -> Any:
    """The settings of the model's text part; None if it has none."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _constants(model: nn.Module, architecture: Architecture) -> list[float]:
    """Numbers of the config that a factor may be, and the root of the width, as Gemma has it."""
    config = _config(model)
    values = [] if config is None else list(config.to_dict().values())
    numbers = {float(v) for v in values if isinstance(v, (int, float)) and v and v is not True}
    return [*sorted(n for n in numbers if math.isfinite(n)), math.sqrt(architecture.n_hidden)]


def _n_heads(model: nn.Module, layer: int, block: Block) -> int | None:
    """How many equal slices the attention's output projection reads; None if none fit."""
    if block.attention_output is None:
        return None
    n_heads = getattr(_config(model), "num_attention_heads", None)
    if isinstance(n_heads, (list, tuple)) and layer < len(n_heads):
        n_heads = n_heads[layer]
    if not isinstance(n_heads, int) or n_heads < 1:
        return None
    return n_heads if block.attention_output.n_inputs % n_heads == 0 else None
