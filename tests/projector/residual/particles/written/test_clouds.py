"""Particles of contributions sum to the stream in every frame; every neuron is in one group."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from projector.errors import SettingError, UserError
from projector.naming.poles import SavedPole
from projector.residual.particles.records import Cloud
from projector.residual.particles.settings import ParticleSettings
from projector.residual.particles.states import collect_states
from projector.residual.particles.written import clouds, groups
from projector.residual.particles.written.clouds import contribution_cloud
from projector.residual.particles.written.groups import group_by_directions
from projector.residual.parts import Written
from tests.families import subject_of

PROMPTS = ([5, 18, 31, 100], [5, 18, 31, 200, 201, 44])


def settings(**changed: Any) -> ParticleSettings:
    return ParticleSettings(particles="contributions", **{"n_groups": 3, **changed})


def summed(cloud: Cloud, n_tokens: int) -> Tensor:
    """(F, T, H): the sum over the particles of each token."""
    frames = torch.stack([cloud.frame(f) for f in range(len(cloud.frames))])
    return frames.unflatten(1, (n_tokens, -1)).sum(dim=2)


@pytest.mark.parametrize(
    ("family", "n_parts"),
    [
        # 1 of the embedding; 4 heads and 3 groups in each of 2 layers; positions and biases.
        ("llama", 1 + 2 * 7),
        ("gpt2", 2 + 2 * 8),
        ("gpt_neox", 1 + 2 * 8),
        ("gemma2", 1 + 2 * 7),
        # A mixture of experts is one part.
        ("mixtral", 1 + 2 * 5),
    ],
)
def test_contributions_sum_to_the_stream_in_every_frame(family: str, n_parts: int) -> None:
    subject = subject_of(family)
    cloud = contribution_cloud(subject, PROMPTS, settings=settings())
    assert len(cloud.owners) == 10 * n_parts
    expected = torch.cat(collect_states(subject, PROMPTS), dim=1)
    torch.testing.assert_close(summed(cloud, 10), expected, rtol=1e-4, atol=1e-5)
    for owner, born in zip(cloud.owners, cloud.born.tolist(), strict=True):
        layer = (
            -1 if owner.kind == "embedding" else int((owner.part or "").split()[-1].split(".")[0])
        )
        assert born == layer + 1
    not_born = ~cloud.is_born()
    assert not_born.any()
    assert not cloud.norms[not_born].any()
    assert not cloud.displacements.any()
    # Each vector is held once, not once a frame.
    assert cloud.vectors.shape == (len(cloud.owners), subject.architecture.n_hidden)
    kinds = {each.kind for each in cloud.owners}
    assert kinds >= {"embedding", "head", "mlp"}
    assert [(each.prompt, each.token) for each in cloud.owners[::n_parts]] == [
        (prompt, token) for prompt in (0, 1) for token in range(len(PROMPTS[prompt]))
    ]


def test_half_precision_sums_with_what_it_rounds_off() -> None:
    subject = subject_of("llama", torch.bfloat16)
    cloud = contribution_cloud(subject, PROMPTS, settings=settings())
    expected = torch.cat(collect_states(subject, PROMPTS), dim=1)
    error = (summed(cloud, 10) - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(error.max()) < 1e-4
    assert any(each.part == "rest 1" for each in cloud.owners)


def test_a_sum_that_does_not_close_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Written.write_groups

    def lossy(self: Written, groups: Any) -> Tensor:
        return whole(self, groups) * torch.tensor([1.0, 1.0, 0.9])[:, None]

    monkeypatch.setattr(Written, "write_groups", lossy)
    with pytest.raises(UserError, match="layer 0"):
        contribution_cloud(subject_of("llama"), PROMPTS, settings=settings())


def test_only_some_layers() -> None:
    subject = subject_of("llama")
    cloud = contribution_cloud(subject, PROMPTS[:1], settings=settings(layers=(1,)))
    assert [each.layer for each in cloud.frames] == [None, 1]
    states = collect_states(subject, PROMPTS[:1])[0][[0, 2]]
    torch.testing.assert_close(summed(cloud, 4), states, rtol=1e-4, atol=1e-5)
    assert sorted(set(cloud.born.tolist())) == [0, 1]
    first = contribution_cloud(subject, PROMPTS[:1], settings=settings(layers=(0,)))
    assert len(first.owners) == 4 * 8
    assert first.frames[-1].layer == 0


def test_outlying_tokens_are_those_of_their_particles() -> None:
    outlying = [torch.tensor([True, False, False, False]), torch.zeros(6, dtype=torch.bool)]
    cloud = contribution_cloud(subject_of("llama"), PROMPTS, settings=settings(), outlying=outlying)
    assert cloud.outliers.sum() == 15
    out = [each for each, is_out in zip(cloud.owners, cloud.outliers, strict=True) if is_out]
    assert {(each.prompt, each.token) for each in out} == {(0, 0)}


def test_a_model_without_a_running_sum_and_too_many_particles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SettingError) as told:
        contribution_cloud(subject_of("bert"), PROMPTS, settings=settings())
    assert told.value.setting == "particles"
    monkeypatch.setattr(clouds, "MOST_PARTICLES", 149)
    with pytest.raises(SettingError) as told:
        contribution_cloud(subject_of("llama"), PROMPTS, settings=settings())
    assert (told.value.setting, told.value.value) == ("n_groups", 3)


def test_neurons_that_write_alike_are_one_group() -> None:
    axes = torch.eye(5)[:3]
    which = torch.tensor([2, 0, 1, 0, 2, 1, 1, 0])
    weight = (axes[which] * torch.arange(1, 9)[:, None]).T
    found = group_by_directions(4, weight, 3, seed=0)
    assert [each.name for each in found] == ["neurons 4.0", "neurons 4.1", "neurons 4.2"]
    assert [each.neurons.tolist() for each in found] == [[0, 4], [1, 3, 7], [2, 5, 6]]
    assert len(group_by_directions(0, weight[:, :2], 6, seed=0)) == 2


def test_poles_are_groups_and_other_neurons_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def pole(layer: int, number: int, neurons: tuple[int, ...], **changed: Any) -> SavedPole:
        kept = SavedPole(layer, "mlp_post", number, "poles/a.json", neurons, None, None, True)
        return replace(kept, **changed)

    kept = [
        pole(0, 0, (3, 5, 7)),
        pole(0, 1, (1, 2)),
        pole(0, 0, (8, 9), site="mlp_out"),
        pole(0, 0, (8, 9), is_searched=False),
    ]
    facts = SimpleNamespace(facts=SimpleNamespace(model=SimpleNamespace(sha256="")))
    monkeypatch.setattr(groups, "read_saved", lambda folder: facts)
    monkeypatch.setattr(groups, "saved_poles", lambda folder: iter(kept))
    asked = ParticleSettings(particles="contributions", projection=Path("kept"))
    cloud = contribution_cloud(subject_of("llama"), PROMPTS, settings=asked)
    written = list(dict.fromkeys(each.part for each in cloud.owners if each.kind == "mlp"))
    assert written == ["pole 0.0", "pole 0.1", "no pole 0", "no pole 1"]
    found = groups.group_by_poles(Path("kept"), "", {0: 40})
    assert [len(each.neurons) for each in found[0]] == [3, 2, 35]

    facts.facts.model.sha256 = "another"
    with pytest.raises(SettingError) as told:
        contribution_cloud(subject_of("llama"), PROMPTS, settings=asked)
    assert (told.value.setting, told.value.value) == ("projection", "kept")
    facts.facts.model.sha256 = ""
    kept.clear()
    with pytest.raises(SettingError) as told:
        contribution_cloud(subject_of("llama"), PROMPTS, settings=asked)
    assert told.value.setting == "projection"
