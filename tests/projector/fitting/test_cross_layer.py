"""A fit that finds partners across layers: what it finds, adds, goes on with, and refuses."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import projector
from projector import Projection
from projector.errors import UserError
from projector.fitting.cross_layer import finding
from projector.fitting.cross_layer.adding import can_resume, partners_path
from projector.fitting.pipeline import run
from projector.fitting.preparing import prepare
from projector.fitting.processes import Processes
from projector.fitting.settings import FitSettings
from projector.layouts.settings import parse_layouts
from projector.statistics.cross_layer.activations import KeptActivations
from projector.statistics.cross_layer.partners import level_of
from tests.families import N_VOCABULARY
from tests.projections import contents
from tests.projector.fitting.killing import Fits
from tests.projector.fitting.test_pipeline import activations_by_hand
from tests.refused import refused

OPTIONS: dict[str, Any] = {
    "sites": ["mlp_post"],
    "max_tokens": 1200,
    "sequence_length": 40,
    "batch_size": 8,
    "keep_examples": False,
    "layouts": "linear-1d",
}
N_NEURONS = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> str:
    """Of four layers. What attention and the first MLP write is nothing, and the third layer reads
    as the first does: its neurons are copies of that one's, turned round and with other signs."""
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=N_VOCABULARY,
        hidden_size=16,
        intermediate_size=N_NEURONS,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    made = hf.LlamaForCausalLM(config)
    layers = made.model.layers
    with torch.no_grad():
        for layer in layers[:3]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.gate_proj.weight.mul_(30)
        for layer in layers[:2]:
            layer.mlp.down_proj.weight.zero_()
        for name, sign in (("gate_proj", 1), ("up_proj", -2)):
            ours = getattr(layers[0].mlp, name).weight
            getattr(layers[2].mlp, name).weight.copy_(sign * ours.flip(0))
    folder = tmp_path_factory.mktemp("models") / "copies"
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def straight(
    model: str, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Projection]:
    """A fit with partners that nothing disturbed, and its folder."""
    out = tmp_path_factory.mktemp("straight") / "out"
    return out, projector.fit(model, str(text_file), out=out, cross_layer=True, **OPTIONS)


def test_partners_equal_those_of_activations_gathered_by_hand(
    straight: tuple[Path, Projection], model: str, text_file: Path
) -> None:
    given = {name: value for name, value in OPTIONS.items() if name != "layouts"}
    job = prepare(model, str(text_file), FitSettings(**given))
    rows = {
        layer: torch.cat(activations_by_hand(job, layer, "mlp_post")).double().numpy()
        for layer in range(4)
    }
    projection = straight[1]
    assert projection.cross_layer is not None
    assert projection.cross_layer.n_tokens == 1200
    for layer in range(4):
        partners = projection.partners(layer)
        for found, others in (
            (partners.earlier, range(layer)),
            (partners.later, range(layer + 1, 4)),
        ):
            if not others:
                assert set(found.layer.flatten().tolist()) == {-1}
                assert not found.rho.isfinite().any()
                continue
            beside = np.concatenate([rows[i] for i in others], axis=1)
            rho = np.corrcoef(rows[layer].T, beside.T)[:N_NEURONS, N_NEURONS:]
            best = np.sort(np.abs(rho), axis=1)[:, ::-1][:, :8]
            np.testing.assert_allclose(found.rho.abs().numpy(), best, atol=1e-5, rtol=0)
            at = (found.layer - others[0]) * N_NEURONS + found.neuron
            signed = np.take_along_axis(rho, at.long().numpy(), axis=1)
            np.testing.assert_allclose(found.rho.numpy(), signed, atol=1e-5, rtol=0)


def test_copies_planted_in_a_model_are_each_others_best_partners(
    straight: tuple[Path, Projection],
) -> None:
    projection = straight[1]
    mirrored = torch.arange(N_NEURONS).flip(0)
    for found, other in (
        (projection.partners(2).earlier, 0),
        (projection.partners(0).later, 2),
    ):
        torch.testing.assert_close(found.rho[:, 0], -torch.ones(N_NEURONS), atol=1e-5, rtol=0)
        assert set(found.layer[:, 0].tolist()) == {other}
        level = level_of(found)
        assert found.rotated is not None
        assert level is not None
        assert bool((found.rho[:, 0].abs() > found.rotated).all())
        assert level.n_above == level.n_neurons == N_NEURONS
        assert torch.equal(found.neuron[:, 0].long(), mirrored)
    assert projection.cross_layer is not None
    pair = projection.cross_layer.strongest(1)[0]
    assert (pair.earlier, pair.later) == (0, 2)
    assert pair.best is not None
    assert pair.rotated is not None
    assert pair.best.median == pytest.approx(1, abs=1e-5)
    # Of random directions of the same space hardly any is a neuron's copy.
    assert pair.rotated.share_above > 0.95
    assert pair.rotated.percentile_95 < 0.95


def test_partners_added_to_a_finished_fit_are_those_of_one_fit(
    straight: tuple[Path, Projection], model: str, text_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    plain = projector.fit(model, str(text_file), out=out, **OPTIONS)
    with pytest.raises(UserError) as refused:
        plain.partners(1)
    assert (refused.value.setting, refused.value.value) == ("cross_layer", False)
    before = contents(out)
    added = projector.fit(model, str(text_file), out=out, cross_layer=True, resume=True, **OPTIONS)
    assert contents(out) == contents(straight[0])
    # What was there stays as it is.
    assert before.items() <= contents(out).items()
    torch.testing.assert_close(added.partners(1).later.rho, straight[1].partners(1).later.rho)
    # And in memory.
    kept = projector.fit(model, str(text_file), cross_layer=True, **OPTIONS)
    assert kept.cross_layer == straight[1].cross_layer
    kept.save(tmp_path / "saved")
    assert contents(tmp_path / "saved") == contents(straight[0])


@pytest.mark.parametrize("stops_at", ["a batch", "a pair"])
def test_a_stopped_fit_goes_on_without_what_is_done(
    stops_at: str,
    straight: tuple[Path, Projection],
    model: str,
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    done: list[Any] = []
    target: Any = KeptActivations if stops_at == "a batch" else finding
    name = "finish" if stops_at == "a batch" else "find_pair"
    usual = getattr(target, name)

    def stopped(*args: Any, **options: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(args)
        return usual(*args, **options)

    monkeypatch.setattr(target, name, stopped)
    with pytest.raises(KeyboardInterrupt):
        projector.fit(model, str(text_file), out=out, cross_layer=True, **OPTIONS)
    assert can_resume(out)
    # The projection is whole without them.
    assert Projection.load(out).cross_layer is None
    with pytest.raises(UserError) as refused:
        projector.fit(model, str(text_file), out=out, cross_layer=True, **OPTIONS)
    assert (refused.value.setting, refused.value.value) == ("resume", False)

    # Whoever asks for the fit alone is told what is left.
    caplog.clear()
    projector.fit(model, str(text_file), out=out, resume=True, **OPTIONS)
    assert str(partners_path(out)) in caplog.text
    assert can_resume(out)
    again: list[Any] = []

    def counted(*args: Any, **options: Any) -> Any:
        again.append(args)
        return usual(*args, **options)

    monkeypatch.setattr(target, name, counted)
    projector.fit(model, str(text_file), out=out, cross_layer=True, resume=True, **OPTIONS)
    # Of four batches, or six pairs, two were done.
    assert len(again) == (2 if stops_at == "a batch" else 4)
    assert contents(out) == contents(straight[0])
    assert not partners_path(out).exists()


# Of 247 moments of the disk: within the activations, the pairs, and the projection's own files.
@pytest.mark.faults
@pytest.mark.parametrize("kill_at", [60, 150, 195, 215, 240])
def test_a_kill_within_a_write_loses_nothing(
    kill_at: int, straight: tuple[Path, Projection], model: str, text_file: Path, tmp_path: Path
) -> None:
    out, wanted = tmp_path / "out", contents(straight[0])
    projector.fit(model, str(text_file), out=out, **OPTIONS)
    plain = contents(out)
    arguments = [model, "--corpus", str(text_file), "--device", "cpu", "--sites", "mlp_post"]
    arguments += ["--max-tokens", "1200", "--sequence-length", "40", "--batch-size", "8"]
    arguments += ["--no-examples", "--layouts", "linear-1d", "--resume", "--cross-layer"]
    fits = Fits(tmp_path, arguments)
    assert fits.run(out, kill_at=kill_at) == -signal.SIGKILL, fits.said
    # Whoever opens it finds the projection without partners, or with all of them.
    is_there = Projection.load(out).cross_layer is not None
    found = {name: data for name, data in contents(out).items() if not name.startswith(".")}
    assert found == (wanted if is_there else plain)
    projector.fit(model, str(text_file), out=out, cross_layer=True, resume=True, **OPTIONS)
    found = {name: data for name, data in contents(out).items() if not name.startswith(".")}
    assert found == wanted
    assert not partners_path(out).exists()


def test_what_another_run_kept_is_not_gone_on_from(
    straight: tuple[Path, Projection], model: str, text_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(straight[0], out)
    for name in ("partners.json", "partners.safetensors"):
        (out / name).unlink()
    partners_path(out).mkdir()
    (partners_path(out) / "run.json").write_text('{"run": {}, "threads": 1, "n_columns": 5}')
    (partners_path(out) / "pair-000-001.safetensors").write_bytes(b"another's")
    projector.fit(model, str(text_file), out=out, cross_layer=True, resume=True, **OPTIONS)
    assert contents(out) == contents(straight[0])
    # Somebody's own files are left alone.
    partners_path(out).mkdir()
    (partners_path(out) / "mine.txt").write_text("mine")
    with pytest.raises(UserError) as refused:
        projector.fit(model, str(text_file), out=out, cross_layer=True, force=True, **OPTIONS)
    assert refused.value.setting == "out"


def test_partners_by_other_tokens_are_replaced_only_by_force(
    straight: tuple[Path, Projection], model: str, text_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(straight[0], out)
    asked = {**OPTIONS, "cross_layer": True, "resume": True, "cross_layer_tokens": 400}
    with pytest.raises(UserError) as refused:
        projector.fit(model, str(text_file), out=out, **asked)
    assert (refused.value.setting, refused.value.value) == ("cross_layer_tokens", 400)
    assert contents(out) == contents(straight[0])
    found = projector.fit(model, str(text_file), out=out, force=True, **asked)
    assert found.cross_layer is not None
    # Whole sequences of 39 tokens that count.
    assert found.cross_layer.n_tokens == 390
    # A fit that asks for none leaves those that are there, and another one replaces all.
    projector.fit(model, str(text_file), out=out, resume=True, **OPTIONS)
    assert Projection.load(out).cross_layer == found.cross_layer
    another = {**OPTIONS, "max_tokens": 800}
    projector.fit(model, str(text_file), out=out, force=True, **another)
    assert not list(out.glob("partners*"))


def test_narrow_tiles_give_the_same(
    straight: tuple[Path, Projection], model: str, text_file: Path
) -> None:
    given = {name: value for name, value in OPTIONS.items() if name != "layouts"}
    settings = FitSettings(**given, cross_layer=True)
    job = prepare(model, str(text_file), settings, parse_layouts("linear-1d"))
    assert job.cross_layer is not None
    object.__setattr__(job.cross_layer, "n_columns", 5)
    found = run(job)
    for layer in range(4):
        one, other = found.partners(layer), straight[1].partners(layer)
        for side in ("earlier", "later"):
            # Copies in two layers, of opposite signs, are equally strong: either may come first.
            # Products in float32 are within 1e-5 of those in float64.
            rho = [getattr(each, side).rho.abs() for each in (one, other)]
            torch.testing.assert_close(*rho, atol=1e-5, rtol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("changed", "setting", "value"),
    [
        ({"layers": [1]}, "layers", [1]),
        ({"sites": ["attn_out"]}, "sites", "attn_out"),
        ({"cross_layer_tokens": 5}, "cross_layer_tokens", 5),
    ],
)
def test_what_can_have_no_partners_is_refused_in_one_line(
    changed: dict[str, Any], setting: str, value: Any, model: str, text_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError) as refused:
        projector.fit(model, str(text_file), out=out, cross_layer=True, **{**OPTIONS, **changed})
    assert (refused.value.setting, refused.value.value) == (setting, value)
    assert "\n" not in str(refused.value)
    assert not out.exists()


def test_a_mixture_of_experts_says_why_it_has_no_partners(
    checkpoint: Callable[[str], Path], text_file: Path
) -> None:
    options = {**OPTIONS, "sites": None}
    with refused("sites", "mlp_out,attn_out", "experts", "mlp_post"):
        projector.fit(str(checkpoint("mixtral")), str(text_file), cross_layer=True, **options)


def test_several_processes_are_refused(model: str, text_file: Path) -> None:
    given = {name: value for name, value in OPTIONS.items() if name != "layouts"}
    job = prepare(model, str(text_file), FitSettings(**given, cross_layer=True))
    with pytest.raises(UserError) as refused:
        run(job, processes=Processes(2, 0))
    assert (refused.value.setting, refused.value.value) == ("cross_layer", True)
