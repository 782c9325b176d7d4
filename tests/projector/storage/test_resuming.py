"""What a run does with what is there, in every case."""

from __future__ import annotations

from itertools import product

import pytest

from projector.errors import UserError
from projector.storage.resuming import Step, Work, decide, told_difference
from tests.refused import lacking, refused, refused_naming

OWN, OTHER = Work("here"), Work("here", "its batch_size is 8, and this one's 16")
BEGUN_WITH_FORCE = Work("here", may_replace=True)


def step(
    unfinished: Work | None, finished: Work | None, *, resume: bool, force: bool
) -> Step | None:
    """None where it refuses."""
    try:
        return decide(unfinished, finished, resume=resume, force=force)
    except UserError:
        return None


@pytest.mark.parametrize(
    ("unfinished", "finished", "resumed", "with_both"),
    [
        (None, None, Step.START, Step.START),
        (OWN, None, Step.GO_ON, Step.GO_ON),
        (None, OWN, Step.LEAVE, Step.LEAVE),
        # Killed between writing the result and removing what it went on from.
        (OWN, OWN, Step.GO_ON, Step.GO_ON),
        (OTHER, None, None, Step.START),
        (None, OTHER, None, Step.START),
        (OTHER, OWN, None, Step.START),
        (OWN, OTHER, None, Step.GO_ON),
        (BEGUN_WITH_FORCE, OTHER, Step.GO_ON, Step.GO_ON),
    ],
)
def test_with_resume_a_queue_can_start_one_command_line_again_and_again(
    unfinished: Work | None, finished: Work | None, resumed: Step | None, with_both: Step
) -> None:
    assert step(unfinished, finished, resume=True, force=False) == resumed
    assert step(unfinished, finished, resume=True, force=True) == with_both


@pytest.mark.parametrize(
    ("unfinished", "finished"), list(product((None, OWN, OTHER), (None, OWN, OTHER)))
)
def test_without_resume_nothing_is_replaced_but_by_force(
    unfinished: Work | None, finished: Work | None
) -> None:
    is_free = unfinished is None and finished is None
    assert step(unfinished, finished, resume=False, force=False) == (
        Step.START if is_free else None
    )
    assert step(unfinished, finished, resume=False, force=True) == Step.START


def test_a_refusal_names_the_difference_and_what_helps() -> None:
    with refused("resume", True, "fit", "batch_size", 8, 16, "force=True"):
        decide(OTHER, None, resume=True, force=False, what="fit")
    with refused_naming("resume=True"):
        decide(OWN, None, resume=False, force=False)
    with refused("force", False):
        decide(None, OWN, resume=False, force=False)


def test_a_difference_is_told_by_itself() -> None:
    ours = {"model": "a" * 64, "batch_size": 16, "versions": {"torch": "2"}}
    assert told_difference(dict(ours), ours) is None
    assert told_difference({**ours, "batch_size": 8}, ours, settings=["batch_size"]) is not None
    found = told_difference({**ours, "batch_size": 8}, ours, settings=["batch_size"])
    assert found is not None
    told = str(UserError(found))
    assert lacking(told, "batch_size", "8", "16", "batch_size=8") == []
    found = told_difference({**ours, "versions": {"torch": "1"}}, ours)
    assert found is not None
    assert lacking(found, "versions torch", "'1'", "'2'") == []
    words = {"their_words": {"model": "small"}, "our_words": {"model": "large"}}
    found = told_difference({**ours, "model": "b" * 64}, ours, **words)
    assert found is not None
    assert lacking(found, "model", f"'small' ({'b' * 12}…)", f"'large' ({'a' * 12}…)") == []


@pytest.mark.parametrize("which", [0, 1])
def test_what_only_one_of_them_knows_differs(which: int) -> None:
    runs = [{"old": 1}, {"old": 1}]
    runs[which] = {"old": 1, "new": None}  # type: ignore[dict-item]
    found = told_difference(*runs)
    assert found is not None
    assert "not known" in found
