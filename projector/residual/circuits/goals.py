"""Goals of paths through heads: a logit as a direction in the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from projector.errors import SettingError, UserError
from projector.model.capture import Tap, capture, evaluating
from projector.residual.circuits.vocabulary import token_ids, unembeddings
from projector.residual.logits.highest import highest
from projector.residual.subject import Subject


@dataclass(frozen=True, eq=False)
class Goal:
    """The goal of paths: a logit, or the difference of two, at the last position of a sequence.

    Attributes:
        ids: the sequence up to the position.
        token, against: the token of the logit, and the token of the subtracted logit, if any.
        direction: (H,) float32, the direction that the logit reads from the last position's stream,
            including the final norm's scale and the model's logit scale.
        stream: (1, H) in the model's dtype, the stream at the last position.
        from_stream: the stream's contribution to the logit, summed over its parts. It doesn't
            include biases of the final norm and the head, or a softcap.
        logit: the model's own logit.
    """

    ids: list[int]
    token: int
    against: int | None
    direction: Tensor
    stream: Tensor
    from_stream: float
    logit: float


def find_goal(
    subject: Subject,
    ids: Sequence[int],
    *,
    token: int | None = None,
    against: int | None = None,
    position: int = -1,
) -> Goal:
    """Find the direction of a token's logit in the stream at a position.

    Args:
        token: the model's top next token by default.
        against: the token to subtract the logit of.

    Raises:
        SettingError: on ``against``, if it is the token itself.
        UserError: if the model has no causal head, or its final norm isn't linear with a frozen
            scale.
    """
    readout = subject.readout
    if readout.norm is not None and readout.form is None:
        raise UserError(
            f"the final norm of {type(subject.model).__name__} isn't linear when its scale is "
            "fixed, so a logit isn't a sum of paths"
        )
    kept = list(ids)[: range(len(ids))[position] + 1]
    last = subject.architecture.blocks[-1].module
    found: list[Tensor] = []
    with (
        torch.no_grad(),
        evaluating(subject.model),
        capture({"": Tap(last, "output")}, lambda _, x: found.append(x), then_stop=True),
    ):
        subject.model(**subject.inputs(kept))
    stream = found[0].reshape(-1, found[0].shape[-1])[-1:]
    if token is None:
        with torch.no_grad():
            token = highest(readout.logits(stream)[0])
    check_against(token, against)
    return _goal_of(subject, kept, stream, token, against)


def control_goals(subject: Subject, goal: Goal, n_goals: int, seed: int = 0) -> list[Goal]:
    """Goals for random tokens at the same position, as a control."""
    ids = [i for i in token_ids(subject) if i not in (goal.token, goal.against)]
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = [ids[i] for i in order[:n_goals]]
    return [_goal_of(subject, goal.ids, goal.stream, token, goal.against) for token in chosen]


@torch.no_grad()
def _goal_of(
    subject: Subject, ids: list[int], stream: Tensor, token: int, against: int | None
) -> Goal:
    readout = subject.readout
    chosen = [token] if against is None else [token, against]
    rows = unembeddings(subject, chosen)
    direction = rows[0] if against is None else rows[0] - rows[1]
    if readout.norm is not None:
        assert readout.form is not None
        direction = direction * readout.form.scale(stream, readout.norm(stream))[0]
    direction = direction * readout.scale
    from_stream = float(direction @ stream[0].to(direction))
    own = readout.logits(stream)[0, chosen].tolist()
    return Goal(ids, token, against, direction, stream, from_stream, own[0] - sum(own[1:]))


def check_against(token: int | None, against: int | None) -> None:
    """Raise a SettingError if a token's logit would be subtracted from itself."""
    if token is not None and token == against:
        raise SettingError(
            "against", f"#{against}", "is the token itself", "give another token to subtract"
        )
