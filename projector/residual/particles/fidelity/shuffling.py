"""Particles without structure, placed like the real ones, as a control."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from projector.errors import SettingError
from projector.residual.particles.records import Cloud
from projector.residual.particles.reduction.joint import reduce
from projector.residual.particles.settings import ParticleSettings

# Draws, their mean is told; one where there are many numbers, which differ little.
_N_DRAWS, _MANY_NUMBERS = 3, 1 << 23
# Of more particles the control is of as many, drawn at random: more keep less of noise.
_MOST_PARTICLES = 4_096


def place_shuffled(
    cloud: Cloud,
    settings: ParticleSettings,
    *,
    rows: Tensor | None = None,
    left_out: Tensor | None = None,
) -> Iterator[tuple[Cloud, Tensor]]:
    """Yield clouds without structure, and the positions that the same pipeline gives them.

    In each frame, every coordinate is shuffled over the particles independently. Coordinates keep
    their means and variances, but lose their correlations: Horn (1965), "A rationale and test for
    the number of factors in factor analysis". A map fitted on few such particles keeps much of
    their variance by chance. Particles with an outlying norm are left out.

    Args:
        cloud: the real particles.
        settings: settings of the placement.
        rows: (m, W), the data that the map was fitted on instead of the cloud; shuffled too.
        left_out: (P,) bool, particles that don't count.

    Yields: A cloud and its positions (F, P, 3), three times, or once for large data; nothing if too
        few particles are left to be placed.
    """
    is_kept = ~cloud.outliers & cloud.is_finite().all(dim=0)
    if left_out is not None:
        is_kept &= ~left_out
    generator = torch.Generator().manual_seed(settings.seed)
    kept = is_kept.nonzero()[:, 0]
    if len(kept) > _MOST_PARTICLES:
        drawn = torch.randperm(len(kept), generator=generator)[:_MOST_PARTICLES]
        kept = kept[drawn.sort().values]
    real = replace(
        cloud,
        owners=tuple(cloud.owners[i] for i in kept.tolist()),
        vectors=cloud.vectors[..., kept, :],
        born=cloud.born[kept],
        outliers=cloud.outliers[kept],
    )
    n_numbers = real.vectors.numel() + (0 if rows is None else rows.numel())
    for _ in range(1 if n_numbers > _MANY_NUMBERS else _N_DRAWS):
        if not len(kept):
            return
        noise = replace(real, vectors=_shuffled(real, generator))
        others = None if rows is None else _shuffle(rows, generator)
        try:
            yield noise, reduce(noise, settings, rows=others).positions
        except SettingError:
            return


def _shuffled(cloud: Cloud, generator: torch.Generator) -> Tensor:
    """Vectors of the same shape; what is born together is shuffled together."""
    found = cloud.vectors.clone()
    births = [cloud.born == f for f in cloud.born.unique().tolist()]
    for frame in [found] if cloud.is_still else found:
        for chosen in births if cloud.is_still else [torch.ones_like(cloud.outliers)]:
            frame[chosen] = _shuffle(frame[chosen], generator)
    return found


def _shuffle(rows: Tensor, generator: torch.Generator) -> Tensor:
    """(n, W) with each column in an order of its own."""
    found = torch.empty_like(rows)
    # Some columns at a time: the order of a number takes twice its bytes.
    for columns in torch.arange(rows.shape[1]).split(256):
        order = torch.rand(len(rows), len(columns), generator=generator).argsort(dim=0)
        found[:, columns] = rows[:, columns].gather(0, order)
    return found
