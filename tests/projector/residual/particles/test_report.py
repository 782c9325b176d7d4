"""The whole picture in one call, over five families: it agrees with the model, and with itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from projector.errors import SettingError, UserError
from projector.model.loading import LoadedModel
from projector.residual.particles.artifact import (
    JSON_FILE,
    TENSOR_FILE,
    read_particles,
    write_particles,
)
from projector.residual.particles.records import LayerTime
from projector.residual.particles.report import layer_time
from projector.residual.particles.states import collect_states
from projector.residual.particles.written.clouds import contribution_cloud
from projector.residual.subject import Subject
from tests.families import build

FIVE = ("llama", "gpt2", "gpt_neox", "gemma2", "bert")
A, B = "ka lo mi ten ra so vel", "ka lo du ten ra so vel"


def subject_of(family: str, tokenizer: Any, seed: int = 0) -> Subject:
    return Subject(LoadedModel(build(family, seed), tokenizer, family, f"{family}{seed}"))


@pytest.fixture
def llama(tokenizer: Any) -> Subject:
    return subject_of("llama", tokenizer)


def check_lines(found: LayerTime, states: torch.Tensor) -> None:
    """The lines lead to the nearest in full space, worked out plainly."""
    apart = torch.cdist(
        states.double(), states.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    nearest = apart.sort(dim=-1).values[..., : found.distances.shape[-1]]
    torch.testing.assert_close(found.distances.double(), nearest, rtol=1e-4, atol=1e-5)
    given = apart.gather(2, found.neighbours.long())
    torch.testing.assert_close(given, nearest, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FIVE)
def test_two_prompts_in_five_families(family: str, tokenizer: Any) -> None:
    subject = subject_of(family, tokenizer)
    found = layer_time(subject, A, B)
    ids = [list(each.ids) for each in found.prompts]
    states = torch.cat(collect_states(subject, ids), dim=1)
    n = sum(map(len, ids))
    assert found.positions.shape == (3, n, 3)
    assert found.positions.isfinite().all()
    torch.testing.assert_close(found.norms, states.norm(dim=-1))
    torch.testing.assert_close(found.displacements[1:], (states[1:] - states[:-1]).norm(dim=-1))
    assert not found.displacements[0].any()
    check_lines(found, states)
    ends = [len(ids[0]) - 1, n - 1]
    torch.testing.assert_close(found.last_states, states[:, ends].transpose(0, 1))
    assert [each.name for each in found.frames] == ["embedding", "layer 0", "layer 1"]
    content = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert (content["n_particles"], content["n_layers"], content["n_frames"]) == (n, 2, 3)
    assert len(content["fidelity"]) == 3
    assert content["first_difference"]["position"] == 3
    assert content["shared"]["beginning"] == 3
    partners = found.tensors()["partners"].tolist()
    assert [ids[0][a] for a, _ in partners[:3]] == [
        ids[1][b - len(ids[0])] for _, b in partners[:3]
    ]
    if family == "bert":
        assert content["predictions"] is None
        assert content["reasons"]["predictions"]
        assert content["causal_zeros"] is None
        return
    assert content["causal_zeros"]["max_error"] <= 1e-5
    # Before the first unlike token both prompts' particles are in the same places.
    first = found.positions[:, :3]
    torch.testing.assert_close(first, found.positions[:, len(ids[0]) : len(ids[0]) + 3])
    assert found.predictions is not None
    for prompt, own in enumerate(ids):
        with torch.no_grad():
            shares = subject.model(**subject.inputs(own)).logits[0].float().softmax(-1)
        for token, told in enumerate(found.predictions[prompt][-1]):
            assert told is not None
            assert told.id == int(shares[token].argmax())
            assert told.probability == pytest.approx(float(shares[token].max()), rel=1e-3)


@pytest.mark.parametrize("family", FIVE[:4])
def test_parts_of_a_token_add_up_in_the_picture_too(family: str, tokenizer: Any) -> None:
    subject = subject_of(family, tokenizer)
    found = layer_time(subject, A, particles="contributions", n_groups=2, keep_outliers=True)
    ids = list(found.prompts[0].ids)
    (states,) = collect_states(subject, [ids])
    tokens = torch.tensor([each.token for each in found.owners])
    n_parts = len(found.parts)
    assert len(found.owners) == n_parts * len(ids)
    # What is written stays as it is, and so do its places, once it is born.
    vectors = contribution_cloud(subject, [ids], settings=found.settings).vectors
    places = found.positions[-1]
    # The map is linear and leaves the mean in, so that it takes sums to sums.
    axes = torch.linalg.lstsq(vectors.double(), places.double(), driver="gelsd").solution
    torch.testing.assert_close(vectors.double() @ axes, places.double(), atol=1e-4, rtol=0)
    sums = torch.zeros(3, len(ids), 3).index_add_(1, tokens, found.positions)
    torch.testing.assert_close(states.double() @ axes, sums.double(), atol=1e-3, rtol=0)
    kinds = set(found.part_kinds)
    assert {"embedding", "head", "mlp"} <= kinds
    written = found.tensors()
    assert len(written["partners"]) == 0
    parts = written["owner_part"]
    assert int(parts.max()) == n_parts - 1
    assert found.born[parts == found.parts.index("head 1.0")].tolist() == [2] * len(ids)


def test_contributions_of_a_model_whose_stream_is_no_sum_are_refused(tokenizer: Any) -> None:
    with pytest.raises(SettingError) as caught:
        layer_time(subject_of("bert", tokenizer), A, particles="contributions")
    assert (caught.value.setting, caught.value.value) == ("particles", "contributions")


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_an_autoencoder_is_trained_saved_and_used_again(
    family: str, tokenizer: Any, text_file: Path, tmp_path: Path
) -> None:
    subject = subject_of(family, tokenizer)
    asked: dict[str, Any] = {"particles": "autoencoder", "reduction": "pca", "n_lines": 2}
    trained = {"n_particles": 12, "width": 4, "steps": 5, "corpus": str(text_file)}
    found = layer_time(subject, A, B, **asked, **trained, max_tokens=1000)
    assert len(found.owners) == 24
    # The same query of both prompts.
    assert found.tensors()["partners"].tolist() == [[k, 12 + k] for k in range(12)]
    assert found.autoencoder is not None
    total = found.autoencoder["evaluation"]["total"]
    assert total["mean"] == 0
    assert {"autoencoder", "pca_same_size", "untrained"} <= set(total)
    write_particles(found, tmp_path / "out")
    # The folder of the picture stands for the autoencoder in it.
    again = layer_time(subject, A, B, **asked, autoencoder=tmp_path / "out")
    torch.testing.assert_close(again.positions, found.positions)
    # It goes on into the folder of the new picture.
    write_particles(again, tmp_path / "again")
    for name in ("autoencoder.json", "autoencoder.safetensors"):
        first, second = (tmp_path / each / "autoencoder" / name for each in ("out", "again"))
        assert first.read_bytes() == second.read_bytes()
    other = subject_of(family, tokenizer, seed=1)
    with pytest.raises(UserError) as caught:
        layer_time(other, A, **asked, autoencoder=tmp_path / "out")
    assert caught.value.setting == "autoencoder"


def test_layers_that_are_shown_are_those_asked_for(llama: Subject) -> None:
    every, some = layer_time(llama, A, B), layer_time(llama, A, B, layers=[1], dim=2, n_lines=0)
    assert [each.layer for each in some.frames] == [None, 1]
    torch.testing.assert_close(some.norms, every.norms[[0, 2]])
    assert not some.positions[..., 2].any()
    content = some.as_dict()
    assert content["n_layers"] == 1
    # The comparison is of all layers; its frames are those that are shown.
    rows = content["first_difference"]["per_frame"]
    assert [(each["layer"], each["frame"]) for each in rows] == [(None, 0), (0, None), (1, 1)]
    assert some.tensors()["neighbours"].shape == (2, len(some.owners), 0)


def test_a_corpus_fits_the_map(llama: Subject, text_file: Path) -> None:
    asked: dict[str, Any] = {"fit": "corpus", "corpus": str(text_file), "max_tokens": 500}
    alone, other = layer_time(llama, A, **asked), layer_time(llama, "mi ka vel so", **asked)
    # The map is the corpus': what both prompts begin with, the special token, is in one place.
    torch.testing.assert_close(alone.positions[:, 0], other.positions[:, 0])
    own = layer_time(llama, A), layer_time(llama, "mi ka vel so")
    assert not torch.allclose(own[0].positions[:, 0], own[1].positions[:, 0])
    assert any("made-up.txt" in note for note in alone.notes)


@pytest.mark.parametrize("reduction", ["umap", "stress"])
def test_too_few_particles_are_one_line(reduction: str, llama: Subject) -> None:
    settings: dict[str, Any] = {"reduction": reduction}
    if reduction == "umap":
        with pytest.raises(SettingError) as caught:
            layer_time(llama, A, neighbours=60, **settings)
        assert (caught.value.setting, caught.value.value) == ("neighbours", 60)
    else:
        assert layer_time(llama, A, **settings).metric == "cosine"


def test_a_prompt_of_one_token_is_refused_and_of_two_is_drawn(llama: Subject) -> None:
    for prompt in ("k", [7]):
        with pytest.raises(SettingError) as caught:
            layer_time(llama, prompt)
        assert caught.value.setting == "prompt"
        # The library doesn't know which command or page it is used by.
        assert "`" not in str(caught.value)
    assert len(layer_time(llama, [7, 8], keep_outliers=True).owners) == 2
    assert len(layer_time(llama, "k", "z", keep_outliers=True).prompts) == 2


def test_ids_are_whole_and_pairs_are_of_two_prompts(llama: Subject) -> None:
    with pytest.raises(UserError):
        layer_time(llama, [5, 5.5])  # type: ignore[list-item]
    with pytest.raises(SettingError) as caught:
        layer_time(llama, A, n_pairs=0)
    assert (caught.value.setting, caught.value.value) == ("n_pairs", 0)
    content = layer_time(llama, A, B, n_pairs=0).as_dict()
    assert content["first_difference"]["n_samples"] == 0
    assert content["reasons"]["first_difference"]


def test_a_prompt_beyond_the_context_is_named(llama: Subject) -> None:
    with pytest.raises(UserError):
        layer_time(llama, [5] * 65)
    with pytest.raises(UserError) as caught:
        layer_time(llama, A, [5] * 65)
    assert caught.value.setting == "prompt_b"
    with pytest.raises(SettingError) as empty:
        layer_time(llama, A, "")
    assert empty.value.setting == "prompt_b"


def test_a_layer_that_the_model_lacks_is_named(llama: Subject) -> None:
    with pytest.raises(SettingError) as caught:
        layer_time(llama, A, layers=[0, 7])
    assert (caught.value.setting, caught.value.value) == ("layers", 7)


def test_equal_runs_give_equal_bytes_and_read_back(llama: Subject, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        write_particles(layer_time(llama, A, B), folder)
    for name in (JSON_FILE, TENSOR_FILE):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert str(tmp_path) not in (folders[0] / JSON_FILE).read_text()
    report, arrays = read_particles(folders[0])
    assert report["kind"] == "layer-time"
    assert arrays["positions"].shape == (report["n_frames"], report["n_particles"], 3)


@pytest.mark.parametrize(
    "change",
    [
        {"n_particles": 3},
        {"n_frames": 9},
        {"frames": []},
        {"prompts": []},
        {"kind": "contrast"},
        {"version": 99},
        None,
    ],
)
def test_damaged_files_are_one_line(
    change: dict[str, Any] | None, llama: Subject, tmp_path: Path
) -> None:
    write_particles(layer_time(llama, A), tmp_path)
    if change is None:
        (tmp_path / TENSOR_FILE).write_bytes(b"no tensors")
    else:
        report = json.loads((tmp_path / JSON_FILE).read_text())
        (tmp_path / JSON_FILE).write_text(json.dumps({**report, **change}))
    with pytest.raises(UserError) as caught:
        read_particles(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_particles_is_one_line(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError):
            read_particles(folder)
