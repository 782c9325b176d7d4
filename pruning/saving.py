"""Save a pruned model as a plain Hugging Face checkpoint, and load it again to check it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from projector.errors import UserError, named
from projector.model.capture import evaluating
from projector.model.hashing import hash_checkpoint
from projector.model.loading import auto_class
from projector.storage.folders import replacing_folder, restore_folder
from projector.storage.places import check_beside, check_place, disk_errors
from projector.storage.versions import check_format, read_json
from pruning.methods.plan import FORMAT, PLAN_FILE, PruningPlan

_TIMEOUT_S = 1800
# The code of any other user; this project can't be imported there.
_RELOAD = """
import sys
sys.modules["projector"] = sys.modules["pruning"] = None
folder, auto, inputs, outputs, text, trust = sys.argv[1:7]
import hashlib, json, torch, transformers
from safetensors.torch import load_file, save_file
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
trust = trust == "True"
kind = getattr(transformers, auto)
model = kind.from_pretrained(folder, dtype="auto", trust_remote_code=trust).eval()
given = load_file(inputs)
with torch.no_grad():
    found = model(**given)
first = found.logits if hasattr(found, "logits") else found[0]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
with open(text, encoding="utf-8") as file:
    ids = tokenizer(file.read())["input_ids"]
digest = hashlib.sha256()
for name, tensor in sorted(model.named_parameters()):
    digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\\n".encode())
    digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
weights = torch.tensor(list(digest.digest()))
save_file({"first": first.contiguous(), "ids": torch.tensor(ids), "weights": weights}, outputs)
"""
_SAMPLE_TEXT = """def first(values, default=None):
    \"\"\"The first of some values: 1, 22 or 333; else the default.\"\"\"
    for value in values:\n        return value\n\n\n    return default  # Nothing — so that's it.
"""


@dataclass(frozen=True)
class Saved:
    """A saved checkpoint, and the result of loading it again.

    Attributes:
        folder: folder of the checkpoint.
        weights_sha256: hash of its tensors.
        greatest_difference: largest difference between the logits of the model in memory and of the
            reloaded model.
        tokenizer_differs: whether ``AutoTokenizer`` cuts text differently from the tokenizer the
            model was loaded with.

    For a checkpoint that another run has saved, neither of the last two is known.
    """

    folder: Path
    weights_sha256: str
    greatest_difference: float | None
    tokenizer_differs: bool | None


def check_out(out: Path, *, force: bool) -> None:
    """Raise a UserError if a checkpoint may not be written to ``out``."""
    with disk_errors(out):
        restore_folder(out.resolve())
    check_place(out)
    if out.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise UserError(
            f"'{out}' is the current folder, or one above it: give another folder",
            setting="out",
        )
    check_beside(out.resolve())
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / PLAN_FILE).exists():
        raise UserError(
            f"folder '{out}' holds other files but no pruned model: give another folder",
            setting="out",
        )
    if not force:
        raise UserError(
            f"folder '{out}' holds a pruned model already: add {named('force', True)} to replace "
            "it, or give another folder",
            setting="out",
        )
    # Of any version, because it will be deleted.
    _check_own(out, _read(out / PLAN_FILE))


def _check_own(out: Path, values: dict[str, Any]) -> None:
    """Raise a UserError if a folder holds more than the checkpoint that was written there."""
    listed = values.get("files")
    known = set(listed) if isinstance(listed, list) else {PLAN_FILE}
    # Folders too: an empty folder may belong to someone.
    known |= {str(parent) for name in known for parent in Path(str(name)).parents}
    others = sorted(name for p in out.rglob("*") if (name := str(p.relative_to(out))) not in known)
    if others:
        raise UserError(
            f"folder '{out}' holds other files besides the pruned model, such as '{others[0]}', "
            "so it can't be replaced: give another folder",
            setting="out",
        )


def save_pruned(
    model: nn.Module,
    tokenizer: Any,
    plan: PruningPlan,
    facts: dict[str, Any],
    out: Path,
    *,
    dtype: torch.dtype | None = None,
    force: bool = False,
    trust_remote_code: bool = False,
) -> Saved:
    """Write model, tokenizer and plan; load and compare them in a fresh process; then move them to
    ``out``.

    The model itself is moved to the CPU, and its weights are converted to the saved dtype.

    Args:
        facts: origin of the plan, kept with it in ``pruning.json``.
        dtype: dtype of the saved weights; None for their current dtype.

    Raises:
        UserError: if ``out`` is in use, can't be written, or the reloaded model differs. Nothing is
            left half-written.
    """
    check_out(out, force=force)
    # The target of a link: the link itself stays.
    out = out.resolve()
    model = model.cpu()
    if dtype is not None:
        for parameter in model.parameters():
            # Only the weights: buffers such as rotary frequencies are never stored, and keep the
            # precision that loading gives them.
            parameter.data = parameter.data.to(dtype)
    with disk_errors(out), replacing_folder(out) as checkpoint:
        saver: Any = model
        saver.save_pretrained(checkpoint)
        tokenizer.save_pretrained(checkpoint)
        names = [str(p.relative_to(checkpoint)) for p in checkpoint.rglob("*") if p.is_file()]
        values = {"plan": plan.to_dict(), **facts, "files": sorted([*names, PLAN_FILE])}
        text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
        (checkpoint / PLAN_FILE).write_text(text + "\n", encoding="utf-8")
        # safetensors lets only the owner read; make it as readable as the user's other files.
        mode = (checkpoint / PLAN_FILE).stat().st_mode
        for path in checkpoint.rglob("*"):
            if path.is_file():
                path.chmod(mode)
        difference, differs = _compare(
            model, tokenizer, checkpoint, checkpoint.parent, trust_remote_code=trust_remote_code
        )
        sha256 = hash_checkpoint(checkpoint)
        # A long time has passed: files that appeared meanwhile must not be deleted.
        check_out(out, force=force)
    return Saved(out, sha256, difference, differs)


def load_plan(folder: str | Path) -> PruningPlan:
    """Load the plan of a pruned checkpoint.

    Args:
        folder: the folder of the checkpoint, which holds ``pruning.json``.

    Raises:
        UserError: if there is none, or it is damaged.
    """
    path = Path(folder) / PLAN_FILE
    with disk_errors(path.parent):
        restore_folder(path.parent.resolve())
    return PruningPlan.from_dict(_read(path)["plan"], path)


def load_facts(folder: str | Path) -> dict[str, Any]:
    """Load the origin and the results of a pruned checkpoint's plan.

    Raises:
        UserError: if there is none, or it is damaged.
    """
    values = _read(Path(folder) / PLAN_FILE)
    return {name: value for name, value in values.items() if name not in ("plan", "files")}


def _read(path: Path) -> dict[str, Any]:
    """Read the plan file of a pruned checkpoint; its plan may have any version.

    Raises:
        UserError: if there is no file, or it holds no plan.
    """
    if not path.exists():
        raise UserError(
            f"'{path.parent}' isn't a pruned model: {PLAN_FILE} is missing; `pruning "
            "prune` writes one"
        )
    values, _ = read_json(path)
    plan = values.get("plan") if isinstance(values, dict) else None
    if not isinstance(plan, dict):
        raise UserError(
            f"'{path}' is damaged: the plan is missing; make it again with `pruning prune`"
        )
    check_format(plan, path, format_name=FORMAT)
    return dict(values)


def _compare(
    model: nn.Module, tokenizer: Any, folder: Path, staging: Path, *, trust_remote_code: bool
) -> tuple[float, bool]:
    """Load the checkpoint in another process, and return the largest difference of its outputs.

    Raises:
        UserError: if it doesn't load, or its outputs differ.
    """
    vocabulary = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (2, 12), generator=generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad(), evaluating(model):
        expected = _first(model(**inputs))
    paths = [staging / name for name in ("inputs.safetensors", "outputs.safetensors", "text.txt")]
    save_file(inputs, paths[0])
    paths[2].write_text(_SAMPLE_TEXT, encoding="utf-8")
    arguments = [folder, auto_class(type(model).__name__).__name__, *paths, trust_remote_code]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _RELOAD, *map(str, arguments)],
            cwd=staging,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"the pruned model took more than {_TIMEOUT_S} s to load again") from error
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise UserError(f"the pruned model does not load in plain transformers: {last}")
    outputs = load_file(paths[1])
    difference = float((outputs["first"].float() - expected.float()).abs().max())
    # Sums may be rounded in another order there; weights are bitwise equal.
    scale = float(expected.float().abs().max().clamp_min(1))
    tolerance = 10 * torch.finfo(expected.dtype).eps * scale
    if bytes(outputs["weights"].tolist()) != _digest(model):
        raise UserError(
            "the reloaded pruned model isn't the same as the one in memory: its weights differ"
        )
    if not difference <= tolerance:
        raise UserError(
            "the reloaded pruned model isn't the same as the one in memory: its outputs differ by "
            f"{difference:.3g}"
        )
    ours = tokenizer(_SAMPLE_TEXT)["input_ids"]
    return difference, ours != outputs["ids"].tolist()


def _digest(model: nn.Module) -> bytes:
    """The hash of all weights by their names in the model, as the fresh process computes it.

    It isn't the file's hash, because some families' tensors have other names there.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _first(output: Any) -> Tensor:
    found: Tensor = output.logits if hasattr(output, "logits") else output[0]
    return found
