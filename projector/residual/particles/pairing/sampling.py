"""Pairs of continuations sampled from the model: how far prompts diverge by chance."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor

from projector.errors import UserError
from projector.model.caching import cache_of, with_cache
from projector.model.capture import capture, evaluating
from projector.model.loading import input_device
from projector.progress import Progress
from projector.residual.particles.pairing.cost import (
    count_weights,
    pair_operations,
    time_words,
)
from projector.residual.particles.pairing.distances import mean_distances
from projector.residual.particles.pairing.records import Alignment
from projector.residual.subject import Subject

__all__ = ["Sampled", "sample_continuations", "sample_distances", "why_not_sampled"]

# Tokens that are run at once, and logits that are held at once: 512 MB of float32.
_TOKENS_AT_ONCE = 4096
_LOGITS_AT_ONCE = 2**27
# How often as many pairs are drawn as are wanted, where the model samples equal ones; and what
# drawing may cost, in tokens that are run.
_MOST_ROUNDS, _MOST_DRAWN_TOKENS = 10, 10_000
_RowPair = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Sampled:
    """Pairs of different continuations.

    Attributes:
        distances: (n, F) float64, the distance of each different pair in each frame.
        n_drawn: number of pairs drawn for them; ``n_equal``: number of equal pairs among these.
    """

    distances: Tensor
    n_drawn: int
    n_equal: int


@dataclass(frozen=True, eq=False)
class _Start:
    """What a model makes of a beginning: the next token's cumulated probabilities, keys, values."""

    cumulated: Tensor
    kept: Any


def why_not_sampled(subject: Subject, shared: Alignment) -> str | None:
    """The reason why a model can't continue the shared beginning of two prompts; None if it can."""
    if not subject.architecture.is_causal:
        return "the model is an encoder: it can't continue text, so no pairs are sampled"
    if not hasattr(subject.model, "generate"):
        return "the model was loaded without a head and can't continue text: no pairs are sampled"
    if not shared.n_beginning:
        return "the prompts share no beginning that the model could continue"
    return None


def sample_distances(
    subject: Subject,
    ids_a: Sequence[int],
    ids_b: Sequence[int],
    shared: Alignment,
    *,
    n_pairs: int,
    seed: int,
    progress: Progress,
) -> Sampled:
    """Measure the distances between pairs of continuations that differ by chance alone.

    Both members of a pair start with the shared beginning of the prompts, followed by as many
    sampled tokens as A and B have between the shared beginning and the shared end, and then the
    shared end. The same tokens are compared as for the prompts: those of the shared end or, if
    there is none, the last token.

    Two equal continuations have distance 0, and two different prompts never do. Equal pairs
    therefore don't count, and more pairs are drawn: up to ten times ``n_pairs`` in total, fewer if
    that takes long.

    This costs at most 2 · ``n_pairs`` runs of the text after the shared beginning, in batches.

    Args:
        n_pairs: the requested number of different pairs, 1 or more.

    Raises:
        UserError: if a logit isn't finite.
    """
    pairs, n_drawn = _draw_unlike(subject, ids_a, ids_b, shared, n_pairs=n_pairs, seed=seed)
    # What was drawn several times is run once.
    once = list(dict.fromkeys(pairs))
    cost = len(once) * pair_operations(
        count_weights(subject.architecture), shared, len(ids_a), len(ids_b)
    )
    stage = f"Comparing samples, about {time_words(cost)}"
    progress.begin(stage, len(once), "pairs")
    n_kept = shared.n_beginning - 1
    kept = _keys_and_values(subject, ids_a[:n_kept])
    found: dict[_RowPair, Tensor] = {}
    for batch in _batches(once):
        rows = [list(row) for pair in batch for row in pair]
        distances = _run_pairs(subject, rows, shared.n_end or 1, kept, n_kept)
        found |= dict(zip(batch, distances, strict=True))
        progress.advance(len(batch))
    progress.end()
    n_frames = len(subject.architecture.blocks) + 1
    none = torch.zeros(0, n_frames, dtype=torch.float64)
    each = torch.stack([found[pair] for pair in pairs]) if pairs else none
    return Sampled(each, n_drawn, n_drawn - len(pairs))


def _draw_unlike(
    subject: Subject,
    ids_a: Sequence[int],
    ids_b: Sequence[int],
    shared: Alignment,
    *,
    n_pairs: int,
    seed: int,
) -> tuple[list[_RowPair], int]:
    """Unlike pairs of whole rows, ``n_pairs`` at most; and how many pairs were drawn for them."""
    beginning = list(ids_a[: shared.n_beginning])
    end = list(ids_a[len(ids_a) - shared.n_end :])
    n_new = [len(ids) - shared.n_beginning - shared.n_end for ids in (ids_a, ids_b)]
    # The first token of every row comes of one run.
    cost = 2 * n_pairs * max(max(n_new) - 1, 0)
    n_rounds = min(_MOST_ROUNDS, max(1, _MOST_DRAWN_TOKENS // max(cost, 1)))
    rng = np.random.default_rng(seed)
    start = _start(subject, beginning, use_cache=True)
    unlike: list[_RowPair] = []
    for n_round in range(n_rounds):
        drawn = _continue(subject, beginning, start, rng.random((2 * n_pairs, max(n_new))))
        for i in range(n_pairs):
            a, b = (
                (*beginning, *drawn[side * n_pairs + i][: n_new[side]], *end) for side in (0, 1)
            )
            if a != b:
                unlike.append((a, b))
            if len(unlike) == n_pairs:
                return unlike, n_round * n_pairs + i + 1
    return unlike, n_rounds * n_pairs


def sample_continuations(
    subject: Subject,
    ids: Sequence[int],
    n_new: int,
    n: int,
    *,
    seed: int,
    use_cache: bool = True,
) -> list[list[int]]:
    """Sample ``n`` continuations of ``n_new`` tokens from the model's own probabilities.

    The tokenizer's special tokens are excluded, because they don't occur within a text. Equal seeds
    give equal tokens for any batch size.

    Args:
        use_cache: cache keys and values, if the model supports it.

    Raises:
        UserError: if a logit isn't finite.
    """
    numbers = np.random.default_rng(seed).random((n, n_new))
    return _continue(subject, ids, _start(subject, ids, use_cache=use_cache), numbers)


@torch.no_grad()
def _start(subject: Subject, ids: Sequence[int], *, use_cache: bool) -> _Start:
    model: Any = subject.model
    with evaluating(model):
        device = input_device(model)
        first = _run(model, torch.tensor([list(ids)], device=device), None, use_cache)
    kept = _repeatable(first) if use_cache else None
    return _Start(_cumulated(first.logits[:, -1], _special(subject)), kept)


@torch.no_grad()
def _continue(
    subject: Subject, ids: Sequence[int], start: _Start, numbers: np.ndarray
) -> list[list[int]]:
    """A continuation of each row of ``numbers`` (n, n_new), which are in [0, 1)."""
    model: Any = subject.model
    n, n_new = numbers.shape
    if not n_new:
        return [[] for _ in range(n)]
    special, device = _special(subject), input_device(model)
    width = start.cumulated.shape[-1]
    at_once = _LOGITS_AT_ONCE // (width * (1 if start.kept is not None else len(ids) + n_new))
    at_once = max(1, min(at_once, _TOKENS_AT_ONCE // (len(ids) + n_new)))
    result: list[list[int]] = []
    with evaluating(model):
        for begin in range(0, n, at_once):
            drawn = numbers[begin : begin + at_once]
            tokens = [_pick(start.cumulated, drawn[:, :1])]
            cache = None if start.kept is None or n_new == 1 else copy.deepcopy(start.kept)
            if cache is not None:
                cache.batch_repeat_interleave(len(drawn))
            before = torch.tensor([list(ids)] * len(drawn), device=device)
            for step in range(1, n_new):
                so_far = torch.cat([before, *(each.to(device) for each in tokens)], dim=1)
                out = _run(model, so_far, cache, cache is not None)
                cache = None if cache is None else cache_of(out)
                tokens.append(
                    _pick(_cumulated(out.logits[:, -1], special), drawn[:, step : step + 1])
                )
            result += torch.cat(tokens, dim=1).tolist()
    return result


def _special(subject: Subject) -> list[int]:
    return sorted(set(getattr(subject.loaded.tokenizer, "all_special_ids", None) or ()))


def _repeatable(out: Any) -> Any:
    """The keys and values of a run, if they can be given to a batch; None if not."""
    kept = cache_of(out)
    return kept if hasattr(kept, "batch_repeat_interleave") else None


@torch.no_grad()
def _keys_and_values(subject: Subject, ids: Sequence[int]) -> Any:
    """Of some tokens, (1, T); None if there are none, or the model gives none."""
    if not ids:
        return None
    model: Any = subject.model
    with evaluating(model):
        inputs = torch.tensor([list(ids)], device=input_device(model))
        return _repeatable(_run(model, inputs, None, True))


def _run(model: Any, ids: Tensor, cache: Any, use_cache: bool) -> Any:
    """One run over ``ids`` (B, T); over the last token alone where the others are in ``cache``."""
    options: dict[str, Any] = {}
    if "logits_to_keep" in signature(model.forward).parameters:
        options["logits_to_keep"] = 1
    return model(
        **options,
        input_ids=ids if cache is None else ids[:, -1:],
        attention_mask=torch.ones_like(ids),
        **with_cache(model, cache),
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
    rows = cumulated[0] if len(cumulated) == 1 else cumulated.contiguous()
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
def _run_pairs(
    subject: Subject, rows: list[list[int]], n_read: int, kept: Any, n_kept: int
) -> Tensor:
    """(n_pairs, F) float64: the distance of each two rows' last ``n_read`` tokens in each frame.

    Args:
        kept: keys and values of the first ``n_kept`` tokens, which are those of every row; None
            if each row is run from its first token on.
    """
    model = subject.model
    n_kept = n_kept if kept is not None else 0
    whole = torch.tensor([len(row) for row in rows])
    longest = int(whole.max())
    ids = torch.tensor([row[n_kept:] + [row[-1]] * (longest - len(row)) for row in rows])
    mask = (torch.arange(longest)[None] < whole[:, None]).long()
    at = whole[:, None] - n_kept - n_read + torch.arange(n_read)[None]
    n_layers = len(subject.architecture.blocks)
    taps = {
        **subject.architecture.taps(["resid_pre"], [0]),
        **subject.architecture.taps(["resid_post"], range(n_layers)),
    }
    found: dict[tuple[int, str], Tensor] = {}

    def read(key: tuple[int, str], tensor: Tensor) -> None:
        states = tensor.detach().reshape(len(rows), longest - n_kept, -1)
        where = at.to(states.device)[:, :, None].expand(-1, -1, states.shape[-1])
        ends = states.gather(1, where).float().cpu()
        found[key] = mean_distances(ends[::2], ends[1::2])

    options: dict[str, Any] = {}
    if kept is not None:
        repeated = copy.deepcopy(kept)
        repeated.batch_repeat_interleave(len(rows))
        options = with_cache(model, repeated)
    device = input_device(model)
    with evaluating(model), capture(taps, read, then_stop=True):
        model(input_ids=ids.to(device), attention_mask=mask.to(device), **options)
    return torch.stack([found[key] for key in taps], dim=1)
