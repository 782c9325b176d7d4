"""How a model writes to its residual stream: the tensors that are tapped, and their path to it."""

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
    """The path from a tapped tensor to the stream, as a linear map with frozen norm scales.

    Attributes:
        forms: the norms on the path, in order.
        scales: (T, 1) float32 for each norm.
        factor: the factor after the last norm.
    """

    forms: tuple[NormForm, ...]
    scales: tuple[Tensor, ...]
    factor: float

    def apply(self, part: Tensor) -> Tensor:
        """Map a part, (…, H), to float32; its leading axes are broadcast to (T, 1)."""
        part = part.float()
        for form, scale in zip(self.forms, self.scales, strict=True):
            part = form.apply(part, scale)
        return part if self.factor == 1 else part * self.factor

    def bias(self, before: Tensor | None) -> Tensor | None:
        """The sum of the biases: one before the norms, (H,), and the norms' own.

        Returns:
            (T, H) float32, or (1, H) if it is the same for every token; None if there is none.
        """
        total = None if before is None else before.float()[None]
        for form, scale in zip(self.forms, self.scales, strict=True):
            total = None if total is None else form.apply(total, scale)
            if bool(form.bias.any()):
                total = form.bias[None] if total is None else total + form.bias
        return total if total is None or self.factor == 1 else total * self.factor

    def pull(self, directions: Tensor) -> Tensor:
        """Map directions in the stream, (D, H), to directions in the tapped tensor, without the
        scales.
        """
        directions = directions.float() * self.factor
        for form in reversed(self.forms):
            directions = form.pull(directions)
        return directions

    def scale(self) -> Tensor | None:
        """The product of the norms' scales, (T, 1); None if there is no norm."""
        total: Tensor | None = None
        for scale in self.scales:
            total = scale if total is None else total * scale
        return total

    def take(self, rows: Tensor) -> FrozenPath:
        """The path for some tokens, (P,) int64."""
        scales = tuple(scale[rows.to(scale.device)] for scale in self.scales)
        return FrozenPath(self.forms, scales, self.factor)


@dataclass(frozen=True)
class Addition:
    """A sublayer's addition to the stream: factor · norms(tapped tensor).

    Attributes:
        tap: the output of the sublayer's output projection, or of its mixture of experts, (…, H).
        norms: the norms between it and the stream, in order.
        factor: the factor after the norms; 1 in most models.
        matrix: the output projection; None if there is no single one.
        reads: the input of the output projection, (…, heads or neurons); None if there is no single
            projection.
    """

    tap: Tap
    norms: tuple[tuple[nn.Module, NormForm], ...]
    factor: float
    matrix: Matrix | None = None
    reads: Tap | None = None

    def freeze(self, tapped: Tensor, normed: tuple[Tensor, ...]) -> FrozenPath:
        """The path for given values: the tapped tensor, (T, H), and each norm's output, (T, H)
        each.
        """
        scales = []
        for (_, form), y in zip(self.norms, normed, strict=True):
            scales.append(form.scale(tapped, y))
            tapped = y
        return FrozenPath(tuple(form for _, form in self.norms), tuple(scales), self.factor)

    def weight(self) -> Tensor:
        """The output projection's weight, (H, n_inputs), float32.

        Raises:
            ValueError: if there is no single projection.
        """
        if self.matrix is None:
            raise ValueError("no single matrix writes this to the stream")
        given = resident(self.matrix.module)
        assert given is not None  # what makes it a matrix
        weight = given.float()
        return weight if self.matrix.input_axis == 1 else weight.T

    def bias(self) -> Tensor | None:
        """The output projection's bias, (H,); None if it has none."""
        return None if self.matrix is None else resident(self.matrix.module, "bias")


@dataclass(frozen=True)
class StreamSum:
    """A sum in a block: the tensor at ``base`` plus the additions of ``parts`` equals the one at
    ``end``.

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
        attention: the addition of its attention; None if it has none.
        mlp: the addition of its MLP or mixture of experts; None if it has none.
        n_heads: number of attention heads; None if it was not found.
        sums: the attention's sum and then the MLP's, or one sum of both if they read the same
            stream. Empty if ``reason`` is set.
        reason: why no sum of this block was found; None if one was.
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
        """The tap of the concatenated heads; None if they can't be split."""
        return None if self.attention is None or not self.n_heads else self.attention.reads

    @property
    def heads_width(self) -> int:
        """The number of coordinates of all heads together; 0 if they can't be split."""
        matrix = None if self.attention is None else self.attention.matrix
        return 0 if matrix is None else matrix.n_inputs

    def is_running(self, module: nn.Module) -> bool:
        """Whether the sums lead from the input of ``module``, the block, to its output."""
        taps = [Tap(module, "input"), *(each.end for each in self.sums)]
        return taps[-1] == Tap(module, "output") and all(
            each.base == tap for each, tap in zip(self.sums, taps, strict=False)
        )

    def additions(self) -> dict[str, Addition]:
        """The additions by the name of their sublayer."""
        both = {"attention": self.attention, "mlp": self.mlp}
        return {name: each for name, each in both.items() if each is not None}


@dataclass(frozen=True)
class EmbeddingSource:
    """A part of the first block's input: factor · tapped tensor, before the norms.

    Attributes:
        name: "embedding" (of the tokens), "position" or "token type".
    """

    name: str
    tap: Tap
    factor: float


@dataclass(frozen=True)
class EmbeddingParts:
    """The first block's input as a sum: norms(Σ factor · source).

    Attributes:
        stream: the first block's input.
        sources: its parts. If ``reason`` is set, the only part is the stream itself, named
            "embedding".
        norms: the norms applied to the sum of the sources, in order; each reads the output of the
            previous one.
    """

    stream: Tap
    sources: tuple[EmbeddingSource, ...]
    norms: tuple[tuple[nn.Module, NormForm], ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class StreamLayout:
    """How a model writes to its residual stream, block by block.

    Attributes:
        closes_per_block: whether only each block's sums before its norms close, because the norms
            change the whole stream and there is no running sum through the model.
        reason: why ``closes_per_block`` is set; otherwise None.
    """

    blocks: tuple[BlockStream, ...]
    embedding: EmbeddingParts
    closes_per_block: bool
    reason: str | None = None
