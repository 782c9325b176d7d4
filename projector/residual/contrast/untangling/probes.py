"""A linear probe: whether a direction fitted on some samples separates the held-out samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from projector.residual.sampling.labels import Groups, Labels, deal_folds

__all__ = ["balanced_accuracy", "probe_accuracies", "standardised"]

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
    """Compute the held-out accuracy of a ridge classifier, for many labellings of the same samples.

    For each fold, the remaining folds are used to standardise the features and fit scikit-learn's
    ridge regression. Its penalty is chosen for each labelling by the squared error of an inner
    cross-validation, which also keeps groups whole. A sample is assigned to the first set if the
    prediction exceeds the labels' mean in the fit, so that the larger set isn't favoured.

    Args:
        x: (N, H) without constant features.
        columns: (N, C), labellings, such as the true one and permuted ones.
        labels: (N,), the true labels, for balancing the folds.
        groups: (N,), the group of each sample.
        folds: (N,), the fold of each sample.

    Returns:
        (C,) accuracies, each the mean over both sets.
    """
    from sklearn import config_context
    from threadpoolctl import threadpool_limits

    # The samples were checked; each of the hundred fits would check them again. Its systems are
    # small: threads of BLAS that wait for one another take longer than one thread.
    with (
        config_context(assume_finite=True, skip_parameter_validation=True),
        threadpool_limits(1, user_api="blas"),
    ):
        margins = _margins(x, columns, labels, groups, folds, random)
    return balanced_accuracy(margins, columns)


def _margins(
    x: NDArray[np.float64],
    columns: Labels,
    labels: Labels,
    groups: Groups,
    folds: NDArray[np.int64],
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """(N, C) predictions for samples that are held out, less the mean of the labels in the fit."""
    penalties = [share * x.shape[1] for share in _PENALTIES]
    margins = np.empty(columns.shape)
    for fold in range(int(folds.max()) + 1):
        test = folds == fold
        train = ~test
        inner = deal_folds(labels[train], groups[train], _N_INNER_FOLDS, random)
        best = _best_penalties(x[train], columns[train], inner, penalties)
        fitted, held_out = standardised(x[train], x[test])
        targets = _centred(columns[train])
        predict = _predictor(fitted, held_out)
        for k in np.unique(best):
            chosen = best == k
            margins[np.ix_(test, chosen)] = predict(targets[:, chosen], penalties[k])
    return margins


def balanced_accuracy(margins: NDArray[np.float64], columns: Labels) -> NDArray[np.float64]:
    """The mean of both sets' shares of correct predictions; a margin of 0 counts as half correct.

    Args:
        margins: (N, C), above 0 if a sample is assigned to the first set.
        columns: (N, C), whether it belongs to the first set; each column has samples of both sets.
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
    errors = np.zeros((len(penalties), columns.shape[1]))
    for fold in range(int(folds.max()) + 1):
        test = folds == fold
        fitted, held_out = standardised(x[~test], x[test])
        targets = _centred(columns[~test])
        wanted = columns[test] - columns[~test].mean(axis=0)
        predict = _predictor(fitted, held_out)
        for k, penalty in enumerate(penalties):
            errors[k] += np.square(predict(targets, penalty) - wanted).sum(axis=0)
    return np.asarray(errors.argmin(axis=0))


def _predictor(
    train: NDArray[np.float64], test: NDArray[np.float64]
) -> Callable[[NDArray[np.float64], float], NDArray[np.float64]]:
    """Ridge regression of centred targets (n, C) at a penalty: its predictions (m, C) for others.

    Of fewer samples than features it is solved by their products, which all penalties share.
    """
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.linear_model import ridge_regression

    if len(train) > train.shape[1]:

        def predict(targets: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
            weights = ridge_regression(
                train, targets, penalty, solver="cholesky", check_input=False
            )
            return np.asarray(test @ np.reshape(weights, (targets.shape[1], -1)).T)

        return predict
    products, others = train @ train.T, test @ train.T

    def predict_by_products(targets: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
        ridge = KernelRidge(alpha=penalty, kernel="precomputed").fit(products, targets)
        return np.asarray(ridge.predict(others)).reshape(len(test), -1)

    return predict_by_products


def _centred(columns: Labels) -> NDArray[np.float64]:
    return np.asarray(columns - columns.mean(axis=0))


def standardised(
    train: NDArray[np.float64], test: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standardise both by the mean and standard deviation of the first; nothing is fitted on the
    second.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test)
