"""All measures of how two sets of samples are separated at one point of the stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from projector.errors import check_least, check_seed
from projector.residual.contrast.untangling.cosines import (
    alignment,
    isotropic_alignment,
    mean_cosine_between,
    mean_cosine_within,
)
from projector.residual.contrast.untangling.dimension import (
    isotropic_dimension,
    participation_ratio,
)
from projector.residual.contrast.untangling.direction import (
    between_shares,
    one_direction_shares,
    pair_direction_shares,
)
from projector.residual.contrast.untangling.probes import probe_accuracies
from projector.residual.contrast.untangling.records import Untangling
from projector.residual.sampling.labels import (
    Groups,
    Labels,
    deal_folds,
    groups_of_each,
    permute_labels,
)

__all__ = ["N_FOLDS", "measure_point"]

N_FOLDS = 5
# Relative to a vector's own size: what float32 leaves of a difference that is none.
_ROUNDING = 1e-6
_SHAPE_OF_ONE = (
    "within_cosine_centred",
    "alignment",
    "alignment_isotropic",
    "effective_dimension",
    "effective_dimension_isotropic",
)
_COSINES = (
    "within_cosine_positive",
    "within_cosine_negative",
    "between_cosine",
    "within_cosine_permuted",
)
_SIDES = ("positive", "negative")
_SAME_MEANS = "the means of both sets are the same"
_SAME_PAIRS = "no prompt differs from its counterpart"
_NO_SPREAD = "samples differ only by the means of their sets"


def measure_point(
    positive: Tensor,
    negative: Tensor,
    positive_groups: Sequence[int],
    negative_groups: Sequence[int],
    *,
    n_permutations: int = 20,
    seed: int = 0,
) -> Untangling:
    """Measure how the samples of two sets are distributed at one point, and how well they are
    separated.

    Equal arguments give equal figures. Computation is in float64, and takes about 0.3 s on one core
    for 2 × 256 samples of 576 features and 100 permutations.

    Args:
        positive: (n, H) samples of the first set.
        negative: (m, H) samples of the second set.
        positive_groups: n group numbers; samples of a group, also across the sets, are never on
            both sides of a cross-validation split.
        negative_groups: m group numbers.
        n_permutations: number of permutations of the labels; 0 for no such controls.
        seed: seed of folds and permutations.

    Raises:
        SettingError: on ``n_permutations`` or ``seed``, if it is out of range.
        ValueError: if shapes don't match.
    """
    check_least("n_permutations", n_permutations, 0)
    check_seed("seed", seed)
    sides = (_array(positive), _array(negative))
    n, m = (len(side) for side in sides)
    if sides[0].shape[1] != sides[1].shape[1]:
        raise ValueError("both sets must have the same number of features")
    if (len(positive_groups), len(negative_groups)) != (n, m):
        raise ValueError("each sample needs a group")
    x = np.concatenate(sides)
    is_finite = bool(np.isfinite(x).all())
    is_constant = _constant(x) if is_finite and len(x) else np.zeros(x.shape[1], dtype=np.bool_)
    found = _Found()
    if not is_finite:
        found.lack(_names(), "the stream has numbers that are not finite")
    else:
        _measure_cosines(found, *sides)
        for side, samples in zip(_SIDES, sides, strict=True):
            _measure_shape(found, side, samples)
        labels = np.arange(n + m) < n
        groups = np.asarray([*positive_groups, *negative_groups], dtype=np.int64)
        problem = _problem(x, labels, groups, is_constant)
        if problem:
            found.lack(_compared_names(), problem)
        else:
            _compare(found, x[:, ~is_constant], labels, groups, n_permutations, seed)
    return Untangling(
        n_positive=n,
        n_negative=m,
        n_folds=N_FOLDS,
        n_permutations=n_permutations,
        n_constant_features=int(is_constant.sum()),
        reasons=found.reasons,
        **found.figures,
    )


class _Found:
    """Figures so far, and why others are missing."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.reasons: dict[str, str] = {}

    def put(self, name: str, value: float | None, reason: str) -> None:
        """A figure; or the reason, where it is None or NaN."""
        if value is None or not np.isfinite(value):
            self.reasons[name] = reason
        else:
            self.figures[name] = float(value)

    def lack(self, names: Sequence[str], reason: str) -> None:
        self.reasons |= dict.fromkeys(names, reason)


def _compared_names() -> list[str]:
    stems = ("probe_accuracy", "between_share", "one_direction", "pair_direction")
    permuted = [stem.removesuffix("_accuracy") + "_permuted" for stem in stems]
    return [*stems, *permuted, *(f"{name}_high" for name in permuted)]


def _names() -> list[str]:
    shapes = [f"{name}_{side}" for name in _SHAPE_OF_ONE for side in _SIDES]
    return [*_COSINES, *shapes, *_compared_names()]


def _array(x: Tensor) -> NDArray[np.float64]:
    if x.ndim != 2:
        raise ValueError("samples must be (n, H)")
    return x.detach().cpu().double().numpy()


def _constant(x: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(H,) features that differ between no two samples, rounding aside."""
    return np.ptp(x, axis=0) <= _ROUNDING * np.abs(x).max(axis=0)


def _measure_cosines(
    found: _Found, positive: NDArray[np.float64], negative: NDArray[np.float64]
) -> None:
    few = "fewer than two samples have a vector that is not 0"
    found.put("within_cosine_positive", mean_cosine_within(positive), few)
    found.put("within_cosine_negative", mean_cosine_within(negative), few)
    both = np.concatenate([positive, negative])
    found.put("within_cosine_permuted", mean_cosine_within(both), few)
    between = mean_cosine_between(positive, negative)
    found.put("between_cosine", between, "a set has no vector that is not 0")


def _measure_shape(found: _Found, side: str, x: NDArray[np.float64]) -> None:
    """How one set's samples lie about their mean."""
    names = [f"{name}_{side}" for name in _SHAPE_OF_ONE]
    n, n_features = x.shape
    if n < 2:
        found.lack(names, "a variance needs two samples or more")
        return
    centred = x - x.mean(axis=0)
    if np.square(centred).sum() <= _ROUNDING**2 * np.square(x).sum():
        found.lack(names, "all samples of the set have the same vector, so nothing varies")
        return
    figures = (
        mean_cosine_within(centred),
        alignment(centred),
        isotropic_alignment(n, n_features),
        participation_ratio(centred),
        isotropic_dimension(n, n_features),
    )
    for name, figure in zip(names, figures, strict=True):
        found.put(name, figure, "fewer than two samples differ from the set's mean")


def _problem(
    x: NDArray[np.float64], labels: Labels, groups: Groups, is_constant: NDArray[np.bool_]
) -> str | None:
    """Why the sets can't be compared by cross-validation; None if they can."""
    fewest = min(groups_of_each(labels, groups))
    if fewest < N_FOLDS:
        return (
            f"a set has {fewest} {'group' if fewest == 1 else 'groups'} of samples, and "
            f"cross-validation in {N_FOLDS} folds needs {N_FOLDS}"
        )
    if is_constant.all():
        return "all samples of both sets have the same vector"
    return None


def _compare(
    found: _Found,
    x: NDArray[np.float64],
    labels: Labels,
    groups: Groups,
    n_permutations: int,
    seed: int,
) -> None:
    """Everything that is scored on samples that it was not fitted on."""
    random = np.random.default_rng(seed)
    folds = deal_folds(labels, groups, N_FOLDS, random)
    permuted = permute_labels(labels, groups, n_permutations, random)
    columns = np.concatenate([labels[:, None], permuted], axis=1)
    _put(found, "probe", probe_accuracies(x, columns, labels, groups, folds, random), "")
    # A scale that no square overflows at; shares do not depend on it.
    x = x / np.abs(x).max()
    products = _products(x - x.mean(axis=0))
    _put(found, "between_share", between_shares(products, columns, folds), _SAME_MEANS)
    # What labels permuted over sets that differ would give is mostly that difference itself.
    without = np.where(labels[:, None], x - x[labels].mean(axis=0), x - x[~labels].mean(axis=0))
    if np.square(without).sum() <= _ROUNDING**2 * np.square(x).sum():
        without = np.zeros_like(x)
    within = _products(without)
    shares = one_direction_shares(products, labels[:, None], folds)
    control = one_direction_shares(within, permuted, folds)
    _put(found, "one_direction", np.concatenate([shares, control]), _SAME_MEANS)
    if len(np.intersect1d(groups[labels], groups[~labels])) < N_FOLDS:
        reason = "the prompts of the two sets do not come in pairs"
        found.lack([name for name in _compared_names() if name.startswith("pair")], reason)
        return
    shares = pair_direction_shares(products, labels[:, None], groups, folds)
    control = pair_direction_shares(within, permuted, groups, folds)
    _put(found, "pair_direction", np.concatenate([shares, control]), _SAME_PAIRS)


def _products(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(x @ x.T)


def _put(found: _Found, stem: str, values: NDArray[np.float64], reason: str) -> None:
    """The figure of the true labels, and the mean and 95th percentile of permuted ones."""
    found.put("probe_accuracy" if stem == "probe" else stem, float(values[0]), reason)
    drawn = values[1:][np.isfinite(values[1:])]
    names = (f"{stem}_permuted", f"{stem}_permuted_high")
    if not len(values) > 1:
        found.lack(names, "no labels were permuted")
    elif not len(drawn):
        found.lack(names, _NO_SPREAD if np.isfinite(values[0]) else reason)
    else:
        found.put(names[0], float(drawn.mean()), reason)
        found.put(names[1], float(np.quantile(drawn, 0.95)), reason)
