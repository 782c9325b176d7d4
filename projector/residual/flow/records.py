"""Records of how the stream grows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LayerFlow:
    """Means over tokens of one layer. Parts that the block lacks are None.

    Attributes:
        before: norm of the stream that the block reads.
        after: norm of the stream after it.
        update: norm of all that its parts add.
        attention, mlp: norms of what these add, without biases.
        attention_bias, mlp_bias: norms of what output biases add.
        attention_share, mlp_share, bias_share: ⟨part, update⟩ / ‖update‖²: how much of the update
            each part makes up; they sum to 1, and one may be negative.
        along_stream: cosine of the update and the stream before it: above 0 if it adds to what
            is there, below 0 if it takes away.
        next_cosine: cosine of this update and the next layer's; None in the last.
        heads: norm of what each head adds; None if attention can't be split into heads.
    """

    layer: int
    before: float
    after: float
    update: float
    attention: float | None
    attention_bias: float | None
    mlp: float | None
    mlp_bias: float | None
    attention_share: float | None
    mlp_share: float | None
    bias_share: float | None
    along_stream: float
    next_cosine: float | None
    heads: tuple[float, ...] | None


@dataclass(frozen=True)
class EmbeddingFlow:
    """One part of what the first block reads, and its norm, a mean over tokens."""

    name: str
    norm: float


@dataclass(frozen=True)
class SuccessiveUpdates:
    """Cosine of the updates of layers that follow one another, beside that of shuffled layers.

    Attributes:
        mean: over pairs of neighbours, in the model's order.
        shuffled_mean, shuffled_least, shuffled_most: of the same mean, over ``n_draws`` random
            orders of the layers.
        percentile: how many of 100 random orders have a mean below the model's own, in [0, 100].
    """

    mean: float
    shuffled_mean: float
    shuffled_least: float
    shuffled_most: float
    percentile: float
    n_draws: int


@dataclass(frozen=True)
class OutlierToken:
    """A token whose norm is many times the usual one.

    Attributes:
        token: its id.
        text: what it spells.
        is_first: whether it is the first of its sequence.
        layer: the layer after which it is furthest out; −1 stands for before the first.
        times_usual: its norm there, divided by the median over tokens of its batch; None if it
            is not finite.
        n: how many outlying tokens have this id, and are or are not the first.
    """

    token: int
    text: str
    is_first: bool
    layer: int
    times_usual: float | None
    n: int


@dataclass(frozen=True)
class Flow:
    """How the stream grows.

    Attributes:
        rows: one a layer.
        embedding: parts of what the first block reads.
        successive: None for a model of fewer than three layers, whose order can't be shuffled.
        cosines: (L, L), mean cosine between the updates of every two layers.
        n_tokens: over which means are taken.
        n_sequences: how many sequences they come from.
        n_skipped: tokens at the start of sequences that are not among them.
        n_outlying: tokens with an outlying norm, the skipped ones included.
        n_left_out: those of them that means leave out and would count otherwise.
        outliers: the furthest out of them, one for each token id, first tokens apart.
        outliers_left_out: whether they are left out of all means.
        norms: (L + 1, T) norms of the stream before and after each layer; of a single sequence
            alone, else None.
        additivity_error: the largest relative error of the sum of all parts so far, over all
            tokens and streams, without what half precision rounds off.
        step_error: the largest of a single sum, from the stream before it.
        worst: where that is.
        heads_error: the largest ‖Σ heads + bias − attention‖ / (Σ ‖heads‖ + ‖bias‖) over tokens and
            layers; None if no layer has heads that can be split.
        per_block_reason: why no running sum goes through the model; None if one does.
    """

    rows: tuple[LayerFlow, ...]
    embedding: tuple[EmbeddingFlow, ...]
    successive: SuccessiveUpdates | None
    cosines: tuple[tuple[float, ...], ...]
    n_tokens: int
    n_sequences: int
    n_skipped: int
    n_outlying: int
    n_left_out: int
    outliers: tuple[OutlierToken, ...]
    outliers_left_out: bool
    norms: tuple[tuple[float, ...], ...] | None
    additivity_error: float
    step_error: float
    worst: str
    heads_error: float | None
    per_block_reason: str | None

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return asdict(self)
