"""Whether a single direction separates two sets, tested on held-out differences of means.

Everything is computed from the inner products of centred samples, (N, N): a difference of means is
a vector of weights over samples, so many labellings are cheap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from projector.residual.contrast.records import ROUNDING
from projector.residual.sampling.labels import Groups, Labels

__all__ = ["between_shares", "one_direction_shares", "pair_direction_shares"]

Products = NDArray[np.float64]
Folds = NDArray[np.int64]


def one_direction_shares(products: Products, columns: Labels, folds: Folds) -> NDArray[np.float64]:
    """The share of held-out differences of means along the difference of means of the training
    folds.

    Σ_f (d_f · d_−f)² / ‖d_−f‖² over Σ_f ‖d_f‖², for the folds f. For noise, this is the reciprocal
    of its effective dimension, because no direction is fitted on the scored data.

    Args:
        products: (N, N) of centred samples.
        columns: (N, C) labellings.
        folds: (N,) the fold of each sample.

    Returns:
        (C,) shares from 0 to 1; NaN if the means don't differ.
    """
    along = np.zeros(columns.shape[1])
    total = np.zeros(columns.shape[1])
    for test, train in _weights_by_fold(columns, folds):
        along += _square_along(products, test, train)
        total += _form(products, test, test)
    return _ratio(along, total, products)


def between_shares(products: Products, columns: Labels, folds: Folds) -> NDArray[np.float64]:
    """The share of variance between the sets' means, with equal weights of the sets.

    It is ‖δ‖² / 4 divided by the sum of ‖δ‖² / 4 and the mean variance within sets; ‖δ‖² is
    estimated without bias by d_f · d_−f.

    Args:
        products: (N, N) of centred samples.
        columns: (N, C) labellings.
        folds: (N,) the fold of each sample.

    Returns:
        (C,); it may be slightly below 0 if the sets are equal, and is NaN if nothing varies.
    """
    squares = [_form(products, test, train) for test, train in _weights_by_fold(columns, folds)]
    between = np.mean(squares, axis=0) / 4
    within = np.zeros(columns.shape[1])
    for each in (columns, ~columns):
        n = each.sum(axis=0)
        weights = each / n
        spread = np.diag(products) @ weights - _form(products, weights, weights)
        within += spread * n / np.maximum(n - 1, 1) / 2
    return _ratio(between, between + np.maximum(within, 0), products)


def pair_direction_shares(
    products: Products, columns: Labels, groups: Groups, folds: Folds
) -> NDArray[np.float64]:
    """Like :func:`one_direction_shares`, for the difference of means inside each group.

    Only groups with samples of both sets count; a group is in a single fold.

    Args:
        products: (N, N) of centred samples.
        columns: (N, C) labellings.
        groups: (N,) the group of each sample.
        folds: (N,) the fold of each sample.

    Returns:
        (C,) shares from 0 to 1; NaN if no pair differs.
    """
    _, of_sample = np.unique(groups, return_inverse=True)
    n_groups = int(of_sample.max()) + 1
    weights = np.zeros(columns.shape)
    for sign, each in ((1.0, columns), (-1.0, ~columns)):
        counts = np.zeros((n_groups, columns.shape[1]))
        np.add.at(counts, of_sample, each)
        weights += sign * each / np.maximum(counts, 1)[of_sample]
        # A group that lacks a set has no difference.
        weights *= (counts > 0)[of_sample]
    # ‖d_g‖² of every group, summed.
    inside = np.where(of_sample[:, None] == of_sample[None, :], products, 0)
    along = np.zeros(columns.shape[1])
    for fold in range(int(folds.max()) + 1):
        test = folds == fold
        mean = weights * ~test[:, None]
        size = _form(products, mean, mean)
        by_sample = weights * test[:, None] * (products @ mean)
        by_group = np.zeros((n_groups, columns.shape[1]))
        np.add.at(by_group, of_sample, by_sample)
        along += np.square(by_group).sum(axis=0) / np.where(size > 0, size, np.inf)
    return _ratio(along, _form(inside, weights, weights), products)


def _weights_by_fold(
    columns: Labels, folds: Folds
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """For each fold the weights (N, C) of its difference of means, and of that of all others.

    They are 0 if one of both has no sample of a set.
    """
    found = []
    for fold in range(int(folds.max()) + 1):
        is_test = (folds == fold)[:, None]
        both = []
        has_all = np.ones(columns.shape[1], dtype=np.bool_)
        for side in (is_test, ~is_test):
            first, second = columns & side, ~columns & side
            n_first, n_second = first.sum(axis=0), second.sum(axis=0)
            has_all &= (n_first > 0) & (n_second > 0)
            both.append(first / np.maximum(n_first, 1) - second / np.maximum(n_second, 1))
        found.append((both[0] * has_all, both[1] * has_all))
    return found


def _form(
    products: Products, a: NDArray[np.float64], b: NDArray[np.float64]
) -> NDArray[np.float64]:
    """aᵀ K b for each column."""
    return np.asarray((a * (products @ b)).sum(axis=0))


def _square_along(
    products: Products, test: NDArray[np.float64], train: NDArray[np.float64]
) -> NDArray[np.float64]:
    size = _form(products, train, train)
    return np.square(_form(products, test, train)) / np.where(size > 0, size, np.inf)


def _ratio(
    part: NDArray[np.float64], whole: NDArray[np.float64], products: Products
) -> NDArray[np.float64]:
    """NaN if the whole is no more than what rounding leaves of these products."""
    least = ROUNDING * float(np.abs(np.diag(products)).max(initial=0.0))
    return np.where(whole > least, part / np.where(whole > least, whole, 1.0), np.nan)
