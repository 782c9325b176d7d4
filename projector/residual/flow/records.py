"""Records of how the stream grows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LayerFlow:
    """Means over tokens for one layer. Parts that the block lacks are None.

    Attributes:
        before: norm of the stream before the block.
        after: norm of the stream after the block.
        update: norm of the block's whole update.
        attention, mlp: norms of their additions, without biases.
        attention_bias, mlp_bias: norms of the additions of output biases.
        attention_share, mlp_share, bias_share: ⟨part, update⟩ / ‖update‖²: the share of each part
            in the update; they sum to 1, and may be negative.
        along_stream: cosine of the update and the stream before it: above 0 if it adds to the
            stream, below 0 if it removes from it.
        next_cosine: cosine of this update and the next layer's; None in the last.
        heads: norm of each head's addition; None if attention can't be split into heads.
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
    """One part of the first block's input, and the mean over tokens of its norm."""

    name: str
    norm: float


@dataclass(frozen=True)
class SuccessiveUpdates:
    """Cosine of the updates of successive layers, compared with shuffled layers.

    Attributes:
        mean: mean over successive layers in the model's order.
        shuffled_mean, shuffled_least, shuffled_most: mean, minimum and maximum of the same over
            ``n_draws`` random orders of the layers.
        percentile: percentage of random orders with a mean below the model's own, in [0, 100].
    """

    mean: float
    shuffled_mean: float
    shuffled_least: float
    shuffled_most: float
    percentile: float
    n_draws: int


@dataclass(frozen=True)
class OutlierToken:
    """A token with a norm many times the median.

    Attributes:
        token: its id.
        text: its text.
        is_first: whether it is the first of its sequence.
        layer: the layer after which it is most extreme; −1 means before the first layer.
        times_usual: its norm there, divided by the median over tokens of its batch; None if it
            isn't finite.
        n: number of outlying tokens with this id and the same ``is_first``.
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
        rows: one per layer.
        embedding: parts of the first block's input.
        successive: cosines of successive updates; None for a model with fewer than three layers,
            which can't be shuffled.
        cosines: (L, L), mean cosine between the updates of each pair of layers.
        n_tokens: number of tokens in the means.
        n_sequences: number of their sequences.
        n_skipped: number of tokens at the start of sequences that are not included.
        n_outlying: number of tokens with an outlying norm, including skipped ones.
        n_left_out: number of those that means leave out and that would otherwise count.
        outliers: the most extreme of them, one for each token id, with separate entries for first
            tokens.
        outliers_left_out: whether outliers are left out of all means.
        norms: (L + 1, T), norms of the stream before and after each layer for a single sequence;
            otherwise None.
        additivity_error: the largest relative error of the sum of all parts so far, over all
            tokens and streams, without half-precision rounding.
        step_error: the largest error of a single sum, from the stream before it.
        worst: the place of this error.
        heads_error: the largest ‖Σ heads + bias − attention‖ / (Σ ‖heads‖ + ‖bias‖) over tokens and
            layers; None if no layer has heads that can be split.
        per_block_reason: why the model has no running sum; None if it has one.
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
