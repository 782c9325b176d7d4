"""Folds, halves and label permutations for grouped samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["deal_folds", "group_kinds", "groups_of_each", "halve_groups", "permute_labels"]

Groups = NDArray[np.int64]
Labels = NDArray[np.bool_]


def groups_of_each(labels: Labels, groups: Groups) -> tuple[int, int]:
    """The numbers of groups with samples of the first set, and of the second set."""
    return len(np.unique(groups[labels])), len(np.unique(groups[~labels]))


def deal_folds(
    labels: Labels, groups: Groups, n_folds: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Assign a fold to each sample: a group is in one fold, and each fold has its share of both
    sets.

    Groups are assigned one after another, groups of equal kind and size in random order.

    Args:
        labels: (N,), whether a sample belongs to the first set.
        groups: (N,), the group of each sample.

    Returns:
        (N,), fold indices from 0 to ``n_folds`` − 1.
    """
    _, of_sample, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shares = np.bincount(of_sample, labels) / sizes
    order = np.lexsort((random.random(len(sizes)), sizes, shares))
    folds = np.empty(len(sizes), dtype=np.int64)
    folds[order] = np.arange(len(sizes)) % n_folds
    return folds[of_sample]


def halve_groups(
    labels: Labels, groups: Groups, n_draws: int, random: np.random.Generator
) -> Labels:
    """Draw random halves of both sets of similar size; a group is in the same half for both sets.

    Groups in the first set only, in the second set only and in both sets are halved separately. Two
    groups of the same or the next size form a pair, one for each half. For an odd number, the
    largest group is in the second half, because the order of halves doesn't matter.

    Args:
        labels: (N,), whether a sample belongs to the first set.
        groups: (N,), the group of each sample.

    Returns:
        (``n_draws``, N), whether a sample is in the first half.
    """
    of_sample, sizes, kinds = group_kinds(labels, groups)
    found = np.zeros((n_draws, len(sizes)), dtype=np.bool_)
    for row in found:
        for kind in range(3):
            own = np.flatnonzero(kinds == kind)
            own = own[np.lexsort((random.random(len(own)), sizes[own]))]
            pairs = own[: len(own) // 2 * 2].reshape(-1, 2)
            row[pairs[np.arange(len(pairs)), random.integers(0, 2, len(pairs))]] = True
    return np.asarray(found[:, of_sample])


def group_kinds(
    labels: Labels, groups: Groups
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The group of each sample, counted from 0, (N,); the size of each group; and its kind.

    The kind is 0 for a group in the second set only, 1 in both sets, 2 in the first set only.
    """
    _, of_sample, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n_first = np.bincount(of_sample, labels)
    return of_sample, sizes, (n_first > 0).astype(np.int64) + (n_first == sizes)


def permute_labels(
    labels: Labels, groups: Groups, n_permutations: int, random: np.random.Generator
) -> Labels:
    """Permute labels in ways that are equally likely if the sets don't differ.

    Groups are kept: the share of the first set in each group is reassigned among the groups, and
    the labels inside a group are drawn with its new share. A statement and its negation thus stay
    in different sets, a group in one set only stays in one set, and single samples are permuted
    freely.

    Args:
        labels: (N,), whether a sample belongs to the first set; both sets have samples.
        groups: (N,), the group of each sample.

    Returns:
        (N, ``n_permutations``); each column has samples of both sets.
    """
    _, of_sample, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shares = np.bincount(of_sample, labels) / sizes
    # Where each sample stands in its group, once samples are in a random order.
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    found = np.empty((len(labels), n_permutations), dtype=np.bool_)
    column = 0
    while column < n_permutations:
        n_first = np.floor(random.permutation(shares) * sizes + random.random(len(sizes)))
        order = np.lexsort((random.random(len(labels)), of_sample))
        rank = np.empty(len(labels), dtype=np.int64)
        rank[order] = np.arange(len(labels)) - starts[of_sample[order]]
        drawn = rank < n_first[of_sample]
        if drawn.any() and not drawn.all():
            found[:, column] = drawn
            column += 1
    return found
