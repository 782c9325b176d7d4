"""Judge by both controls which poles are more than chance, and more than one dominant axis.

A pole is *distinct* when in each half of the corpus its mean ρ inside exceeds that to every other
pole (of an only pole: to all other neurons), and over the whole corpus it exceeds that of every
pole of at least half its size in the shuffled draws. It passes if no pole of the draws is that
large. It is *beyond the spectrum* when it is distinct and exceeds those of the same-spectrum draws
in the same way. A draw's own poles are judged in the same way, by the other draws of their control
and by all draws of the other control. In ``abs-correlation``, all of this uses |ρ|.

Two poles are the ends of an *axis* when the signs of ρ's first eigenvector reproduce at least 90 %
of both: at least 90 % of the one pole has one sign, and at least 90 % of the other has the opposite
sign. Any three neurons have the same sign now and then by chance. So each must also be the pole
most opposed to the other, both must exceed the shuffled draws, and the axis must make at least half
of the ρ inside each.

If HDBSCAN finds no pole, its root, the group of all neurons, may be one: its members are the
neurons that leave it late, at distances below Otsu's threshold. It is a pole only if it is
distinct.

Source of the threshold: Otsu (1979), A Threshold Selection Method from Gray-Level Histograms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import psutil
import torch
from torch import Tensor

from projector.memory import size_text
from projector.processor import in_threads
from projector.projection.projection import Projection
from pruning.poles.clustering import Floats, Integers, cluster, root_group, space_of
from pruning.poles.controls import CONTROLS, DRAWING_BYTES, N_DRAWS
from pruning.poles.finding import poles_of_labels
from pruning.poles.poles import ON_THE_MAP, Control, Controls, Poles, PoleSettings

# Bytes per entry of an N × N matrix: a draw, and HDBSCAN's memory while it clusters the draw.
JUDGING_BYTES = DRAWING_BYTES + 28
_AXIS_SHARE, _SHARE_OF_AXIS = 0.9, 0.5
BOTH_ENDS = "in |ρ| both ends of an axis are one pole"
NO_HALVES = (
    "the projection doesn't hold ρ of each half of the corpus: fit the model again with statistics"
)
EMPTY_HALF = "in one half of the corpus no two neurons vary: fit the model again over more text"
OF_A_HALF = (
    "in one half of the corpus fewer than two of the pole's neurons vary: fit the model again over "
    "more text"
)


@dataclass(frozen=True)
class _Groups:
    """The groups of one matrix.

    Attributes:
        sizes: neurons of each.
        inside: mean ρ inside, of each.
        agrees: of each, whether ρ inside exceeds ρ to every other one in both halves.
        is_known: of each, whether both halves have a pair of its neurons.
        ends: group → the group at the other end of the leading axis, but for what draws say.
        is_root: whether the only one is all that HDBSCAN's root holds.
    """

    sizes: Integers
    inside: Floats
    agrees: np.ndarray
    is_known: np.ndarray
    ends: dict[int, int]
    is_root: bool = False


def judge_poles(
    projection: Projection, poles: Poles, between_draws: Callable[[], None] | None = None
) -> Poles:
    """Compare poles with both controls, and return them with the results.

    Equal projections give equal results with any number of threads. Costs eleven times as much as
    finding poles, two rotations of each matrix, and 60 N² bytes.

    Args:
        projection: the projection that the poles were found in.
        poles: of one layer and site.
        between_draws: called after each draw; an exception in it ends the work.

    Returns:
        Poles with :attr:`Poles.controls`, or with the reason for their absence in ``reasons``. A
        group that holds most of the layer, and that HDBSCAN doesn't count as a group, is added if
        it is distinct.
    """
    settings = poles.settings
    if settings.space == "positions":
        return _unjudged(poles, ON_THE_MAP)
    n_defined = poles.n_neurons - len(poles.undefined)
    needed, free = JUDGING_BYTES * n_defined**2, psutil.virtual_memory().available
    if needed > free:
        return _unjudged(
            poles,
            f"the controls need {size_text(needed)} of memory, and {size_text(free)} is free",
        )
    # Another number of threads rounds sums differently, and makes equal distances unequal.
    with in_threads(1):
        return _judge(projection, poles, between_draws or (lambda: None))


def _judge(projection: Projection, poles: Poles, between_draws: Callable[[], None]) -> Poles:
    layer, site, settings = poles.layer, poles.site, poles.settings
    distances, order, _, rho = space_of(projection, layer, site, settings)
    assert rho is not None
    halves = projection.half_correlations(layer, site)
    every = [each[order][:, order].float() for each in (rho, *(halves or ()))]
    # A neuron that doesn't vary in one half correlates with no other neuron there.
    is_defined = [each.diagonal().isfinite() for each in every]
    has_halves = halves is not None and all(int(each.sum()) > 1 for each in is_defined)
    matrices = tuple(each.nan_to_num_() for each in every[: 3 if has_halves else 1])
    labels = poles.labels[order].numpy()
    is_root = not poles.poles
    if is_root:
        labels = root_group(distances, settings)
    no_halves = NO_HALVES if halves is None else EMPTY_HALF
    del distances, rho, halves, every
    own = _groups(matrices, labels, settings, is_defined, is_root=is_root)
    drawn = {
        name: [_drawn(control(matrices, seed), settings, between_draws) for seed in range(N_DRAWS)]
        for name, control in CONTROLS.items()
    }
    confirmed = {name: _confirmed(own, drawn[name]) for name in CONTROLS}
    distinct = confirmed["shuffled"]
    beyond = distinct & confirmed["same_spectrum"]
    if is_root and own.sizes.size and has_halves and distinct[0]:
        poles = poles_of_labels(projection, layer, site, settings, labels)
        # Its labels don't change, because one pole has one number.
    has_axes = settings.space == "correlation"
    controls = Controls(
        **{name: _told(name, drawn, has_halves=has_halves, has_axes=has_axes) for name in CONTROLS}
    )
    told = ("controls", "distinct", "beyond_spectrum", "axis")
    reasons = {name: text for name, text in poles.reasons.items() if name not in told}
    is_known = own.is_known & has_halves
    if not is_known.all() or not has_halves:
        why = OF_A_HALF if has_halves else no_halves
        reasons["distinct"] = reasons["beyond_spectrum"] = why
    axes: dict[int, int] = {}
    if settings.space == "correlation":
        axes = _axes(own, drawn["shuffled"])
    else:
        reasons["axis"] = BOTH_ENDS
    return replace(
        poles,
        poles=tuple(
            replace(
                pole,
                distinct=bool(distinct[k]) if is_known[k] else None,
                beyond_spectrum=bool(beyond[k]) if is_known[k] else None,
                axis=axes.get(k),
            )
            for k, pole in enumerate(poles.poles)
        ),
        controls=controls,
        reasons=reasons,
    )


def _unjudged(poles: Poles, why: str) -> Poles:
    return replace(poles, controls=None, reasons=poles.reasons | {"controls": why})


def _drawn(
    matrices: tuple[Tensor, ...], settings: PoleSettings, between_draws: Callable[[], None]
) -> _Groups:
    """The groups that the same clustering finds in a draw."""
    between_draws()
    rho = matrices[0].abs() if settings.space == "abs-correlation" else matrices[0]
    distances = (1 - rho.double()).clamp_min_(0).numpy()
    labels = cluster(distances, settings)[0]
    is_root = bool((labels < 0).all())
    if is_root:
        labels = root_group(distances, settings)
    return _groups(matrices, labels, settings, is_root=is_root)


def _groups(
    matrices: tuple[Tensor, ...],
    labels: Integers,
    settings: PoleSettings,
    is_defined: Sequence[Tensor] = (),
    *,
    is_root: bool,
) -> _Groups:
    """Figures of groups, by ρ and its halves.

    Args:
        is_defined: of each matrix, the neurons that have a ρ in it, (n,) bool; all where empty.
    """
    n_groups = int(labels.max(initial=-1)) + 1
    sizes = np.bincount(labels[labels >= 0], minlength=n_groups)
    is_absolute = settings.space == "abs-correlation"
    everyone = torch.ones(labels.size, dtype=torch.bool)
    means = [
        _means(
            each.abs() if is_absolute else each,
            labels,
            n_groups,
            is_defined[k] if is_defined else everyone,
        )
        for k, each in enumerate(matrices)
    ]
    agrees, is_known = np.ones(n_groups, dtype=bool), np.ones(n_groups, dtype=bool)
    for mean in means[1:]:
        own = mean.diagonal()[:n_groups].copy()
        is_known &= np.isfinite(own)
        # An only group is compared with all other neurons, several groups with each other.
        others = mean[:n_groups] if n_groups == 1 else mean[:n_groups, :n_groups]
        others = np.where(np.eye(*others.shape) > 0, -np.inf, others)
        agrees &= own > np.where(np.isnan(others), -np.inf, others).max(axis=1, initial=-np.inf)
    ends = {}
    if settings.space == "correlation" and n_groups > 1:
        ends = _ends(matrices[0], labels, means[0][:n_groups, :n_groups])
    return _Groups(sizes, means[0].diagonal()[:n_groups].copy(), agrees, is_known, ends, is_root)


def _means(matrix: Tensor, labels: Integers, n_groups: int, is_defined: Tensor) -> Floats:
    """Mean entry between groups, (K + 1, K + 1), the last of all that are in none; a neuron with
    itself is no pair. NaN where there is no pair of defined neurons."""
    groups = torch.from_numpy(np.where(labels < 0, n_groups, labels))
    member = torch.zeros(labels.size, n_groups + 1)
    member[torch.arange(labels.size), groups] = is_defined.float()
    sums = (member.T @ (matrix @ member)).double()
    counts = member.double().sum(dim=0)
    own = torch.zeros(n_groups + 1, dtype=torch.float64)
    own.index_add_(0, groups, matrix.diagonal().double() * is_defined)
    n_pairs = torch.outer(counts, counts) - counts.diag()
    found: Floats = ((sums - own.diag()) / n_pairs).numpy()
    return found


def _confirmed(own: _Groups, draws: Sequence[_Groups]) -> np.ndarray:
    """Of each group, whether both halves agree, and it exceeds those of its size in all draws."""
    confirmed: np.ndarray = own.agrees & _exceeds(own, draws)
    return confirmed


def _exceeds(own: _Groups, draws: Sequence[_Groups]) -> np.ndarray:
    """Of each group, whether ρ inside exceeds that of all groups of at least half its size."""
    sizes = np.concatenate([each.sizes for each in draws])
    inside = np.concatenate([each.inside for each in draws])
    exceeds: np.ndarray = np.array(
        [
            each > inside[2 * sizes >= size].max(initial=-np.inf)
            for size, each in zip(own.sizes.tolist(), own.inside.tolist(), strict=True)
        ],
        dtype=bool,
    )
    return exceeds


def _told(
    name: str, drawn: dict[str, list[_Groups]], *, has_halves: bool, has_axes: bool
) -> Control:
    """The counts of one control."""
    draws = drawn[name]
    n_poles, n_distinct, n_beyond, n_axes = [], [], [], []
    for i, one in enumerate(draws):
        beside = {
            other: [d for j, d in enumerate(all_) if other != name or i != j]
            for other, all_ in drawn.items()
        }
        confirmed = {other: _confirmed(one, others) for other, others in beside.items()}
        n_axes.append(len(_axes(one, beside["shuffled"])) // 2)
        distinct = confirmed["shuffled"]
        n_distinct.append(int(distinct.sum()))
        n_beyond.append(int((distinct & confirmed["same_spectrum"]).sum()))
        # A root counts where it passes, as it does in ρ itself.
        n_poles.append(n_distinct[-1] * has_halves if one.is_root else one.sizes.size)
    largest = [(one.sizes.max(), one.inside[one.sizes.argmax()]) for one in draws if one.sizes.size]
    return Control(
        n_draws=len(draws),
        n_poles=float(np.mean(n_poles)),
        n_distinct=float(np.mean(n_distinct)) if has_halves else None,
        n_beyond_spectrum=float(np.mean(n_beyond)) if has_halves else None,
        largest_size=float(np.mean([size for size, _ in largest])) if largest else None,
        largest_within=float(np.mean([inside for _, inside in largest])) if largest else None,
        n_axes=float(np.mean(n_axes)) if has_axes else None,
    )


def _axes(own: _Groups, draws: Sequence[_Groups]) -> dict[int, int]:
    """Of each group that is an end of the leading axis, the group at the other end: where both
    exceed those of their size in all draws."""
    exceeds = _exceeds(own, draws)
    return {k: other for k, other in own.ends.items() if exceeds[k] and exceeds[other]}


def _ends(rho: Tensor, labels: Integers, means: Floats) -> dict[int, int]:
    """Of each group that lies along the leading axis, the one at the other end, both being most
    opposed to one another.

    Args:
        means: mean ρ between groups, (K, K).
    """
    matrix = rho.double().numpy()
    vector = first_eigenvector(matrix)
    eigenvalue = float(vector @ matrix @ vector)
    # Of each group that lies along the axis, the side that it is on.
    sides: dict[int, bool] = {}
    for k, within in enumerate(means.diagonal().tolist()):
        own = vector[labels == k]
        of_axis = eigenvalue * (own.sum() ** 2 - (own**2).sum()) / max(1, own.size * (own.size - 1))
        is_along = of_axis >= _SHARE_OF_AXIS * (within or np.inf)
        if is_along and max((own > 0).mean(), (own < 0).mean()) >= _AXIS_SHARE:
            sides[k] = bool(own.sum() > 0)
    others = np.where(np.eye(len(means), dtype=bool), np.inf, means)
    most_opposed = others.argmin(axis=1).tolist()
    return {
        k: other
        for k, other in enumerate(most_opposed)
        if others[k, other] < 0
        and most_opposed[other] == k
        and k in sides
        and other in sides
        and sides[k] != sides[other]
    }


def first_eigenvector(rho: Floats) -> Floats:
    """The first eigenvector of a symmetric matrix (n, n); (n,), with either sign."""
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    n = rho.shape[0]
    with np.errstate(all="ignore"):
        try:
            if n > 16:
                # A start that isn't near any axis, and isn't orthogonal to one except by chance.
                start = np.cos(np.arange(n, dtype=np.float64))
                return np.asarray(eigsh(rho, k=1, which="LA", v0=start)[1][:, 0])
        except ArpackNoConvergence:
            pass
    return np.asarray(np.linalg.eigh(rho)[1][:, -1])
