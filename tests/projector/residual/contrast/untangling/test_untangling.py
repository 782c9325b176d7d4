"""Two sets told from each other: found where it was planted, and at chance where nothing was."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from projector.errors import SettingError
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
from projector.residual.contrast.untangling.measuring import measure_point
from projector.residual.contrast.untangling.probes import (
    balanced_accuracy,
    probe_accuracies,
    standardised,
)
from projector.residual.sampling.labels import deal_folds, permute_labels

N, H = 80, 40
ONES = range(N)
OTHERS = range(N, 2 * N)


@pytest.fixture(autouse=True)
def _no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def normal(seed: int, n: int = N, h: int = H) -> Tensor:
    return torch.randn(n, h, generator=torch.Generator().manual_seed(seed))


def shift(size: float) -> Tensor:
    direction = normal(99, 1)[0]
    return size * direction / direction.norm()


def test_gaussians_that_part_are_told_apart_and_permuted_labels_are_not() -> None:
    found = measure_point(normal(1), normal(2) + shift(6), ONES, OTHERS)
    assert found.probe_accuracy is not None
    assert found.probe_accuracy > 0.97
    assert found.probe_permuted == pytest.approx(0.5, abs=0.05)
    assert found.probe_permuted_high is not None
    assert found.probe_permuted_high < 0.65
    # ‖δ‖² / 4 over that and the variance of H unit features.
    assert found.between_share == pytest.approx(9 / (9 + H), abs=0.04)
    assert found.between_share_permuted == pytest.approx(0, abs=0.01)
    assert found.one_direction is not None
    assert found.one_direction_permuted_high is not None
    assert found.one_direction > 0.8 > 0.2 > found.one_direction_permuted_high


def test_equal_gaussians_are_at_chance() -> None:
    found = measure_point(normal(1), normal(2), ONES, OTHERS)
    assert found.probe_accuracy == pytest.approx(0.5, abs=0.1)
    assert found.probe_permuted == pytest.approx(0.5, abs=0.05)
    assert found.between_share == pytest.approx(0, abs=0.01)
    assert found.one_direction == pytest.approx(1 / H, abs=0.06)
    assert found.one_direction_permuted == pytest.approx(1 / H, abs=0.03)
    assert "pairs" in found.reasons["pair_direction"]


def test_a_template_of_several_prompts_does_not_leak_into_the_probe() -> None:
    # Eight prompts a template, each template in one set: the template tells the set, and nothing
    # else does.
    templates = 5 * normal(3, 20)
    x = normal(4, 160, H) + templates.repeat_interleave(8, dim=0)
    groups = [i // 8 for i in range(160)]
    kept = measure_point(x[:80], x[80:], groups[:80], groups[80:])
    leaked = measure_point(x[:80], x[80:], range(80), range(80, 160))
    assert leaked.probe_accuracy is not None
    assert leaked.probe_accuracy > 0.9
    assert kept.probe_accuracy is not None
    assert kept.probe_accuracy < 0.75
    # Whole templates change sets, so that chance is as wide as it is for the true labels.
    assert kept.probe_permuted == pytest.approx(0.5, abs=0.1)
    assert kept.probe_permuted_high is not None
    assert kept.probe_permuted_high > 0.6


def test_the_template_of_a_pair_pushes_nothing_off_chance() -> None:
    # Without groups a prompt's counterpart in the other set is its nearest neighbour, and accuracy
    # falls below chance.
    templates = 5 * normal(3)
    a, b = normal(1) + templates, normal(2) + templates
    found = measure_point(a, b, ONES, ONES)
    assert found.probe_accuracy == pytest.approx(0.5, abs=0.1)
    assert found.probe_permuted == pytest.approx(0.5, abs=0.05)
    assert found.pair_direction == pytest.approx(1 / H, abs=0.03)
    assert found.pair_direction_permuted == pytest.approx(1 / H, abs=0.03)
    # The direction is not fitted on the pairs that are scored: it would hold 1 / 20 of each.
    few = measure_point(normal(1, 20, 400), normal(2, 20, 400), range(20), range(20))
    assert few.pair_direction == pytest.approx(1 / 400, abs=0.003)
    assert few.one_direction == pytest.approx(1 / 400, abs=0.01)


def test_a_pure_shift_is_one_direction_and_shifts_of_their_own_are_not() -> None:
    a = normal(1)
    pure = measure_point(a, a + shift(3), ONES, ONES)
    assert pure.one_direction == pytest.approx(1)
    assert pure.pair_direction == pytest.approx(1)
    # The control keeps nothing of the shift.
    noisy = measure_point(a, normal(2) + shift(30), ONES, ONES)
    assert noisy.one_direction == pytest.approx(1, abs=0.01)
    assert noisy.one_direction_permuted is not None
    assert noisy.one_direction_permuted < 0.2
    # Half of the pairs part along one axis and half along another: the mean is one direction
    # in every fold, and half of what parts a pair lies on it.
    two = torch.zeros(N, H)
    two[::2, 0], two[1::2, 1] = 10, 10
    split = measure_point(a, a + two, ONES, ONES)
    assert split.pair_direction == pytest.approx(0.5, abs=0.05)


def test_what_many_samples_are_does_not_depend_on_the_size_of_a_set() -> None:
    found = measure_point(normal(1, 160), normal(2, 20), range(160), range(160, 180))
    assert found.probe_accuracy == pytest.approx(0.5, abs=0.16)
    assert found.probe_permuted == pytest.approx(0.5, abs=0.08)
    margins = np.ones((10, 1))
    columns = (np.arange(10) < 8)[:, None]
    assert balanced_accuracy(margins, columns)[0] == 0.5
    assert balanced_accuracy(0 * margins, columns)[0] == 0.5


@pytest.mark.parametrize("width", [12, 90])
def test_a_probe_of_few_or_many_features_is_that_of_ridge(width: int) -> None:
    from sklearn.linear_model import Ridge

    x = normal(7, 60, width).double().numpy()
    labels = np.arange(60) < 25
    x[labels] += 0.25
    columns = np.stack([labels, np.roll(labels, 20)], axis=1)
    folds = np.arange(60) % 5
    random = np.random.default_rng(0)
    found = probe_accuracies(x, columns, labels, np.arange(60), folds, random)
    random = np.random.default_rng(0)
    margins = np.empty(columns.shape)
    for fold in range(5):
        test = folds == fold
        inner = deal_folds(labels[~test], np.arange(60)[~test], 3, random)
        fit, held = standardised(x[~test], x[test])
        for c, target in enumerate(columns.T.astype(float)):
            errors = {}
            for share in (100.0, 10.0, 1.0, 0.1, 0.01, 0.001):
                errors[share] = 0.0
                for k in range(3):
                    a, b = standardised(x[~test][inner != k], x[~test][inner == k])
                    ridge = Ridge(alpha=share * width).fit(a, target[~test][inner != k])
                    errors[share] += np.square(ridge.predict(b) - target[~test][inner == k]).sum()
            best = min(errors, key=lambda share: errors[share])
            ridge = Ridge(alpha=best * width).fit(fit, target[~test])
            margins[test, c] = ridge.predict(held) - target[~test].mean()
    assert found == pytest.approx(balanced_accuracy(margins, columns))


def test_features_are_standardised_by_what_is_fitted_alone() -> None:
    train, test = normal(1).double().numpy(), normal(2).double().numpy()
    fitted, held_out = standardised(train, 100 * test + 7)
    assert fitted.mean(axis=0) == pytest.approx(0, abs=1e-9)
    assert fitted.std(axis=0) == pytest.approx(1)
    expected = (100 * test + 7 - train.mean(axis=0)) / train.std(axis=0)
    np.testing.assert_allclose(held_out, expected)
    np.testing.assert_array_equal(fitted, standardised(train, test)[0])


def test_effective_dimension_is_that_which_was_planted() -> None:
    many = normal(5, 4000, 30).double().numpy()
    scales = np.zeros(30)
    scales[:7] = 3
    ratio = participation_ratio(many * scales)
    assert ratio == pytest.approx(7, rel=0.02)
    # Few samples of an isotropic Gaussian show as many dimensions as the formula says.
    drawn = [normal(seed, 20, 50).double().numpy() for seed in range(40)]
    shown = [1 / (participation_ratio(x - x.mean(axis=0)) or 0) for x in drawn]
    assert 1 / np.mean(shown) == pytest.approx(isotropic_dimension(20, 50), rel=0.02)
    found = measure_point(
        normal(1) * torch.tensor(scales).float().repeat(2)[:H], normal(2), ONES, OTHERS
    )
    assert found.effective_dimension_positive is not None
    assert found.effective_dimension_positive < 17
    assert found.effective_dimension_negative == pytest.approx(isotropic_dimension(N, H), rel=0.1)


def test_closed_forms_of_cosines_equal_the_sums_over_pairs() -> None:
    a, b = normal(1, 12, 6).double().numpy() + 1, normal(2, 9, 6).double().numpy()
    u = a / np.linalg.norm(a, axis=1, keepdims=True)
    v = b / np.linalg.norm(b, axis=1, keepdims=True)
    cosines = (u @ u.T)[~np.eye(12, dtype=bool)]
    assert mean_cosine_within(a) == pytest.approx(cosines.mean())
    assert alignment(a) == pytest.approx(np.sqrt(np.square(cosines).mean()))
    assert mean_cosine_between(a, b) == pytest.approx((u @ v.T).mean())
    drawn = [normal(seed, 30, 20).double().numpy() for seed in range(30)]
    shown = [(alignment(x - x.mean(axis=0)) or 0) ** 2 for x in drawn]
    assert np.sqrt(np.mean(shown)) == pytest.approx(isotropic_alignment(30, 20), rel=0.02)


def test_a_set_on_one_axis_is_aligned_and_its_centred_mean_cosine_hides_it() -> None:
    axis = shift(1)
    on_axis = normal(1, N, 1) * axis + 0.001 * normal(2)
    found = measure_point(on_axis, normal(3), ONES, OTHERS)
    assert found.alignment_positive is not None
    assert found.alignment_positive > 0.95
    assert found.within_cosine_centred_positive == pytest.approx(-1 / (N - 1), abs=0.06)
    assert found.alignment_negative == pytest.approx(found.alignment_isotropic_negative, rel=0.1)


def test_folds_keep_groups_whole_and_hold_both_sets() -> None:
    labels = np.arange(60) < 40
    groups = np.concatenate([np.arange(40) // 4, 100 + np.arange(20) // 2])
    folds = deal_folds(labels, groups, 5, np.random.default_rng(0))
    for group in np.unique(groups):
        assert len(set(folds[groups == group])) == 1
    for fold in range(5):
        assert labels[folds == fold].sum() == 8
        assert (~labels[folds == fold]).sum() == 4


def test_permuted_labels_leave_groups_as_they_were_made_up() -> None:
    random = np.random.default_rng(0)
    # 20 pairs, and 10 groups of three that lie in one set.
    groups = np.concatenate([np.repeat(np.arange(20), 2), 20 + np.repeat(np.arange(10), 3)])
    labels = np.concatenate([np.tile([True, False], 20), np.arange(30) < 15])
    paired = permute_labels(labels[:40], groups[:40], 50, random)
    assert (paired.reshape(20, 2, 50).sum(axis=1) == 1).all()
    assert 0.4 < paired.mean() < 0.6
    assert len(np.unique(paired, axis=1).T) == 50
    whole = permute_labels(labels[40:], groups[40:], 50, random)
    assert set(whole.reshape(10, 3, 50).sum(axis=1).ravel()) == {0, 3}
    assert (whole.sum(axis=0) == 15).all()


def test_equal_arguments_give_equal_figures_and_another_seed_other_controls() -> None:
    a, b = normal(1, 30, 8), normal(2, 30, 8) + 0.5
    first = measure_point(a, b, range(30), range(30), seed=3)
    assert first == measure_point(a, b, range(30), range(30), seed=3)
    assert first.probe_permuted != measure_point(a, b, range(30), range(30), seed=4).probe_permuted


def test_scale_and_constant_features_change_nothing_that_is_compared() -> None:
    a, b = normal(1, 40, 8), normal(2, 40, 8) + 1
    plain = measure_point(a, b, range(40), range(40))
    wide = torch.full((40, 1), 7.0)
    more = measure_point(torch.cat([a, wide], 1), torch.cat([b, wide], 1), range(40), range(40))
    assert more.n_constant_features == 1
    assert more.probe_accuracy == plain.probe_accuracy
    assert more.one_direction == pytest.approx(plain.one_direction)
    # As large as float32 allows, squares of which overflow.
    large = measure_point(a * 1e30, b * 1e30, range(40), range(40))
    assert large.probe_accuracy == pytest.approx(plain.probe_accuracy, abs=0.02)
    assert large.effective_dimension_positive == pytest.approx(plain.effective_dimension_positive)


def lacking(found: dict[str, object]) -> set[str]:
    missing = {name for name, value in found.items() if value is None}
    assert missing == set(found["reasons"])  # type: ignore[call-overload]
    assert not any(isinstance(value, float) and value != value for value in found.values())
    return missing


def test_what_can_not_be_given_is_none_with_its_reason() -> None:
    same = normal(1)[:1].repeat(20, 1)
    nothing = measure_point(same, same, range(20), range(20))
    assert {"probe_accuracy", "one_direction_permuted", "effective_dimension_positive"} <= lacking(
        nothing.as_dict()
    )
    assert nothing.within_cosine_positive == pytest.approx(1)
    # One vector in each set: nothing varies, and the sets are distinguished all the same.
    two = measure_point(same, 2 * same, range(20), range(20, 40))
    assert two.probe_accuracy == 1
    assert {"alignment_negative", "one_direction_permuted"} <= lacking(two.as_dict())
    # Equal sets: no prompt differs from its counterpart.
    equal = measure_point(normal(1), normal(1), ONES, ONES)
    assert equal.probe_accuracy == 0.5
    assert {"one_direction", "pair_direction"} <= lacking(equal.as_dict())
    few = measure_point(normal(1, 4), normal(2), range(4), range(4, 4 + N))
    assert {"probe_accuracy", "between_share"} <= lacking(few.as_dict())
    assert "4 groups" in few.reasons["probe_accuracy"]
    assert few.effective_dimension_positive is not None
    one = measure_point(normal(1, 1), normal(2), [0], OTHERS)
    assert "within_cosine_positive" in lacking(one.as_dict())
    broken = normal(1)
    broken[3, 3] = float("nan")
    assert len(lacking(measure_point(broken, normal(2), ONES, OTHERS).as_dict())) == 26
    zero = torch.zeros(N, H)
    assert "within_cosine_positive" in lacking(measure_point(zero, zero, ONES, OTHERS).as_dict())
    without = measure_point(normal(1), normal(2), ONES, OTHERS, n_permutations=0)
    assert "probe_permuted" in lacking(without.as_dict())
    assert without.probe_accuracy is not None


def test_wrong_arguments_are_refused() -> None:
    a, b = normal(1), normal(2)
    with pytest.raises(SettingError) as refused:
        measure_point(a, b, ONES, OTHERS, n_permutations=-1)
    assert (refused.value.setting, refused.value.value) == ("n_permutations", -1)
    with pytest.raises(ValueError, match="group"):
        measure_point(a, b, ONES, range(3))
    with pytest.raises(ValueError, match="features"):
        measure_point(a, b[:, 1:], ONES, OTHERS)
