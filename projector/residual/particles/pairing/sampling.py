"""Pairs of continuations that a model samples itself: how far prompts part by chance."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor

from projector.errors import UserError
from projector.model.capture import capture, evaluating
from projector.model.loading import input_device
from projector.progress import Progress
from projector.residual.particles.pairing.distances import mean_distances
from projector.residual.particles.pairing.records import Alignment
from projector.residual.subject import Subject

__all__ = ["count_pairs", "sample_continuations", "sample_distances", "why_not_sampled"]

# Tokens that are run at once, and logits that are held at once: 512 MB of float32.
_TOKENS_AT_ONCE = 4096
_LOGITS_AT_ONCE = 2**27
# What runs of the pairs may cost; and between how many pairs that chooses. The 95th percentile of
# 20 is their second largest, and changes much with the seed.
_OPERATIONS = 7 * 10**11
LEAST_PAIRS, MOST_PAIRS = 20, 100
_RowPair = tuple[tuple[int, ...], tuple[int, ...]]


def count_pairs(subject: Subject, n_tokens: int) -> int:
    """How many pairs are sampled: as many as take seconds on a core, between the least and most.

    Args:
        n_tokens: of the longer prompt.
    """
    n_weights = sum(
        each.numel() for block in subject.architecture.blocks for each in block.module.parameters()
    )
    cost = 2 * n_tokens * 2 * max(n_weights, 1)
    return min(MOST_PAIRS, max(LEAST_PAIRS, _OPERATIONS // cost))


def why_not_sampled(subject: Subject, shared: Alignment) -> str | None:
    """Why a model can't continue what two prompts begin with; None where it can."""
    if not subject.architecture.is_causal:
        return "the model is an encoder: it continues no text, so no pairs are sampled"
    if not hasattr(subject.model, "generate"):
        return "the model was loaded without a head: it continues no text, so no pairs are sampled"
    if not shared.n_beginning:
        return "the prompts share no beginning that the model could continue"
    return None


def sample_distances(
    subject: Subject,
    ids_a: Sequence[int],
    ids_b: Sequence[int],
    shared: Alignment,
    *,
    n_samples: int,
    seed: int,
    progress: Progress,
) -> tuple[Tensor, int]:
    """How far pairs of continuations are apart that differ by chance alone.

    Both of a pair begin as the prompts do; then come as many sampled tokens as A and as B have
    between the shared beginning and the shared end; then the shared end. What is compared is what
    is compared of the prompts: the tokens of the shared end or, where there is none, the last one.

    Costs at most 2 · ``n_samples`` runs of a prompt's length, in batches.

    Returns:
        (n_samples, F) float64, the distance in each frame; and how many pairs are equal.

    Raises:
        UserError: if a logit is not finite.
    """
    beginning = list(ids_a[: shared.n_beginning])
    end = list(ids_a[len(ids_a) - shared.n_end :])
    n_new = [len(ids) - shared.n_beginning - shared.n_end for ids in (ids_a, ids_b)]
    progress.begin("Sampling pairs of continuations", n_samples, "pairs")
    drawn = sample_continuations(subject, beginning, max(n_new), 2 * n_samples, seed=seed)
    rows = [
        beginning + drawn[side * n_samples + i][: n_new[side]] + end
        for i in range(n_samples)
        for side in (0, 1)
    ]
    n_read = shared.n_end or 1
    sampled = [(tuple(a), tuple(b)) for a, b in zip(rows[::2], rows[1::2], strict=True)]
    counts = Counter(sampled)
    unlike = [each for each in counts if each[0] != each[1]]
    n_equal = sum(counts[each] for each in counts if each[0] == each[1])
    n_frames = len(subject.architecture.blocks) + 1
    # Equal rows are 0 apart; what was drawn several times is run once.
    found = {each: torch.zeros(n_frames).double() for each in counts}
    progress.advance(n_equal)
    for batch in _batches(unlike):
        distances = _run_pairs(subject, [list(row) for pair in batch for row in pair], n_read)
        found |= dict(zip(batch, distances, strict=True))
        progress.advance(sum(counts[each] for each in batch))
    progress.end()
    return torch.stack([found[each] for each in sampled]), n_equal


@torch.no_grad()
def sample_continuations(
    subject: Subject,
    ids: Sequence[int],
    n_new: int,
    n: int,
    *,
    seed: int,
    use_cache: bool = True,
) -> list[list[int]]:
    """``n`` continuations of ``n_new`` tokens, each from the model's own probabilities.

    The tokenizer's special tokens are left out: what stands within a text is text. Equal seeds give
    equal tokens, however many are run at once.

    Args:
        use_cache: keep keys and values of what was read, where the model gives any.

    Raises:
        UserError: if a logit is not finite.
    """
    model: Any = subject.model
    if not n_new:
        return [[] for _ in range(n)]
    numbers = np.random.default_rng(seed).random((n, n_new))
    special = sorted(set(getattr(subject.loaded.tokenizer, "all_special_ids", None) or ()))
    device = input_device(model)
    result: list[list[int]] = []
    with evaluating(model):
        first = _run(model, torch.tensor([list(ids)], device=device), None, use_cache)
        cumulated = _cumulated(first.logits[:, -1], special)
        kept = getattr(first, "past_key_values", None) if use_cache else None
        kept = kept if hasattr(kept, "batch_repeat_interleave") else None
        width = first.logits.shape[-1]
        at_once = _LOGITS_AT_ONCE // (width * (1 if kept is not None else len(ids) + n_new))
        at_once = max(1, min(at_once, _TOKENS_AT_ONCE // (len(ids) + n_new)))
        for start in range(0, n, at_once):
            drawn = numbers[start : start + at_once]
            tokens = [_pick(cumulated, drawn[:, :1])]
            cache = None if kept is None else copy.deepcopy(kept)
            if cache is not None:
                cache.batch_repeat_interleave(len(drawn))
            before = torch.tensor([list(ids)] * len(drawn), device=device)
            for step in range(1, n_new):
                so_far = torch.cat([before, *(each.to(device) for each in tokens)], dim=1)
                out = _run(model, so_far, cache, cache is not None)
                cache = None if cache is None else out.past_key_values
                tokens.append(
                    _pick(_cumulated(out.logits[:, -1], special), drawn[:, step : step + 1])
                )
            result += torch.cat(tokens, dim=1).tolist()
    return result


def _run(model: Any, ids: Tensor, cache: Any, use_cache: bool) -> Any:
    """One run over ``ids`` (B, T); over the last token alone where the others are in ``cache``."""
    options: dict[str, Any] = {}
    if "logits_to_keep" in signature(model.forward).parameters:
        options["logits_to_keep"] = 1
    return model(
        **options,
        input_ids=ids if cache is None else ids[:, -1:],
        attention_mask=torch.ones_like(ids),
        past_key_values=cache,
        use_cache=use_cache,
    )


def _cumulated(logits: Tensor, special: Sequence[int]) -> Tensor:
    """(B, V) float64 on the CPU: the cumulated probabilities, the last of which is 1."""
    logits = logits.double().cpu()
    if not bool(logits.isfinite().all()):
        raise UserError("a logit of the model is not finite, so no continuation can be sampled")
    inside = [i for i in special if i < logits.shape[-1]]
    if len(inside) < logits.shape[-1]:
        logits[:, inside] = -torch.inf
    total = logits.softmax(dim=-1).cumsum(dim=-1)
    return total / total[:, -1:]


def _pick(cumulated: Tensor, drawn: np.ndarray) -> Tensor:
    """(B, 1) int64: the token in whose share of the probability a number of [0, 1) falls."""
    numbers = torch.from_numpy(np.ascontiguousarray(drawn))
    rows = cumulated.expand(len(numbers), -1).contiguous()
    return torch.searchsorted(rows, numbers, right=True).clamp_max(rows.shape[-1] - 1)


def _batches(pairs: list[_RowPair]) -> Iterator[list[_RowPair]]:
    """Pairs of rows, as many as may be run at once."""
    if not pairs:
        return
    longest = max(len(row) for pair in pairs for row in pair)
    n_pairs = max(1, _TOKENS_AT_ONCE // (2 * longest))
    for start in range(0, len(pairs), n_pairs):
        yield pairs[start : start + n_pairs]


@torch.no_grad()
def _run_pairs(subject: Subject, rows: list[list[int]], n_read: int) -> Tensor:
    """(n_pairs, F) float64: the distance of each two rows' last ``n_read`` tokens in each frame."""
    model = subject.model
    longest = max(map(len, rows))
    ids = torch.tensor([row + [row[-1]] * (longest - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(longest)[None] < lengths[:, None]).long()
    at = lengths[:, None] - n_read + torch.arange(n_read)[None]
    n_layers = len(subject.architecture.blocks)
    taps = {
        **subject.architecture.taps(["resid_pre"], [0]),
        **subject.architecture.taps(["resid_post"], range(n_layers)),
    }
    found: dict[tuple[int, str], Tensor] = {}

    def read(key: tuple[int, str], tensor: Tensor) -> None:
        states = tensor.detach().reshape(len(rows), longest, -1)
        where = at.to(states.device)[:, :, None].expand(-1, -1, states.shape[-1])
        ends = states.gather(1, where).float().cpu()
        found[key] = mean_distances(ends[::2], ends[1::2])

    device = input_device(model)
    with evaluating(model), capture(taps, read, then_stop=True):
        model(input_ids=ids.to(device), attention_mask=mask.to(device))
    return torch.stack([found[key] for key in taps], dim=1)
