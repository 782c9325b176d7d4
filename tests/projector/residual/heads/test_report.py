"""All that is known of heads in one result: bad input is refused, and a part that fails leaves the
rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from projector.errors import SettingError, UserError
from projector.residual.circuits.goals import find_goal
from projector.residual.heads.report import heads
from projector.residual.subject import Subject
from tests.families import subject_of

QUICK: dict[str, Any] = {"n_sequences": 1, "length": 8, "n_random": 0}


@pytest.mark.parametrize("ids", [[], [999_999], [-1], [3] * 65])
def test_ids_that_the_model_does_not_take_are_refused(ids: list[int]) -> None:
    with pytest.raises(UserError):
        heads(subject_of("llama"), ids, **QUICK)


@pytest.mark.parametrize("name", ["token", "against"])
def test_a_goal_without_a_prompt_is_refused(name: str) -> None:
    with pytest.raises(SettingError) as caught:
        heads(subject_of("llama"), **{name: 5})
    assert (caught.value.setting, caught.value.value) == (name, 5)


def test_a_token_against_itself_is_refused() -> None:
    subject = subject_of("llama")
    with pytest.raises(SettingError) as caught:
        heads(subject, [3, 4], token=5, against=5, **QUICK)
    assert caught.value.setting == "against"
    with pytest.raises(SettingError) as caught:
        find_goal(subject, [3, 4], token=5, against=5)
    assert caught.value.setting == "against"
    # The same where the model's own top token is meant.
    top = int(subject.model(**subject.inputs([3, 4])).logits[0, -1].argmax())
    with pytest.raises(SettingError):
        heads(subject, [3, 4], against=top, **QUICK)


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("report.compose_heads", "compositions"),
        ("report.find_pairs", "pairs"),
        ("report.find_virtual_heads", "virtual"),
        ("scores.model_grams", None),
    ],
)
def test_a_part_that_fails_does_not_lose_the_scores(
    monkeypatch: pytest.MonkeyPatch, name: str, lost: str | None
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("two devices\nat least")

    monkeypatch.setattr(f"projector.residual.heads.{name}", fail)
    found = heads(subject_of("llama"), [3, 4, 5], show="1.0", **QUICK)
    assert len(found.scores.rows) == 8
    assert any("two devices" in reason for reason in found.reasons)
    parts = {name: getattr(found, name) for name in ("compositions", "pairs", "virtual", "prompt")}
    assert [name for name, part in parts.items() if not part] == ([lost] if lost else [])
    assert (found.scores.rows[0].copying is None) == (lost is None)


def runs(subject: Subject, act: Callable[[], object]) -> tuple[int, int]:
    """How often the first block ran on three tokens, and the head."""
    counts = [0, 0]

    def count_block(module: Any, args: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        counts[0] += first.shape[-2] == 3

    def count_head(module: Any, args: Any, output: Any) -> None:
        counts[1] += output.shape[-2] == 3

    hooks = [
        subject.architecture.blocks[0].module.register_forward_hook(count_block),
        subject.readout.head.register_forward_hook(count_head),
    ]
    act()
    for hook in hooks:
        hook.remove()
    return counts[0], counts[1]


def test_a_prompt_is_run_four_times_and_never_to_its_logits() -> None:
    subject = subject_of("llama")
    _ = subject.attentions, subject.layout

    def act() -> None:
        found = heads(subject, [3, 4, 5], show="0.0,1.0", **QUICK)
        assert found.prompt is not None
        assert found.virtual is not None

    assert runs(subject, act) == (4, 0)
