"""Pruned checkpoints: plain ones, whole or not at all."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import Tensor

from projector.model.hashing import hash_checkpoint
from projector.model.loading import load_model
from pruning import saving
from pruning.methods.plan import PLAN_FILE, LayerPlan, PruningPlan, StandIn
from pruning.saving import check_out, load_plan, save_pruned
from pruning.surgery import apply_plan
from tests.families import ENCODERS, N_LAYERS, N_NEURONS, build
from tests.pruning.refit.test_refits import logits, spread_plan
from tests.refused import refused, refused_by_the_disk, refused_naming

FACTS = {"refit": {"kind": "none"}, "model": {"id": "tiny", "sha256": "0" * 64}}
FAMILIES = ("llama", "qwen2", "phi3", "gemma3", "gpt2", "opt", "falcon", "gpt_neox", "bert",
            "roberta")  # fmt: skip
_PRUNED = PruningPlan(
    "poles",
    0.3,
    5,
    "uniform",
    4,
    tuple(
        LayerPlan(
            N_NEURONS,
            layer.kept,
            (
                StandIn(layer.removed[0], layer.kept[3], 0.1 + 1 / 3),
                StandIn(layer.removed[1], layer.kept[0], -1e-9),
            ),
        )
        for layer in spread_plan().layers
    ),
)


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    hf.utils.logging.disable_progress_bar()
    yield
    hf.utils.logging.enable_progress_bar()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load again in this process: a fresh one takes seconds, and is tested by itself."""

    def run(arguments: list[str], **options: Any) -> Any:
        # python -I -c CODE FOLDER AUTO INPUTS OUTPUTS TEXT TRUST
        blocked = {name: sys.modules[name] for name in ("projector", "pruning")}
        before = sys.argv
        sys.argv = ["-c", *arguments[4:]]
        try:
            exec(arguments[3], {})
        except Exception as error:
            return subprocess.CompletedProcess(arguments, 1, "", f"Traceback\n{error}")
        finally:
            sys.argv = before
            sys.modules.update(blocked)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(saving.subprocess, "run", run)


def prune(family: str = "llama", dtype: torch.dtype = torch.float32) -> Any:
    return apply_plan(build(family).to(dtype), _PRUNED)


def save(out: Path, tokenizer: Any, model: Any = None, **options: Any) -> Any:
    return save_pruned(model or prune(), tokenizer, _PRUNED, FACTS, out, **options)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


_STRANGER = """
import sys, json
sys.modules["projector"] = sys.modules["pruning"] = None
for name in ("projector", "pruning"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit("this project can be imported")
import torch, transformers
from safetensors.torch import save_file
transformers.utils.logging.disable_progress_bar()
folder, encoders = sys.argv[1], sys.argv[2].split(",")
found, facts = {}, {}
for family in sys.argv[3].split(","):
    kind = "AutoModelForMaskedLM" if family in encoders else "AutoModelForCausalLM"
    model, report = getattr(transformers, kind).from_pretrained(
        f"{folder}/{family}", output_loading_info=True, dtype="auto")
    model.eval()
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(2, 320, (3, 11), generator=generator)
    with torch.no_grad():
        found[family] = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    tokenizer = transformers.AutoTokenizer.from_pretrained(f"{folder}/{family}")
    facts[family] = [type(model).__name__, str(model.dtype), len(tokenizer("kalo mi").input_ids),
        sorted(k for part in ("missing_keys", "unexpected_keys", "mismatched_keys")
               for k in report[part])]
save_file(found, f"{folder}/found.safetensors")
print(json.dumps(facts))
"""


@pytest.mark.usefixtures("here")
def test_a_stranger_loads_every_family(tokenizer: Any, tmp_path: Path) -> None:
    """In a process that can't import this project, with plain transformers."""
    expected: dict[str, Tensor] = {}
    kinds = {}
    for family in FAMILIES:
        model = prune(family, torch.bfloat16 if family == "qwen2" else torch.float32)
        expected[family], kinds[family] = logits(model), type(model).__name__
        saved = save(tmp_path / family, tokenizer, model)
        assert saved.folder == tmp_path / family
        assert saved.greatest_difference < 1e-4
        assert saved.weights_sha256 == hash_checkpoint(tmp_path / family)
        assert not any(tmp_path.glob(".*"))
    arguments = [str(tmp_path), ",".join(ENCODERS), ",".join(FAMILIES)]
    done = subprocess.Popen(
        [sys.executable, "-I", "-c", _STRANGER, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    out, error = done.communicate(timeout=300)
    assert done.returncode == 0, error
    found, facts = load_file(tmp_path / "found.safetensors"), json.loads(out)
    for family in FAMILIES:
        torch.testing.assert_close(found[family], expected[family], rtol=1e-5, atol=1e-5)
        dtype = "torch.bfloat16" if family == "qwen2" else "torch.float32"
        assert facts[family][:2] == [kinds[family], dtype]
        assert facts[family][2] > 1
        assert facts[family][3] == []


def test_a_fresh_process_loads_what_is_saved(tokenizer: Any, tmp_path: Path) -> None:
    model = prune("bert")
    expected = logits(model)
    saved = save(tmp_path / "out", tokenizer, model)
    assert saved.greatest_difference < 1e-5
    loaded = hf.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(logits(loaded), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.usefixtures("here")
def test_the_plan_beside_it_is_the_plan(tokenizer: Any, tmp_path: Path) -> None:
    save(tmp_path / "out", tokenizer)
    plan = load_plan(tmp_path / "out")
    assert plan == _PRUNED
    values = json.loads((tmp_path / "out" / PLAN_FILE).read_text(encoding="utf-8"))
    assert {k: v for k, v in values.items() if k not in ("plan", "files")} == FACTS
    assert set(values["files"]) == {path.name for path in (tmp_path / "out").iterdir()}
    # Applied again, it gives the same weights.
    again: Any = apply_plan(build("llama"), plan)
    loaded = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    theirs = loaded.state_dict()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, theirs[name])


@pytest.mark.usefixtures("here")
def test_the_type_of_the_checkpoint_and_the_generation_config_are_kept(
    tokenizer: Any, tmp_path: Path
) -> None:
    # As it is pruned: loaded as float32, stored as bf16.
    model = prune()
    model.generation_config.max_new_tokens = 17
    model.generation_config.repetition_penalty = 1.25
    save(tmp_path / "out", tokenizer, model, dtype=torch.bfloat16)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert config.get("dtype", config.get("torch_dtype")) == "bfloat16"
    loaded = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert loaded.dtype == torch.bfloat16
    assert loaded.generation_config.max_new_tokens == 17
    assert loaded.generation_config.repetition_penalty == 1.25
    assert loaded.config.intermediate_size == len(_PRUNED.layers[0].kept)


@pytest.mark.usefixtures("here")
def test_tied_weights_are_stored_once_and_stay_tied(tokenizer: Any, tmp_path: Path) -> None:
    model = prune("gpt2")
    save(tmp_path / "out", tokenizer, model, dtype=torch.float16)
    loaded = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert loaded.dtype == torch.float16
    assert (
        loaded.get_output_embeddings().weight.data_ptr()
        == loaded.get_input_embeddings().weight.data_ptr()
    )
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")


# Folders in use


def test_folders_in_use_are_refused_before_any_work(tmp_path: Path) -> None:
    check_out(tmp_path / "new" / "deep", force=False)
    (tmp_path / "empty").mkdir()
    check_out(tmp_path / "empty", force=False)
    used = tmp_path / "used"
    used.mkdir()
    (used / "thesis.txt").write_text("mine")
    for force in (False, True):
        with refused("out", None, used):
            check_out(used, force=force)
        with refused("out", str(used / "thesis.txt")):
            check_out(used / "thesis.txt", force=force)
    (used / PLAN_FILE).write_text("{}")
    with refused("out", None, "force=True"):
        check_out(used, force=False)
    with refused_naming(used / PLAN_FILE, "plan", "`pruning prune`"):
        check_out(used, force=True)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with refused("out", str(tmp_path / "link")):
        check_out(tmp_path / "link", force=True)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("opener", ["plan", "model", "check"])
def test_a_model_that_a_killed_one_had_moved_aside_is_found_by_the_next(
    opener: str, tokenizer: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    save(out, tokenizer)
    before = contents(out)
    out.rename(tmp_path / ".out.replaced")
    if opener == "plan":
        load_plan(out)
    elif opener == "model":
        load_model(str(out))
    else:
        with refused("out", None, out, "force=True"):
            check_out(out, force=False)
    assert contents(out) == before


@pytest.mark.usefixtures("here")
def test_force_replaces_the_checkpoint_and_nothing_else(tokenizer: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    save(out, tokenizer)
    before = contents(out)
    with refused("out", None, "force=True"):
        save(out, tokenizer)
    assert contents(out) == before
    for other in ("extra.txt", "map/projection.json", "empty/"):
        path = out / other
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if other.endswith("/") else path.write_text("someone's")
        with refused("out", None, out, Path(other).parts[0]):
            save(out, tokenizer, force=True)
        path.rmdir() if other.endswith("/") else path.unlink()
        if path.parent != out:
            path.parent.rmdir()
    assert contents(out) == before
    save(out, tokenizer, prune("gpt2"), force=True)
    assert type(hf.AutoModelForCausalLM.from_pretrained(out)).__name__ == "GPT2LMHeadModel"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# Whole or not at all


def break_reload(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run: Any = saving.subprocess.run

    def broken(arguments: list[str], **options: Any) -> Any:
        if what == "loading":
            return subprocess.CompletedProcess(arguments, 1, "", "Traceback\nKeyError: 'fc1'\n")
        if what == "time":
            raise subprocess.TimeoutExpired(arguments, 1800)
        if what == "weights":
            path = Path(arguments[4]) / "model.safetensors"
            tensors = load_file(path)
            # Too small to be seen in the outputs.
            name = next(name for name in tensors if "mlp" in name)
            tensors[name][0, 0] = tensors[name][0, 0].nextafter(torch.tensor(9.0))
            save_file(tensors, path, metadata={"format": "pt"})
        done = run(arguments, **options)
        outputs = load_file(arguments[7])
        if what == "outputs":
            outputs["first"][0, 3, 7] += 1e-2
        elif what == "nan":
            outputs["first"][1, 0, 0] = torch.nan
        save_file(outputs, arguments[7])
        return done

    monkeypatch.setattr(saving.subprocess, "run", broken)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("loading", "transformers & KeyError: 'fc1'"),
        ("time", "1800 s"),
        ("outputs", "outputs & 0.01"),
        ("nan", "outputs & nan"),
        ("weights", "weights"),
    ],
)
def test_a_failed_reload_leaves_all_as_it_was(
    what: str, names: str, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "old", tokenizer)
    before = contents(tmp_path)
    break_reload(what, monkeypatch)
    for out in ("new", "old"):
        with refused_naming("pruned model", *names.split(" & ")):
            save(tmp_path / out, tokenizer, prune("llama"), force=True)
        assert contents(tmp_path) == before
        assert [path.name for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("where", ["save_pretrained", "write_text"])
def test_a_full_disk_leaves_nothing(
    where: str, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, *args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    model = prune()
    monkeypatch.setattr(type(model) if where == "save_pretrained" else Path, where, full)
    with refused_by_the_disk(errno.ENOSPC, tmp_path / "out"):
        save(tmp_path / "out", tokenizer, model)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("here")
def test_what_can_not_be_moved_in_place_leaves_the_old(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    save(out, tokenizer)
    before = contents(tmp_path)
    replace = Path.replace

    def refuse(self: Path, target: Any) -> Path:
        if self.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with refused_by_the_disk(errno.EIO, out):
        save(out, tokenizer, prune("gpt2"), force=True)
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("version", [0, 99])
def test_force_replaces_a_model_whose_plan_is_of_another_version(
    version: int, tokenizer: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    save(out, tokenizer)
    values = json.loads((out / PLAN_FILE).read_text(encoding="utf-8"))
    values["plan"]["format_version"] = version
    (out / PLAN_FILE).write_text(json.dumps(values), encoding="utf-8")
    with refused_naming(PLAN_FILE, f"version {version}"):
        load_plan(out)
    save(out, tokenizer, force=True)
    assert load_plan(out).layers


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{", "damaged & JSON"),
        ("[]", "damaged & plan"),
        ("{}", "damaged & plan"),
        ('{"plan": 3}', "damaged & plan"),
        ('{"plan": {}}', "transformer-pruning-plan"),
        ('{"plan": {"format": "transformer-pruning-plan", "format_version": 9}}', "version 9"),
    ],
)
def test_a_damaged_plan_is_refused(text: str, names: str, tmp_path: Path) -> None:
    with refused_naming(PLAN_FILE, "`pruning prune`"):
        load_plan(tmp_path)
    (tmp_path / PLAN_FILE).write_text(text)
    with refused_naming(tmp_path / PLAN_FILE, *names.split(" & ")):
        load_plan(tmp_path)


def test_there_are_two_layers() -> None:
    assert len(_PRUNED.layers) == N_LAYERS
