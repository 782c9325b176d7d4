"""The direction of each layer: the difference of two sets' means, and random ones beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from projector.progress import Progress
from projector.projection.provenance import versions
from projector.residual.directions.artifact import Directions
from projector.residual.directions.records import Sets, Split
from projector.residual.outliers import TIMES_USUAL, find_outliers
from projector.residual.readings.records import Reading
from projector.residual.readings.streams import read_streams
from projector.residual.subject import Subject

_STREAM = "resid_post"
# Of each set, so many prompts and first tokens of each tell how long tokens usually are.
_N_PROMPTS, _MOST_TOKENS = 8, 32
# The rows (n_positive, H) and (n_negative, H) of a layer and stream, in the order of the prompts.
RowsOf = Callable[[int, str], tuple[Tensor, Tensor]]


def read_rows(
    subject: Subject,
    ids: Sequence[Sequence[tuple[int, ...]]],
    *,
    at: str,
    keep_outliers: bool,
    progress: Progress,
) -> RowsOf:
    """Run all prompts, one at a time, and keep one vector of each layer's output.

    Args:
        ids: the prompts of each set.
    """
    n_layers = len(subject.architecture.blocks)
    readings = [Reading(layer, _STREAM) for layer in range(n_layers)]
    kept: list[dict[int, list[Tensor]]] = [{i: [] for i in range(n_layers)} for _ in ids]
    progress.begin("Reading prompts", sum(map(len, ids)), "prompts")
    for side, prompts in enumerate(ids):
        for prompt in prompts:
            rows = torch.arange(len(prompt)) if at == "mean" else torch.tensor([len(prompt) - 1])
            streams, norms = read_streams(subject, subject.inputs(list(prompt)), readings, rows)
            if at == "mean":
                out = set() if keep_outliers else set(find_outliers(norms))
                rows = torch.tensor([i for i in range(len(prompt)) if i not in out] or [*rows])
            for reading, values in streams.items():
                wide = values[rows.to(values.device)] if at == "mean" else values
                kept[side][reading.layer].append(wide.double().mean(dim=0).cpu())
            progress.advance(1)
    progress.end()

    def rows_of(layer: int, stream: str) -> tuple[Tensor, Tensor]:
        return torch.stack(kept[0][layer]), torch.stack(kept[1][layer])

    return rows_of


def read_usual_norms(
    subject: Subject, ids: Sequence[Sequence[tuple[int, ...]]]
) -> dict[tuple[int, str], float]:
    """The median norm of tokens behind each layer, of the first prompts of each set."""
    readings = [Reading(layer, _STREAM) for layer in range(len(subject.architecture.blocks))]
    norms: list[Tensor] = []
    nothing = torch.zeros(0, dtype=torch.int64)
    for prompts in ids:
        for prompt in prompts[:_N_PROMPTS]:
            inputs = subject.inputs(list(prompt[:_MOST_TOKENS]))
            norms.append(read_streams(subject, inputs, readings, nothing)[1])
    medians = torch.cat(norms, dim=1).double().nanmedian(dim=1).values
    return {(each.layer, each.stream): float(m) for each, m in zip(readings, medians, strict=True)}


def measure_directions(
    subject: Subject,
    sets: Sets,
    rows_of: RowsOf,
    split: Split,
    usual_norms: Mapping[tuple[int, str], float],
    *,
    at: str,
    keep_outliers: bool,
    seed: int,
) -> Directions:
    """The directions of every layer's output, of the prompts that are not held out.

    A layer where both sets have the same mean has none. Means are taken in float64; rows of
    outlying norms are left out of them unless ``keep_outliers``, or a set has no others.
    """
    vectors: dict[tuple[int, str], Tensor] = {}
    for layer in range(len(subject.architecture.blocks)):
        positive, negative = rows_of(layer, _STREAM)
        most = None if keep_outliers else TIMES_USUAL * usual_norms[layer, _STREAM]
        means = [
            _mean(rows[torch.tensor(numbers)].double().cpu(), most)
            for rows, numbers in ((positive, split.fit_positive), (negative, split.fit_negative))
        ]
        vector = (means[0] - means[1]).float()
        if bool(vector.any()) and bool(vector.isfinite().all()):
            vectors[layer, _STREAM] = vector
    return Directions(
        model_name=subject.loaded.identifier,
        model_sha256=subject.loaded.weights_sha256,
        pair=sets.name,
        positive_name=sets.positive_name,
        negative_name=sets.negative_name,
        sets_sha256=sets.sha256,
        at=at,
        n_fit_positive=len(split.fit_positive),
        n_fit_negative=len(split.fit_negative),
        n_tested_positive=len(split.tested_positive),
        n_tested_negative=len(split.tested_negative),
        vectors=vectors,
        usual_norms={key: usual_norms[key] for key in vectors},
        keep_outliers=keep_outliers,
        seed=seed,
        versions=versions(),
    )


def _mean(rows: Tensor, most_norm: float | None) -> Tensor:
    """(n, H) → (H,), of the rows that are no longer than ``most_norm``; of all if none are."""
    if most_norm is not None:
        usual = rows[rows.norm(dim=1) <= most_norm]
        rows = usual if len(usual) else rows
    return rows.mean(dim=0)


def random_directions(vector: Tensor, n: int, seed: int) -> Tensor:
    """(n, H) float32: directions drawn evenly over all, of the norm of ``vector`` (H,)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(n, len(vector), generator=generator, dtype=torch.float64)
    norm = vector.double().norm()
    return (drawn / drawn.norm(dim=1, keepdim=True) * norm).float()
