"""Records of an attribution: a logit and the parts that sum to it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

FINAL_NORM_BIAS, HEAD_BIAS, SOFTCAP = "final norm bias", "head bias", "softcap"
# Kinds of part that are no addition to the stream.
READOUT_KINDS = (FINAL_NORM_BIAS, HEAD_BIAS, SOFTCAP)
# The kind of what half precision rounds off as it adds.
ROUNDING = "rounding"


@dataclass(frozen=True)
class AttributedPart:
    """The contribution of one part to the logit, or to the difference of two logits.

    Attributes:
        name: such as ``L3 H5`` or ``L3 MLP``.
        kind: embedding, position, head, attention, attention bias, mlp, mlp bias, neuron, other
            neurons, rounding (of half precision), final norm bias, head bias, softcap.
        layer, head, neuron: the location of the part; None where not applicable.
        value: its contribution, in logits.
        control_mean, control_sd: mean and standard deviation of its contributions to random tokens
            of the vocabulary (for a difference, to differences of two random tokens); None if
            unknown.
        part_of: the kind of part that this is a share of, and that is counted instead: for a
            neuron, ``mlp``. None for the parts that sum to the logit.
    """

    name: str
    kind: str
    layer: int | None
    head: int | None
    neuron: int | None
    value: float
    control_mean: float | None = None
    control_sd: float | None = None
    part_of: str | None = None


@dataclass(frozen=True)
class Step:
    """One step of the sum from 0 to the logit: its addition, and the sum so far."""

    name: str
    adds: float
    total: float


@dataclass(frozen=True)
class Attribution:
    """The logit of a token as a sum.

    Attributes:
        model: the model's identifier.
        ids, texts: the prompt's tokens.
        position: the position where the logit is read; it predicts the next token.
        token, token_text: the token of the logit.
        against, against_text: the token of the subtracted logit; None if there is none.
        logit: the model's own logit, or difference of two; for an earlier stream, the lens's logit
            there, and in the same way for ``probability`` and ``top``.
        probability: probability of the token, in [0, 1].
        top: the most likely tokens there, (text, id, probability) each.
        parts: the parts that sum to the logit, including the softcap's step; nothing is counted
            twice.
        neurons: the MLP neurons with the largest contributions by size, and ``other neurons``, the
            sum of all remaining ones. They are shares of the MLPs in ``parts``.
        neurons_left_out: why neurons of some layers are missing here; None if none are.
        steps: from the sum over the stream to the logit.
        scale, softcap: the model's factor of its logits, and their bound; None if there is none.
        n_controls: number of tokens in the controls.
        additivity_error: largest relative error of the stream's sum over all tokens and streams,
            without half-precision rounding.
        step_error: the same for a single sum, from the stream before it.
        closure_error: |Σ parts − logit| / Σ |parts|, without parts of kind ``rounding``.
        closure_bound: the largest allowed ``closure_error`` in the model's dtype.
        until: layer and stream where the logit is read; None for the model's own logit.
    """

    model: str
    ids: tuple[int, ...]
    texts: tuple[str, ...]
    position: int
    token: int
    token_text: str
    against: int | None
    against_text: str | None
    logit: float
    probability: float
    top: tuple[tuple[str, int, float], ...]
    parts: tuple[AttributedPart, ...]
    neurons: tuple[AttributedPart, ...]
    neurons_left_out: str | None
    steps: tuple[Step, ...]
    scale: float
    softcap: float | None
    n_controls: int
    additivity_error: float
    step_error: float
    closure_error: float
    closure_bound: float
    until: tuple[int, str] | None = None

    @property
    def total_size(self) -> float:
        """Σ |parts|, the denominator of shares."""
        return sum(abs(part.value) for part in self.parts)

    @property
    def rounding(self) -> float:
        """The rounding error of half precision, in logits; 0 in float32."""
        return sum((part.value for part in self.parts if part.kind == ROUNDING), start=0.0)

    @property
    def rounding_share(self) -> float:
        """|rounding| / Σ |parts|, in [0, 1]."""
        return abs(self.rounding) / self.total_size if self.total_size else 0.0

    def share(self, part: AttributedPart) -> float:
        """A part's value divided by Σ |parts|, in [−1, 1]."""
        return part.value / self.total_size if self.total_size else 0.0

    def by_kind(self) -> dict[str, float]:
        """The parts' values summed by kind, in the order of the parts."""
        sums: dict[str, float] = {}
        for part in self.parts:
            sums[part.kind] = sums.get(part.kind, 0.0) + part.value
        return sums

    def strongest(self, n: int | None = None) -> tuple[AttributedPart, ...]:
        """The parts in order of |value|, at most ``n``."""
        return tuple(sorted(self.parts, key=lambda part: -abs(part.value))[:n])

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values; the values of ``parts`` sum to ``logit``."""
        found = asdict(self)
        found["top"] = [
            {"token": text, "id": i, "probability": share} for text, i, share in self.top
        ]
        for rows, parts in ((found["parts"], self.parts), (found["neurons"], self.neurons)):
            for row, part in zip(rows, parts, strict=True):
                row["share"] = self.share(part)
        found["by_kind"] = self.by_kind()
        found["rounding"], found["rounding_share"] = self.rounding, self.rounding_share
        return found
