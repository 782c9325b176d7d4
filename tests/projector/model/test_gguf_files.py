"""Models in a ``.gguf`` file: a tiny one is written with the package gguf, where that is here."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from projector.errors import UserError
from projector.model import gguf_files
from projector.model.loading import load_model
from tests.families import N_VOCABULARY, build
from tests.refused import lacking


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_model(str(path), device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    return message


def interleaved(weight: Tensor, n_heads: int) -> Tensor:
    """Rows of queries or keys in llama.cpp's order: the halves of each head take turns."""
    n_rows, n_columns = weight.shape
    return (
        weight.reshape(n_heads, 2, n_rows // n_heads // 2, n_columns)
        .transpose(1, 2)
        .reshape(n_rows, n_columns)
    )


def tokens() -> list[str]:
    """One for each byte, written as byte-level BPE writes it, and special ones."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    merged = ["th", "the"]
    found = ["<unk>", "<s>", "</s>", *letters, *merged]
    return found + [f"<extra_{i}>" for i in range(N_VOCABULARY - len(found))]


def write_gguf(path: Path, model: Any, architecture: str = "llama") -> None:
    import gguf

    config, state = model.config, model.state_dict()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("made up")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens())
    writer.add_token_types([3, 3, 3] + [1] * (N_VOCABULARY - 3))
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in state.items():
        if name.endswith("q_proj.weight"):
            tensor = interleaved(tensor, config.num_attention_heads)
        if name.endswith("k_proj.weight"):
            tensor = interleaved(tensor, config.num_key_value_heads)
        found = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(found, tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def model() -> Any:
    return build("llama")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, model: Any) -> Path:
    pytest.importorskip("gguf")
    path = tmp_path_factory.mktemp("gguf") / "made-up.gguf"
    write_gguf(path, model)
    return path


def test_a_gguf_file_is_the_model_that_was_written_to_it(file: Path, model: Any) -> None:
    loaded = load_model(str(file), device="cpu", with_head=True)
    assert loaded.identifier == "made-up.gguf"
    assert loaded.weights_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert loaded.stored_dtype == torch.float32
    ids = torch.arange(3, 23)[None]
    ours: Any = loaded.model
    with torch.no_grad():
        assert torch.allclose(ours(ids).logits, model(ids).logits, atol=1e-4)
    # The words are those of the file.
    cut = loaded.tokenizer("the moth", add_special_tokens=False)["input_ids"]
    assert loaded.tokenizer.convert_ids_to_tokens(cut)[0] == "the"
    assert loaded.tokenizer.decode(cut) == "the moth"
    assert not hasattr(ours.config, "quantization_config")


def test_saved_again_it_is_a_plain_checkpoint(file: Path, tmp_path: Path) -> None:
    loaded = load_model(str(file), device="cpu", with_head=True)
    ours: Any = loaded.model
    ours.save_pretrained(tmp_path / "saved")
    loaded.tokenizer.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text("utf-8"))
    assert "quantization_config" not in config
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert again.dtype == torch.float32
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        assert torch.equal(again(ids).logits, ours(ids).logits)
    words = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert words("the moth").input_ids == loaded.tokenizer("the moth").input_ids
    # It is a folder like any other.
    assert load_model(str(tmp_path / "saved"), device="cpu").stored_dtype == torch.float32


def test_a_folder_may_have_the_name_of_a_gguf_file(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint("qwen2"), tmp_path / "made-up.gguf")
    assert load_model(str(folder), device="cpu").stored_dtype == torch.float32


def test_what_is_no_gguf_model_is_told_in_one_line(file: Path, tmp_path: Path) -> None:
    assert str(tmp_path / "missing.gguf") in refusal(tmp_path / "missing.gguf")
    other = tmp_path / "text.gguf"
    other.write_text("no such thing")
    assert lacking(refusal(other), other, "GGUF") == []
    part = tmp_path / "made-up-00001-of-00002.gguf"
    part.write_bytes(file.read_bytes())
    assert lacking(refusal(part), part, "llama-gguf-split") == []
    for n_bytes in (40, 3000, file.stat().st_size - 5000):
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(file.read_bytes()[:n_bytes])
        assert "damaged" in refusal(cut)


def test_an_architecture_that_transformers_does_not_know_is_named(
    tmp_path: Path, model: Any
) -> None:
    pytest.importorskip("gguf")
    write_gguf(tmp_path / "other.gguf", model, "rwkv7")
    assert "rwkv7" in refusal(tmp_path / "other.gguf")


def test_without_the_package_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "made-up.gguf"
    path.write_bytes(b"GGUF and more")
    monkeypatch.setattr(gguf_files, "find_spec", lambda name: None)
    assert "`pip install 'transformer-projector[gguf]'`" in refusal(path)
