"""The parts of a residual stream: contributions of the embedding, and of each block, head and
neuron.

A part's contribution is its addition to the stream, after any norms and factors. A norm's scale is
frozen at its value for each token, so that heads and neurons add up too. Biases are separate parts.
All sums are float32, for any dtype of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from projector.errors import UserError
from projector.model.architecture.stream.records import Addition, FrozenPath


@dataclass(frozen=True, eq=False)
class Part:
    """One term of the sum.

    Attributes:
        name: "embedding", "position", "L3 attention", "L3 H5", "L3 MLP", "L3 MLP bias" and so on.
        kind: "embedding", "attention", "head", "mlp", "bias" or "rounding".
        layer: index of the layer; None for parts before the first block.
        values: (T, H) float32.
    """

    name: str
    kind: str
    layer: int | None
    head: int | None
    values: Tensor


@dataclass(frozen=True, eq=False)
class EmbeddingContributions:
    """The first block's input as a sum of parts.

    Attributes:
        parts: the parts, which sum to ``stream``.
        stream: (T, H) float32, the first block's input.
    """

    parts: tuple[Part, ...]
    stream: Tensor

    def take(self, rows: Tensor) -> EmbeddingContributions:
        """Select some tokens, (P,) int64."""
        at = rows.to(self.stream.device)
        parts = tuple(replace(part, values=part.values[at]) for part in self.parts)
        return EmbeddingContributions(parts, self.stream[at])


@dataclass(frozen=True, eq=False)
class Written:
    """The addition of one sublayer to the stream.

    Attributes:
        values: (T, H) float32, without biases.
        bias: (T, H) float32, the addition of its biases, including those of norms; None for none.
        path: the path from its output projection to the stream.
        reads: (T, n) in the model's dtype, the input of the output projection: concatenated heads,
            or neurons; None if there is no single matrix.
    """

    addition: Addition
    path: FrozenPath
    values: Tensor
    bias: Tensor | None
    reads: Tensor | None

    @classmethod
    def of(
        cls,
        addition: Addition,
        tapped: Tensor,
        normed: tuple[Tensor, ...],
        reads: Tensor | None,
    ) -> Written:
        """Create from the tapped tensor and the norms' outputs, (T, H) each."""
        tapped = tapped.float()
        path = addition.freeze(tapped, normed)
        own = addition.bias()
        values = path.apply(tapped if own is None else tapped - own.to(tapped))
        bias = path.bias(None if own is None else own.to(tapped))
        return cls(addition, path, values, None if bias is None else bias.expand_as(values), reads)

    def terms(self) -> list[Tensor]:
        """The terms of the addition: the values, and the bias if there is one."""
        return [self.values] if self.bias is None else [self.values, self.bias]

    def project_slices(self, directions: Tensor, n_slices: int) -> Tensor:
        """The contribution of each of ``n_slices`` equal slices of the input along ``directions``.

        Args:
            directions: (D, H).

        Returns:
            (T, n_slices, D) float32. This costs T · n · D operations, because no slice's vector is
            computed.
        """
        reads = self._read()
        weight = self.addition.weight().to(reads.device)
        pulled = self.path.pull(directions.to(weight)).to(weight) @ weight
        sliced = pulled.reshape(len(directions), n_slices, -1).permute(1, 2, 0)
        given = reads.float().reshape(len(reads), n_slices, -1).transpose(0, 1) @ sliced
        scale = self.path.scale()
        return (given if scale is None else given * scale.to(given)).transpose(0, 1)

    def write_groups(self, groups: Sequence[Tensor]) -> Tensor:
        """The additions of groups of input coordinates, such as groups of neurons.

        Args:
            groups: int64, the coordinates of each group.

        Returns:
            (T, n_groups, H) float32; if every coordinate is in exactly one group, they sum to
            ``values``.

        Raises:
            UserError: if no single matrix writes this to the stream.
        """
        reads = self._read()
        weight = self.addition.weight().to(reads.device)
        places = [each.to(reads.device) for each in groups]
        written = [reads[:, at].float() @ weight[:, at].T for at in places]
        if not written:
            return weight.new_zeros(len(reads), 0, len(weight))
        return self.path.apply(torch.stack(written)).transpose(0, 1)

    def _read(self) -> Tensor:
        if self.reads is None:
            raise UserError("no single matrix writes this to the stream, so it has no parts")
        return self.reads

    def take(self, rows: Tensor) -> Written:
        """Select some tokens, (P,) int64."""
        return replace(
            self,
            path=self.path.take(rows),
            values=self.values[rows.to(self.values.device)],
            bias=None if self.bias is None else self.bias[rows.to(self.bias.device)],
            reads=None if self.reads is None else self.reads[rows.to(self.reads.device)],
        )


@dataclass(frozen=True, eq=False)
class BlockContributions:
    """The inputs and additions of one block, for T tokens and width H, in float32.

    Attributes:
        pre: (T, H), the stream before the block.
        mid: (T, H), the stream between attention and MLP; None if both read the same stream.
        post: (T, H), the stream after its last sum: its output, or the input of the norm after that
            sum, as in BERT.
        attention_written: the addition of its attention; None if it has none. Its ``reads`` are the
            concatenated heads.
        mlp_written: the same for the MLP; its ``reads`` are the neurons.
        rounding: (T, H), the rounding error of additions in half precision. It accumulates over the
            layers, so it is a part of the sum. None for a model in float32.
    """

    layer: int
    pre: Tensor
    mid: Tensor | None
    post: Tensor
    attention_written: Written | None
    mlp_written: Written | None
    n_heads: int | None
    rounding: Tensor | None = None

    @property
    def attention(self) -> Tensor | None:
        """The addition of attention without biases, (T, H)."""
        return None if self.attention_written is None else self.attention_written.values

    @property
    def attention_bias(self) -> Tensor | None:
        return None if self.attention_written is None else self.attention_written.bias

    @property
    def mlp(self) -> Tensor | None:
        """The addition of the MLP or mixture of experts without biases, (T, H)."""
        return None if self.mlp_written is None else self.mlp_written.values

    @property
    def mlp_bias(self) -> Tensor | None:
        return None if self.mlp_written is None else self.mlp_written.bias

    def heads(self) -> Tensor:
        """The addition of each head, (T, n_heads, H); the sum over heads is ``attention``.

        Raises:
            UserError: if the block's attention can't be split into heads.
        """
        written, n_heads = self._heads()
        reads = written._read()
        weight = written.addition.weight().to(reads.device)
        z = reads.float().reshape(len(reads), n_heads, -1).transpose(0, 1)
        by_head = weight.reshape(len(weight), n_heads, -1).permute(1, 2, 0)
        return written.path.apply(z @ by_head).transpose(0, 1)

    def measure_heads(self) -> tuple[Tensor, Tensor]:
        """The norm of each head's addition, (T, n_heads) float32, and the error of their sum, (T,):
        ‖Σ heads + bias − attention‖ / (Σ ‖heads‖ + ‖bias‖). One head's vectors are in memory at a
        time.

        Raises:
            UserError: if the block's attention can't be split into heads.
        """
        written, n_heads = self._heads()
        off, norms = written.values.clone(), []
        z = written._read().reshape(len(off), n_heads, -1)
        by_head = written.addition.weight().reshape(off.shape[-1], n_heads, -1)
        for head in range(n_heads):
            values = written.path.apply(z[:, head].float() @ by_head[:, head].T)
            off -= values
            norms.append(values.norm(dim=-1))
        found = torch.stack(norms, dim=-1)
        size = found.sum(dim=-1)
        size = size if written.bias is None else size + written.bias.norm(dim=-1)
        return found, off.norm(dim=-1) / size.clamp_min(1e-30)

    @property
    def has_heads(self) -> bool:
        """Whether its attention can be split into heads."""
        written = self.attention_written
        return written is not None and written.reads is not None and self.n_heads is not None

    def project_heads(self, directions: Tensor) -> Tensor:
        """The addition of each head along ``directions`` (D, H), as inner products, (T, n_heads,
        D).

        Raises:
            UserError: if the block's attention can't be split into heads.
        """
        written, n_heads = self._heads()
        return written.project_slices(directions, n_heads)

    def project_neurons(self, directions: Tensor) -> Tensor:
        """The addition of each MLP neuron along ``directions`` (D, H), as inner products, (T, N,
        D).

        Raises:
            UserError: if the block's MLP has no neurons computed for every token.
        """
        written = self.mlp_written
        if written is None or written.reads is None:
            raise UserError(
                f"layer {self.layer} has no MLP neurons that are computed for every token"
            )
        return written.project_slices(directions, written.reads.shape[-1])

    def parts(self, *, by_head: bool = False) -> list[Part]:
        """The block's terms of the sum; each head separately if ``by_head``."""
        layer, rounding = self.layer, self.rounding
        found: list[Part] = []
        if by_head and self.attention is not None and self.n_heads is not None:
            heads = self.heads()
            if rounding is not None:
                # The output projection's sum over the heads was rounded too.
                rounding = rounding + self.attention - heads.sum(dim=1)
            for head, values in enumerate(heads.unbind(1)):
                found.append(Part(f"L{layer} H{head}", "head", layer, head, values))
        elif self.attention is not None:
            found.append(Part(f"L{layer} attention", "attention", layer, None, self.attention))
        for name, kind, each in (
            ("attention bias", "bias", self.attention_bias),
            ("MLP", "mlp", self.mlp),
            ("MLP bias", "bias", self.mlp_bias),
            ("rounding", "rounding", rounding),
        ):
            if each is not None:
                found.append(Part(f"L{layer} {name}", kind, layer, None, each))
        return found

    def until_mid(self) -> BlockContributions:
        """The parts written before the stream between attention and MLP.

        Raises:
            UserError: if both read the same stream, so there is no such stream.
        """
        if self.mid is None:
            raise UserError(f"attention and MLP of layer {self.layer} read the same stream")
        rounding = self.rounding
        if rounding is not None:
            terms = [] if self.attention_written is None else self.attention_written.terms()
            rounding = self.mid - sum(terms, start=self.pre)
        return replace(self, mid=None, post=self.mid, mlp_written=None, rounding=rounding)

    def take(self, rows: Tensor, *, neurons: bool = True) -> BlockContributions:
        """Select some tokens, (P,) int64, without the neurons unless requested."""
        attention, mlp = self.attention_written, self.mlp_written
        if mlp is not None and not neurons:
            mlp = replace(mlp, reads=None)
        return replace(
            self,
            pre=self.pre[rows.to(self.pre.device)],
            mid=None if self.mid is None else self.mid[rows.to(self.mid.device)],
            post=self.post[rows.to(self.post.device)],
            attention_written=None if attention is None else attention.take(rows),
            mlp_written=None if mlp is None else mlp.take(rows),
            rounding=None if self.rounding is None else self.rounding[rows.to(self.pre.device)],
        )

    def _heads(self) -> tuple[Written, int]:
        written = self.attention_written
        if written is None or written.reads is None or self.n_heads is None:
            raise UserError(f"the attention of layer {self.layer} has no heads that can be split")
        return written, self.n_heads
