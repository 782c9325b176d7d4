"""Measure how the residual stream grows over the layers, and how much each part of each block adds.

Norms are Euclidean norms of one token's vector in the stream, averaged over tokens. This takes one
pass over the text. For each batch, a few numbers per layer and token are kept, and the blocks'
updates until the batch is done.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from projector.corpus.batches import Batch
from projector.errors import UserError
from projector.model.loading import input_device
from projector.residual.contributions import (
    BlockContributions,
    EmbeddingContributions,
    check_additivity,
    watch_contributions,
)
from projector.residual.flow.records import (
    EmbeddingFlow,
    Flow,
    LayerFlow,
    OutlierToken,
    SuccessiveUpdates,
)
from projector.residual.outliers import describe_outliers

if TYPE_CHECKING:
    from projector.residual.subject import Subject

N_DRAWS = 1000
# Updates of a batch that are held for their cosines: of float32, 256 MB.
_NUMBERS_AT_ONCE = 2**26
_MOST_OUTLIERS = 50
_NORMS = ("before", "after", "update", "attention", "attention_bias", "mlp", "mlp_bias")
_SHARES = ("attention_share", "mlp_share", "bias_share", "along_stream")


def shuffled_successive(
    cosines: Tensor, n_draws: int = N_DRAWS, seed: int = 0
) -> SuccessiveUpdates | None:
    """The mean cosine of successive layers in (L, L) ``cosines``, compared with random orders.

    Only the order changes; the updates are the same. The model's own order, forwards or backwards,
    has the same neighbours and is excluded. The result is None if L < 3, because there is no other
    order.
    """
    n = len(cosines)
    if n < 3:
        return None
    generator = torch.Generator().manual_seed(seed)
    own_order = torch.arange(n)
    drawn: list[Tensor] = []
    while len(drawn) < n_draws:
        order = torch.randperm(n, generator=generator)
        if not order.equal(own_order) and not order.equal(own_order.flip(0)):
            drawn.append(order)
    orders = torch.stack(drawn)
    shuffled = cosines.double()[orders[:, :-1], orders[:, 1:]].mean(dim=1)
    own = cosines.double().diagonal(1).mean()
    return SuccessiveUpdates(
        mean=float(own),
        shuffled_mean=float(shuffled.mean()),
        shuffled_least=float(shuffled.min()),
        shuffled_most=float(shuffled.max()),
        percentile=100 * float((shuffled < own).double().mean()),
        n_draws=n_draws,
    )


class _Sums:
    """Sums over the tokens of all batches."""

    def __init__(self, n_layers: int) -> None:
        self.n_layers = n_layers
        self.totals: dict[tuple[int, str], float] = {}
        self.embedding: dict[str, float] = {}
        self.cosines = torch.zeros(n_layers, n_layers, dtype=torch.float64)
        self.n_tokens = self.n_cosines = self.n_outlying = self.n_left_out = self.n_skipped = (
            self.n_sequences
        ) = 0
        self.outliers: dict[tuple[int, bool], OutlierToken] = {}
        self.keeps_outliers = False
        self.error, self.step, self.worst = 0.0, 0.0, ""
        self.heads: dict[int, Tensor] = {}
        self.heads_error: float | None = None


class _BatchReader:
    """What one batch tells: a few numbers for each layer and token, and the updates.

    Rows are the R tokens that are not padding.

    Args:
        chosen: (C,) rows whose updates are held for their cosines.
    """

    def __init__(self, chosen: Tensor) -> None:
        self.chosen = chosen
        self.values: dict[tuple[int, str], Tensor] = {}
        self.embedding: dict[str, Tensor] = {}
        self.units: list[Tensor] = []
        self.heads: dict[int, Tensor] = {}
        self.heads_errors: dict[int, float] = {}

    def read(self, part: BlockContributions | EmbeddingContributions) -> None:
        if isinstance(part, BlockContributions):
            self._read_block(part)
        else:
            self._read_embedding(part)

    def _read_embedding(self, found: EmbeddingContributions) -> None:
        for part in found.parts:
            self.embedding[part.name] = part.values.norm(dim=-1).double().cpu()

    def _read_block(self, block: BlockContributions) -> None:
        before, after = block.pre.float(), block.post.float()
        every = {
            "attention": block.attention,
            "attention_bias": block.attention_bias,
            "mlp": block.mlp,
            "mlp_bias": block.mlp_bias,
        }
        parts = {name: value for name, value in every.items() if value is not None}
        update = torch.zeros_like(before)
        for value in parts.values():
            update += value.to(update.device)
        square = (update * update).sum(dim=-1).clamp_min(1e-30)
        found = {
            "before": before.norm(dim=-1),
            "after": after.norm(dim=-1),
            "update": update.norm(dim=-1),
            "along_stream": torch.nn.functional.cosine_similarity(update, before, dim=-1),
        }
        shares: dict[str, Tensor] = {}
        for name, value in parts.items():
            found[name] = value.norm(dim=-1)
            share = (value.to(update.device) * update).sum(dim=-1) / square
            kind = "bias_share" if name.endswith("bias") else f"{name}_share"
            shares[kind] = shares[kind] + share if kind in shares else share
        for name, values in (found | shares).items():
            self.values[block.layer, name] = values.double().cpu()
        if block.has_heads:
            norms, errors = block.measure_heads()
            self.heads[block.layer] = norms.double().cpu()
            self.heads_errors[block.layer] = float(errors.max())
        unit = torch.nn.functional.normalize(update[self.chosen.to(update.device)], dim=-1)
        self.units.append(unit.cpu())


def measure_flow(
    subject: Subject,
    batches: Iterable[Batch],
    *,
    leave_outliers_out: bool = False,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> Flow:
    """Run the model over batches of text once, and measure how its stream grows.

    Args:
        batches: batches of text; ``keep`` marks the tokens that count.
        leave_outliers_out: compute means without tokens that have a norm many times the median in
            any layer; see :func:`projector.residual.outliers.find_outliers`.
        n_draws: number of random orders of layers for the control.

    Raises:
        UserError: if a sum doesn't close, or no token counts.
    """
    n_layers = len(subject.architecture.blocks)
    sums = _Sums(n_layers)
    norms: Tensor | None = None
    for batch in batches:
        norms = _add_batch(subject, batch, sums, leave_outliers_out)
    if not sums.n_tokens:
        raise UserError("no token is left to average over: give more text")
    cosines = (sums.cosines / max(1, sums.n_cosines)).float()
    layout = subject.layout
    return Flow(
        rows=tuple(_layer(sums, layer, cosines) for layer in range(n_layers)),
        embedding=tuple(
            EmbeddingFlow(name, total / sums.n_tokens) for name, total in sums.embedding.items()
        ),
        successive=shuffled_successive(cosines, n_draws, seed),
        cosines=tuple(tuple(row) for row in cosines.tolist()),
        n_tokens=sums.n_tokens,
        n_sequences=sums.n_sequences,
        n_skipped=sums.n_skipped,
        n_outlying=sums.n_outlying,
        n_left_out=sums.n_left_out,
        outliers=_furthest(subject, sums.outliers.values()),
        outliers_left_out=leave_outliers_out and not sums.keeps_outliers,
        norms=None
        if norms is None or sums.n_sequences > 1
        else tuple(tuple(row) for row in norms.tolist()),
        additivity_error=sums.error,
        step_error=sums.step,
        worst=sums.worst,
        heads_error=sums.heads_error,
        per_block_reason=layout.reason if layout.closes_per_block else None,
    )


def prompt_batch(subject: Subject, ids: Sequence[int]) -> Batch:
    """A prompt as a batch of one sequence. A causal model's first token doesn't count, unless it is
    the only one.
    """
    tokens = torch.tensor([list(ids)], dtype=torch.int64)
    keep = torch.ones_like(tokens, dtype=torch.bool)
    keep[:, 0] = not subject.architecture.is_causal or len(ids) == 1
    return Batch(tokens, torch.ones_like(tokens), keep, 0)


def batch_size_for(subject: Subject, sequence_length: int) -> int:
    """The number of sequences per batch that keeps the memory for updates within bounds."""
    per_token = len(subject.architecture.blocks) * subject.architecture.n_hidden
    return max(1, min(16, _NUMBERS_AT_ONCE // (per_token * sequence_length)))


def _add_batch(subject: Subject, batch: Batch, sums: _Sums, leave_outliers_out: bool) -> Tensor:
    """Count a batch in.

    Returns:
        (L + 1, R) norms of the stream before and behind each layer, of tokens that are not padding.
    """
    n_layers = sums.n_layers
    real = batch.attention_mask.reshape(-1).nonzero()[:, 0]
    keep = batch.keep.reshape(-1)[real]
    per_token = n_layers * subject.architecture.n_hidden
    at = keep.nonzero()[:, 0]
    most = max(1, _NUMBERS_AT_ONCE // per_token)
    if len(at) > most:
        at = at[torch.linspace(0, len(at) - 1, most).long()]
    reader = _BatchReader(at)
    device = input_device(subject.model)
    inputs = {
        "input_ids": batch.input_ids.to(device),
        "attention_mask": batch.attention_mask.to(device),
    }
    check = watch_contributions(subject, inputs, reader.read)
    check_additivity(check)
    _check_heads(reader.heads_errors, check.tolerance, sums)
    sums.error = max(sums.error, check.additivity_error)
    if check.step_error >= sums.step:
        sums.step, sums.worst = check.step_error, check.worst
    norms = torch.stack(
        [reader.values[0, "before"], *(reader.values[k, "after"] for k in range(n_layers))]
    )
    out = _note_outliers(batch, real, norms, sums)
    counted = keep & ~out if leave_outliers_out else keep
    if leave_outliers_out and not bool(counted.any()):
        # All where none would be left.
        counted, sums.keeps_outliers = keep, True
    for key, values in reader.values.items():
        sums.totals[key] = sums.totals.get(key, 0.0) + float(values[counted].sum())
    for layer, values in reader.heads.items():
        sums.heads[layer] = sums.heads.get(layer, 0.0) + values[counted].sum(dim=0)
    for name, values in reader.embedding.items():
        sums.embedding[name] = sums.embedding.get(name, 0.0) + float(values[counted].sum())
    units = torch.stack(reader.units)[:, counted[at]].flatten(1)
    sums.cosines += (units @ units.T).double()
    sums.n_cosines += int(counted[at].sum())
    sums.n_tokens += int(counted.sum())
    sums.n_left_out += int((keep & ~counted).sum())
    sums.n_skipped += int((~keep).sum())
    sums.n_sequences += len(batch.keep)
    return norms


def _check_heads(errors: dict[int, float], tolerance: float, sums: _Sums) -> None:
    """Note how well heads and biases sum to attention.

    Raises:
        UserError: in which layer they do not.
    """
    for layer, error in errors.items():
        if not error <= tolerance:
            raise UserError(
                f"the heads of layer {layer} don't sum to its attention's output: the error is "
                f"{error:.1e} of their norms' sum; rounding explains at most {tolerance:.0e}"
            )
        sums.heads_error = max(error, sums.heads_error or 0.0)


def _note_outliers(batch: Batch, real: Tensor, norms: Tensor, sums: _Sums) -> Tensor:
    """(R,) bool: which tokens are outlying; they are noted by token."""
    is_out = torch.zeros(len(real), dtype=torch.bool)
    ids = batch.input_ids.reshape(-1)[real]
    is_first = (real % batch.input_ids.shape[1]) == 0
    for each in describe_outliers(norms):
        is_out[each.position] = True
        key = (int(ids[each.position]), bool(is_first[each.position]))
        before = sums.outliers.get(key)
        n = 1 if before is None else before.n + 1
        if before is None or _times(before.times_usual) < _times(each.times_usual):
            sums.outliers[key] = OutlierToken(
                key[0], "", key[1], each.reading - 1, each.times_usual, n
            )
        else:
            sums.outliers[key] = replace(before, n=n)
    sums.n_outlying += int(is_out.sum())
    return is_out


def _times(times_usual: float | None) -> float:
    return math.inf if times_usual is None else times_usual


def _furthest(subject: Subject, found: Iterable[OutlierToken]) -> tuple[OutlierToken, ...]:
    chosen = sorted(found, key=lambda each: -_times(each.times_usual))[:_MOST_OUTLIERS]
    pieces = subject.pieces([each.token for each in chosen])
    return tuple(replace(each, text=pieces.text(each.token)) for each in chosen)


def _layer(sums: _Sums, layer: int, cosines: Tensor) -> LayerFlow:
    def mean(name: str) -> float | None:
        total = sums.totals.get((layer, name))
        return None if total is None else total / sums.n_tokens

    values: dict[str, Any] = {name: mean(name) for name in (*_NORMS, *_SHARES)}
    is_last = layer == sums.n_layers - 1
    following = None if is_last else float(cosines[layer, layer + 1])
    heads = sums.heads.get(layer)
    norms = None if heads is None else tuple((heads / sums.n_tokens).tolist())
    return LayerFlow(layer=layer, next_cosine=following, heads=norms, **values)
