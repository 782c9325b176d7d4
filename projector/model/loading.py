"""Load a Hugging Face model and its tokenizer; resolve the bundled model.

Transformers takes a second to import, so it is imported only when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from torch import nn

from projector.environment import is_told_cpu
from projector.errors import SettingError, UserError, check_choice, named
from projector.model.gguf_files import (
    check_gguf,
    explained,
    forget_quantization,
    hash_gguf,
    is_gguf,
)
from projector.model.hashing import hash_checkpoint, stored_type
from projector.processor import multiplies_bf16
from projector.storage.folders import restore_folder
from projector.storage.places import disk_errors

BUNDLED = "bundled"
BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled"
DEVICES = ("auto", "cpu", "cuda", "mps")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_GENERIC_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run: in evaluation mode, on its device.

    ``identifier`` is ``bundled``, a hub id, or the name of a local folder or file without its path.
    ``weights_sha256`` is the hash of its checkpoint's tensors, or of its ``.gguf`` file;
    ``stored_dtype`` is their dtype, None if there are several.
    """

    model: nn.Module
    tokenizer: Any
    identifier: str
    weights_sha256: str
    stored_dtype: torch.dtype | None = None


def load_model(
    name: str = BUNDLED,
    *,
    revision: str | None = None,
    device: str = "auto",
    device_map: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    with_head: bool = False,
    keep_bf16: bool = False,
) -> LoadedModel:
    """Load ``bundled``, a local folder, a ``.gguf`` file, or a hub id.

    Args:
        revision: branch, tag or commit, for a hub id.
        device: ``auto`` takes CUDA, then MPS, then the CPU.
        device_map: ``auto`` lets Accelerate spread the model over all devices, and over memory and
            disk if it doesn't fit on them; None keeps it on ``device``.
        dtype: ``auto`` keeps the checkpoint's dtype on an accelerator and uses float32 on the CPU.
        trust_remote_code: run Python code that comes with the model.
        with_head: load the head too, with the checkpoint's own class; otherwise only hidden states
            are computed.
        keep_bf16: with ``auto``, keep bfloat16 on a CPU too, if it has instructions for bfloat16.

    Raises:
        SettingError: if a device or dtype is unknown or not available.
        UserError: if the model doesn't exist, or its format isn't supported.
    """
    if device_map is not None:
        check_device_map(device_map, device)
    chosen_device = choose_device(device)
    folder = BUNDLED_FOLDER if name == BUNDLED else Path(name)
    is_local = _is_local(name, folder)
    where = str(folder) if is_local else name
    options: dict[str, Any] = {
        "revision": None if is_local else revision,
        "trust_remote_code": trust_remote_code,
    }
    if is_gguf(name):
        where, options["gguf_file"] = str(folder.parent), folder.name
    if not is_local and not _is_on_hub(name, revision):
        options["local_files_only"] = True
    placement = {} if device_map is None else {"device_map": device_map}
    try:
        model, lacking = _read_model(
            where,
            options | placement,
            choose_dtype=partial(_choose_dtype, dtype, chosen_device, keep_bf16),
            with_head=with_head,
        )
        tokenizer = _load_tokenizer(where, options)
        weights_sha256, stored_dtype = _stored(folder, where, options)
    except UserError:
        raise
    except Exception as error:
        # Of any kind: a broken config.json, or code that comes with a model, can raise all.
        told = explained(folder, error) if is_gguf(name) else _explained(name, error)
        raise told from error
    if lacking:
        raise UserError(
            f"model '{name}' lacks {len(lacking):,} of its weights, {lacking[0]} among them: "
            "its checkpoint is incomplete, or belongs to another model"
        )
    # Where the files are missing, some tokenizers are made anyway, with no word in them.
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise UserError(
            f"model '{name}' has no tokenizer: put its tokenizer.json, or its vocabulary, next to "
            "it"
        )
    return LoadedModel(
        model=model.eval() if device_map is not None else model.eval().to(chosen_device),
        tokenizer=tokenizer,
        identifier=name if name == BUNDLED or not is_local else folder.resolve().name,
        weights_sha256=weights_sha256,
        stored_dtype=stored_dtype,
    )


def count_layers(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> int | None:
    """The number of layers according to a model's config; no weight is read.

    None if the config doesn't state it clearly, and for a ``.gguf`` file.

    Raises:
        UserError: if the model doesn't exist.
    """
    from transformers import AutoConfig

    folder = BUNDLED_FOLDER if name == BUNDLED else Path(name)
    is_local = _is_local(name, folder)
    if is_gguf(name):
        return None
    try:
        config = AutoConfig.from_pretrained(
            str(folder) if is_local else name,
            revision=None if is_local else revision,
            trust_remote_code=trust_remote_code,
            local_files_only=is_local or not _is_on_hub(name, revision),
        )
        found = None if config.is_encoder_decoder else config.get_text_config().num_hidden_layers
    except UserError:
        raise
    except Exception:
        # Of any kind, as for loading, which says what is wrong.
        return None
    return found if isinstance(found, int) and found > 0 else None


def _is_local(name: str, folder: Path) -> bool:
    """Whether a model is a folder or file here, which is checked, and not one of the hub."""
    if is_gguf(name):
        check_gguf(folder)
        return True
    if name != BUNDLED:
        with disk_errors(folder):
            restore_folder(folder)
        if not folder.exists():
            return False
    _check_folder(folder, name)
    return True


def _read_model(
    where: str,
    options: dict[str, Any],
    *,
    choose_dtype: Callable[[Any], torch.dtype],
    with_head: bool,
) -> tuple[Any, list[str]]:
    """The model as its checkpoint has it, and the names of weights that the checkpoint lacks."""
    from transformers import AutoConfig

    own = {key: value for key, value in options.items() if key != "device_map"}
    config = AutoConfig.from_pretrained(where, **own)
    auto = auto_class(*(getattr(config, "architectures", None) or ())[:1], with_head=with_head)
    loading: Any = auto.from_pretrained(
        where,
        config=config,
        dtype=choose_dtype(config),
        # A .gguf file is neither safetensors nor pickled.
        use_safetensors=None if "gguf_file" in options else True,
        output_loading_info=True,
        **options,
    )
    model, report = loading
    if "gguf_file" in options:
        forget_quantization(model)
    # Transformers fills what a checkpoint lacks with random numbers. Nothing here reads a pooler.
    return model, sorted(key for key in report["missing_keys"] if "pooler" not in key)


def _stored(file: Path, where: str, options: dict[str, Any]) -> tuple[str, torch.dtype | None]:
    """The hash of a model's stored weights, and their type."""
    if "gguf_file" in options:
        return hash_gguf(file), torch.float32
    checkpoint = _checkpoint_folder(where, options)
    return hash_checkpoint(checkpoint), stored_type(checkpoint)


def _checkpoint_folder(where: str, options: dict[str, Any]) -> Path:
    """The folder that holds a local model's checkpoint, or the hub's in the cache."""
    from transformers.utils.hub import cached_file

    config_file = cached_file(
        where,
        "config.json",
        revision=options["revision"],
        local_files_only=options.get("local_files_only", False),
    )
    return Path(str(config_file)).parent


def auto_class(class_name: str = "", *, with_head: bool = True) -> Any:
    """The ``Auto`` class of Transformers that loads a class of models.

    A class in no table, such as one with its code in the model's repository, is treated as a causal
    language model.
    """
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM
    from transformers.models.auto import modeling_auto

    if not with_head:
        return AutoModel
    tables: dict[Any, dict[str, Any]] = {
        AutoModelForCausalLM: modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        AutoModelForMaskedLM: modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        AutoModel: modeling_auto.MODEL_MAPPING_NAMES,
    }
    for auto, names in tables.items():
        if class_name in names.values():
            return auto
    return AutoModelForCausalLM


def _is_on_hub(name: str, revision: str | None) -> bool:
    """Whether the hub has the model; False where it can't be asked, but gave the model before.

    Asked once, for loading would ask again and again for half a minute.

    Raises:
        UserError: if neither, or if the name is nearly that of the bundled model.
    """
    if get_close_matches(name, [BUNDLED], cutoff=0.8):
        raise UserError(f"unknown model '{name}' (did you mean {BUNDLED}?)")
    try:
        HfApi().model_info(name, revision=revision, timeout=10)
    except Exception as error:
        # Refused, not found, or no connection: the libraries beneath raise a dozen kinds.
        try:
            config = try_to_load_from_cache(name, "config.json", revision=revision)
        except ValueError:
            config = None
        if not isinstance(config, str):
            raise UserError(
                f"unknown model '{name}': this folder doesn't exist, and the hub returned no model "
                "with this name (check the spelling, your connection, or log in)"
            ) from error
        return False
    return True


def _load_tokenizer(where: str, options: dict[str, Any]) -> Any:
    """The tokenizer as the checkpoint holds it.

    Where ``tokenizer.json`` is said to be all there is, it is read as it stands: for some
    model types ``AutoTokenizer`` takes the vocabulary alone, and cuts words as the type's first
    model did.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    if "gguf_file" in options:
        return AutoTokenizer.from_pretrained(where, **options)
    facts = get_tokenizer_config(where, **options)
    if facts.get("tokenizer_class") in _GENERIC_TOKENIZERS and "auto_map" not in facts:
        own = {key: value for key, value in options.items() if key != "trust_remote_code"}
        return PreTrainedTokenizerFast.from_pretrained(where, **own)
    return AutoTokenizer.from_pretrained(where, **options)


def check_device_map(device_map: str, device: str = "auto") -> None:
    """Raise a UserError if a model can't be spread over devices with these settings."""
    check_choice("device_map", device_map, ("auto",))
    if device != "auto":
        raise UserError(
            f"{named('device', device)} and {named('device_map', device_map)} exclude each other: "
            "one keeps the model on a device, the other spreads it over all; leave one out",
            setting="device_map",
            value=device_map,
        )


def widest_dtype(model: nn.Module) -> torch.dtype:
    """The widest floating-point dtype among a model's weights; it can hold every part's result."""
    found = {p.dtype for p in model.parameters() if p.dtype.is_floating_point}
    return max(found, key=lambda dtype: dtype.itemsize, default=torch.float32)


def is_spread(model: nn.Module) -> bool:
    """Whether Accelerate moves tensors between the devices that a model is spread over."""
    return any(hasattr(module, "_hf_hook") for module in model.modules())


def input_device(model: nn.Module) -> torch.device:
    """The device of a model's inputs, even if the model is spread over several devices."""
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    device = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)
    return next(model.parameters()).device if device is None else torch.device(device)


def choose_device(device: str) -> torch.device:
    """The device that ``auto`` or a device's name refers to."""
    if device == "auto":
        if is_told_cpu():
            return torch.device("cpu")
        return torch.device(_usable()[-1])
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise SettingError(
            "device", device, "is not known", f"choose from {', '.join(DEVICES)}"
        ) from error
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(
            "device", device, "isn't available", f"choose from auto, {', '.join(_usable())}"
        ) from error
    return chosen


def _usable() -> list[str]:
    """Kinds of devices that are here, the best last."""
    is_here = {"mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
    return ["cpu", *(kind for kind, here in is_here.items() if here)]


def _choose_dtype(dtype: str, device: torch.device, keep_bf16: bool, config: Any) -> torch.dtype:
    if dtype == "auto":
        own: torch.dtype = getattr(config, "dtype", None) or torch.float32
        is_fast = own == torch.bfloat16 and keep_bf16 and multiplies_bf16()
        return torch.float32 if device.type == "cpu" and not is_fast else own
    check_choice("dtype", dtype, ("auto", *_DTYPES))
    return _DTYPES[dtype]


def _check_folder(folder: Path, name: str) -> None:
    if not folder.is_dir():
        raise UserError(f"model '{name}' is a file: give the folder that holds config.json")
    if not (folder / "config.json").exists():
        raise UserError(f"folder '{name}' holds no model: config.json is missing")
    if any(folder.glob("*.safetensors")):
        return
    if any(path for pattern in _PICKLED for path in folder.glob(pattern)):
        raise UserError(
            f"folder '{name}' holds pickled weights only, which are never loaded: "
            "save the model again with safe_serialization (safetensors)"
        )
    raise UserError(f"folder '{name}' holds no weights: *.safetensors is missing")


def _explained(name: str, error: Exception) -> UserError:
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return UserError(
            f"model '{name}' comes with its own code: add {named('trust_remote_code', True)} if "
            "you trust it",
            setting="trust_remote_code",
            value=False,
        )
    if "ignore_mismatched_sizes" in text:
        text = "its weights don't have the shapes that config.json gives"
    elif not isinstance(error, (OSError, ValueError, RuntimeError)):
        # The text of the rest, a KeyError say, tells nothing alone.
        text = f"{type(error).__name__}: {text}"
    return UserError(f"model '{name}' can't be loaded: {text[:240]}")
