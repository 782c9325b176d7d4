"""The direction of each layer: the difference of two sets' means, with random controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from projector.projection.provenance import versions
from projector.residual.directions.artifact import Directions
from projector.residual.directions.records import Sets, Split
from projector.residual.outliers import TIMES_USUAL
from projector.residual.readings.records import Reading
from projector.residual.readings.streams import read_streams
from projector.residual.sampling.labels import permute_labels
from projector.residual.subject import Subject

_STREAM = "resid_post"
# Of each set, so many prompts and first tokens of each tell how long tokens usually are.
_N_PROMPTS, _MOST_TOKENS = 8, 32
# The rows (n_positive, H) and (n_negative, H) of a layer and stream, in the order of the prompts.
RowsOf = Callable[[int, str], tuple[Tensor, Tensor]]


def read_usual_norms(
    subject: Subject, ids: Sequence[Sequence[tuple[int, ...]]]
) -> dict[tuple[int, str], float]:
    """Measure the median norm of tokens after each layer, over the first prompts of each set."""
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
    """Compute the direction of every layer's output from the prompts that are not held out.

    A layer where both sets have the same mean has no direction. Means are computed in float64, over
    the same rows as every other figure of the sets; rows with outlying norms are included, and
    their number is recorded.
    """
    vectors: dict[tuple[int, str], Tensor] = {}
    is_long = [torch.zeros(len(each), dtype=torch.bool) for each in _fit(split)]
    for layer in range(len(subject.architecture.blocks)):
        means = []
        most = TIMES_USUAL * usual_norms[layer, _STREAM]
        for side, rows in enumerate(fit_rows(rows_of, layer, split)):
            is_long[side] |= rows.norm(dim=1) > most
            means.append(rows.mean(dim=0))
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
        n_outlying_positive=int(is_long[0].sum()),
        n_outlying_negative=int(is_long[1].sum()),
        vectors=vectors,
        usual_norms={key: usual_norms[key] for key in vectors},
        keep_outliers=keep_outliers,
        seed=seed,
        versions=versions(),
    )


def fit_rows(rows_of: RowsOf, layer: int, split: Split) -> tuple[Tensor, Tensor]:
    """The rows of a layer's output that the direction is fitted on, (n_fit_positive, H) and
    (n_fit_negative, H) float64 on the CPU.
    """
    rows = rows_of(layer, _STREAM)
    positive, negative = (
        each[torch.tensor(numbers)].double().cpu()
        for each, numbers in zip(rows, _fit(split), strict=True)
    )
    return positive, negative


def _fit(split: Split) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return split.fit_positive, split.fit_negative


def random_directions(vector: Tensor, n: int, seed: int) -> Tensor:
    """Draw uniform random directions, (n, H) float32, with the norm of ``vector`` (H,)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(n, len(vector), generator=generator, dtype=torch.float64)
    norm = vector.double().norm()
    return (drawn / drawn.norm(dim=1, keepdim=True) * norm).float()


def permuted_directions(
    rows: tuple[Tensor, Tensor],
    groups: tuple[Sequence[int], Sequence[int]],
    vector: Tensor,
    n: int,
    seed: int,
) -> Tensor:
    """Draw differences of means under permuted labels, with the norm of ``vector``.

    The rows are permuted after subtracting their set's mean (Freedman and Lane 1983,
    doi:10.2307/1391660). Otherwise each draw would contain a part of the difference of means, which
    scaling to the norm would enlarge.

    Args:
        rows: (n_positive, H) and (n_negative, H).
        groups: groups of the rows; rows of a group are permuted together.
        vector: (H,).

    Returns:
        (n, H) float32; (0, H) if the rows of a set don't differ.
    """
    both = torch.cat([each.double().cpu() - each.double().cpu().mean(dim=0) for each in rows])
    labels = np.arange(len(both)) < len(rows[0])
    together = np.asarray([*groups[0], *groups[1]], dtype=np.int64)
    drawn = permute_labels(labels, together, n, np.random.default_rng(seed)).T
    first = torch.from_numpy(drawn).double()
    means = [w @ both / w.sum(dim=1, keepdim=True) for w in (first, 1 - first)]
    found = means[0] - means[1]
    lengths = found.norm(dim=1, keepdim=True)
    found, lengths = found[lengths[:, 0] > 0], lengths[lengths[:, 0] > 0]
    return (found / lengths * vector.double().norm()).float()
