"""Place particles in two or three dimensions, with one map for all frames or one map for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from projector.errors import SettingError, UserError, named
from projector.memory import out_of_memory
from projector.progress import Progress, Silent
from projector.residual.particles.reduction.pca import PCA
from projector.residual.particles.reduction.reduction import (
    Fitted,
    Reduced,
    Reduction,
    no_place_for_others,
)
from projector.residual.particles.reduction.registry import find_reduction
from projector.residual.particles.reduction.turning import turn_onto

# Particles that add up to a token's stream. Their linear map leaves the mean in, so that the map of
# their sum is the sum of their maps.
_ADDING_UP = frozenset({"embedding", "head", "mlp", "other"})
_FEWEST_NEIGHBOURS = 2


class ReductionSettings(Protocol):
    """The settings of a reduction; see :class:`ParticleSettings`."""

    @property
    def reduction(self) -> str | None: ...
    @property
    def per_layer(self) -> bool: ...
    @property
    def dim(self) -> int: ...
    @property
    def neighbours(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def keep_outliers(self) -> bool: ...


class Named(Protocol):
    """A frame, with a name like :class:`Frame`."""

    @property
    def name(self) -> str: ...


class Owned(Protocol):
    """The owner of a particle, like :class:`Owner`."""

    @property
    def prompt(self) -> int: ...
    @property
    def token(self) -> int: ...
    @property
    def kind(self) -> str: ...


class Particles(Protocol):
    """P particles in F frames, like :class:`Cloud`."""

    @property
    def frames(self) -> Sequence[Named]: ...
    @property
    def owners(self) -> Sequence[Owned]: ...
    @property
    def vectors(self) -> Tensor: ...
    @property
    def is_still(self) -> bool: ...
    @property
    def born(self) -> Tensor: ...
    @property
    def outliers(self) -> Tensor: ...
    def is_born(self) -> Tensor: ...
    def is_finite(self) -> Tensor: ...
    def at(self, frame: int, chosen: Tensor, /) -> Tensor: ...
    def rows(self, chosen: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class _Rows:
    """Which rows (F, P) of a cloud are what.

    Attributes:
        is_new: born, and not the same as in the frame before.
        fitted: of those with finite numbers, the ones that a map is fitted on.
        others: the ones that it is not.
    """

    is_new: Tensor
    fitted: Tensor
    others: Tensor


def reduce(
    cloud: Particles,
    settings: ReductionSettings,
    *,
    rows: Tensor | None = None,
    progress: Progress | None = None,
) -> Reduced:
    """Place the particles of a cloud.

    One map serves all frames. It is fitted on each particle's vector in each frame from its birth
    on (constant vectors count once), in an order that depends on the vectors alone. With
    ``per_layer``, each frame has its own map, and is rotated onto the previous frame. A linear map
    of contributions keeps the origin, so the positions of a token's parts sum to the position of
    its stream.

    Particles with an outlying norm are left out of the fit unless ``keep_outliers``, and placed
    afterwards if the method can do so. Before its birth, a particle has the position of its birth;
    if the map keeps the origin, it is at the origin.

    Args:
        cloud: the particles.
        settings: the reduction, its number of dimensions, and its own settings.
        rows: (m, W) float32, hidden states of a corpus to fit on instead of the cloud's.
        progress: receives progress reports.

    Raises:
        SettingError: on ``reduction``, ``neighbours`` or ``dim``, if there are too few rows; on
            ``fit``, if this reduction, or a map for each layer, can't be fitted on a corpus.
        UserError: if no particle is finite, or memory is too small.
    """
    reduction = find_reduction(settings.reduction or PCA.name)
    if rows is not None and not reduction.places_others:
        raise no_place_for_others()
    if rows is not None and settings.per_layer:
        raise SettingError(
            "fit",
            "corpus",
            f"can't be combined with {named('per_layer', True)}",
            "give one of the two: a corpus fits one map for all layers",
        )
    progress = progress or Silent()
    is_centred = not any(owner.kind in _ADDING_UP for owner in cloud.owners)
    with out_of_memory(": show fewer layers or particles"):
        if settings.per_layer:
            positions = _each_frame(cloud, settings, reduction, is_centred, progress)
        else:
            positions = _all_frames(cloud, settings, reduction, is_centred, rows, progress)
    progress.end()
    whole = torch.zeros(*positions.shape[:2], 3)
    whole[..., : settings.dim] = positions
    whole[~positions.isfinite().all(dim=-1)] = torch.nan
    return Reduced(
        whole,
        reduction.name,
        settings.per_layer,
        reduction.is_linear,
        _notes(cloud, settings, reduction, is_own=rows is None),
    )


def _all_frames(
    cloud: Particles,
    settings: ReductionSettings,
    reduction: Reduction,
    is_centred: bool,
    rows: Tensor | None,
    progress: Progress,
) -> Tensor:
    """(F, P, dim) by one map."""
    chosen = _rows(cloud, settings)
    others = chosen.others
    positions = torch.full((*cloud.is_born().shape, settings.dim), torch.nan)
    if rows is None:
        fitted = _fit(cloud.rows(chosen.fitted), settings, reduction, is_centred, progress)
        positions[chosen.fitted] = fitted.positions
    else:
        rows = rows[rows.isfinite().all(dim=1)]
        fitted = _fit(rows, settings, reduction, is_centred, progress)
        others = others | chosen.fitted
    if reduction.places_others and bool(others.any()):
        positions[others] = fitted.place(cloud.rows(others))
    is_born = cloud.is_born()
    for frame in range(1, len(positions)):
        stays = is_born[frame] & ~chosen.is_new[frame]
        positions[frame, stays] = positions[frame - 1, stays]
    return _before_birth(positions, cloud, reduction, is_centred)


def _each_frame(
    cloud: Particles,
    settings: ReductionSettings,
    reduction: Reduction,
    is_centred: bool,
    progress: Progress,
) -> Tensor:
    """(F, P, dim), each frame by a map of its own, rotated onto the frame before."""
    positions = torch.full((*cloud.is_born().shape, settings.dim), torch.nan)
    is_kept = _kept(cloud, settings)
    for frame, is_finite in enumerate(cloud.is_born() & cloud.is_finite()):
        chosen = is_finite & is_kept
        where = f" in the frame {cloud.frames[frame].name}"
        fitted = _fit(cloud.at(frame, chosen), settings, reduction, is_centred, progress, where)
        positions[frame, chosen] = fitted.positions
        others = is_finite & ~is_kept
        if reduction.places_others and bool(others.any()):
            positions[frame, others] = fitted.place(cloud.at(frame, others))
        if frame:
            before = positions[frame - 1]
            counted = chosen & before.isfinite().all(dim=-1)
            keeps_origin = reduction.is_linear and not is_centred
            positions[frame] = turn_onto(
                positions[frame], before, counted, is_centred=not keeps_origin
            )
    return _before_birth(positions, cloud, reduction, is_centred)


def _before_birth(
    positions: Tensor, cloud: Particles, reduction: Reduction, is_centred: bool
) -> Tensor:
    is_born = cloud.is_born()
    if reduction.is_linear and not is_centred:
        return positions.where(is_born[..., None], 0.0)
    at_birth = positions[cloud.born.clamp(max=len(positions) - 1), torch.arange(len(cloud.born))]
    return positions.where(is_born[..., None], at_birth)


def _kept(cloud: Particles, settings: ReductionSettings) -> Tensor:
    """(P,) bool: the particles that a map is fitted on."""
    return torch.ones_like(cloud.outliers) if settings.keep_outliers else ~cloud.outliers


def _rows(cloud: Particles, settings: ReductionSettings) -> _Rows:
    is_new = cloud.is_born().clone()
    is_finite = cloud.is_finite()
    for frame in range(1, len(is_new)):
        if cloud.is_still:
            is_same = torch.ones_like(cloud.outliers)
        else:
            is_same = (cloud.vectors[frame] == cloud.vectors[frame - 1]).all(dim=-1)
        is_new[frame] &= ~(is_same & (cloud.born < frame))
    fitted = is_new & is_finite & _kept(cloud, settings)
    return _Rows(is_new, fitted, is_new & is_finite & ~fitted)


def _fit(
    rows: Tensor,
    settings: ReductionSettings,
    reduction: Reduction,
    is_centred: bool,
    progress: Progress,
    where: str = "",
) -> Fitted:
    """The map of these rows, which it sees in an order of their own."""
    _check_rows(len(rows), settings, reduction, where)
    order = _canonical_order(rows)
    rows = rows[order]
    fitted = reduction.fit(
        rows,
        dim=settings.dim,
        neighbours=settings.neighbours,
        seed=settings.seed,
        is_centred=is_centred,
        progress=progress,
    )
    positions = torch.empty_like(fitted.positions)
    positions[order] = fitted.positions
    return Fitted(positions, fitted.placing, fitted.explained)


def _canonical_order(rows: Tensor) -> Tensor:
    """Rows sorted by their bytes, so that the order of particles changes nothing; (n,) int64."""
    numbers = np.ascontiguousarray(rows.float().numpy())
    whole = numbers.view(np.dtype((np.void, numbers.shape[1] * numbers.itemsize)))[:, 0]
    return torch.from_numpy(np.argsort(whole, kind="stable"))


def _check_rows(n: int, settings: ReductionSettings, reduction: Reduction, where: str) -> None:
    """Raise the error that says which setting asks for more rows than there are."""
    dim, neighbours = settings.dim, settings.neighbours
    if n >= reduction.least_rows(dim, neighbours):
        return
    if not n:
        raise UserError(
            f"no hidden state{where} can be placed: they are not finite, or have outlier norms; "
            f"{named('keep_outliers', True)} includes the latter"
        )
    have = f"but there {'is' if n == 1 else 'are'} {n:,}{where}"
    if n >= reduction.least_rows(dim, _FEWEST_NEIGHBOURS):
        raise SettingError(
            "neighbours",
            neighbours,
            f"needs at least {reduction.least_rows(dim, neighbours):,} hidden states, {have}",
            f"give {n - 1:,} or fewer, or a longer prompt",
        )
    if n >= PCA.least_rows(dim, neighbours):
        raise SettingError(
            "reduction",
            reduction.name,
            f"needs at least {reduction.least_rows(dim, _FEWEST_NEIGHBOURS):,} hidden states, "
            f"{have}",
            f"choose {PCA.name}, or give a longer prompt",
        )
    fewer = "give 2, or a longer prompt" if n > 2 < dim else "give a longer prompt"
    if settings.per_layer:
        fewer += f", or leave out {named('per_layer')}: all layers together have more states"
    raise SettingError("dim", dim, f"needs at least {dim + 1} hidden states, {have}", fewer)


def _notes(
    cloud: Particles, settings: ReductionSettings, reduction: Reduction, *, is_own: bool
) -> tuple[str, ...]:
    """For people; ``is_own`` where the map is fitted on these particles, and not on a corpus."""
    notes = []
    if settings.per_layer:
        notes.append(
            "Each frame has its own map, rotated onto the previous frame: a particle also moves "
            "if only the map changes."
        )
    n_out = int(cloud.outliers.sum())
    if n_out and is_own and not settings.keep_outliers:
        which, they = ("particles with outlier norms", "them")
        if n_out == 1:
            which, they = ("particle with an outlier norm", "it")
        elif tokens := _whole_tokens(cloud):
            # One token has as many as the model has parts.
            of = "one token" if tokens == 1 else f"{tokens:,} tokens"
            which = f"particles: all contributions to {of} whose norm is an outlier"
        after = (
            f"the map places {they} afterwards."
            if reduction.places_others
            else f"{reduction.words} can't place {they}, so the picture leaves {they} out."
        )
        notes.append(f"The fit left out {n_out:,} {which}; {after}")
    return tuple(notes)


def _whole_tokens(cloud: Particles) -> int:
    """How many tokens the outliers are all particles of; 0 unless some has more than one."""
    places = [(each.prompt, each.token) for each in cloud.owners]
    outliers = [bool(each) for each in cloud.outliers]
    own = {place for place, is_out in zip(places, outliers, strict=True) if is_out}
    n_out = sum(outliers)
    is_whole = sum(place in own for place in places) == n_out
    return len(own) if is_whole and n_out > len(own) else 0
