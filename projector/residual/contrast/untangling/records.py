"""Measures of two sets of samples at one point, each with its control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Untangling"]


@dataclass(frozen=True)
class Untangling:
    """How the samples of two sets are distributed, and how well the sets are separated.

    An undefined figure is None, with a reason in ``reasons``. "Permuted" figures are computed with
    permuted labels of the sets (see :func:`~projector.residual.sampling.labels.permute_labels`):
    the mean of ``n_permutations`` draws, with their 95th percentile in ``_high``.

    Attributes:
        n_positive: number of samples of the first set.
        n_negative: number of samples of the second set.
        within_cosine_positive: mean cosine of two different samples of the first set.
        within_cosine_negative: the same for the second set.
        between_cosine: mean cosine of a sample of one set and a sample of the other.
        within_cosine_permuted: mean cosine of two different samples of both sets together, which is
            the average for freely permuted labels. It includes pairs of a prompt and its
            counterpart, although the permutations for all other figures never put both in the same
            set.
        within_cosine_centred_positive: as ``within_cosine_positive``, with the set's mean removed.
            Centred samples sum to 0, so this is always near −1 / (n − 1); see
            ``alignment_positive`` for how far they share axes.
        within_cosine_centred_negative: the same for the second set.
        alignment_positive: root mean square of that cosine; 1 if all samples of the first set lie
            on one axis through its mean.
        alignment_negative: the same for the second set.
        alignment_isotropic_positive: its value for as many samples of an isotropic Gaussian.
        alignment_isotropic_negative: the same for the second set.
        effective_dimension_positive: the participation ratio (tr C)² / tr C² of the first set's
            covariance C; k for variance spread evenly over k directions.
        effective_dimension_negative: the same for the second set.
        effective_dimension_isotropic_positive: its value for as many samples of an isotropic
            Gaussian, which is lower than the number of features for few samples.
        effective_dimension_isotropic_negative: the same for the second set.
        probe_accuracy: accuracy of a linear probe on held-out samples, averaged over both sets, so
            that guessing gives 0.5 for any sizes. A high accuracy shows that the sets are separated
            here, but not by what: if an earlier word in the prompt marks a set, as a negator marks
            negations, attention to that word is enough.
        probe_permuted: accuracy of the same probe with permuted labels.
        probe_permuted_high: 95th percentile over the permutations.
        between_share: share of the variance between the sets' means, with equal weights of the
            sets; estimated from prompts of different folds, so that equal sets have an expected
            value of 0, and chance may give slightly less.
        between_share_permuted: the same with permuted labels.
        between_share_permuted_high: 95th percentile over the permutations.
        one_direction: share of the squared difference of means of held-out samples along the
            difference of means of the remaining samples; 1 if the sets differ by a single shift.
        one_direction_permuted: the same with permuted labels, after removing each set's mean: the
            chance level if the sets don't differ.
        one_direction_permuted_high: 95th percentile over the permutations.
        pair_direction: the same for single groups with samples of both sets: how much of the
            difference between a prompt and its counterpart lies along one direction.
        pair_direction_permuted: the same with permuted labels, after removing each set's mean.
        pair_direction_permuted_high: 95th percentile over the permutations.
        n_folds: number of cross-validation folds.
        n_permutations: number of permutations of the labels.
        n_constant_features: number of features with the same value in all samples, which the probe
            leaves out.
        reasons: figure → reason why it is None.
    """

    n_positive: int
    n_negative: int
    n_folds: int
    n_permutations: int
    n_constant_features: int
    within_cosine_positive: float | None = None
    within_cosine_negative: float | None = None
    between_cosine: float | None = None
    within_cosine_permuted: float | None = None
    within_cosine_centred_positive: float | None = None
    within_cosine_centred_negative: float | None = None
    alignment_positive: float | None = None
    alignment_negative: float | None = None
    alignment_isotropic_positive: float | None = None
    alignment_isotropic_negative: float | None = None
    effective_dimension_positive: float | None = None
    effective_dimension_negative: float | None = None
    effective_dimension_isotropic_positive: float | None = None
    effective_dimension_isotropic_negative: float | None = None
    probe_accuracy: float | None = None
    probe_permuted: float | None = None
    probe_permuted_high: float | None = None
    between_share: float | None = None
    between_share_permuted: float | None = None
    between_share_permuted_high: float | None = None
    one_direction: float | None = None
    one_direction_permuted: float | None = None
    one_direction_permuted_high: float | None = None
    pair_direction: float | None = None
    pair_direction_permuted: float | None = None
    pair_direction_permuted_high: float | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return asdict(self)
