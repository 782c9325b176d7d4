"""The causal test: a planted direction works and random ones do not; what is held out stays out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from projector.errors import SettingError
from projector.model.capture import collect
from projector.model.intervention import Ablation, Shift, intervene
from projector.model.loading import LoadedModel
from projector.residual.contrast.report import contrast
from projector.residual.directions.effects import check_room, choose_layers, test_directions
from projector.residual.directions.finding import random_directions
from projector.residual.directions.records import split_prompts
from projector.residual.directions.running import Rerunner, Text
from projector.residual.subject import Subject
from tests.families import N_HIDDEN, build, subject_of
from tests.projector.residual.directions.planted import (
    Plain,
    plant,
    rows_along,
    rows_from,
    sets_of,
    unit,
)

TEXTS = [Text((5, 9, 2, 11, 7)), Text((4, 8, 1)), Text((3, 17, 12, 9, 9, 2, 30), 4), Text((6,))]


def _subject(tokenizer: Any, family: str = "llama") -> Subject:
    return Subject(LoadedModel(build(family), tokenizer, family, "b" * 64))


def test_a_planted_direction_has_an_effect_that_random_ones_have_not(
    tokenizer: Any, text: str
) -> None:
    direction = unit()
    subject, sets = plant(tokenizer, direction), sets_of(text)
    found, effects = test_directions(
        subject, sets, rows_along(direction, 16, 20.0), layers=[0], n_random=5
    )
    vector = found.at_layer(0)
    assert torch.nn.functional.cosine_similarity(vector, direction, dim=0) > 0.999
    added = [each for each in effects if each.change == "added" and each.set != "difference"]
    assert [(e.scale, e.set) for e in added] == [
        (scale, name) for scale in (1, -1) for name in ("positive", "negative")
    ]
    for each in added:
        assert each.exceeds_random
        assert each.effect is not None
        assert abs(each.effect) > 2 * max(abs(r) for r in each.random)
        assert each.norm == pytest.approx(20.0, rel=0.01)
        assert each.effect_low is not None
        assert each.effect_high is not None
        assert each.effect_low <= each.effect <= each.effect_high
    ablated = [each for each in effects if each.change == "ablated" and each.set != "difference"]
    assert all(each.exceeds_random for each in ablated)
    # Prompts vary along this direction no more than along others.
    assert all(e.exceeds_permuted and len(e.permuted) == 3 for e in (*added, *ablated))
    # Nothing is left that the head hears, so every token is as likely as any other.
    for each in ablated:
        assert each.value == pytest.approx(torch.tensor(320.0).log().item(), abs=0.02)
    difference = next(each for each in effects if each.set == "difference")
    assert difference.effect == pytest.approx(added[1].effect - added[0].effect)  # type: ignore[operator]
    # A direction that nothing hears is as weak as random ones are.
    other = unit(8)
    other = other - (other @ direction) * direction
    _, effects = test_directions(subject, sets, rows_along(other, 16, 20.0), layers=[0], n_random=5)
    assert not any(
        e.exceeds_random for e in effects if e.change == "ablated" and e.set != "difference"
    )


def test_figures_are_those_of_whole_runs_of_the_model(tokenizer: Any, text: str) -> None:
    subject, sets = _subject(tokenizer), sets_of(text, 12)
    found, effects = test_directions(
        subject, sets, rows_from(subject, sets), layers=[0], seed=4, n_random=2
    )
    each = next(e for e in effects if e.set == "positive" and e.change == "added" and e.scale == 1)
    ids = [subject.encode(prompt)[:32] for prompt in sets.positive]
    split = split_prompts(
        sets,
        ([len(i) for i in ids], [len(subject.encode(p)[:32]) for p in sets.negative]),
        n_prompts=64,
        max_tokens=1024,
        seed=4,
    )
    assert each.n_prompts == len(split.tested_positive) == found.n_tested_positive == 3
    shift = Shift(
        subject.architecture.blocks[0].taps["resid_post"],
        found.at_layer(0),
        1.0,
        found.most_norm(0),
    )

    def log_perplexity() -> float:
        nats, n = 0.0, 0
        for number in split.tested_positive:
            inputs = subject.inputs(ids[number])
            logits = subject.model(**inputs).logits[0, :-1]
            targets = inputs["input_ids"][0, 1:]
            nats += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
            n += len(targets)
        assert n == each.n_tokens
        return nats / n

    with torch.no_grad():
        assert each.plain == pytest.approx(log_perplexity(), rel=1e-5)
        with intervene([shift]):
            assert each.value == pytest.approx(log_perplexity(), rel=1e-5)
    assert each.effect == pytest.approx(each.value - each.plain)  # type: ignore[operator]


def test_the_direction_is_of_the_prompts_that_are_not_tested(tokenizer: Any, text: str) -> None:
    """It is read where it is added: what the next block reads, of these prompts' last tokens."""
    subject, sets = _subject(tokenizer), sets_of(text, 12)
    found, _ = test_directions(
        subject, sets, rows_from(subject, sets), layers=[0], keep_outliers=True
    )
    n_tokens = tuple(
        [len(subject.encode(p)[:32]) for p in s] for s in (sets.positive, sets.negative)
    )
    split = split_prompts(sets, (n_tokens[0], n_tokens[1]), n_prompts=64, max_tokens=1024, seed=0)
    tap = {"behind": subject.architecture.blocks[1].taps["resid_pre"]}

    def mean(prompts: tuple[str, ...], numbers: tuple[int, ...]) -> torch.Tensor:
        rows = [
            collect(subject.model, tap, subject.inputs(subject.encode(prompts[i])))["behind"][0, -1]
            for i in numbers
        ]
        return torch.stack(rows).mean(dim=0)

    fit = mean(sets.positive, split.fit_positive) - mean(sets.negative, split.fit_negative)
    torch.testing.assert_close(found.at_layer(0), fit, rtol=1e-4, atol=1e-5)
    every = mean(sets.positive, tuple(range(12))) - mean(sets.negative, tuple(range(12)))
    assert not torch.allclose(found.at_layer(0), every, rtol=1e-3, atol=1e-4)


def test_held_out_prompts_are_whole_groups_and_at_most_a_quarter() -> None:
    class Grouped(Plain):
        @property
        def negative_groups(self) -> tuple[int, ...]:
            # Two of each group; some have no partner in the other set.
            return tuple(i // 2 + 10 for i in range(len(self.negative)))

    sets = Grouped(tuple(map(str, range(40))), tuple(map(str, range(200))))
    lengths = ([5] * 40, [5] * 200)
    for seed in range(5):
        split = split_prompts(sets, lengths, n_prompts=64, max_tokens=10**6, seed=seed)
        assert 0 < len(split.tested_positive) <= 10
        assert 0 < len(split.tested_negative) <= 32
        assert sorted(split.tested_positive + split.fit_positive) == list(range(40))
        assert sorted(split.tested_negative + split.fit_negative) == list(range(200))
        tested = {sets.positive_groups[i] for i in split.tested_positive}
        tested |= {sets.negative_groups[i] for i in split.tested_negative}
        fit = {sets.positive_groups[i] for i in split.fit_positive}
        fit |= {sets.negative_groups[i] for i in split.fit_negative}
        assert not tested & fit
    few = split_prompts(sets, lengths, n_prompts=64, max_tokens=40, seed=0)
    assert len(few.tested_positive) <= 4
    assert len(few.tested_negative) <= 4
    assert few == split_prompts(sets, lengths, n_prompts=64, max_tokens=40, seed=0)


@pytest.mark.parametrize(
    "family", ["llama", "gpt2", "gpt_neox", "gemma2", "bloom", "opt", "falcon", "opt_350m"]
)
def test_blocks_run_again_give_what_the_whole_model_gives(family: str) -> None:
    subject = subject_of(family)
    runner = Rerunner(subject, TEXTS, [0, 1])
    vector = torch.linspace(-1, 2, N_HIDDEN)
    for layer in (0, 1):
        tap = subject.architecture.blocks[layer].taps["resid_post"]
        for change in (Shift(tap, vector, 0.7), Ablation(tap, vector)):
            found = runner.run(layer, [change])
            for number, text in enumerate(TEXTS):
                with torch.no_grad(), intervene([change]):
                    logits = subject.model(**subject.inputs(list(text.ids))).logits[0]
                nats = -torch.log_softmax(logits, -1)[
                    range(text.first - 1, len(text.ids) - 1), text.ids[text.first :]
                ].sum()
                assert float(found[number]) == pytest.approx(float(nats), rel=1e-4, abs=1e-5)


def test_a_model_whose_blocks_can_not_be_run_alone_is_run_whole() -> None:
    subject = subject_of("llama")
    block, whole = subject.architecture.blocks[1].module, Rerunner(subject, TEXTS, [1])
    expected = whole.run(1, [])
    n_calls = 0

    def count(*_: Any) -> None:
        nonlocal n_calls
        n_calls += 1

    hook = subject.model.register_forward_pre_hook(count)
    whole.run(1, [])
    assert n_calls == 0
    whole._is_whole[1] = True
    torch.testing.assert_close(whole.run(1, []), expected)
    assert n_calls > 0
    hook.remove()
    # A block that gives something else when it is called alone is found out.
    inside = False

    def outside(*_: Any) -> None:
        nonlocal inside
        inside = True

    subject.model.register_forward_pre_hook(outside)

    def leave(*_: Any) -> None:
        nonlocal inside
        inside = False

    subject.model.register_forward_hook(leave)
    block.register_forward_hook(lambda m, a, out: out if inside else out + 1)
    assert Rerunner(subject, TEXTS, [1])._is_whole == {1: True}


def test_random_directions_have_the_same_norm() -> None:
    vector = 17.0 * unit()
    drawn = random_directions(vector, 50, 1)
    torch.testing.assert_close(drawn.norm(dim=1), torch.full((50,), float(vector.norm())))
    assert torch.equal(drawn, random_directions(vector, 50, 1))
    assert not torch.equal(drawn, random_directions(vector, 50, 2))
    # They point nowhere in particular.
    cosine = drawn @ unit() / 17.0
    assert cosine.abs().mean() < 0.35
    assert len(torch.unique(cosine)) == 50


def test_prompts_of_one_token_have_no_perplexity(tokenizer: Any) -> None:
    class OneToken(Subject):
        def encode(self, text: str, *, as_chat: bool = False) -> list[int]:
            return [7 + len(text)]

    subject = OneToken(LoadedModel(build("llama"), tokenizer, "llama", "b" * 64))
    sets = Plain(tuple("a" * i for i in range(1, 13)), tuple("a" * i for i in range(20, 32)))
    _, effects = test_directions(subject, sets, rows_from(subject, sets), layers=[0])
    assert len(effects) == 9
    for each in effects:
        assert each.effect is None
        assert each.exceeds_random is None
        assert each.reason is not None
        assert "one token" in each.reason


def test_encoders_have_directions_and_a_reason(tokenizer: Any, text: str) -> None:
    subject, sets = _subject(tokenizer, "bert"), sets_of(text, 12)
    rows = rows_from(subject, sets, at="mean")
    found, effects = test_directions(subject, sets, rows, at="mean")
    assert found.layers == (0, 1)
    assert {each.layer for each in effects} == set(choose_layers(build_architecture("bert")))
    assert all(each.effect is None and "encoder" in str(each.reason) for each in effects)


def build_architecture(family: str) -> Any:
    return subject_of(family).architecture


def test_sets_with_the_same_mean_have_no_direction(tokenizer: Any, text: str) -> None:
    same = torch.ones(12, N_HIDDEN)
    found, effects = test_directions(
        _subject(tokenizer),
        sets_of(text, 12),
        lambda layer, stream: (same, same),
        layers=[1],
    )
    assert not found.vectors
    assert {each.layer for each in effects} == {1}
    assert all(each.effect is None and "same mean" in str(each.reason) for each in effects)


def test_continuations_are_measured_instead(tokenizer: Any, text: str) -> None:
    subject, sets = _subject(tokenizer), sets_of(text, 12)
    _, effects = test_directions(
        subject, sets, rows_from(subject, sets), layers=[1], continuations=[" kalo", " ten ra"]
    )
    assert {(e.measure, e.continuation) for e in effects} == {
        ("log-probability", " kalo"),
        ("log-probability", " ten ra"),
    }
    assert {e.set for e in effects} == {"positive", "negative"}
    one = next(e for e in effects if e.continuation == " kalo" and e.set == "negative")
    assert one.plain is not None
    assert one.plain < 0
    tail = tokenizer(" kalo", add_special_tokens=False)["input_ids"]
    assert one.n_tokens == one.n_prompts * len(tail)


def test_a_continuation_beyond_the_context_is_told_before_anything_runs(
    tokenizer: Any, text: str
) -> None:
    subject, sets = _subject(tokenizer, "gpt2"), sets_of(text, 12)
    longest = max(len(subject.encode(prompt)) for prompt in (*sets.positive, *sets.negative))
    most = subject.model.config.max_position_embeddings
    word = len(tokenizer(" kalo", add_special_tokens=False)["input_ids"])
    fits, too_long = (" kalo" * ((most - longest) // word + more) for more in (0, 1))
    rows = rows_along(unit(), 12, 1)
    _, effects = test_directions(subject, sets, rows, layers=[1], continuations=[fits])
    assert all(each.effect is not None for each in effects)
    calls: list[int] = []
    subject.model.register_forward_pre_hook(lambda *_: calls.append(1))
    for check in (
        lambda: check_room(subject, sets, [" kalo", too_long]),
        lambda: test_directions(subject, sets, rows, continuations=[" kalo", too_long]),
        lambda: contrast(subject, sets=sets, continuations=[" kalo", too_long]),  # type: ignore[arg-type]
    ):
        with pytest.raises(SettingError) as raised:
            check()
        assert (raised.value.setting, raised.value.value) == ("continuations", too_long)
        assert str(most) in str(raised.value)
    assert not calls


def test_groups_of_prompts_reach_the_interval(tokenizer: Any, text: str) -> None:
    sets = replace(sets_of(text), of_group=4)
    _, effects = test_directions(_subject(tokenizer), sets, rows_along(unit(), 16, 3), layers=[0])
    for each in effects:
        n_prompts = each.n_prompts // 2 if each.set == "difference" else each.n_prompts
        assert each.n_groups == n_prompts // 4 == 1
        assert each.effect is not None
        assert each.effect_low is None


@pytest.mark.parametrize("at", ["last", "mean"])
def test_in_half_precision_effects_are_given_too(tokenizer: Any, text: str, at: str) -> None:
    model = build("llama").to(torch.bfloat16)
    subject, sets = Subject(LoadedModel(model, tokenizer, "half", "b" * 64)), sets_of(text, 12)
    found, effects = test_directions(subject, sets, rows_from(subject, sets, at=at), at=at)
    assert found.at == at
    assert found.at_layer(1).dtype == torch.float32
    assert all(each.effect is not None and len(each.permuted) == 3 for each in effects)


def test_layers_are_at_a_third_a_half_and_two_thirds() -> None:
    class Deep:
        def __init__(self, n: int) -> None:
            self.blocks = [None] * n

    depths = {n: choose_layers(Deep(n)) for n in (1, 2, 6, 30)}  # type: ignore[arg-type]
    assert depths == {1: (0,), 2: (0,), 6: (1, 2, 3), 30: (9, 14, 19)}


@pytest.mark.parametrize(
    ("options", "setting", "value"),
    [
        ({"layers": [2]}, "layers", 2),
        ({"at": "first"}, "at", "first"),
        ({"n_random": 0}, "n_random", 0),
        ({"n_permuted": -1}, "n_permuted", -1),
        ({"n_prompts": 1}, "n_prompts", 1),
        ({"seed": -1}, "seed", -1),
        ({"continuations": []}, "continuations", []),
    ],
)
def test_wrong_settings_are_named(
    tokenizer: Any, text: str, options: Any, setting: str, value: Any
) -> None:
    with pytest.raises(SettingError) as raised:
        test_directions(
            _subject(tokenizer), sets_of(text, 12), rows_along(unit(), 12, 1), **options
        )
    assert (raised.value.setting, raised.value.value) == (setting, value)


def test_outliers_are_left_as_they_are() -> None:
    """A token of many times the usual norm neither shifts nor loses its part along a direction."""
    tap = subject_of("llama").architecture.blocks[0].taps["resid_post"]
    x = torch.randn(2, 5, N_HIDDEN)
    x[:, 0] *= 100
    vector = torch.ones(N_HIDDEN)
    for kind in (Shift(tap, vector, 2.0, 20.0), Ablation(tap, vector, 20.0)):
        changed = kind.apply(x)
        assert torch.equal(changed[:, 0], x[:, 0])
        assert not torch.isclose(changed[:, 1:], x[:, 1:]).all(dim=-1).any()
