"""The autoencoder of hidden states: particles hold the tokens and their places; its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from projector.errors import SettingError, UserError
from projector.model.loading import LoadedModel
from projector.progress import Silent
from projector.residual.particles.autoencoder.artifact import JSON_FILE, TENSOR_FILE, Trained
from projector.residual.particles.autoencoder.cloud import particle_cloud
from projector.residual.particles.autoencoder.evaluation import Window, principal_components
from projector.residual.particles.autoencoder.gathering import gather
from projector.residual.particles.autoencoder.model import Autoencoder
from projector.residual.particles.autoencoder.records import COMPARED
from projector.residual.particles.autoencoder.training import train_autoencoder, train_network
from projector.residual.particles.states import collect_states
from projector.residual.subject import Subject
from tests.conftest import make_text
from tests.families import N_HIDDEN, N_LAYERS, build
from tests.refused import refused_naming

TINY = {"n_particles": 32, "width": 4, "steps": 6, "max_tokens": 400}


def _subject(family: str, tokenizer: Any, sha256: str = "a" * 64) -> Subject:
    return Subject(LoadedModel(build(family), tokenizer, "tiny", sha256))


def _documents() -> list[str]:
    return [make_text(40, seed) for seed in range(20)]


@pytest.fixture(scope="module")
def subject(tokenizer: Any) -> Subject:
    return _subject("llama", tokenizer)


@pytest.fixture(scope="module")
def trained(subject: Subject) -> Trained:
    return train_autoencoder(subject, _documents(), **TINY)


@pytest.fixture(scope="module")
def states(subject: Subject) -> torch.Tensor:
    return collect_states(subject, [subject.encode("kalo mi ten. rasovel du nor")])[0]


def test_particles_hold_the_tokens(trained: Trained, states: torch.Tensor) -> None:
    network, normal = trained.network, trained.normaliser.apply(states)
    particles = network.encode(normal)
    assert particles.shape == (N_LAYERS + 1, 32, 4)
    error = (network(normal) - normal).square().mean()
    # Eight numbers a token and more: far better than the mean vector.
    assert error < 0.5 * normal.square().mean()
    # A decoder that looked at places alone would give the same for the particles of other frames.
    other = network.decode(particles.flip(0), states.shape[1])
    assert (other - normal).square().mean() > 2 * error
    undone = trained.reconstruct(states)
    whole = (states - trained.normaliser.means[:, None]).square().sum()
    assert (undone - states).square().sum() < 0.5 * whole


def test_every_token_is_in_the_particles(trained: Trained, states: torch.Tensor) -> None:
    normal = trained.normaliser.apply(states)
    before = trained.network.encode(normal)
    for token in range(1, states.shape[1]):
        changed = normal.clone()
        changed[:, token] = -changed[:, token]
        assert (trained.network.encode(changed) - before).abs().amax(dim=(1, 2)).min() > 0.1


def test_permuting_unequal_tokens_changes_particles(trained: Trained, states: torch.Tensor) -> None:
    before, unlike = trained.particles(states), list(range(states.shape[1]))
    unlike[2], unlike[4] = unlike[4], unlike[2]
    assert not torch.allclose(states[:, 2], states[:, 4])
    after = trained.particles(states[:, unlike])
    # Not the same vectors in another order either.
    apart = torch.cdist(after, before).amin(dim=-1).amax(dim=-1)
    assert apart.min() > 0.1
    alike = states.clone()
    alike[:, 4] = alike[:, 2]
    assert torch.equal(trained.particles(alike[:, unlike]), trained.particles(alike))


@pytest.mark.parametrize("n_tokens", [1, 5, 31, 64, 100])
def test_any_length_comes_back_whole_where_there_is_room(n_tokens: int) -> None:
    generator = torch.Generator().manual_seed(3)
    network = Autoencoder(12, 300, 4, generator=generator).requires_grad_(False)
    states = torch.randn(2, n_tokens, 12, generator=generator)
    found = network(states)
    assert found.shape == states.shape
    # Three particles of 4 numbers hold a token of 12, as long as each token has three.
    share = float((found - states).square().sum() / states.square().sum())
    assert share < 0.05


def test_training_goes_beyond_what_pca_keeps() -> None:
    # Two numbers a token that are functions of one: no straight line holds both.
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(40, 1, 16, 1, generator=generator)
    states = torch.cat([2 * first, first.square() - 1], dim=-1)
    windows = [Window(each, torch.ones(16, dtype=torch.bool)) for each in states]
    axes = principal_components(windows)
    network = Autoencoder(2, 16, 1, basis=axes, generator=generator)

    def error() -> float:
        with torch.no_grad():
            return float((network(states[:, 0]) - states[:, 0]).square().mean())

    before = error()
    train_network(network, windows, steps=80, seed=0, progress=Silent())
    assert error() < 0.85 * before
    assert not any(weight.requires_grad for weight in network.parameters())


def test_equal_seeds_give_equal_weights(subject: Subject, trained: Trained) -> None:
    again = train_autoencoder(subject, _documents(), **TINY)
    assert again.as_dict() == trained.as_dict()
    other = train_autoencoder(subject, _documents(), **{**TINY, "steps": 1, "seed": 1})
    for name, tensor in trained.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name
        assert not torch.equal(tensor, other.network.state_dict()[name]), name


def test_scores_stand_beside_their_baselines(trained: Trained) -> None:
    found = trained.evaluation
    assert [each.frame for each in found.frames] == ["embedding", "layer 0", "layer 1"]
    assert [each.layer for each in found.frames] == [None, 0, 1]
    for each in (found.total, *found.frames, *found.by_length.values()):
        assert each.mean == 0
        assert None not in (each.autoencoder, each.pca_same_size, each.pca_width)
        assert each.autoencoder <= 1
        # More principal components never keep less.
        assert each.pca_same_size >= each.pca_width - 1e-6
        assert set(each.margins) == set(COMPARED)
    assert found.n_tokens > found.n_sequences > 0
    assert "documents" in found.held_out


def test_a_useless_autoencoder_is_warned_of(subject: Subject) -> None:
    found = train_autoencoder(
        subject, _documents(), n_particles=2, width=1, steps=0, max_tokens=200
    )
    total = found.evaluation.total
    assert None not in (total.autoencoder, total.pca_width, total.pca_same_size)
    assert total.autoencoder <= max(total.pca_width, total.pca_same_size, 0)
    assert found.warning is not None
    assert found.as_dict()["evaluation"]["warning"] == found.warning


def test_a_single_document_is_cut_to_hold_out_its_end(subject: Subject, text: str) -> None:
    found = train_autoencoder(subject, [text], **TINY)
    assert "one document" in found.evaluation.held_out
    with pytest.raises(UserError):
        train_autoencoder(subject, ["kalo"], **TINY)
    with pytest.raises(SettingError) as error:
        train_autoencoder(subject, [text], **{**TINY, "width": N_HIDDEN + 1})
    assert (error.value.setting, error.value.value) == ("width", N_HIDDEN + 1)


def test_unseen_text_is_of_other_documents(subject: Subject) -> None:
    documents = [f"{word} {make_text(12, seed)}" for seed, word in enumerate(["kalo", "soten"] * 8)]
    found = gather(subject, documents, max_tokens=4000, progress=Silent())
    assert found.train
    assert found.held_out
    # Each document fits into a window, and no two are the same.
    for unseen in found.held_out:
        assert not any(torch.equal(unseen, each) for each in found.train)
    assert len(found.train) + len(found.held_out) == len(documents)
    # A window begins as a prompt does.
    first = collect_states(subject, [subject.encode(documents[0])])[0]
    assert torch.allclose(found.train[0], first, atol=1e-4)
    assert found.corpus["n_held_out_tokens"] > 0


def test_a_saved_one_is_read_back_for_its_own_model_alone(
    tmp_path: Path, subject: Subject, trained: Trained, tokenizer: Any, states: torch.Tensor
) -> None:
    trained.save(tmp_path / "a")
    again = Trained.load(tmp_path / "a", subject)
    assert torch.equal(again.particles(states), trained.particles(states))
    assert again.as_dict() == trained.as_dict()
    again.save(tmp_path / "b")
    for name in (JSON_FILE, TENSOR_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert str(tmp_path) not in (tmp_path / "a" / JSON_FILE).read_text(encoding="utf-8")
    with pytest.raises(UserError) as error:
        Trained.load(tmp_path / "a", _subject("llama", tokenizer, "b" * 64))
    assert error.value.setting == "autoencoder"
    with pytest.raises(UserError) as error:
        Trained.load(tmp_path / "nowhere")
    assert error.value.setting == "autoencoder"
    with pytest.raises(UserError):
        trained.save(tmp_path / "a")
    content = json.loads((tmp_path / "b" / JSON_FILE).read_text(encoding="utf-8"))
    content["settings"]["n_particles"] = 33
    (tmp_path / "b" / JSON_FILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError) as error:
        Trained.load(tmp_path / "b")
    assert error.value.setting == "autoencoder"


def test_clouds_of_two_prompts(trained: Trained, subject: Subject, states: torch.Tensor) -> None:
    single = collect_states(subject, [[7]])[0]
    cloud, notes = particle_cloud(trained, [states, single], chosen=[0, 2])
    assert [frame.name for frame in cloud.frames] == ["embedding", "layer 1"]
    # Six particles hold the one token of the second prompt: N_HIDDEN numbers, four a particle.
    assert cloud.vectors.shape == (2, 32 + 6, N_HIDDEN)
    assert [owner.prompt for owner in cloud.owners] == [0] * 32 + [1] * 6
    assert [owner.query for owner in cloud.owners] == [*range(32), *range(6)]
    assert [("6 of 32" in note and "prompt B" in note) for note in notes] == [False, True]
    assert {owner.kind for owner in cloud.owners} == {"query"}
    assert {owner.token for owner in cloud.owners[:32]} == set(range(states.shape[1]))
    assert {owner.token for owner in cloud.owners[32:]} == {0}
    assert bool(cloud.vectors.isfinite().all())
    with pytest.raises(ValueError, match="model"):
        particle_cloud(trained, [states[1:]])


def test_bases_that_change_nothing_decoded_change_no_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    one = Autoencoder(12, 40, 4, generator=generator).requires_grad_(False)
    # Keys read a particle's own numbers; without them any basis of a turn gives the same tokens.
    one.particle_keys.zero_()
    other = Autoencoder(12, 40, 4).requires_grad_(False)
    other.load_state_dict(one.state_dict())
    for turn in range(one.n_turns):
        part = slice(4 * turn, 4 * turn + 4)
        basis = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
        other.read[:, part] = one.read[:, part] @ basis
        other.write[part] = basis.T @ one.write[part]
    states = torch.randn(2, 9, 12, generator=generator)
    torch.testing.assert_close(other(states), one(states), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(other.encode(states), one.encode(states), atol=0.1)
    written = [each.written(each.encode(states), 9) for each in (one, other)]
    torch.testing.assert_close(*written, atol=1e-5, rtol=1e-5)


def test_what_particles_write_adds_up_to_the_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    # As many particles as hold each token whole; before training nothing else is decoded.
    network = Autoencoder(12, 5 * 3, 4, generator=generator).requires_grad_(False)
    states = torch.randn(2, 5, 12, generator=generator)
    written = network.written(network.encode(states), 5)
    summed = written.unflatten(1, (5, 3)).sum(dim=2) - network._code(5)
    assert (summed - states).square().mean() < 0.02 * states.square().mean()


def test_lines_and_map_of_a_picture_are_of_what_is_written(
    trained: Trained, states: torch.Tensor
) -> None:
    cloud, _ = particle_cloud(trained, [states])
    network = trained.network
    written = network.written(trained.particles(states), states.shape[1])
    torch.testing.assert_close(cloud.vectors, written)


def test_particles_that_repeat_others_are_not_shown() -> None:
    generator = torch.Generator().manual_seed(0)
    network = Autoencoder(24, 128, 4, generator=generator).requires_grad_(False)
    for n_tokens in (1, 2, 3, 8, 20, 22, 200):
        needed = network.needed(n_tokens)
        assert int(needed.sum()) == min(128, 6 * n_tokens)
        found = network.encode(torch.randn(1, n_tokens, 24, generator=generator))[0, needed]
        apart = torch.cdist(found, found) + 100 * torch.eye(len(found))
        if n_tokens <= 20:
            assert float(apart.min()) > 0.05


class _Constant(torch.nn.Module):
    """Gives the same numbers for every token: after training, the mean of those that count."""

    def __init__(self) -> None:
        super().__init__()
        self.given = torch.nn.Parameter(torch.zeros(2))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.given.expand_as(states)


def _trained_on(states: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    network: Any = _Constant()
    train_network(network, [Window(states, keep)], steps=150, seed=0, progress=Silent())
    found: torch.Tensor = network.given
    return found


def test_outliers_do_not_count_in_the_training() -> None:
    states = torch.full((1, 16, 2), 0.03)
    states[:, 8:] = -0.03
    keep = torch.arange(16) < 8
    torch.testing.assert_close(_trained_on(states, keep), torch.full((2,), 0.03), atol=0.01, rtol=0)
    torch.testing.assert_close(
        _trained_on(states, torch.ones(16, dtype=torch.bool)), torch.zeros(2), atol=0.01, rtol=0
    )


def test_every_frame_is_trained_on() -> None:
    # The mean of the three frames; no frame, and no two, have it.
    states = torch.tensor([0.04, -0.02, 0.01])[:, None, None].expand(3, 16, 2).clone()
    found = _trained_on(states, torch.ones(16, dtype=torch.bool))
    torch.testing.assert_close(found, torch.full((2,), 0.01), atol=0.006, rtol=0)


def test_reading_an_autoencoder_draws_no_numbers(tmp_path: Path, trained: Trained) -> None:
    trained.save(tmp_path / "a")
    before = torch.get_rng_state()
    Trained.load(tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before)


def test_an_older_file_is_refused_in_one_line(tmp_path: Path, trained: Trained) -> None:
    trained.save(tmp_path / "a")
    place = tmp_path / "a" / JSON_FILE
    content = json.loads(place.read_text(encoding="utf-8"))
    content["format_version"] = 1
    place.write_text(json.dumps(content), encoding="utf-8")
    with refused_naming(place, "version 1"):
        Trained.load(tmp_path / "a")


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "bert"])
def test_families(family: str, tokenizer: Any) -> None:
    found = train_autoencoder(_subject(family, tokenizer), _documents(), **{**TINY, "steps": 2})
    assert (found.evaluation.total.autoencoder or 0) > 0


def test_particles_of_one_token_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    # 16 particles a token of 4 numbers, where 6 would hold it whole.
    network = Autoencoder(24, 16 * 8, 4, generator=generator).requires_grad_(False)
    found = network.encode(torch.randn(1, 8, 24, generator=generator))[0]
    apart = torch.cdist(found, found) + 100 * torch.eye(len(found))
    assert float(apart.min()) > 0.05
