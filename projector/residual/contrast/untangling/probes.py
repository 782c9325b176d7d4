"""A linear probe: whether a direction that some samples give tells the others' sets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from projector.residual.sampling.labels import Groups, Labels, deal_folds

__all__ = ["balanced_accuracy", "probe_accuracies"]

_N_INNER_FOLDS = 3
# Times the number of features: from next to no regularisation to nearly the difference of means.
_PENALTIES = (100.0, 10.0, 1.0, 0.1, 0.01, 0.001)
# Of a target's size, 1: what rounding leaves of a prediction that is 0.
_TIE = 1e-9


def probe_accuracies(
    x: NDArray[np.float64],
    columns: Labels,
    labels: Labels,
    groups: Groups,
    folds: NDArray[np.int64],
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """The held-out accuracy of a ridge classifier, for many labellings of the same samples.

    For each fold, the others standardise the features and fit scikit-learn's ``Ridge``; its penalty
    is chosen for each labelling by the squared error of a cross-validation inside these, with
    groups kept whole there too. A sample is called of the first set where the prediction exceeds
    the labels' mean in the fit, so that the larger set is not favoured.

    Args:
        x: (N, H) without constant features.
        columns: (N, C) labellings, such as the true one and permuted ones.
        labels: (N,) the true one, by which folds are balanced.
        groups: (N,) which samples belong together.
        folds: (N,) the fold of each.

    Returns:
        (C,) accuracies, each the mean of both sets'.
    """
    from sklearn.linear_model import Ridge

    penalties = [share * x.shape[1] for share in _PENALTIES]
    margins = np.empty(columns.shape)
    for fold in range(int(folds.max()) + 1):
        test = folds == fold
        train = ~test
        inner = deal_folds(labels[train], groups[train], _N_INNER_FOLDS, random)
        best = _best_penalties(x[train], columns[train], inner, penalties)
        fitted, held_out = _standardised(x[train], x[test])
        targets = columns[train].astype(np.float64)
        means = targets.mean(axis=0)
        for k in np.unique(best):
            chosen = best == k
            ridge = Ridge(alpha=penalties[k]).fit(fitted, targets[:, chosen])
            predicted = ridge.predict(held_out).reshape(len(held_out), -1)
            margins[np.ix_(test, chosen)] = predicted - means[chosen]
    return balanced_accuracy(margins, columns)


def balanced_accuracy(margins: NDArray[np.float64], columns: Labels) -> NDArray[np.float64]:
    """The mean of both sets' shares of right calls; a margin of 0 is half right.

    Args:
        margins: (N, C), above 0 where a sample is called of the first set.
        columns: (N, C) whether it is of it; each column has samples of both sets.
    """
    is_tie = np.abs(margins) <= _TIE
    right = np.where(is_tie, 0.5, (margins > 0) == columns)
    first = (right * columns).sum(axis=0) / columns.sum(axis=0)
    second = (right * ~columns).sum(axis=0) / (~columns).sum(axis=0)
    return np.asarray((first + second) / 2)


def _best_penalties(
    x: NDArray[np.float64], columns: Labels, folds: NDArray[np.int64], penalties: list[float]
) -> NDArray[np.int64]:
    """For each labelling, which penalty gives the least squared error on what was not fitted."""
    from sklearn.linear_model import Ridge

    errors = np.zeros((len(penalties), columns.shape[1]))
    for fold in range(int(folds.max()) + 1):
        test = folds == fold
        fitted, held_out = _standardised(x[~test], x[test])
        targets = columns[~test].astype(np.float64)
        wanted = columns[test].astype(np.float64)
        for k, penalty in enumerate(penalties):
            ridge = Ridge(alpha=penalty).fit(fitted, targets)
            predicted = ridge.predict(held_out).reshape(wanted.shape)
            errors[k] += np.square(predicted - wanted).sum(axis=0)
    return np.asarray(errors.argmin(axis=0))


def _standardised(
    train: NDArray[np.float64], test: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both with the mean and spread of the first."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test)
