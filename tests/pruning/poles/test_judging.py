"""What controls confirm: planted groups are distinct, an axis is one, and noise is neither."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from projector.processor import in_threads
from projector.projection.projection import Projection
from projector.statistics.halves import HALVES, packed_halves
from pruning.poles.controls import N_DRAWS, random_rotation, rotate, shuffle
from pruning.poles.finding import find_poles
from pruning.poles.judging import (
    EMPTY_HALF,
    NO_HALVES,
    OF_A_HALF,
    first_eigenvector,
    judge_poles,
)
from pruning.poles.poles import (
    MAP_POLES,
    ON_THE_MAP,
    Poles,
    PoleSettings,
    axes_words,
    finding_words,
)
from tests.pruning.poles.test_poles import NAME, SITE, covariance_of, project
from tests.refused import lacking

N = 120


def rows_of(
    n_tokens: int = 4000, *, groups: tuple[int, ...] = (), axis: float = 0.0, seed: int = 0
) -> Tensor:
    """Activations of N neurons, (n_tokens, N): noise, and what is planted in it.

    Args:
        groups: neurons that follow a signal of their own, one group after another.
        axis: how strongly all neurons follow one signal, each by a normal factor, as in a random
            direction.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n_tokens, N, generator=generator)
    start = 0
    for size in groups:
        rows[:, start : start + size] += 1.5 * torch.randn(n_tokens, 1, generator=generator)
        start += size
    follows = axis * torch.randn(N, generator=generator)
    return rows + torch.randn(n_tokens, 1, generator=generator) * follows


def projected(rows: Tensor, second: Tensor | None = None) -> Projection:
    """A projection with both halves of the corpus: those of the rows, or rows and other ones."""
    first, second = rows.chunk(2) if second is None else (rows, second)
    positions = torch.randn(N, 3, generator=torch.Generator().manual_seed(9))
    projection = project(positions, covariance_of(torch.cat([first, second])))
    halves = packed_halves(*(torch.corrcoef(each.T) for each in (first, second)))
    statistics = dict(projection.statistics) | {f"{NAME}.{HALVES}": halves}
    return Projection(projection.facts, projection.layouts, statistics)


def judged(projection: Projection, space: str = "correlation") -> Poles:
    return judge_poles(projection, find_poles(projection, 0, SITE, PoleSettings(space)))


def test_planted_groups_are_distinct_and_beyond_the_spectrum() -> None:
    poles = judged(projected(rows_of(groups=(8, 12, 10))))
    planted = [range(8), range(8, 20), range(20, 30)]
    for members in planted:
        (number,) = {int(poles.labels[i]) for i in members}
        pole = poles.poles[number]
        # By chance a few neurons lie beside it.
        assert len(members) <= pole.size <= len(members) + 3
        assert pole.distinct is True
        assert pole.beyond_spectrum is True
        assert pole.axis is None
    assert poles.n_distinct == poles.n_beyond_spectrum == 3
    assert poles.distinct_first[:3] == (0, 1, 2)
    assert "spectrum" in finding_words(poles)
    assert "axis" not in finding_words(poles)
    controls = poles.controls
    assert controls is not None
    for control in (controls.shuffled, controls.same_spectrum):
        assert control.n_draws == N_DRAWS
        assert control.n_distinct is not None
        assert control.n_distinct <= 1


@pytest.mark.parametrize("seed", range(3))
def test_noise_has_next_to_no_distinct_pole(seed: int) -> None:
    poles = judged(projected(rows_of(seed=seed)))
    assert poles.poles
    assert poles.n_distinct is not None
    assert poles.n_distinct <= 1
    controls = poles.controls
    assert controls is not None
    for control in (controls.shuffled, controls.same_spectrum):
        assert control.n_distinct is not None
        assert control.n_distinct <= 1
        # Nor is there an axis.
        assert control.n_axes == 0
    assert poles.n_axes == 0
    assert axes_words(poles) == ""


def test_one_axis_alone_is_an_axis_and_nothing_beyond_the_spectrum() -> None:
    # Each end is exchangeable with those of five draws: one in six exceeds all of them.
    found = [judged(projected(rows_of(axis=0.5, seed=seed))) for seed in range(6)]
    assert {"axis" in finding_words(each) for each in found} == {True}
    assert sum(bool(each.n_beyond_spectrum) for each in found) <= 3
    poles = next(each for each in found if not each.n_beyond_spectrum)
    ends = [k for k, pole in enumerate(poles.poles) if pole.axis is not None]
    assert len(ends) == 2
    assert [poles.poles[k].axis for k in ends] == ends[::-1]
    assert all(poles.poles[k].distinct for k in ends)
    assert sum(poles.poles[k].size for k in ends) > 0.8 * N
    assert "axis" in finding_words(poles)
    assert "spectrum" not in finding_words(poles)
    # The control of the same spectrum has the two ends too, the shuffled one none.
    controls = poles.controls
    assert controls is not None
    assert (controls.same_spectrum.largest_size or 0) > 0.25 * N
    assert controls.shuffled.n_distinct is not None
    assert controls.shuffled.n_distinct <= 1
    assert poles.n_axes == 1
    assert controls.shuffled.n_axes == 0
    assert controls.same_spectrum.n_axes is not None
    assert controls.same_spectrum.n_axes > 0.5
    assert "axes" in axes_words(poles)


def test_an_axis_and_groups_are_both() -> None:
    rows = rows_of(axis=0.5, seed=3)
    # A group of its own, at right angles to the axis.
    rows[:, :9] = 0.4 * torch.randn(len(rows), 9) + torch.randn(len(rows), 1)
    poles = judged(projected(rows))
    assert lacking(finding_words(poles), "axis", "groups", "spectrum") == []
    (number,) = {int(poles.labels[i]) for i in range(9)}
    assert poles.poles[number].beyond_spectrum is True
    assert poles.poles[number].axis is None
    assert lacking(finding_words(poles, number), "group", "spectrum") == []
    (end, _) = (k for k, pole in enumerate(poles.poles) if pole.axis is not None)
    assert "axis" in finding_words(poles, end)


def test_a_group_that_one_half_lacks_is_not_distinct() -> None:
    first, second = rows_of(groups=(8, 12)), rows_of(groups=(8,), seed=1)
    # There the second group follows the first, more than its neurons do one another.
    second[:, 8:20] += 0.4 * second[:, :8].mean(dim=1, keepdim=True)
    poles = judged(projected(first, second))
    (of_both,) = {int(poles.labels[i]) for i in range(8)}
    (of_one,) = {int(poles.labels[i]) for i in range(8, 20)}
    assert poles.poles[of_both].distinct is True
    assert poles.poles[of_one].distinct is False
    assert poles.distinct_first[0] == of_both
    assert "weak" in finding_words(poles, of_one)


def test_most_of_a_layer_is_a_pole_of_absolute_correlations() -> None:
    rows = rows_of()
    sides = torch.where(torch.arange(100) % 3 == 0, -2.0, 2.0)
    rows[:, :100] += torch.randn(len(rows), 1) * sides
    projection = projected(rows)
    settings = PoleSettings("abs-correlation")
    found = find_poles(projection, 0, SITE, settings)
    # HDBSCAN never counts its root.
    assert found.poles == ()
    poles = judge_poles(projection, found)
    assert poles.labels[:100].tolist() == [0] * 100
    assert poles.labels[100:].tolist() == [-1] * 20
    (pole,) = poles.poles
    assert pole.distinct is True
    assert pole.size == 100
    assert pole.within_absolute_rho is not None
    assert set(pole.exemplars) <= set(range(100))
    assert poles.noise_share == pytest.approx(20 / N)
    # Judged again it is the same.
    assert judge_poles(projection, poles).as_dict() == poles.as_dict()
    # Noise has no such group.
    assert all(p.size < N / 2 for p in judged(projected(rows_of()), "abs-correlation").poles)


def test_equal_whatever_the_number_of_threads_and_the_order_of_neurons() -> None:
    rows = rows_of(groups=(8, 12, 5), axis=0.5)
    projection = projected(rows)
    poles = judged(projection)
    with in_threads(2):
        assert judged(projection).as_dict() == poles.as_dict()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(4))
    again = judged(projected(rows[:, order]))
    assert torch.equal(again.labels, poles.labels[order])
    for one, other in zip(again.poles, poles.poles, strict=True):
        assert (one.distinct, one.beyond_spectrum, one.axis) == (
            other.distinct,
            other.beyond_spectrum,
            other.axis,
        )


def test_without_halves_what_needs_them_is_none_and_says_why() -> None:
    rows = rows_of(groups=(8, 12))
    bare = project(torch.randn(N, 3), covariance_of(rows))
    poles = judged(bare)
    assert {pole.distinct for pole in poles.poles} == {None}
    assert {pole.beyond_spectrum for pole in poles.poles} == {None}
    assert poles.n_distinct is None
    assert poles.reasons["distinct"] == poles.reasons["beyond_spectrum"] == NO_HALVES
    assert poles.controls is not None
    assert poles.controls.shuffled.n_poles > 0
    assert poles.controls.shuffled.n_distinct is None


def test_where_a_half_is_empty_it_is_not_known_what_is_distinct() -> None:
    rows = rows_of(groups=(8, 12, 10))
    nothing = torch.zeros(10, N)
    poles = judged(projected(rows, nothing))
    assert poles.poles
    assert {(pole.distinct, pole.beyond_spectrum) for pole in poles.poles} == {(None, None)}
    assert poles.n_distinct is None
    assert poles.reasons["distinct"] == poles.reasons["beyond_spectrum"] == EMPTY_HALF
    # The neurons of one group never vary there: of the others it is known.
    second = rows_of(groups=(8, 12, 10), seed=1)
    second[:, :8] = 0
    poles = judged(projected(rows, second))
    (of_one,) = {int(poles.labels[i]) for i in range(8)}
    (of_other,) = {int(poles.labels[i]) for i in range(8, 20)}
    assert poles.poles[of_one].distinct is None
    assert poles.poles[of_other].distinct is True
    assert poles.reasons["distinct"] == OF_A_HALF


def test_poles_of_a_map_are_not_judged_and_say_why() -> None:
    projection = projected(rows_of(groups=(8, 12)))
    poles = judge_poles(projection, find_poles(projection, 0, SITE, MAP_POLES))
    assert poles.controls is None
    assert poles.reasons["controls"] == ON_THE_MAP


def test_without_memory_there_are_no_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    projection = projected(rows_of(groups=(8, 12)))
    found = find_poles(projection, 0, SITE)

    class Full:
        available = 1000

    monkeypatch.setattr(psutil, "virtual_memory", Full)
    poles = judge_poles(projection, found)
    assert poles.controls is None
    assert "1 kB" in poles.reasons["controls"]
    assert poles.poles == found.poles


def test_dead_neurons_take_no_part() -> None:
    rows = rows_of(groups=(8, 12))
    rows[:, 50] = 0
    rows[:2000, 60] = 0
    poles = judged(projected(rows))
    assert poles.undefined == (50,)
    assert poles.n_distinct == 2


def test_whoever_waits_can_end_the_work() -> None:
    projection = projected(rows_of(groups=(8, 12)))
    found = find_poles(projection, 0, SITE)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge_poles(projection, found, stop)


# the draws


def test_a_shuffle_exchanges_entries_and_both_matrices_alike() -> None:
    rho = torch.corrcoef(rows_of(groups=(8, 12)).T)
    one, other = shuffle((rho, 2 * rho), 7)
    assert torch.equal(one, one.T)
    assert torch.equal(one.diagonal(), torch.ones(N))
    above = torch.triu_indices(N, N, 1).unbind()
    assert torch.equal(one[above].sort().values, rho[above].sort().values)
    assert torch.equal(other[above], 2 * one[above])
    assert not torch.equal(one, shuffle((rho,), 8)[0])
    assert torch.equal(one, shuffle((rho,), 7)[0])


def test_a_rotation_keeps_the_spectrum_and_how_halves_differ() -> None:
    rho = torch.corrcoef(rows_of(groups=(8, 12)).T)
    half = torch.corrcoef(rows_of(2000, groups=(8, 12), seed=1).T)
    one, other = rotate((rho, half), 7)
    assert torch.equal(one, one.T)
    assert torch.equal(one.diagonal(), torch.ones(N))
    before, after = (torch.linalg.eigvalsh(each.double()) for each in (rho, one))
    # The diagonal was not far from 1.
    assert float((before - after).abs().max()) < 0.25 * float(before[-1])
    assert float((one - other).norm()) == pytest.approx(float((rho - half).norm()), rel=0.2)
    # Nobody's partners are left.
    assert float(one.fill_diagonal_(0).abs().max()) < float(rho.fill_diagonal_(0).abs().max())


def test_rotations_are_orthogonal_and_uniform() -> None:
    q = random_rotation(60, 3)
    torch.testing.assert_close(q @ q.T, torch.eye(60), atol=1e-5, rtol=0)
    # Without the signs' correction the diagonal of R decides where axes point.
    means = torch.stack([random_rotation(4, seed).diagonal() for seed in range(400)]).mean(dim=0)
    assert float(means.abs().max()) < 0.12


def test_the_first_eigenvector() -> None:
    rho = torch.corrcoef(rows_of(axis=1.0).T).double().numpy()
    found = first_eigenvector(rho)
    expected = np.linalg.eigh(rho)[1][:, -1]
    assert abs(float(found @ expected)) == pytest.approx(1)
