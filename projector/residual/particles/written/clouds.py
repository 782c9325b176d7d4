"""Contributions of the embedding, each head and each group of neurons to each token, as
particles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from projector.errors import SettingError, UserError, named
from projector.model.loading import input_device
from projector.progress import Progress, Silent
from projector.residual.contributions import (
    BlockContributions,
    EmbeddingContributions,
    allowed_error,
    check_additivity,
    relative_error,
    watch_contributions,
)
from projector.residual.particles.records import Cloud, Frame, Owner
from projector.residual.particles.settings import ParticleSettings
from projector.residual.particles.written.groups import (
    NeuronGroup,
    group_by_directions,
    group_by_poles,
)
from projector.residual.subject import Subject

__all__ = ["MOST_PARTICLES", "contribution_cloud"]

MOST_PARTICLES = 20_000


@dataclass(frozen=True, eq=False)
class _Part:
    """One term of the sum: (T, H) float32 on the CPU, and the frame in which it is there."""

    name: str
    kind: str
    born: int
    values: Tensor


def contribution_cloud(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    *,
    settings: ParticleSettings,
    outlying: Sequence[Tensor] | None = None,
    progress: Progress | None = None,
) -> Cloud:
    """Create one particle for each token and each part of the model that writes to it.

    The parts are the parts of the embedding, each head, each group of MLP neurons, and for each
    layer the rest: biases and half-precision rounding. A part is born in the first shown frame
    after its layer, and doesn't change afterwards. In every frame, the vectors of a token's
    particles sum to its hidden state, which is asserted.

    Norms after a part have their scale frozen at its value for the token, as in
    :mod:`projector.residual.parts`. Attention that can't be split into heads, and an MLP without
    neurons computed for every token, such as a mixture of experts, are a single part.

    Args:
        prompts: token ids of each prompt; they run as one batch.
        settings: settings, with ``layers``, ``n_groups``, ``projection`` and ``seed``.
        outlying: (T_i,) bool for each prompt, its tokens with an outlying norm; None for none.

    Returns:
        The cloud, with P = tokens × parts; the particles of one token are next to each other.

    Raises:
        SettingError: on ``particles``, if the model's stream isn't a running sum; on ``n_groups``
            or ``projection``, if there are more than :data:`MOST_PARTICLES` particles, or groups
            can't be found.
        UserError: if the parts don't sum to the stream, with the place and the error.
    """
    progress = progress or Silent()
    if subject.layout.closes_per_block:
        raise SettingError(
            "particles",
            "contributions",
            f"can't be shown for this model: {subject.layout.reason}",
            "choose tokens",
        )
    layers = subject.architecture.choose_layers(settings.layers)
    groups = _Groups(subject, settings, range(layers[-1] + 1), progress)
    _check_number(subject, settings, sum(map(len, prompts)), groups)
    reader = _Reader(layers, groups.of)
    progress.begin("Running the model", layers[-1] + 1, "layers")
    ids, mask = _padded(prompts)
    device = input_device(subject.model)
    inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}

    def consume(each: BlockContributions | EmbeddingContributions) -> None:
        if isinstance(each, EmbeddingContributions):
            reader.add_embedding(each)
        elif each.layer <= layers[-1]:
            reader.add_block(each)
            progress.advance(1)

    check_additivity(watch_contributions(subject, inputs, consume))
    progress.end()
    return reader.cloud(prompts, outlying)


class _Groups:
    """The groups of neurons of each layer; none of a layer whose MLP can't be split."""

    def __init__(
        self, subject: Subject, settings: ParticleSettings, layers: range, progress: Progress
    ) -> None:
        self.layers = layers
        written = {layer: subject.layout.blocks[layer].mlp for layer in layers}
        split = {
            layer: each
            for layer, each in written.items()
            if each is not None and each.reads is not None and each.matrix is not None
        }
        self.of: Mapping[int, tuple[NeuronGroup, ...]]
        if settings.projection is not None:
            widths = {layer: each.weight().shape[1] for layer, each in split.items()}
            sha256 = subject.loaded.weights_sha256
            self.of = group_by_poles(settings.projection, sha256, widths)
            return
        progress.begin("Grouping neurons", len(split), "layers")
        found = {}
        for layer, each in split.items():
            found[layer] = group_by_directions(
                layer, each.weight(), settings.n_groups, seed=settings.seed
            )
            progress.advance(1)
        progress.end()
        self.of = found


def _check_number(
    subject: Subject, settings: ParticleSettings, n_tokens: int, groups: _Groups
) -> None:
    """Raise a SettingError if there would be more particles than are shown."""
    blocks = subject.layout.blocks
    others = len(subject.layout.embedding.sources)
    for layer in groups.layers:
        others += (blocks[layer].n_heads or 1) + 1 + (layer not in groups.of)
    n_groups = sum(map(len, groups.of.values()))
    if n_tokens * (others + n_groups) <= MOST_PARTICLES:
        return
    room = (MOST_PARTICLES // n_tokens - others) // max(1, len(groups.of))
    name = "n_groups" if settings.projection is None else "projection"
    value = settings.n_groups if settings.projection is None else str(settings.projection)
    if settings.projection is None and room >= 1:
        expected = f"give {room} or fewer, a shorter prompt, or fewer {named('layers')}"
    else:
        expected = f"give a shorter prompt, or only the first {named('layers')}"
    raise SettingError(
        name,
        value,
        f"makes about {n_tokens * (others + n_groups):,} particles of {n_tokens:,} tokens, but at "
        f"most {MOST_PARTICLES:,} can be shown",
        expected,
    )


@dataclass(eq=False)
class _Reader:
    """Collects parts as the blocks run, and checks their sums against the stream.

    Attributes:
        layers: those shown, in order.
        groups: of each layer whose neurons can be told.
    """

    layers: Sequence[int]
    groups: Mapping[int, tuple[NeuronGroup, ...]]
    parts: list[_Part] = field(default_factory=list)
    total: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add_embedding(self, found: EmbeddingContributions) -> None:
        for part in found.parts:
            kind = "embedding" if part.kind == "embedding" else "other"
            self._add(part.name, kind, 0, part.values)
        self._check("the embedding", found.stream, self._dtype(found))

    def add_block(self, block: BlockContributions) -> None:
        layer = block.layer
        born = 1 + sum(each < layer for each in self.layers)
        rest: list[Tensor] = [
            each
            for each in (block.attention_bias, block.mlp_bias, block.rounding)
            if each is not None
        ]
        is_rounded = block.rounding is not None
        if block.attention is not None:
            if block.has_heads:
                heads = block.heads()
                for head, values in enumerate(heads.unbind(1)):
                    self._add(f"head {layer}.{head}", "head", born, values)
                if is_rounded:
                    # The output projection's sum over heads was rounded too.
                    rest.append(block.attention - heads.sum(dim=1))
            else:
                self._add(f"attention {layer}", "head", born, block.attention)
        if block.mlp is not None and block.mlp_written is not None:
            groups = self.groups.get(layer, ())
            if groups and block.mlp_written.reads is not None:
                written = block.mlp_written.write_groups([each.neurons for each in groups])
                for group, values in zip(groups, written.unbind(1), strict=True):
                    self._add(group.name, "mlp", born, values)
                if is_rounded:
                    rest.append(block.mlp - written.sum(dim=1))
            else:
                self._add(f"MLP {layer}", "mlp", born, block.mlp)
        if rest:
            self._add(f"rest {layer}", "other", born, torch.stack(rest).sum(dim=0))
        dtype = torch.bfloat16 if is_rounded else torch.float32
        self._check(f"layer {layer}", block.post, dtype)

    def _add(self, name: str, kind: str, born: int, values: Tensor) -> None:
        values = values.detach().float().cpu().clone()
        self.parts.append(_Part(name, kind, born, values))
        self.total = self.total + values.double()

    def _dtype(self, found: EmbeddingContributions) -> torch.dtype:
        is_rounded = any(part.kind == "rounding" for part in found.parts)
        return torch.bfloat16 if is_rounded else torch.float32

    def _check(self, where: str, stream: Tensor, dtype: torch.dtype) -> None:
        """Raise a UserError if the particles so far do not sum to the stream."""
        expected = stream.double().cpu()
        size = torch.linalg.vector_norm(expected, dim=-1)
        error, allowed = float(relative_error(self.total - expected, size)), allowed_error(dtype)
        if not error <= allowed:
            raise UserError(
                f"the contributions don't sum to the hidden state: after {where} the error is "
                f"{error:.1e} of it, but rounding explains at most {allowed:.0e}"
            )

    def cloud(self, prompts: Sequence[Sequence[int]], outlying: Sequence[Tensor] | None) -> Cloud:
        frames = (Frame.of(None), *map(Frame.of, self.layers))
        n_parts = len(self.parts)
        # Token by token: (T, parts, H).
        vectors = torch.stack([part.values for part in self.parts], dim=1).flatten(0, 1)
        n_tokens = sum(map(len, prompts))
        born = torch.tensor([part.born for part in self.parts]).repeat(n_tokens)
        is_out = [torch.zeros(len(each), dtype=torch.bool) for each in prompts]
        outliers = torch.cat(list(outlying or is_out)).repeat_interleave(n_parts)
        owners = tuple(
            Owner(prompt, token, part.name, part.kind)
            for prompt, ids in enumerate(prompts)
            for token in range(len(ids))
            for part in self.parts
        )
        return Cloud(frames, owners, vectors, born, outliers)


def _padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, T) of prompts padded on the right."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, each in enumerate(prompts):
        ids[row, : len(each)] = torch.tensor(list(each))
        mask[row, : len(each)] = 1
    return ids, mask
