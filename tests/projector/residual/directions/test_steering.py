"""Steering: a cache changes nothing, a planted direction steers, wrong inputs are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import projector
from projector.errors import SettingError, UserError
from projector.model.intervention import Ablation, Intervention, Shift, intervene
from projector.model.loading import LoadedModel
from projector.residual.directions.steering import generate, steer
from projector.residual.subject import Subject
from tests.families import N_HIDDEN, build, subject_of
from tests.projector.residual.directions.planted import plant, unit
from tests.projector.residual.directions.test_artifact import made

IDS = [5, 9, 2, 11, 7]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "bloom", "falcon"])
def test_a_cache_changes_nothing(family: str) -> None:
    subject = subject_of(family)
    tap = subject.architecture.blocks[0].taps["resid_post"]
    plain, _ = generate(subject, IDS, 12)
    vector = 3 * torch.randn(N_HIDDEN)
    changes: list[Intervention] = [Shift(tap, vector, 1.5, 50.0), Ablation(tap, vector, 50.0)]
    with_cache = [generate(subject, IDS, 12, [each]) for each in changes]
    without = [generate(subject, IDS, 12, [each], use_cache=False) for each in changes]
    assert with_cache[0][0] != plain
    for one, other in zip(with_cache, without, strict=True):
        assert one[0] == other[0]
        assert one[1] == pytest.approx(other[1])
    # Each token is what the model, so changed, says after all tokens before it.
    with torch.no_grad(), intervene(changes[:1]):
        logits = subject.model(**subject.inputs(IDS + with_cache[0][0])).logits[0]
    assert logits.argmax(dim=-1)[len(IDS) - 1 : -1].tolist() == with_cache[0][0]


def test_a_planted_direction_steers(tokenizer: Any) -> None:
    """Along it the model says tokens of one half of its vocabulary, against it of the other."""
    direction = unit()
    subject = plant(tokenizer, direction)
    vectors = {(0, "resid_post"): 40 * direction}
    directions = _directions(vectors)
    for scale, half in ((1, 1), (-1, 0)):
        found = projector.steer(subject, IDS, directions, layer=0, scale=scale, n_new=6)
        assert {i % 2 for i in found.steered.ids} == {half}
        assert (found.layer, found.scale) == (0, scale)
        assert found.norm == pytest.approx(40.0)
        assert [each.change for each in found.continuations] == ["none", "direction", "random"]
        assert found.plain.ids == tuple(generate(subject, IDS, 6)[0])
        assert found.reason is None
        assert found.as_dict()["continuations"][1]["ids"] == list(found.steered.ids)
    # As much of nothing is nothing.
    nothing = steer(subject, IDS, directions, layer=0, scale=0, n_new=6)
    assert nothing.steered.ids == nothing.plain.ids == nothing.random.ids


def test_the_random_direction_has_the_same_norm(tokenizer: Any) -> None:
    subject = plant(tokenizer, unit())
    directions, scale = _directions({(0, "resid_post"): 30 * unit(8)}), 1.5
    shifts: list[tuple[float, Tensor]] = []
    tap = subject.architecture.blocks[1].taps["resid_pre"]
    before: list[Tensor] = []
    hook = tap.module.register_forward_pre_hook(
        lambda module, args, kwargs: before.append((args or (*kwargs.values(),))[0].clone()),
        with_kwargs=True,
    )
    found = steer(subject, IDS, directions, layer=0, scale=scale, n_new=1)
    hook.remove()
    plain, steered, drawn = before
    for changed in (steered, drawn):
        off = (changed - plain)[0]
        torch.testing.assert_close(off.norm(dim=1), torch.full((len(IDS),), 45.0))
        shifts.append((float(off[0].norm()), off[0] / off[0].norm()))
    assert shifts[0][1] @ unit(8) == pytest.approx(1, abs=1e-4)
    assert abs(float(shifts[1][1] @ unit(8))) < 0.9
    assert found.notes == ()


def test_a_shift_that_drowns_the_stream_is_told(tokenizer: Any) -> None:
    """Where what is added is itself an outlier there is a note, and no number that is not one."""
    subject = plant(tokenizer, unit())
    directions = replace(
        _directions({(0, "resid_post"): unit(8)}), usual_norms={(0, "resid_post"): 2.0}
    )
    for scale, is_told in ((8, False), (-8, False), (8.1, True), (-1e30, True)):
        found = steer(subject, IDS, directions, layer=0, scale=scale, n_new=1)
        assert bool(found.notes) == is_told
        assert all(each.log_perplexity is not None for each in found.continuations)
    assert "\n" not in found.notes[0]
    assert found.as_dict()["notes"] == list(found.notes)
    with pytest.raises(SettingError) as raised:
        steer(subject, IDS, directions, layer=0, scale=1e39, n_new=1)
    assert (raised.value.setting, raised.value.value) == ("scale", 1e39)
    with torch.no_grad():
        subject.model.lm_head.weight[3] = torch.inf
    with pytest.raises(UserError) as other:
        steer(subject, IDS, directions, layer=0, n_new=1)
    assert not isinstance(other.value, SettingError)


def test_in_half_precision_a_direction_steers_too(tokenizer: Any) -> None:
    subject = plant(tokenizer, unit())
    # A loaded model is taken as a subject is.
    assert Subject.of(subject.loaded).loaded is subject.loaded
    subject.model.to(torch.bfloat16)
    directions = _directions({(0, "resid_post"): 40 * unit()})
    for scale, half in ((1, 1), (-1, 0)):
        found = steer(subject, IDS, directions, layer=0, scale=scale, n_new=4)
        assert {i % 2 for i in found.steered.ids} == {half}


def _directions(vectors: Any) -> Any:
    return replace(made(), vectors=vectors, usual_norms=dict.fromkeys(vectors, 1000000.0))


def test_a_prompt_of_one_token_has_no_perplexity(tokenizer: Any) -> None:
    subject = Subject(LoadedModel(build("llama"), tokenizer, "tiny", "a" * 64))
    found = steer(subject, [7], made(), layer=1, n_new=2)
    assert [each.log_perplexity for each in found.continuations] == [None, None, None]
    assert found.reason is not None
    assert steer(subject, [7, 8], made(), layer=1, n_new=2).plain.log_perplexity is not None


@pytest.mark.parametrize(
    ("family", "options", "setting"),
    [
        ("llama", {"layer": 2}, "layer"),
        ("llama", {"scale": float("nan")}, "scale"),
        ("llama", {"scale": "much"}, "scale"),
        ("llama", {"scale": True}, "scale"),
        ("llama", {"n_new": 0}, "n_new"),
        ("llama", {"n_new": 62}, "n_new"),
        ("llama", {"seed": -1}, "seed"),
        ("llama", {"prompt": ""}, "prompt"),
        ("llama", {"prompt": "kalo", "chat": True}, None),
        ("llama", {"prompt": "kalo mi ten " * 40}, None),
        ("bert", {}, None),
    ],
)
def test_wrong_inputs_have_one_line_each(
    tokenizer: Any, family: str, options: Any, setting: str | None
) -> None:
    subject = Subject(LoadedModel(build(family), tokenizer, "tiny", "a" * 64))
    given = {"layer": 0, "n_new": 4, "prompt": IDS, **options}
    with pytest.raises(UserError) as raised:
        steer(subject, direction=made(), **given)
    assert raised.value.setting == setting
    assert "\n" not in str(raised.value)
    if isinstance(raised.value, SettingError) and setting in options:
        assert raised.value.value is options[setting]


def test_directions_of_other_weights_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    subject = Subject(LoadedModel(build("llama"), tokenizer, "other", "b" * 64))
    made().save(tmp_path / "one")
    for direction in (made(), tmp_path / "one"):
        with pytest.raises(UserError) as raised:
            steer(subject, IDS, direction, layer=0)
        assert raised.value.setting == "direction"
