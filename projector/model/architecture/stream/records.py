"""How a model writes to its residual stream: what is tapped, and what is done to it on the way."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from projector.model.architecture.records import Matrix
from projector.model.architecture.stream.norms import NormForm
from projector.model.architecture.weights import resident
from projector.model.capture import Tap

__all__ = [
    "Addition",
    "BlockStream",
    "EmbeddingParts",
    "EmbeddingSource",
    "FrozenPath",
    "NormForm",
    "StreamLayout",
    "StreamSum",
]


@dataclass(frozen=True)
class FrozenPath:
    """The way from what is tapped to what is added, its norms' scales frozen: a linear map.

    Attributes:
        forms: the norms on the way, in order.
        scales: (T, 1) float32 for each norm.
        factor: what multiplies behind the last norm.
    """

    forms: tuple[NormForm, ...]
    scales: tuple[Tensor, ...]
    factor: float

    def apply(self, part: Tensor) -> Tensor:
        """What becomes of a part, (…, H) float32; its leading axes are broadcast to (T, 1)."""
        part = part.float()
        for form, scale in zip(self.forms, self.scales, strict=True):
            part = form.apply(part, scale)
        return part if self.factor == 1 else part * self.factor

    def bias(self, before: Tensor | None) -> Tensor | None:
        """What biases add: one before the norms, (H,), and the norms' own.

        Returns:
            (T, H) float32, or (1, H) where it is the same for every token; None where there is
            none.
        """
        total = None if before is None else before.float()[None]
        for form, scale in zip(self.forms, self.scales, strict=True):
            total = None if total is None else form.apply(total, scale)
            if bool(form.bias.any()):
                total = form.bias[None] if total is None else total + form.bias
        return total if total is None or self.factor == 1 else total * self.factor

    def pull(self, directions: Tensor) -> Tensor:
        """Directions in the stream, (D, H), as directions in what is tapped, without the scales."""
        directions = directions.float() * self.factor
        for form in reversed(self.forms):
            directions = form.pull(directions)
        return directions

    def scale(self) -> Tensor | None:
        """The product of the norms' scales, (T, 1); None where there is no norm."""
        total: Tensor | None = None
        for scale in self.scales:
            total = scale if total is None else total * scale
        return total

    def take(self, rows: Tensor) -> FrozenPath:
        """The path of some tokens, (P,) int64."""
        scales = tuple(scale[rows.to(scale.device)] for scale in self.scales)
        return FrozenPath(self.forms, scales, self.factor)


@dataclass(frozen=True)
class Addition:
    """What a sublayer adds to the stream: factor · norms(what is tapped).

    Attributes:
        tap: what the sublayer's output projection, or its mixture of experts, gives: (…, H).
        norms: what it goes through on its way to the stream, in order.
        factor: what multiplies it behind them; 1 in most models.
        matrix: the output projection; None where there is no single one.
        reads: what the output projection reads, (…, heads or neurons); None where there is no
            single projection.
    """

    tap: Tap
    norms: tuple[tuple[nn.Module, NormForm], ...]
    factor: float
    matrix: Matrix | None = None
    reads: Tap | None = None

    def freeze(self, tapped: Tensor, normed: tuple[Tensor, ...]) -> FrozenPath:
        """The path, from what was tapped, (T, H), and what each norm gave, (T, H) each."""
        scales = []
        for (_, form), y in zip(self.norms, normed, strict=True):
            scales.append(form.scale(tapped, y))
            tapped = y
        return FrozenPath(tuple(form for _, form in self.norms), tuple(scales), self.factor)

    def weight(self) -> Tensor:
        """The output projection's weight, (H, n_inputs), float32.

        Raises:
            ValueError: where there is no single projection.
        """
        if self.matrix is None:
            raise ValueError("no single matrix writes this to the stream")
        given = resident(self.matrix.module)
        assert given is not None  # what makes it a matrix
        weight = given.float()
        return weight if self.matrix.input_axis == 1 else weight.T

    def bias(self) -> Tensor | None:
        """The output projection's bias, (H,); None where it has none."""
        return None if self.matrix is None else resident(self.matrix.module, "bias")


@dataclass(frozen=True)
class StreamSum:
    """One sum of a block: what is at ``base``, and what ``parts`` add, is what is at ``end``.

    Attributes:
        parts: "attention", "mlp" or both.
    """

    base: Tap
    parts: tuple[str, ...]
    end: Tap


@dataclass(frozen=True)
class BlockStream:
    """How one block writes to the stream.

    Attributes:
        attention: what its attention adds; None where it has none.
        mlp: what its MLP, or mixture of experts, adds; None where it has none.
        n_heads: of its attention; None where that is not known.
        sums: in order: attention's and then the MLP's, or one sum of both where they read the same
            stream. Empty where ``reason`` is set.
        reason: why no sum of this block was found; None where one was.
    """

    attention: Addition | None
    mlp: Addition | None
    n_heads: int | None
    sums: tuple[StreamSum, ...]
    reason: str | None = None

    @property
    def has_mid(self) -> bool:
        """Whether there is a stream between attention and MLP."""
        return len(self.sums) == 2

    @property
    def heads_tap(self) -> Tap | None:
        """Where the heads lie side by side; None where they can't be split."""
        return None if self.attention is None or not self.n_heads else self.attention.reads

    @property
    def heads_width(self) -> int:
        """How many coordinates the heads have together; 0 where they can't be split."""
        matrix = None if self.attention is None else self.attention.matrix
        return 0 if matrix is None else matrix.n_inputs

    def is_running(self, module: nn.Module) -> bool:
        """Whether the sums lead from what ``module``, the block, takes to what it gives."""
        taps = [Tap(module, "input"), *(each.end for each in self.sums)]
        return taps[-1] == Tap(module, "output") and all(
            each.base == tap for each, tap in zip(self.sums, taps, strict=False)
        )

    def additions(self) -> dict[str, Addition]:
        """The additions that there are, by the name of their sublayer."""
        both = {"attention": self.attention, "mlp": self.mlp}
        return {name: each for name, each in both.items() if each is not None}


@dataclass(frozen=True)
class EmbeddingSource:
    """One part of what the first block reads: factor · what is tapped, before the norms.

    Attributes:
        name: "embedding" (of the tokens), "position" or "token type".
    """

    name: str
    tap: Tap
    factor: float


@dataclass(frozen=True)
class EmbeddingParts:
    """What the first block reads, as a sum: norms(Σ factor · source).

    Attributes:
        stream: what the first block reads.
        sources: its parts; only the one named "embedding", the stream itself, where ``reason``
            says why no others were found.
        norms: what the sum goes through, in order; each norm reads what the one before it gave,
            and the first reads the sum of the sources.
    """

    stream: Tap
    sources: tuple[EmbeddingSource, ...]
    norms: tuple[tuple[nn.Module, NormForm], ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class StreamLayout:
    """How a model writes to its residual stream, block by block.

    Attributes:
        closes_per_block: no running sum goes through the model, for norms change the whole stream;
            each block's sums before these norms are what closes.
        reason: why, where that is so; None elsewhere.
    """

    blocks: tuple[BlockStream, ...]
    embedding: EmbeddingParts
    closes_per_block: bool
    reason: str | None = None
