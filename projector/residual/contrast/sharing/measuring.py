"""Measure how far the updates of successive layers, and their output weights, share directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from projector.errors import UserError, check_least
from projector.residual.contrast.records import ROUNDING
from projector.residual.contrast.sharing.directions import (
    angles_between,
    mean_overlap,
    top_directions,
)
from projector.residual.contrast.sharing.records import Measured, Sharing, SharingRow
from projector.residual.contrast.sharing.rotations import random_spans, rotated_products
from projector.residual.contrast.sharing.verdict import describe, judge
from projector.residual.contrast.sharing.weights import (
    SUBLAYERS,
    notes_on_weights,
    output_directions,
)

if TYPE_CHECKING:
    from projector.residual.subject import Subject

__all__ = ["measure_sharing"]

_MOST_DIRECTIONS = 10
_FIGURES = ("cosine", "captured", "overlap", "attention_weights", "mlp_weights")


def measure_sharing(
    subject: Subject,
    updates_of: Callable[[int], Tensor | Sequence[Tensor]],
    *,
    n_draws: int = 100,
    seed: int = 0,
) -> Sharing:
    """Compare the updates of every two successive layers, and their output weights.

    Updates are centred over the set, as for the variance.

    Args:
        updates_of: returns the update of a layer's whole block, (n, H), or one such tensor per set,
            which are centred separately. It is called once per layer, in order; two results are in
            memory at a time.
        n_draws: number of random rotations for each pair of layers.

    Raises:
        UserError: if an update isn't finite.
        SettingError: on ``n_draws``, if it is less than 1.
    """
    check_least("n_draws", n_draws, 1)
    n_layers = len(subject.architecture.blocks)
    rows, draws = [], []
    spans: list[Tensor] = []
    before = _Layer.of(subject, 0, updates_of) if n_layers > 1 else None
    for layer in range(1, n_layers):
        assert before is not None
        after = _Layer.of(subject, layer, updates_of)
        row, drawn = _compare(before, after, layer - 1, n_draws, seed * 1_000_003 + layer)
        rows.append(row)
        draws.append(drawn)
        spans.append(before.span)
        before = after
    if before is not None:
        spans.append(before.span)
    means = {name: _mean(name, rows, draws) for name in _FIGURES}
    cosine, captured = means["cosine"], means["captured"]
    verdict = judge(cosine, captured)
    return Sharing(
        rows=tuple(rows),
        **means,
        overlap_apart=_overlap_apart(spans),
        verdict=verdict,
        sentence=describe(verdict, rows, means),
        notes=notes_on_weights(subject),
        n_draws=n_draws,
    )


class _Layer:
    """One layer's centred updates, and the directions of them and of its output weights."""

    def __init__(self, updates: Tensor, span: Tensor, weights: dict[str, Tensor | str]) -> None:
        self.updates, self.span, self.weights = updates, span, weights

    @classmethod
    def of(
        cls, subject: Subject, layer: int, updates_of: Callable[[int], Tensor | Sequence[Tensor]]
    ) -> _Layer:
        given = updates_of(layer)
        sets = [given] if isinstance(given, Tensor) else list(given)
        whole = torch.cat([each.double() for each in sets])
        if not bool(torch.isfinite(whole).all()):
            raise UserError(f"the update of layer {layer} to the stream is NaN or infinite")
        centred = torch.cat([each.double() - each.double().mean(dim=0) for each in sets])
        if float(centred.square().sum()) <= ROUNDING * float(whole.square().sum()):
            centred = torch.zeros_like(centred)
        n, width = centred.shape
        k = min(_MOST_DIRECTIONS, max(1, width // 8))
        weights = {name: output_directions(subject, layer, name, k) for name in SUBLAYERS}
        return cls(centred, top_directions(centred, max(1, min(k, n // 4))), weights)


def _compare(
    before: _Layer, after: _Layer, layer: int, n_draws: int, seed: int
) -> tuple[SharingRow, dict[str, Tensor]]:
    """The row of two layers, and what each random rotation gave, by figure."""
    values: dict[str, float] = {}
    drawn: dict[str, Tensor] = {}
    reasons: dict[str, str] = {}
    width = before.updates.shape[1]
    angles: dict[str, tuple[float, ...]] = {}
    k = min(before.span.shape[1], after.span.shape[1])
    if k:
        values["cosine"], drawn["cosine"] = _cosine(before.updates, after.updates, n_draws, seed)
        first, own = before.span[:, :k], after.span[:, :k]
        random = random_spans(width, k, n_draws, seed).double()
        most = (after.updates @ own).square().sum()
        values["captured"] = float((after.updates @ first).square().sum() / most)
        drawn["captured"] = (after.updates @ random).square().sum(dim=(1, 2)) / most
        values["overlap"] = float(mean_overlap(first, own))
        drawn["overlap"] = mean_overlap(first, random)
        by_chance = angles_between(first, random).median(dim=0).values
        angles["angles"] = tuple(angles_between(first, own).tolist())
        angles["angles_random"] = tuple(by_chance.tolist())
    else:
        which = layer if not before.span.shape[1] else layer + 1
        same = f"the update of layer {which} is the same for all samples"
        names = ("cosine", "captured", "overlap", "angles", "angles_random", "n_directions")
        reasons |= dict.fromkeys(names, same)
    n_weights = None
    for sublayer in SUBLAYERS:
        name = f"{sublayer}_weights"
        one, other = before.weights[sublayer], after.weights[sublayer]
        if isinstance(one, str) or isinstance(other, str):
            reasons[name] = one if isinstance(one, str) else str(other)
            continue
        n_weights = one.shape[1]
        values[name] = float(mean_overlap(one, other))
        random = random_spans(len(one), n_weights, n_draws, seed).double()
        drawn[name] = mean_overlap(one, random)
    if n_weights is None:
        reasons["n_weight_directions"] = reasons["attention_weights"]
    figures: dict[str, Any] = {name: Measured.of(v, drawn[name]) for name, v in values.items()}
    figures |= angles
    row = SharingRow(
        layer,
        layer + 1,
        **figures,
        n_directions=k or None,
        n_weight_directions=n_weights,
        reasons=reasons,
    )
    return row, drawn


def _cosine(before: Tensor, after: Tensor, n_draws: int, seed: int) -> tuple[float, Tensor]:
    """The mean cosine over samples, (n, H) each, and (n_draws,) with one side turned at random."""
    sizes = before.norm(dim=1), after.norm(dim=1)
    # A sample without an update of its own has no direction.
    kept = (sizes[0] > 0) & (sizes[1] > 0)
    n = max(1, int(kept.sum()))
    first, second = before[kept] / sizes[0][kept, None], after[kept] / sizes[1][kept, None]
    drawn = rotated_products(first, second, n_draws, seed)
    return float((first * second).sum()) / n, drawn / n


def _mean(
    name: str, rows: Sequence[SharingRow], draws: Sequence[dict[str, Tensor]]
) -> Measured | None:
    """A figure's mean over the rows that have it, beside that of each draw."""
    values = [found.value for row in rows if (found := getattr(row, name)) is not None]
    if not values:
        return None
    random = torch.stack([drawn[name] for drawn in draws if name in drawn]).mean(dim=0)
    return Measured.of(sum(values) / len(values), random)


def _overlap_apart(spans: Sequence[Tensor]) -> float | None:
    """Mean overlap of the updates' top directions of layers half the depth apart or more."""
    n = len(spans)
    found = []
    for i in range(n):
        for j in range(i + max(2, (n + 1) // 2), n):
            k = min(spans[i].shape[1], spans[j].shape[1])
            if k:
                found.append(float(mean_overlap(spans[i][:, :k], spans[j][:, :k])))
    return sum(found) / len(found) if found else None
