"""The directions along which logits read the stream, with a frozen scale of the final norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from projector.errors import UserError
from projector.residual.logits.records import AttributedPart
from projector.residual.subject import Subject

# Tokens of the vocabulary that show what a part adds to any token.
N_CONTROLS = 64


@dataclass(frozen=True)
class LogitDirections:
    """How logits read the stream: one direction per token; the first belongs to the attributed
    token.

    Attributes:
        token, against: the attributed tokens.
        vectors: (D, H) float32; the inner product with a contribution is its addition to the logit.
        norm_bias, head_bias: (D,) float32, additions of these biases.
    """

    token: int
    against: int | None
    vectors: Tensor
    norm_bias: Tensor
    head_bias: Tensor

    @classmethod
    def of(
        cls, subject: Subject, stream: Tensor, token: int, against: int | None
    ) -> LogitDirections:
        """Create the directions for a token with the last stream (1, H)."""
        readout = subject.readout
        controls = _control_tokens(subject, readout.n_vocabulary, {token, against})
        first = [token, *controls]
        rows = readout.unembedding(first).float()
        bias = readout.head_bias(first).float()
        if against is not None:
            # A control for a difference is the difference of two controls.
            second = [against, *controls[1:], *controls[:1]]
            rows = rows - readout.unembedding(second).float()
            bias = bias - readout.head_bias(second).float()
        norm_bias = torch.zeros_like(bias)
        directions = rows
        if readout.norm is not None:
            if readout.form is None:
                raise UserError(
                    f"the final norm of {type(subject.model).__name__} isn't linear when its "
                    "scale is fixed, so a logit can't be attributed to parts"
                )
            form, x = readout.form, stream.to(subject.model.dtype)
            norm_bias = rows @ form.bias.to(rows)
            directions = form.pull(rows).to(rows) * form.scale(x, readout.norm(x)).to(rows)
        scale = readout.scale
        return cls(token, against, directions * scale, norm_bias * scale, bias * scale)

    @property
    def n_controls(self) -> int:
        return len(self.vectors) - 1

    def own(self, logits: Tensor) -> float:
        """The attributed logit, or difference of logits, from all logits (V,)."""
        value = logits[self.token].double()
        return float(value if self.against is None else value - logits[self.against].double())

    def part(
        self,
        values: Tensor,
        name: str,
        kind: str,
        layer: int | None = None,
        head: int | None = None,
        neuron: int | None = None,
        part_of: str | None = None,
    ) -> AttributedPart:
        """Create a part that adds ``values`` (D,) along the directions."""
        own, controls = float(values[0]), values[1:].double()
        mean = sd = None
        if len(controls) > 1:
            mean, sd = float(controls.mean()), float(controls.std())
        return AttributedPart(name, kind, layer, head, neuron, own, mean, sd, part_of)


def _control_tokens(subject: Subject, n_vocabulary: int, left_out: set[int | None]) -> list[int]:
    """Ordinary tokens drawn from the vocabulary, always the same ones."""
    pieces = subject.pieces()
    ids = pieces.piece_ids[~pieces.piece_special].tolist()
    usable = [i for i in ids if i < n_vocabulary and i not in left_out]
    order = torch.randperm(len(usable), generator=torch.Generator().manual_seed(0))
    return [usable[int(k)] for k in order[:N_CONTROLS]]
