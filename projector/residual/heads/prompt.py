"""Attention patterns of heads on a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from projector.errors import UserError, named
from projector.model.architecture.stream.patterns import watch_patterns
from projector.residual.subject import Subject

# What is less than this is left out of JSON.
_LEAST_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class PromptPatterns:
    """Attention patterns of some heads on a prompt.

    Attributes:
        ids: T token ids.
        texts: the text of each.
        patterns: (layer, head) → its pattern (T, T) float32 on the CPU: how much the token of a row
            attends to that of a column. Rows sum to 1.
    """

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    patterns: Mapping[tuple[int, int], Tensor]

    def strongest(self, head: tuple[int, int], n: int = 8) -> list[tuple[int, int, float]]:
        """The largest attention weights of a head, (from row, to column, share), without the first
        position.

        Most heads attend to the first position when they find nothing else, so it shows little
        about them.
        """
        pattern = self.patterns[head].clone()
        pattern[:, 0] = -1
        shares, places = pattern.flatten().topk(min(n, pattern.numel()))
        return [
            (place // len(self.ids), place % len(self.ids), share)
            for place, share in zip(places.tolist(), shares.tolist(), strict=True)
            if share > 0
        ]

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values: for each token of each head, all tokens with at least 1 % of its
        attention.
        """
        return {
            "ids": list(self.ids),
            "tokens": list(self.texts),
            "least_share": _LEAST_SHARE,
            "patterns": [
                {
                    "layer": layer,
                    "head": head,
                    "attends": [
                        [[at, round(share, 4)] for at, share in enumerate(row) if share >= 0.01]
                        for row in pattern.tolist()
                    ],
                }
                for (layer, head), pattern in self.patterns.items()
            ],
        }


class KeptPatterns:
    """Patterns of some heads, collected during a run.

    Attributes:
        found: (layer, head) → its pattern (T, T) float32 on the CPU, for each head so far.
    """

    def __init__(self, heads: Sequence[tuple[int, int]]) -> None:
        self._heads = tuple(heads)
        self.found: dict[tuple[int, int], Tensor] = {}

    def keep(self, layer: int, pattern: Tensor) -> None:
        """Keep the patterns of a layer, (B, A, T, T); only the first sequence is used."""
        for head in self._heads:
            if head[0] == layer:
                self.found[head] = pattern[0, head[1]].float().cpu()


def read_patterns(
    subject: Subject,
    ids: Sequence[int],
    heads: Sequence[tuple[int, int]] | None = None,
    kept: KeptPatterns | None = None,
) -> PromptPatterns:
    """Read the patterns of some heads on a prompt, in one forward pass.

    Args:
        ids: the prompt's T tokens.
        heads: (layer, head) of each; all by default. Each pattern has T × T numbers.
        kept: patterns from another run of the same prompt. The model is run only if some are
            missing.

    Raises:
        UserError: if the model lacks a head, or a layer has no pattern.
    """
    taps = subject.patterns
    if heads is None:
        heads = [
            (layer, head)
            for layer, tap in enumerate(taps.blocks)
            if not isinstance(tap, str)
            for head in range(tap.n_heads)
        ]
    check_heads(subject, heads)
    kept = kept or KeptPatterns(heads)
    layers = sorted({head[0] for head in heads if head not in kept.found})
    if layers:
        watch_patterns(
            subject.model,
            subject.architecture,
            subject.inputs(list(ids)),
            kept.keep,
            taps=taps,
            layers=layers,
        )
    return PromptPatterns(
        tuple(ids), _texts(subject, ids), {head: kept.found[head] for head in heads}
    )


def check_heads(subject: Subject, heads: Sequence[tuple[int, int]]) -> None:
    """Raise a UserError if the model lacks one of these heads."""
    for layer, head in heads:
        n_layers = len(subject.patterns.blocks)
        if not 0 <= layer < n_layers:
            raise UserError(
                f"{named('show')} names layer {layer}, but the model has layers 0 to "
                f"{n_layers - 1}",
                setting="show",
                value=layer,
            )
        n_heads = subject.patterns.block(layer).n_heads
        if not 0 <= head < n_heads:
            raise UserError(
                f"{named('show')} names head {head} of layer {layer}, which has heads 0 to "
                f"{n_heads - 1}",
                setting="show",
                value=head,
            )


def _texts(subject: Subject, ids: Sequence[int]) -> tuple[str, ...]:
    if subject.loaded.tokenizer is None:
        return tuple(f"#{i}" for i in ids)
    return tuple(subject.pieces(list(ids)).texts(list(ids)))
