"""Loading models, and the hash that says which weights a projection was made with."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from projector.errors import UserError
from projector.model import loading
from projector.model.architecture.finding import find_architecture
from projector.model.hashing import hash_checkpoint, hash_module
from projector.model.loading import choose_device, load_model
from tests.families import N_HIDDEN, N_NEURONS, build
from tests.refused import lacking

Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module", autouse=True)
def _without_bars() -> Iterator[None]:
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


@pytest.fixture
def copied(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A model folder of the test's own, to break."""
    return Path(shutil.copytree(checkpoint("qwen2"), tmp_path / "made-up"))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(name: str | Path, **options: Any) -> str:
    """The one line that loading ``name`` is refused with."""
    with pytest.raises(UserError) as caught:
        load_model(str(name), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# The hash


def raw_tensors(folder: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Name → (type, shape, bytes), read from the files by the format's definition."""
    found = {}
    for path in folder.glob("*.safetensors"):
        content = path.read_bytes()
        n_header = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + n_header])
        header.pop("__metadata__", None)
        data = content[8 + n_header :]
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            found[name] = (entry["dtype"], entry["shape"], data[start:end])
    return found


def hash_by_hand(folder: Path) -> str:
    digest = hashlib.sha256()
    for name, (dtype, shape, data) in sorted(raw_tensors(folder).items()):
        digest.update(f"{name}\n{dtype}\n{shape}\n".encode())
        digest.update(data)
    return digest.hexdigest()


# Tied: the head is the embedding, and is not in the file.
@pytest.mark.parametrize(("family", "tied"), [("qwen2", False), ("gpt2", True), ("bert", True)])
def test_hash_is_of_names_types_shapes_and_bytes(
    checkpoint: Checkpoint, family: str, tied: bool
) -> None:
    folder = checkpoint(family)
    n_tied = sum(
        name.endswith(("lm_head.weight", "decoder.weight")) for name in raw_tensors(folder)
    )
    assert (n_tied == 0) == tied
    assert hash_checkpoint(folder) == hash_by_hand(folder)


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_hash_of_a_loaded_model_is_that_of_its_checkpoint(
    checkpoint: Checkpoint, family: str
) -> None:
    loaded = load_model(str(checkpoint(family)), device="cpu", with_head=True)
    assert loaded.weights_sha256 == hash_by_hand(checkpoint(family))
    assert hash_module(loaded.model) == loaded.weights_sha256


def test_hash_of_a_model_in_memory_is_that_of_what_it_saves(tmp_path: Path) -> None:
    for family in ("qwen2", "gpt2", "bert"):
        model = build(family, seed=3)
        model.save_pretrained(tmp_path / family)
        assert hash_module(model) == hash_by_hand(tmp_path / family)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_hash_does_not_depend_on_sharding(tmp_path: Path, dtype: torch.dtype) -> None:
    model = build("qwen2").to(dtype)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "whole").glob("*.safetensors"))) == 1
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    hashes = {hash_checkpoint(tmp_path / name) for name in ("whole", "shards")}
    assert hashes == {hash_by_hand(tmp_path / "whole")}
    assert hash_module(model) in hashes


def test_hash_changes_with_any_weight_name_type_or_shape(copied: Path) -> None:
    path = copied / "model.safetensors"
    tensors = load_file(path)
    first = hash_checkpoint(copied)
    name = "model.layers.1.mlp.up_proj.weight"
    one_bit = tensors[name].clone()
    one_bit.view(torch.int32)[0, 0] ^= 1
    renamed = {k + "x" if k == name else k: v for k, v in tensors.items()}
    changed = [
        tensors | {name: one_bit},
        tensors | {name: tensors[name].reshape(N_HIDDEN, N_NEURONS)},
        # The same bytes, read as another type.
        tensors | {name: tensors[name].view(torch.int32)},
        renamed,
    ]
    found = set()
    for each in changed:
        save_file(each, path)
        found.add(hash_checkpoint(copied))
    assert len(found | {first}) == 5


def test_hash_is_of_the_checkpoint_and_not_of_the_type_computed_in(tmp_path: Path) -> None:
    """Of a bfloat16 checkpoint, whatever it is loaded as."""
    folder = saved_in(torch.bfloat16, tmp_path)
    expected = hash_by_hand(folder)
    for dtype in ("auto", "float32", "float16"):
        assert load_model(str(folder), device="cpu", dtype=dtype).weights_sha256 == expected


# Loading


def saved_in(dtype: torch.dtype, folder: Path) -> Path:
    from projector.bundled.train import train_tokenizer

    build("qwen2").to(dtype).save_pretrained(folder)
    train_tokenizer(iter(["ka lo mi ten"]), 300).save_pretrained(folder)
    return folder


def parameter_types(model: torch.nn.Module) -> set[torch.dtype]:
    return {parameter.dtype for parameter in model.parameters()}


def test_auto_takes_float32_on_the_cpu(tmp_path: Path) -> None:
    folder = saved_in(torch.bfloat16, tmp_path)
    model = load_model(str(folder), device="cpu").model
    assert parameter_types(model) == {torch.float32}
    stored = load_file(folder / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert torch.equal(model.layers[0].mlp.up_proj.weight, stored.float())


@pytest.mark.parametrize(
    ("stored", "can", "keep", "expected"),
    [
        (torch.bfloat16, True, True, torch.bfloat16),
        (torch.bfloat16, False, True, torch.float32),
        (torch.bfloat16, True, False, torch.float32),
        (torch.float16, True, True, torch.float32),
        (torch.float32, True, True, torch.float32),
    ],
)
def test_bf16_is_kept_on_a_cpu_that_multiplies_it_where_that_is_asked_for(
    stored: torch.dtype,
    can: bool,
    keep: bool,
    expected: torch.dtype,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "multiplies_bf16", lambda: can)
    folder = str(saved_in(stored, tmp_path))
    loaded = load_model(folder, device="cpu", keep_bf16=keep)
    assert parameter_types(loaded.model) == {expected}
    # What is named is taken.
    loaded = load_model(folder, device="cpu", dtype="float32", keep_bf16=keep)
    assert parameter_types(loaded.model) == {torch.float32}


@pytest.mark.gpu
def test_auto_keeps_the_checkpoints_type_on_a_gpu(tmp_path: Path) -> None:
    model = load_model(str(saved_in(torch.bfloat16, tmp_path)), device="cuda").model
    assert parameter_types(model) == {torch.bfloat16}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_named_type_is_taken(checkpoint: Checkpoint, dtype: str) -> None:
    loaded = load_model(str(checkpoint("qwen2")), device="cpu", dtype=dtype)
    assert parameter_types(loaded.model) == {getattr(torch, dtype)}


def test_the_head_is_loaded_where_asked_for(checkpoint: Checkpoint) -> None:
    ids = torch.tensor([[0, 5, 7]])
    with torch.no_grad():
        trunk = load_model(str(checkpoint("qwen2")), device="cpu")
        whole = load_model(str(checkpoint("qwen2")), device="cpu", with_head=True)
        assert not hasattr(trunk.model, "lm_head")
        assert not hasattr(trunk.model(ids), "logits")
        hidden = trunk.model(ids).last_hidden_state
        logits = whole.model(ids).logits
    weight = load_file(checkpoint("qwen2") / "model.safetensors")["lm_head.weight"]
    assert torch.allclose(logits, hidden @ weight.T, atol=1e-5)


def test_what_is_loaded_is_the_checkpoint_ready_to_run(checkpoint: Checkpoint) -> None:
    """Weights by name, evaluation mode, the folder's tokenizer."""
    folder = checkpoint("qwen2")
    loaded = load_model(str(folder), device="cpu")
    stored = load_file(folder / "model.safetensors")
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, stored[f"model.{name}"]), name
    assert not any(module.training for module in loaded.model.modules())
    assert {p.device.type for p in loaded.model.parameters()} == {"cpu"}
    assert loaded.tokenizer("ka lo")["input_ids"][0] == 0
    assert loaded.tokenizer.decode(loaded.tokenizer("ka lo")["input_ids"][1:]) == "ka lo"


def test_a_local_model_is_named_without_its_path(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint("qwen2")
    assert load_model(f"{folder}/", device="cpu").identifier == "qwen2"
    monkeypatch.chdir(folder)
    assert load_model(".", device="cpu").identifier == "qwen2"


def test_a_missing_pooler_is_no_fault(checkpoint: Checkpoint) -> None:
    """A masked language model is saved without one, and nothing here reads it."""
    assert not any("pooler" in name for name in raw_tensors(checkpoint("bert")))
    assert load_model(str(checkpoint("bert")), device="cpu").identifier == "bert"


# Refusals


def test_layers_are_counted_from_the_config(copied: Path) -> None:
    n = len(find_architecture(load_model(str(copied)).model).blocks)
    for path in copied.glob("*.safetensors"):
        path.write_bytes(b"")
    assert loading.count_layers(str(copied)) == n
    assert loading.count_layers(loading.BUNDLED) == 6
    edit_config(copied, num_hidden_layers="many")
    # Loading tells what is wrong.
    assert loading.count_layers(str(copied)) is None


def test_pickled_weights_are_never_loaded(copied: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Harmful:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    (copied / "model.safetensors").unlink()
    torch.save({"weights": Harmful()}, copied / "pytorch_model.bin")
    message = refusal(copied)
    assert lacking(message, copied, "pickled", "safetensors") == []
    assert not marker.exists()


def test_pickled_weights_beside_safetensors_are_not_looked_at(copied: Path) -> None:
    (copied / "pytorch_model.bin").write_bytes(b"no pickle")
    assert load_model(str(copied), device="cpu").weights_sha256 == hash_by_hand(copied)


def test_pickled_weights_are_not_fallen_back_on(copied: Path) -> None:
    """Safetensors of other names beside them, an adapter's say, do not open the door."""
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").rename(copied / "other.safetensors")
    assert f"model '{copied}'" in refusal(copied)


def test_a_folder_without_config_is_refused(copied: Path) -> None:
    (copied / "config.json").unlink()
    message = refusal(copied)
    assert lacking(message, f"'{copied}'", "config.json") == []


def test_a_folder_without_weights_is_refused(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    message = refusal(copied)
    assert lacking(message, f"'{copied}'", "*.safetensors") == []


def test_a_file_in_place_of_a_folder_is_refused(copied: Path) -> None:
    message = refusal(copied / "model.safetensors")
    assert lacking(message, copied / "model.safetensors", "config.json") == []


@pytest.mark.parametrize("name", ["made-up/no-such-model", "no-such-model", "a/b/c"])
def test_an_unknown_hub_id_is_refused_by_name(name: str) -> None:
    message = refusal(name, device="cpu")
    assert lacking(message, f"'{name}'", "hub") == []


def test_a_misspelt_bundled_is_told_before_the_hub_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asked(*args: object, **options: object) -> None:
        pytest.fail("the hub was asked")

    monkeypatch.setattr("projector.model.loading.HfApi", asked)
    for name in ("bundeld", "Bundled"):
        assert lacking(refusal(name, device="cpu"), f"'{name}'", "bundled") == []


@pytest.mark.parametrize("dtype", ["int8", "double", ""])
def test_an_unknown_type_is_refused_with_the_choices(checkpoint: Checkpoint, dtype: str) -> None:
    message = refusal(checkpoint("qwen2"), device="cpu", dtype=dtype)
    assert lacking(message, f"dtype '{dtype}'", "auto, float32, bfloat16, float16") == []


@pytest.mark.parametrize("device", ["abacus", "", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_with_the_choices(
    checkpoint: Checkpoint, device: str
) -> None:
    message = refusal(checkpoint("qwen2"), device=device)
    assert f"device '{device}'" in message
    # Of a kind that there is, those that are here.
    here = ["cpu"] + ["mps"] * torch.backends.mps.is_available()
    here += ["cuda"] * torch.cuda.is_available()
    choices = ", ".join(here) if device == "cuda:99" else "cpu, cuda, mps"
    assert message.endswith(f"choose from auto, {choices}")


def test_auto_device_is_the_first_of_cuda_mps_and_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_cuda, has_mps, expected in (
        (True, True, "cuda"),
        (False, True, "mps"),
        (False, False, "cpu"),
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has=has_cuda: has)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda has=has_mps: has)
        assert choose_device("auto") == torch.device(expected)
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("content", ["half", b"", b"no tensors at all" * 20])
def test_damaged_safetensors_are_refused_by_name(copied: Path, content: str | bytes) -> None:
    path = copied / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    message = refusal(copied)
    assert f"model '{copied}'" in message


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    build("qwen2").save_pretrained(tmp_path, max_shard_size="20KB")
    sorted(tmp_path.glob("*.safetensors"))[1].unlink()
    assert f"model '{tmp_path}'" in refusal(tmp_path)


@pytest.mark.parametrize("with_head", [False, True])
@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"])
def test_an_incomplete_checkpoint_is_refused(copied: Path, name: str, with_head: bool) -> None:
    """Transformers would fill what is missing with random numbers, and say so in a log only."""
    path = copied / "model.safetensors"
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path, metadata={"format": "pt"})
    message = refusal(copied, with_head=with_head)
    assert lacking(message, f"'{copied}'", " 1 ", name.removeprefix("model.")) == []


def test_a_missing_head_matters_only_where_it_is_asked_for(copied: Path) -> None:
    path = copied / "model.safetensors"
    tensors = load_file(path)
    del tensors["lm_head.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    load_model(str(copied), device="cpu")
    assert "lm_head.weight" in refusal(copied, with_head=True)


def test_weights_of_another_shape_are_refused(copied: Path) -> None:
    edit_config(copied, intermediate_size=N_NEURONS + 4)
    assert lacking(refusal(copied), f"model '{copied}'", "shapes", "config.json") == []


@pytest.mark.parametrize(
    "content", ["{nope", "[1]", "{}", b"\xff\xfe", '{"model_type": "no-such-type"}']
)
def test_a_config_that_can_not_be_read_is_refused(copied: Path, content: str | bytes) -> None:
    (copied / "config.json").write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    assert f"model '{copied}'" in refusal(copied)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": "wide"},
        {"hidden_size": 0},
        {"num_hidden_layers": 1},  # and two layer_types
        {"hidden_act": "no-such-function"},
    ],
)
def test_a_config_of_impossible_values_is_refused(copied: Path, changes: dict[str, Any]) -> None:
    """What Transformers raises of these is of many kinds, some of them no ValueError."""
    edit_config(copied, **changes)
    assert f"model '{copied}'" in refusal(copied)


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "llama"])
def test_a_model_without_tokenizer_is_refused(tmp_path: Path, family: str) -> None:
    """Some tokenizers are made without a file, and then know no word, or one for all words."""
    build(family).save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert str(tmp_path) in message
    assert "tokenizer" in message


# Code that comes with a model

OWN_CODE = """
from pathlib import Path
from transformers import Qwen2Config, Qwen2Model
Path({marker!r}).touch()
class OwnConfig(Qwen2Config):
    model_type = "made-up-own"
class OwnModel(Qwen2Model):
    config_class = OwnConfig
"""


@pytest.fixture
def own_code(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A model with its own code, and the file that the code leaves when it is run."""
    marker = tmp_path / "executed"
    (copied / "own.py").write_text(OWN_CODE.format(marker=str(marker)))
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    edit_config(copied, model_type="made-up-own", auto_map=auto_map)
    # Where Transformers keeps such code: a folder of the test's own.
    monkeypatch.setattr(
        transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    return copied, marker


def test_code_that_comes_with_a_model_is_not_run_unasked(own_code: tuple[Path, Path]) -> None:
    folder, marker = own_code
    message = refusal(folder, device="cpu")
    assert lacking(message, f"'{folder}'", "trust_remote_code=True") == []
    assert not marker.exists()


def test_code_that_comes_with_a_model_is_run_where_trusted(own_code: tuple[Path, Path]) -> None:
    folder, marker = own_code
    loaded = load_model(str(folder), device="cpu", trust_remote_code=True)
    assert marker.exists()
    assert type(loaded.model).__name__ == "OwnModel"


def test_an_error_in_such_code_is_one_line(own_code: tuple[Path, Path]) -> None:
    folder, _ = own_code
    (folder / "own.py").write_text("import math\nx = math.no_such_function\n")
    message = refusal(folder, device="cpu", trust_remote_code=True)
    assert lacking(message, f"'{folder}'", "AttributeError") == []


def test_a_tokenizer_is_what_was_saved(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """AutoTokenizer would cut its words as the first Qwen2 did."""
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("qwen2"), folder)
    text = "def f(x):\n        return 1234  +  x\n"
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.train_from_iterator([text] * 3, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    saved = PreTrainedTokenizerFast(tokenizer_object=inner)
    saved.save_pretrained(folder)
    expected = saved(text)["input_ids"]
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] != expected
    assert load_model(str(folder)).tokenizer(text)["input_ids"] == expected


def test_the_hash_is_of_what_is_loaded(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("qwen2"), folder)
    before = hash_checkpoint(folder)
    save_file({"x": torch.zeros(3)}, folder / "consolidated.safetensors")
    assert hash_checkpoint(folder) == before
