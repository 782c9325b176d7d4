"""One pruned model, from a name to a checkpoint on disk."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from projector.model.hashing import hash_checkpoint
from projector.model.loading import load_model
from pruning import pruning as pruning_module
from pruning import saving
from pruning.layerwise.making import LayerMaker
from pruning.methods.plan import PLAN_FILE
from pruning.pruning import prune_model
from pruning.saving import load_plan
from pruning.settings import PruneSettings
from pruning.surgery import apply_plan
from tests.conftest import make_text
from tests.families import N_LAYERS, N_NEURONS, build
from tests.pruning.refit.test_refits import logits
from tests.pruning.test_preparing import fit
from tests.refused import refused, refused_by_the_disk, refused_naming

Checkpoint = Callable[[str], Path]
QUICK = PruneSettings(method="obs", refit="none", n_sequences=20, n_steps=3)


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    hf.utils.logging.disable_progress_bar()
    yield
    hf.utils.logging.enable_progress_bar()


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not loaded again in a fresh process, which takes seconds: that is tested by itself."""
    monkeypatch.setattr(saving, "_compare", lambda *args, **options: (0.0, False))


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("calibration") / "own.txt"
    path.write_text(make_text(1500, seed=21), encoding="utf-8")
    return str(path)


def prune(model: Path, settings: PruneSettings, out: Path, calibration: str, **options: Any) -> Any:
    options = {"sequence_length": 32, "device": "cpu"} | options
    return prune_model(str(model), settings, out, calibration=calibration, **options)


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt_neox", "opt", "bert"])
@pytest.mark.parametrize("refit", ["none", "reconstruct"])
def test_what_is_told_is_what_is_saved(
    family: str, refit: str, checkpoint: Checkpoint, calibration: str, tmp_path: Path
) -> None:
    folder = checkpoint(family)
    made = prune(folder, replace(QUICK, refit=refit, round_to=4), tmp_path / "out", calibration)
    assert made.widths == [28] * N_LAYERS
    kind: Any = hf.AutoModelForMaskedLM if family == "bert" else hf.AutoModelForCausalLM
    dense, pruned = (kind.from_pretrained(p).eval() for p in (folder, tmp_path / "out"))
    counts = [sum(p.numel() for p in model.parameters()) for model in (dense, pruned)]
    assert [made.n_parameters_before, made.n_parameters] == counts
    assert made.removed_share == pytest.approx(1 - counts[1] / counts[0])
    assert counts[1] < counts[0]
    assert made.saved.weights_sha256 == hash_checkpoint(tmp_path / "out")
    assert bool(logits(pruned).isfinite().all())
    values = made.as_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["model"] == str(tmp_path / "out")
    assert (values["method"], values["refit"], values["sparsity"]) == ("obs", refit, 0.3)


def test_the_plan_gives_the_weights_again(
    checkpoint: Checkpoint, calibration: str, text_file: Path, tmp_path: Path
) -> None:
    folder = checkpoint("qwen2")
    projection = fit(folder, text_file, tmp_path / "map")
    settings = replace(QUICK, method="poles", sparsity=0.4, seed=3)
    prune(folder, settings, tmp_path / "out", calibration, projection=projection)
    plan = load_plan(tmp_path / "out")
    assert (plan.method, plan.sparsity, plan.seed) == ("poles", 0.4, 3)
    assert plan.widths == [24] * N_LAYERS
    assert plan.layers[0].stand_ins
    again: Any = apply_plan(build("qwen2"), plan)
    theirs = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(t, theirs[name]) for name, t in again.state_dict().items())
    facts = json.loads((tmp_path / "out" / PLAN_FILE).read_text(encoding="utf-8"))
    assert facts["refit"] == {"kind": "none"}
    # Every setting, a later one too.
    assert facts["settings"] == json.loads(json.dumps(asdict(settings)))
    sha256 = hash_checkpoint(folder)
    assert facts["model"] == {"id": "qwen2", "sha256": sha256}
    assert facts["calibration"]["source"] == "own.txt"
    assert facts["calibration"]["n_sequences"] == 20
    assert facts["calibration"]["n_tokens"] == 20 * 32
    assert facts["projection"] is not None
    # No artifact holds a place.
    assert str(tmp_path) not in (tmp_path / "out" / PLAN_FILE).read_text(encoding="utf-8")


class Stages:
    """Keeps what it is told: of each stage its units, and how many were done."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int | None, int]] = []

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        self.told.append((stage, total, 0))

    def advance(self, n: int) -> None:
        stage, total, n_done = self.told[-1]
        self.told[-1] = (stage, total, n_done + n)

    def end(self) -> None:
        pass


@pytest.mark.parametrize(
    ("changes", "finds_poles", "refits"),
    [
        ({"method": "flap"}, False, False),
        ({"method": "flap", "refit": "least-squares"}, False, True),
        ({"method": "poles", "refit": "reconstruct"}, True, True),
        # Nothing goes, so that there is nothing to refit.
        ({"method": "flap", "refit": "reconstruct", "sparsity": 0.0}, False, False),
        ({"method": "flap", "refit": "least-squares", "sparsity": 0.0}, False, False),
    ],
)
def test_only_what_is_done_is_told_and_to_its_end(
    changes: dict[str, Any],
    finds_poles: bool,
    refits: bool,
    checkpoint: Checkpoint,
    calibration: str,
    text_file: Path,
    tmp_path: Path,
) -> None:
    """A projection is at hand, and read by the method that takes one."""
    folder = checkpoint("qwen2")
    projection = fit(folder, text_file, tmp_path / "map")
    stages = Stages()
    settings = replace(QUICK, **changes)
    out = tmp_path / "out"
    prune(folder, settings, out, calibration, projection=projection, progress=stages)
    names = [stage for stage, _, _ in stages.told]
    assert ("Finding poles" in names) == finds_poles
    assert any("efitting" in name for name in names) == refits
    for stage, total, n_done in stages.told:
        assert total is None or n_done == total, stage
    facts = json.loads((out / PLAN_FILE).read_text(encoding="utf-8"))
    assert (facts["projection"] is not None) == finds_poles
    assert (facts["poles"] is not None) == finds_poles


def test_a_projection_of_another_model_is_refused_even_if_it_is_not_needed(
    checkpoint: Checkpoint, calibration: str, text_file: Path, tmp_path: Path
) -> None:
    projection = fit(checkpoint("qwen2"), text_file, tmp_path / "map")
    with refused_naming(f"'{projection}'", "'llama'"):
        prune(checkpoint("llama"), QUICK, tmp_path / "a", calibration, projection=projection)
    nowhere = tmp_path / "nowhere"
    with refused_naming(f"'{nowhere}'", "`projector fit`"):
        prune(checkpoint("llama"), QUICK, tmp_path / "a", calibration, projection=nowhere)


def test_two_runs_give_equal_bytes_and_another_seed_others(
    checkpoint: Checkpoint, calibration: str, tmp_path: Path
) -> None:
    settings = replace(QUICK, refit="reconstruct", method="random")
    hashes = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prune(checkpoint("llama"), replace(settings, seed=seed), tmp_path / name, calibration)
        files = {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}
        hashes.append(files)
    assert hashes[0] == hashes[1]
    assert hashes[0]["model.safetensors"] != hashes[2]["model.safetensors"]


def test_a_bfloat16_checkpoint_stays_one(calibration: str, tokenizer: Any, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    build("llama").to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    prune(folder, replace(QUICK, refit="least-squares"), tmp_path / "out", calibration)
    loaded = load_model(str(tmp_path / "out"), device="cpu", with_head=True)
    assert loaded.stored_dtype == torch.bfloat16
    dense, pruned = (
        hf.AutoModelForCausalLM.from_pretrained(p, dtype="auto") for p in (folder, tmp_path / "out")
    )
    assert pruned.dtype == torch.bfloat16
    # What is no MLP's is as it was, to the bit.
    theirs = dense.state_dict()
    for name, tensor in pruned.state_dict().items():
        if "mlp" not in name:
            assert torch.equal(tensor, theirs[name])


def test_nothing_removed_is_the_model(
    checkpoint: Checkpoint, calibration: str, tmp_path: Path
) -> None:
    made = prune(
        checkpoint("gpt2"),
        replace(QUICK, sparsity=0.0, refit="reconstruct"),
        tmp_path / "out",
        calibration,
    )
    assert made.removed_share == 0
    assert made.widths == [N_NEURONS] * N_LAYERS
    assert made.saved.weights_sha256 == hash_checkpoint(checkpoint("gpt2"))


def test_what_fails_on_the_way_leaves_nothing(
    checkpoint: Checkpoint, calibration: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused("refit", "bias", "Qwen2ForCausalLM"):
        prune(checkpoint("qwen2"), replace(QUICK, refit="bias"), tmp_path / "out", calibration)
    with refused("allocation", None, "Qwen2ForCausalLM"):
        prune(
            checkpoint("qwen2"), replace(QUICK, allocation="global"), tmp_path / "out", calibration
        )

    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert not list(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(saving, "_compare", full)
        with refused_by_the_disk(errno.ENOSPC, tmp_path / "out"):
            prune(checkpoint("qwen2"), QUICK, tmp_path / "out", calibration)
    # But for the layers that are made, from which another run saves without planning again.
    assert [path.name for path in tmp_path.iterdir()] == ["out.layers"]
    with monkeypatch.context() as patch:
        for name in ("_make", "_walk"):
            patch.setattr(LayerMaker, name, None)
        made = prune(checkpoint("qwen2"), QUICK, tmp_path / "out", calibration, resume=True)
    assert made.widths == [28] * N_LAYERS
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_wrong_orders_are_refused_before_a_model_is_loaded(
    calibration: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning_module, "load_prunable", None)
    nowhere = tmp_path / "nowhere"
    with refused("projection"):
        prune(nowhere, replace(QUICK, method="poles"), tmp_path / "out", calibration)
    with refused_naming("'nowhere.txt'", "hf:NAME"):
        prune(nowhere, QUICK, tmp_path / "out", "nowhere.txt")
    (tmp_path / "file").write_text("mine")
    with refused("out", str(tmp_path / "file")):
        prune(nowhere, QUICK, tmp_path / "file", calibration)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("method", "magic"),
        ("refit", "magic"),
        ("sparsity", 1.0),
        ("sparsity", -0.1),
        ("sparsity", float("nan")),
        ("n_sequences", 4),
        ("n_steps", 0),
        ("seed", -1),
        ("seed", 2**31),
        ("round_to", 0),
        ("allocation", "fair"),
    ],
)
def test_settings_that_can_not_be(setting: str, value: Any) -> None:
    with refused(setting, value):
        replace(QUICK, **{setting: value})
