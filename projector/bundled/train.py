"""Train the bundled model: ``python -m projector.bundled.train``.

The text is the standard library of the interpreter that runs this program, without the modules of
the ``heldout`` split. The run is checkpointed: when it is started again, it resumes.

Matrices of the blocks are trained with Muon (Jordan et al. 2024, "Muon: an optimizer for hidden
layers"; step size matched to AdamW's as in Liu et al. 2025, arXiv:2502.16982), the tied embedding
and the norms with AdamW, both on one warm-up and cosine schedule.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from projector.corpus.readers.stdlib import stdlib_modules
from projector.errors import UserError

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Recipe:
    """The settings that determine the result of training."""

    n_layers: int = 6
    n_hidden: int = 192
    n_neurons: int = 768
    n_heads: int = 6
    n_key_value_heads: int = 2
    n_vocabulary: int = 4096
    n_context: int = 256
    batch_size: int = 16
    n_steps: int = 5500
    n_warmup_steps: int = 100
    matrix_lr: float = 3e-3
    embedding_lr: float = 3e-3
    weight_decay: float = 0.1
    gradient_norm: float = 1.0
    seed: int = 0


def train_tokenizer(texts: Iterator[str], n_vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer that starts every text with ``<|endoftext|>``.

    Text is normalized and cut into words as ``AutoTokenizer`` does for every Qwen2 checkpoint: it
    takes vocabulary and merges from the checkpoint, and the word pattern from its own class.
    """
    qwen2 = Qwen2Tokenizer().backend_tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = qwen2.normalizer
    bpe.pre_tokenizer = qwen2.pre_tokenizer
    bpe.decoder = qwen2.decoder
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=n_vocabulary,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    end = bpe.token_to_id(END_OF_TEXT)
    bpe.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{END_OF_TEXT} $A",
                pair=f"{END_OF_TEXT} $A {END_OF_TEXT} $B",
                special_tokens=[(END_OF_TEXT, end)],
            ),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def build_model(recipe: Recipe, end_of_text: int) -> Any:
    """Create the untrained model in float32."""
    torch.manual_seed(recipe.seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=recipe.n_vocabulary,
            hidden_size=recipe.n_hidden,
            intermediate_size=recipe.n_neurons,
            num_hidden_layers=recipe.n_layers,
            num_attention_heads=recipe.n_heads,
            num_key_value_heads=recipe.n_key_value_heads,
            max_position_embeddings=recipe.n_context,
            tie_word_embeddings=True,
            bos_token_id=end_of_text,
            eos_token_id=end_of_text,
            pad_token_id=end_of_text,
        )
    )


def token_stream(
    texts: Iterator[str], tokenizer: PreTrainedTokenizerFast
) -> tuple[torch.Tensor, int]:
    """All texts as one int64 vector, with ``<|endoftext|>`` after each; and their size in bytes."""
    ids: list[int] = []
    n_bytes = 0
    for text in texts:
        n_bytes += len(text.encode())
        ids += tokenizer(text, add_special_tokens=False)["input_ids"]
        ids.append(tokenizer.eos_token_id)
    return torch.tensor(ids), n_bytes


def windows(stream: torch.Tensor, recipe: Recipe, step: int) -> torch.Tensor:
    """The batch of one step, (batch_size, n_context), which depends only on the step.

    Each epoch cuts the stream at another offset and shuffles its windows. A resumed run sees the
    same batches as an uninterrupted one.
    """
    n_per_epoch = (stream.numel() - recipe.n_context) // recipe.n_context // recipe.batch_size
    epoch, place = divmod(step, n_per_epoch)
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    offset = int(torch.randint(recipe.n_context, (1,), generator=generator))
    order = torch.randperm(n_per_epoch * recipe.batch_size, generator=generator)
    chosen = order[place * recipe.batch_size : (place + 1) * recipe.batch_size]
    starts = offset + chosen * recipe.n_context
    return stream[starts[:, None] + torch.arange(recipe.n_context)]


def shift_right(targets: torch.Tensor, end_of_text: int) -> torch.Tensor:
    """Model input for predicting every token of ``targets`` (B, T), including the first."""
    return torch.cat([torch.full_like(targets[:, :1], end_of_text), targets[:, :-1]], dim=1)


def summed_loss(model: Qwen2ForCausalLM, targets: torch.Tensor, end_of_text: int) -> torch.Tensor:
    """Cross-entropy in nats, summed over every token of ``targets`` (B, T)."""
    logits = model(input_ids=shift_right(targets, end_of_text), use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), reduction="sum"
    )


@torch.no_grad()
def bits_per_byte(
    model: Qwen2ForCausalLM,
    texts: Iterator[str],
    tokenizer: PreTrainedTokenizerFast,
    n_context: int = 256,
) -> float:
    """Bits per byte over windows of ``n_context`` tokens that do not overlap.

    Every token is scored, the first of each window from ``<|endoftext|>`` alone; the end-of-text
    tokens are scored as well, but have no bytes.
    """
    stream, n_bytes = token_stream(texts, tokenizer)
    device = next(model.parameters()).device
    n_whole = stream.numel() // n_context
    chunks = list(stream[: n_whole * n_context].view(n_whole, n_context).split(64))
    if stream.numel() % n_context:
        chunks.append(stream[n_whole * n_context :][None])
    nats = sum(
        summed_loss(model, chunk.to(device), tokenizer.eos_token_id).item() for chunk in chunks
    )
    return nats / math.log(2) / n_bytes


def make_optimizers(model: Qwen2ForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Create the optimizers: Muon for the blocks' matrices, AdamW for all other parameters."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "layers." in name]
    rest = [p for name, p in named if p.ndim != 2 or "layers." not in name]
    return [
        torch.optim.Muon(
            matrices,
            lr=recipe.matrix_lr,
            weight_decay=recipe.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(rest, lr=recipe.embedding_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def learning_rate_factor(step: int, recipe: Recipe) -> float:
    """The learning-rate schedule: linear warm-up, then a cosine to zero."""
    if step < recipe.n_warmup_steps:
        return (step + 1) / recipe.n_warmup_steps
    done = (step - recipe.n_warmup_steps) / (recipe.n_steps - recipe.n_warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))


def save_state(
    path: Path,
    step: int,
    model: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
    identity: str,
) -> None:
    """Write the run's state, replacing the last one atomically."""
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    for k, optimizer in enumerate(optimizers):
        for i, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer.{k}.{i}.{name}"] = value
    partial = path.with_suffix(".partial")
    save_file(
        {name: t.contiguous() for name, t in tensors.items()},
        partial,
        metadata={"run": json.dumps({"step": step, "identity": identity})},
    )
    partial.replace(path)


def load_state(
    path: Path,
    model: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
    identity: str,
) -> int:
    """Restore the state from :func:`save_state`; returns the number of finished steps.

    Raises:
        UserError: if it was written by a run with another recipe or another text.
    """
    with safe_open(path, framework="pt") as file:
        run = json.loads(file.metadata()["run"])
    if run["identity"] != identity:
        raise UserError(
            f"'{path}' belongs to a run with another recipe or another version of Python's "
            "library: delete it, or give another --out"
        )
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
    for k, optimizer in enumerate(optimizers):
        full = optimizer.state_dict()
        states: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimizer.{k}."):
                _, _, i, name = key.split(".", 3)
                states.setdefault(int(i), {})[name] = value
        optimizer.load_state_dict({"state": states, "param_groups": full["param_groups"]})
    return int(run["step"])


def train(
    recipe: Recipe,
    out: Path,
    device: str,
    *,
    compiled: bool = True,
    save_every_s: float = 120.0,
) -> Path:
    """Train with ``recipe``; write model, tokenizer and ``training.json`` to ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    state_path = out / "training-state.safetensors"
    tokenizer = train_tokenizer((t for _, t in stdlib_modules("train")), recipe.n_vocabulary)
    end = tokenizer.eos_token_id
    stream, n_bytes = token_stream((t for _, t in stdlib_modules("train")), tokenizer)
    print(f"{stream.numel():,} training tokens from {n_bytes:,} bytes", flush=True)

    model = build_model(recipe, end).to(device)
    n_parameters = sum(p.numel() for p in model.parameters())
    print(f"{n_parameters:,} parameters, {recipe.n_steps:,} steps on {device}", flush=True)
    optimizers = make_optimizers(model, recipe)
    identity = hashlib.sha256(
        json.dumps(asdict(recipe)).encode() + stream.numpy().tobytes()
    ).hexdigest()
    first = load_state(state_path, model, optimizers, identity) if state_path.exists() else 0
    objective = torch.compile(summed_loss) if compiled else summed_loss

    began = saved = time.monotonic()
    running = 0.0
    for step in range(first, recipe.n_steps):
        for optimizer, lr in zip(optimizers, (recipe.matrix_lr, recipe.embedding_lr), strict=True):
            optimizer.param_groups[0]["lr"] = lr * learning_rate_factor(step, recipe)
        targets = windows(stream, recipe, step).to(device)
        with torch.autocast(device_type=device.split(":")[0], dtype=torch.bfloat16):
            loss = objective(model, targets, end) / targets.numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        running = loss.item() if step == first else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % 50 == 0:
            rate = (step + 1 - first) / (time.monotonic() - began)
            left_min = (recipe.n_steps - step - 1) / rate / 60
            print(
                f"step {step + 1:,}: {running:.3f} nats, {rate:.2f} steps/s, "
                f"{left_min:.0f} min left",
                flush=True,
            )
        if time.monotonic() - saved > save_every_s:
            save_state(state_path, step + 1, model, optimizers, identity)
            saved = time.monotonic()
    save_state(state_path, recipe.n_steps, model, optimizers, identity)

    model = model.to(torch.bfloat16).eval()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    held_out = list(stdlib_modules("heldout"))
    # Scored in float32 arithmetic on the bf16 weights that ship.
    model = model.float()
    measured = {
        "bits_per_byte_heldout": bits_per_byte(
            model, (t for _, t in held_out), tokenizer, recipe.n_context
        ),
        "bits_per_byte_heldout_outside_tests": bits_per_byte(
            model,
            (t for p, t in held_out if not {"test", "tests"} & set(p.split("/")[:-1])),
            tokenizer,
            recipe.n_context,
        ),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "training_tokens": stream.numel(),
        "parameters": n_parameters,
        "recipe": asdict(recipe),
    }
    (out / "training.json").write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(measured, indent=2), flush=True)
    return out


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m projector.bundled.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/bundled"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=Recipe.n_steps)
    parser.add_argument("--no-compile", action="store_true", help="run eagerly, without inductor")
    parser.add_argument("--matrix-lr", type=float, default=Recipe.matrix_lr)
    arguments = parser.parse_args()
    recipe = Recipe(n_steps=arguments.steps, matrix_lr=arguments.matrix_lr)
    try:
        train(recipe, arguments.out, arguments.device, compiled=not arguments.no_compile)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
