"""What is measured of two sets of samples at one place, each figure beside its control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Untangling"]


@dataclass(frozen=True)
class Untangling:
    """How the samples of two sets lie, and how well the sets are distinguished.

    A figure that can't be given is None, and ``reasons`` says why. "Permuted" is the same figure
    with the sets' labels permuted (see
    :func:`~projector.residual.sampling.labels.permute_labels`): the mean of
    ``n_permutations`` draws, and ``_high`` their 95th percentile.

    Attributes:
        n_positive: samples of the first set.
        n_negative: samples of the second set.
        within_cosine_positive: mean cosine of two different samples of the first set.
        within_cosine_negative: the same for the second set.
        between_cosine: mean cosine of a sample of one set and a sample of the other.
        within_cosine_permuted: mean cosine of two different samples of both sets together: what
            labels that are permuted freely give on average. A prompt and its counterpart count
            here too, though the permutations of the other figures never put both in one set.
        within_cosine_centred_positive: as ``within_cosine_positive``, with the set's mean removed.
            What is centred sums to 0, so this is near −1 / (n − 1) whatever the samples do; how far
            they lie along common axes shows in ``alignment_positive``.
        within_cosine_centred_negative: the same for the second set.
        alignment_positive: root mean square of that cosine: 1 where all samples of the first set
            lie on one axis through its mean.
        alignment_negative: the same for the second set.
        alignment_isotropic_positive: what as many samples of an isotropic Gaussian give.
        alignment_isotropic_negative: likewise for the second set.
        effective_dimension_positive: the participation ratio (tr C)² / tr C² of the first set's
            covariance C: k for variance that is spread evenly over k directions.
        effective_dimension_negative: the same for the second set.
        effective_dimension_isotropic_positive: what as many samples of an isotropic Gaussian give;
            less than the number of features, and the most that so few samples can show.
        effective_dimension_isotropic_negative: likewise for the second set.
        probe_accuracy: of a linear probe on samples that it was not fitted on, the mean of its
            accuracies on both sets, so that guessing gives 0.5 whatever their sizes. A high one
            says that the sets are distinguished here and not by what: where a word earlier in the
            prompt marks a set, as a negator marks negations, attention to that word is enough.
        probe_permuted: of the same probe with permuted labels.
        probe_permuted_high: 5 % of the permutations give more.
        between_share: the share of all variance that lies between the sets' means, the sets
            weighing the same; estimated from prompts of different folds, so that 0 is expected of
            equal sets, and chance can give a little less.
        between_share_permuted: the same with permuted labels.
        between_share_permuted_high: 5 % of the permutations give more.
        one_direction: the share of the squared difference of means of held-out samples that lies
            along the difference of means of all others: 1 where the sets differ by one shift that
            every part of them shows.
        one_direction_permuted: the same with permuted labels, once each set's mean is removed: as
            much as chance puts on one direction where the sets do not differ.
        one_direction_permuted_high: 5 % of the permutations give more.
        pair_direction: the same of single groups that have samples of both sets: how much of what
            parts a prompt from its own counterpart lies along one direction.
        pair_direction_permuted: the same with permuted labels, once each set's mean is removed.
        pair_direction_permuted_high: 5 % of the permutations give more.
        n_folds: of the cross-validation.
        n_permutations: of the labels.
        n_constant_features: features with one value in all samples; the probe leaves them out.
        reasons: why a figure is None, by its name.
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
