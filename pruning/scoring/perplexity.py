"""Token-weighted perplexity.

:func:`prepare` cuts a text into windows, once for any number of models that share a tokenizer;
:func:`score` scores a model on them. Nats are summed over tokens in float64 and divided once.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projector.errors import UserError, check_least, named
from projector.memory import out_of_memory
from projector.model.architecture.finding import find_architecture
from projector.model.capture import evaluating
from projector.model.context import longest_sequence
from projector.progress import Progress, Silent
from pruning.scoring.windows import EvaluationText

# Most logits of a batch; most logits in float32 at once; most tokens of a batch, which should fit
# in the CPU's cache.
_LOGIT_BYTES = 256_000_000
_CHUNK_BYTES = 64_000_000
_BATCH_TOKENS = {"cpu": 2048}
_BATCH_TOKENS_ELSEWHERE = 16_384


@dataclass(frozen=True, eq=False)
class Score:
    """A model's score on a text.

    Attributes:
        protocol: one of :data:`PROTOCOLS`.
        nats: −Σ ln p over the scored tokens.
        n_tokens: number of scored tokens.
        n_bytes: UTF-8 bytes of the scored tokens; None if that is unknown.
        n_words: number of words, for ``lm-eval-word``.
        window_nats: nats of each window, (n_windows,) float64, to compare two models window by
            window.
        window_tokens: scored tokens of each window, (n_windows,) int64.
    """

    protocol: str
    nats: float
    n_tokens: int
    n_bytes: int | None
    n_words: int | None
    window_nats: Tensor
    window_tokens: Tensor

    @property
    def perplexity(self) -> float:
        """exp(nats / tokens), for ``lm-eval-word`` exp(nats / words); inf if that overflows."""
        n = self.n_tokens if self.n_words is None else self.n_words
        try:
            return math.exp(self.nats / n)
        except OverflowError:
            return math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """nats / (ln 2 · bytes)."""
        return self.nats / math.log(2) / self.n_bytes if self.n_bytes else None

    @property
    def problem(self) -> str | None:
        """Why there is no perplexity; None if there is one."""
        n_broken = int((~self.window_nats.isfinite()).sum())
        if n_broken:
            return (
                f"the model's output is not finite in {n_broken:,} of {len(self.window_nats):,} "
                "windows"
            )
        if not math.isfinite(self.perplexity):
            return f"perplexity overflows at {self.nats / self.n_tokens:,.0f} nats a token"
        return None

    def figures(self) -> dict[str, Any]:
        """The figures for JSON, which has no NaN: missing figures are null, with the reason."""
        problem = self.problem
        bits = self.bits_per_byte
        finite = math.isfinite(self.nats)
        return {
            "perplexity": None if problem else self.perplexity,
            "bits_per_byte": bits if finite else None,
            "nats": self.nats if finite else None,
            "n_tokens": self.n_tokens,
            "n_bytes": self.n_bytes,
            "n_words": self.n_words,
            "reason": problem
            or (
                None
                if bits is not None
                else "the tokenizer doesn't show which bytes a token spells"
            ),
        }


def score(
    model: nn.Module,
    text: EvaluationText,
    *,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Score:
    """Score a model on a text.

    Costs one forward pass over the windows, and memory for the logits of a batch.

    Args:
        model: a causal Hugging Face model with its head; not changed.
        text: from :func:`prepare`, with the model's own tokenizer.
        batch_size: windows at once; None for as many as the limits on tokens and logits allow.
        progress: receives the number of scored windows.

    Raises:
        UserError: if the model isn't a causal language model, the text has token ids beyond the
            model's vocabulary, or a window is longer than the model's context.
    """
    progress = progress or Silent()
    check_least("batch_size", batch_size, 1)
    check_scorable(model, text)
    lengths = text.lengths
    # Windows of equal length together, to reduce padding.
    order = np.argsort(-lengths, kind="stable")
    window_nats = torch.zeros(text.n_windows, dtype=torch.float64)
    progress.begin("Scoring", text.n_windows, "windows")
    fewer = named("batch_size", 1)
    what = f" while scoring: score fewer windows at once ({fewer}), or use shorter ones"
    with evaluating(model), out_of_memory(what), torch.inference_mode():
        place = 0
        while place < len(order):
            n = batch_size or batch_size_of(model, int(lengths[order[place]]))
            chosen = order[place : place + n]
            window_nats[torch.from_numpy(chosen)] = _score_batch(model, text, chosen)
            place += len(chosen)
            progress.advance(len(chosen))
    progress.end()
    return Score(
        protocol=text.protocol,
        nats=float(window_nats.sum()),
        n_tokens=text.n_tokens,
        n_bytes=text.n_bytes,
        n_words=text.n_words,
        window_nats=window_nats,
        window_tokens=torch.from_numpy(text.window_tokens.copy()),
    )


def check_scorable(model: nn.Module, text: EvaluationText) -> None:
    """Raise a UserError if the model can't predict the text; costs a pass over six tokens."""
    name = type(model).__name__
    if not find_architecture(model).is_causal:
        raise UserError(
            f"{name} has no perplexity: it also reads the tokens after a position, so it doesn't "
            "predict text"
        )
    vocabulary = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    largest = max(int(text.ids.max()), *text.prefix, 0)
    if largest >= vocabulary:
        raise UserError(
            f"the tokenizer gives token {largest:,}, and the model knows only {vocabulary:,}: use "
            "the model's own tokenizer"
        )
    most = longest_sequence(model)
    if most is not None and text.n_positions > most:
        raise UserError(
            f"windows of {text.n_positions:,} tokens are longer than this model takes: at most "
            f"{most:,}"
        )


def batch_size_of(model: nn.Module, n_window: int) -> int:
    """The number of windows with ``n_positions`` positions that are scored at once."""
    device = next(model.parameters()).device.type
    n_tokens = _BATCH_TOKENS.get(device, _BATCH_TOKENS_ELSEWHERE)
    width = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    return max(1, min(n_tokens // n_window, _LOGIT_BYTES // (4 * width * n_window)))


def _score_batch(model: nn.Module, text: EvaluationText, chosen: np.ndarray) -> Tensor:
    """Nats of each chosen window, (B,) float64 on the CPU."""
    device = next(model.parameters()).device
    lengths = text.lengths[chosen]
    longest = int(lengths.max())
    places = text.begins[chosen, None] + np.arange(longest - len(text.prefix))
    rows = text.ids[np.minimum(places, text.ends[chosen, None] - 1)]
    prefix = np.tile(np.array(text.prefix, dtype=np.int32), (len(chosen), 1))
    rows = np.concatenate([prefix, rows], axis=1)
    ids = torch.from_numpy(rows.astype(np.int64)).to(device)  # (B, T)
    n_scored = torch.from_numpy(text.window_tokens[chosen])[:, None]
    last = torch.from_numpy(lengths)[:, None]
    place = torch.arange(1, longest)
    is_scored = ((place >= last - n_scored) & (place < last)).to(device)  # (B, T - 1)

    # No attention mask: padding is on the right, where a causal model doesn't attend.
    options: dict[str, Any] = {}
    n_kept = longest - 1
    is_even = int(lengths.min()) == longest
    if is_even and "logits_to_keep" in inspect.signature(model.forward).parameters:
        n_kept = int(n_scored.max())
        options["logits_to_keep"] = n_kept
    output = model(input_ids=ids[:, :-1], use_cache=False, **options)
    logits = getattr(output, "logits", None)
    if logits is None or logits.ndim != 3:
        raise UserError(
            f"{type(model).__name__} has no perplexity: it has no language-modelling head"
        )
    flat = logits.reshape(-1, logits.shape[-1])
    targets = ids[:, -n_kept:].reshape(-1)
    n_rows = max(1, _CHUNK_BYTES // (4 * flat.shape[1]))
    nats = torch.cat(
        [
            F.cross_entropy(rows.float(), wanted, reduction="none")
            for rows, wanted in zip(flat.split(n_rows), targets.split(n_rows), strict=True)
        ]
    ).view(len(chosen), n_kept)
    # torch.where, because entries that aren't scored may be NaN.
    scored = torch.where(is_scored[:, -n_kept:], nats, 0)
    return scored.double().sum(1).cpu() if device.type != "mps" else scored.cpu().double().sum(1)
