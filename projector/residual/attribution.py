"""Direct logit attribution: the contribution of each part of the stream to a token's logit.

The stream at the last position x = Σ c_i is a sum of contributions, and with the scale s of the
final norm frozen at its value for this token the logit is linear in it:

    logit_t = α·(W_U[t]·(w ⊙ center(x)·s + b) + β_t),   so part i adds α·s·(W_U[t] ⊙ w)·center(c_i)

with the norm's weight w and bias b, the head's bias β and the logit scale α; ``center`` subtracts
the mean where the norm does (Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits"; Wang et al. 2022). A part that changes the scale of the norm is not credited for that.

The logit lens reads the stream of an earlier layer in the same way, so its logits are also a sum:
over the parts written up to that layer, with the final norm's scale for that stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import signature

import torch
from torch import Tensor

from projector.errors import SettingError, UserError, check_text
from projector.model.architecture.stream.readout import Readout
from projector.progress import Progress, Silent
from projector.residual.contributions import (
    BlockContributions,
    EmbeddingContributions,
    Part,
    SumCheck,
    check_additivity,
    watch_contributions,
)
from projector.residual.logits.directions import LogitDirections
from projector.residual.logits.highest import find_highest, highest
from projector.residual.logits.records import (
    FINAL_NORM_BIAS,
    HEAD_BIAS,
    READOUT_KINDS,
    ROUNDING,
    SOFTCAP,
    AttributedPart,
    Attribution,
    Step,
)
from projector.residual.readings.records import Reading
from projector.residual.readings.streams import find_reading
from projector.residual.settings import check_numbers
from projector.residual.subject import Subject
from projector.residual.tokens import find_position, find_token

_N_TOP = 5
# Largest closure errors: of float32, and of types of 16 bits, whose own rounding is 4e-3.
CLOSURE_BOUND, SHORT_CLOSURE_BOUND = 1e-5, 2e-2


@torch.no_grad()
def attribute(
    model: Subject | str,
    prompt: str | Sequence[int],
    *,
    token: int | str | None = None,
    against: int | str | None = None,
    position: int = -1,
    n_neurons: int = 20,
    until: tuple[int, str] | str | None = None,
    progress: Progress | None = None,
) -> Attribution:
    """Attribute the logit of a token, or the difference of two tokens' logits, to parts.

    This takes one forward pass. With a softcap, the parts sum to the logit before it, and the
    difference made by the softcap is a part of its own.

    Args:
        model: a subject with its head, or the name of a model to load.
        prompt: text, or token ids of the model.
        token: the token to attribute, an id or a text as for :func:`find_token`; None for the
            model's top next token.
        against: the token to subtract the logit of.
        position: position of the prediction; negative values count from the end.
        n_neurons: number of neurons to list, the strongest first.
        until: attribute the logit of the logit lens at this place instead of the model's own logit:
            a layer and a stream of :data:`projector.residual.readings.records.STREAMS`, such as
            ``(3, "resid_mid")`` or ``"3 mid"``. Only the parts written up to there are included.

    Raises:
        SettingError: on ``token``, ``against``, ``position``, ``n_neurons`` or ``until``.
        UserError: if the model has no causal head, its stream isn't a running sum, or the parts
            don't sum to the model's own logit.
    """
    check_numbers(n_neurons=n_neurons)
    check_text("prompt", prompt if isinstance(prompt, str) else None)
    subject = Subject.of(model)
    ids = subject.ids_of(prompt)
    at = find_position(len(ids), position)
    wanted = None if token is None else find_token(subject, token)
    other = None if against is None else find_token(subject, against, setting="against")
    end = None if until is None else find_reading(subject.architecture, until)
    readout, layout = subject.readout, subject.layout
    if layout.closes_per_block:
        raise UserError(
            f"the stream of {type(subject.model).__name__} is not a running sum, so its logits "
            f"can't be attributed to parts: {layout.reason}"
        )
    progress = progress or Silent()
    progress.begin("Running the prompt", len(subject.architecture.blocks), "layers")
    run = _run(subject, ids, at, end, progress)
    progress.end()
    check_additivity(run.check)
    if wanted is None:
        wanted = highest(run.logits)
    if wanted == other:
        raise SettingError(
            "against", against, "is the attributed token itself", "give another token"
        )
    directions = LogitDirections.of(subject, run.stream, wanted, other)
    parts = _parts(run, directions)
    raw = readout.raw(run.stream.to(subject.model.dtype))[0].float().cpu() * readout.scale
    parts += _readout_parts(directions, raw, run.logits, readout)
    found = _result(subject, ids, at, run, directions, parts, _neurons(run, directions, n_neurons))
    if end is not None:
        found = replace(found, until=(end.layer, end.stream))
    check_closure(found)
    return found


def _result(
    subject: Subject,
    ids: list[int],
    at: int,
    run: _Run,
    directions: LogitDirections,
    parts: list[AttributedPart],
    neurons: tuple[list[AttributedPart], str | None],
) -> Attribution:
    logit = directions.own(run.logits)
    pieces = subject.pieces()
    probabilities = run.logits.softmax(dim=0)
    likeliest = find_highest(run.logits[None], min(_N_TOP, len(run.logits)))[1][0]
    is_wide = subject.model.dtype in (torch.float32, torch.float64)
    return Attribution(
        model=subject.loaded.identifier,
        ids=tuple(ids),
        texts=tuple(pieces.texts(ids)),
        position=at,
        token=directions.token,
        token_text=pieces.text(directions.token),
        against=directions.against,
        against_text=None if directions.against is None else pieces.text(directions.against),
        logit=logit,
        probability=float(probabilities[directions.token]),
        top=tuple((pieces.text(i), i, float(probabilities[i])) for i in likeliest.tolist()),
        parts=tuple(parts),
        neurons=tuple(neurons[0]),
        neurons_left_out=neurons[1],
        steps=_steps(parts),
        scale=subject.readout.scale,
        softcap=subject.readout.softcap,
        n_controls=directions.n_controls,
        additivity_error=run.check.additivity_error,
        step_error=run.check.step_error,
        closure_error=closure_error(parts, logit),
        closure_bound=CLOSURE_BOUND if is_wide else SHORT_CLOSURE_BOUND,
    )


def closure_error(parts: Sequence[AttributedPart], logit: float) -> float:
    """Compute |Σ parts − logit| / Σ |parts|, without the parts for half-precision rounding, which
    would always close the sum.
    """
    values = [part.value for part in parts if part.kind != ROUNDING]
    size = sum(abs(value) for value in values)
    return abs(sum(values) - logit) / size if size else abs(logit)


def check_closure(found: Attribution) -> None:
    """Raise a UserError if the parts don't sum to the model's logit within the bound."""
    if not found.closure_error <= found.closure_bound:
        raise UserError(
            f"the parts of {found.model} do not sum to its logit: they differ by "
            f"{found.closure_error:.1e} of their sizes' sum, but at most "
            f"{found.closure_bound:.0e} is accepted, so nothing is attributed"
        )


@dataclass(frozen=True)
class _Run:
    """What one forward pass gave at the position that is read: (1, H) tensors.

    Attributes:
        embedding: the parts before the first block.
        blocks: what is written by the time the stream is read.
        stream: (1, H), what the readout reads.
        logits: (V,) float32: the model's own, or what the readout makes of an earlier stream.
    """

    embedding: tuple[Part, ...]
    blocks: tuple[BlockContributions, ...]
    check: SumCheck
    stream: Tensor
    logits: Tensor

    def parts(self) -> list[Part]:
        """All terms of the sum, in order, attention as a whole."""
        return [*self.embedding, *(part for block in self.blocks for part in block.parts())]


def _run(
    subject: Subject, ids: list[int], at: int, end: Reading | None, progress: Progress
) -> _Run:
    row = torch.tensor([at])
    before: list[EmbeddingContributions] = []
    blocks: list[BlockContributions] = []
    logits: list[Tensor] = []

    def keep(each: BlockContributions | EmbeddingContributions) -> None:
        if isinstance(each, EmbeddingContributions):
            before.append(each.take(row))
            return
        progress.advance(1)
        if end is None or each.layer < end.layer:
            blocks.append(each.take(row))
        elif each.layer == end.layer and end.stream != "resid_pre":
            own = each.take(row)
            blocks.append(own.until_mid() if end.stream == "resid_mid" else own)

    def keep_logits(given: Tensor) -> None:
        logits.append(given[0, at if given.shape[1] == len(ids) else 0].float().cpu())

    inputs = subject.inputs(ids)
    if end is None and "logits_to_keep" in signature(subject.model.forward).parameters:
        # Logits of the other positions would take as much room as all else together.
        inputs["logits_to_keep"] = row.to(inputs["input_ids"].device)
    check = watch_contributions(
        subject, inputs, keep, on_logits=keep_logits if end is None else None
    )
    stream = blocks[-1].post if blocks else before[0].stream
    if end is not None:
        logits.append(subject.readout.logits(stream.to(subject.model.dtype))[0].cpu())
    return _Run(before[0].parts, tuple(blocks), check, stream, logits[-1])


def _parts(run: _Run, directions: LogitDirections) -> list[AttributedPart]:
    """What every part of the stream adds, heads one by one."""
    splits = {block.layer: block for block in run.blocks if block.has_heads}
    found: list[AttributedPart] = []
    for part in run.parts():
        if part.kind == "attention" and part.layer in splits:
            found += _heads(splits[part.layer], directions)
            continue
        values = (part.values.float() @ directions.vectors.to(part.values.device).T)[0]
        found.append(directions.part(values, part.name, _kind(part), part.layer))
    return found


def _kind(part: Part) -> str:
    """Biases are of the kind of what they belong to: ``mlp bias``."""
    if part.kind == ROUNDING:
        return part.kind
    if part.kind != "bias":
        return part.kind if part.layer is not None else part.name
    return part.name.removeprefix(f"L{part.layer} ").replace("MLP", "mlp")


def _heads(block: BlockContributions, directions: LogitDirections) -> list[AttributedPart]:
    values = block.project_heads(directions.vectors)[0]
    return [
        directions.part(each, f"L{block.layer} H{head}", "head", block.layer, head)
        for head, each in enumerate(values)
    ]


def _readout_parts(
    directions: LogitDirections, raw: Tensor, logits: Tensor, readout: Readout
) -> list[AttributedPart]:
    """What norm and head add whatever the stream is, and the softcap; those that are there."""
    found = []
    if bool(directions.norm_bias.any()):
        found.append(directions.part(directions.norm_bias, FINAL_NORM_BIAS, FINAL_NORM_BIAS))
    if bool(directions.head_bias.any()):
        found.append(directions.part(directions.head_bias, HEAD_BIAS, HEAD_BIAS))
    if readout.softcap is not None:
        # By the model's own logits before and behind the cap, so that it hides no error of the sum.
        value = directions.own(logits) - directions.own(raw)
        found.append(AttributedPart(SOFTCAP, SOFTCAP, None, None, None, value))
    return found


def _neurons(
    run: _Run, directions: LogitDirections, n_neurons: int
) -> tuple[list[AttributedPart], str | None]:
    """The neurons that add most, in order of size, then all others together; and which layers have
    none."""
    own: list[tuple[BlockContributions, Tensor]] = []
    without: list[str] = []
    for block in run.blocks:
        written = block.mlp_written
        if written is not None and written.reads is not None:
            own.append((block, block.project_neurons(directions.vectors[:1])[0, :, 0].cpu()))
        elif written is not None:
            without.append(str(block.layer))
    left_out = None
    if without:
        left_out = f"no single matrix reads the MLP's neurons in layers {', '.join(without)}"
    if not own or not n_neurons:
        return [], left_out
    sizes = torch.cat([values for _, values in own])
    chosen = sizes.abs().topk(min(n_neurons, len(sizes))).indices.tolist()
    starts = [0]
    for _, values in own:
        starts.append(starts[-1] + len(values))
    by_block: dict[int, list[int]] = {}
    for index in chosen:
        k = next(k for k in range(len(own)) if index < starts[k + 1])
        by_block.setdefault(k, []).append(index - starts[k])
    found = []
    for k, neurons in by_block.items():
        block = own[k][0]
        values = block.project_neurons(directions.vectors)[0]
        for j in neurons:
            name = f"L{block.layer} N{j}"
            found.append(
                directions.part(values[j], name, "neuron", block.layer, neuron=j, part_of="mlp")
            )
    found.sort(key=lambda part: -abs(part.value))
    others = float(sizes.double().sum()) - sum(part.value for part in found)
    if len(found) < len(sizes):
        name = f"{len(sizes) - len(found):,} other neurons"
        found.append(AttributedPart(name, "other neurons", None, None, None, others, part_of="mlp"))
    return found, left_out


def _steps(parts: Sequence[AttributedPart]) -> tuple[Step, ...]:
    """The parts of the stream together, then what norm, head and cap add."""
    total = sum(part.value for part in parts if part.kind not in READOUT_KINDS)
    steps = [Step("parts of the stream", total, total)]
    for part in parts:
        if part.kind in READOUT_KINDS:
            total += part.value
            steps.append(Step(part.name, part.value, total))
    return tuple(steps)
