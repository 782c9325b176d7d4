"""Placing neurons: what every solver promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import projector
from projector.errors import UserError
from projector.layouts.costs import (
    dissimilarity,
    nearest_by_target,
    nearest_on_map,
    overlap_of,
    stress_figures,
)
from projector.layouts.solvers.online import train_until_still
from projector.layouts.solvers.smacof import minimize_stress
from projector.layouts.solving import Layout, OnlineTrainer, place, solve
from projector.layouts.start import classical_start, start_positions


def factor_correlation(n: int, seed: int = 0, noise: float = 1.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(3000, 6, generator=generator) @ torch.randn(6, n, generator=generator)
    rows += noise * torch.randn(3000, n, generator=generator)
    return torch.corrcoef(rows.T)


def grouped_correlation(n_groups: int = 6, n_each: int = 20, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(2000, n_groups, generator=generator)
    rows = factors.repeat_interleave(n_each, dim=1)
    rows = rows + 0.6 * torch.randn(rows.shape, generator=generator)
    return torch.corrcoef(rows.T)


def test_stress_never_rises_and_falls_far() -> None:
    target = dissimilarity(factor_correlation(80))
    generator = torch.Generator().manual_seed(0)
    for start in ("classical", "uniform", "single-point"):
        found = minimize_stress(target, start_positions(start, target, 3, generator))
        falls = np.diff(found.stresses)
        assert (falls <= 1e-6 * np.array(found.stresses[:-1])).all(), start
        assert found.stresses[-1] < 0.7 * found.stresses[0], start
        # What it says is what the positions are.
        assert found.stresses[-1] == pytest.approx(
            stress_figures(found.positions, target)[0], rel=1e-4
        )


def test_exact_distances_are_recovered_exactly() -> None:
    # Distances of real points in 3-D can be met with no stress at all.
    points = torch.randn(60, 3)
    points *= 0.4 / torch.pdist(points).mean()
    rho = 1 - torch.cdist(points, points)
    found = place(rho, dim=3)
    assert stress_figures(found, dissimilarity(rho))[0] < 1e-8
    assert torch.allclose(torch.cdist(found, found), torch.cdist(points, points), atol=1e-3)


def test_classical_start_large_equals_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    from projector.layouts import start

    points = torch.randn(200, 4)
    target = torch.cdist(points, points)
    dense = classical_start(target, 3, torch.Generator().manual_seed(0))
    monkeypatch.setattr(start, "_MOST_FOR_DENSE", 10)
    krylov = classical_start(target, 3, torch.Generator().manual_seed(0))
    assert torch.allclose(dense, krylov, atol=1e-3)


@pytest.mark.parametrize("n", [40, 120])
def test_both_solvers_reach_the_same_stress(n: int) -> None:
    rho = factor_correlation(n)
    target = dissimilarity(rho)
    by_smacof = stress_figures(place(rho, solver="smacof"), target)[0]
    by_adamw = stress_figures(place(rho, solver="adamw"), target)[0]
    assert by_adamw == pytest.approx(by_smacof, rel=0.02)


@pytest.mark.parametrize("start", ["single-point", "normal", "uniform"])
def test_adamw_gets_there_from_every_start(start: str) -> None:
    rho = factor_correlation(25)
    target = dissimilarity(rho)
    # Far starts take many small steps: a larger rate keeps the test short.
    found = place(rho, solver="adamw", start=start, lr=3e-2)
    best = stress_figures(place(rho), target)[0]
    assert stress_figures(found, target)[0] < 1.15 * best


def test_other_norms_by_adamw() -> None:
    rho = factor_correlation(30)
    target = dissimilarity(rho)
    city = place(rho, solver="adamw", p=1.0)
    # Judged by its own norm it is better than the map made for the other.
    assert (
        stress_figures(city, target, p=1.0)[0] < 0.9 * stress_figures(place(rho), target, p=1.0)[0]
    )


def test_accumulated_batches_are_one_step() -> None:
    correlations = [factor_correlation(15, seed) for seed in range(4)]
    by_two = OnlineTrainer(2, start="single-point", accumulate=2, lr=0.1)
    positions = []
    for rho in correlations:
        by_two.step({"a": rho})
        positions.append(by_two.positions()["a"])
    assert not torch.equal(positions[0], positions[1])
    assert torch.equal(positions[1], positions[2])
    assert not torch.equal(positions[2], positions[3])


def test_a_last_group_that_is_not_full_is_a_step_too() -> None:
    trainer = OnlineTrainer(2, start="single-point", accumulate=3, lr=0.1)
    for seed in range(2):
        trainer.step({"a": factor_correlation(15, seed)})
    before = trainer.positions()["a"]
    trainer.close()
    after = trainer.positions()["a"]
    assert not torch.equal(before, after)
    trainer.close()
    assert torch.equal(after, trainer.positions()["a"])


@pytest.mark.parametrize("settings", [{"p": 1000.0}, {"lr": 1e30}], ids=str)
def test_training_that_diverges_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match="diverged"):
        place(factor_correlation(12), solver="adamw", **settings)


def test_the_trainer_resumes_to_the_same_positions() -> None:
    correlations = [factor_correlation(15, seed) for seed in range(7)]
    straight = OnlineTrainer(3, accumulate=2, seed=5)
    for rho in correlations:
        straight.step({"layers.0.mlp_post": rho, "layers.1.mlp_post": rho[:9, :9]})
    first = OnlineTrainer(3, accumulate=2, seed=5)
    for rho in correlations[:3]:
        first.step({"layers.0.mlp_post": rho, "layers.1.mlp_post": rho[:9, :9]})
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    second = OnlineTrainer(3, accumulate=2, seed=5)
    second.load_state(state)
    for rho in correlations[3:]:
        second.step({"layers.0.mlp_post": rho, "layers.1.mlp_post": rho[:9, :9]})
    for name, positions in straight.positions().items():
        assert torch.equal(positions, second.positions()[name]), name
    assert second.n_batches == 7


def test_the_trainer_skips_what_a_batch_leaves_undefined() -> None:
    rho = factor_correlation(12)
    with_gap = rho.clone()
    with_gap[4] = with_gap[:, 4] = torch.nan
    trainer = OnlineTrainer(2, lr=0.05)
    trainer.step({"a": with_gap})
    before = trainer.positions()["a"]
    trainer.step({"a": with_gap})
    after = trainer.positions()["a"]
    assert after.isfinite().all()
    assert torch.equal(before[4], after[4])
    assert not torch.equal(before[3], after[3])


def test_tensorboard_records_the_loss(tmp_path: object) -> None:
    pytest.importorskip("tensorboard")
    from pathlib import Path

    folder = Path(str(tmp_path))
    trainer = OnlineTrainer(2, log_with="tensorboard", log_dir=folder)
    train_until_still(trainer, factor_correlation(10), max_steps=5)
    trainer.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = next(folder.rglob("events.out.tfevents*"))
    record = EventAccumulator(str(events.parent))
    record.Reload()
    assert len(record.Scalars("map")) == 5
    assert record.Scalars("map")[-1].value < record.Scalars("map")[0].value


@pytest.mark.parametrize("solver", ["tsne", "umap"])
def test_neighbours_are_kept_that_stress_loses(solver: str) -> None:
    # Twelve groups all equally far apart: too many for three dimensions to keep by distance.
    rho = grouped_correlation(n_groups=12, n_each=15)
    near = nearest_by_target(dissimilarity(rho))
    nearest = {
        "stress": nearest_on_map(place(rho)),
        "neighbours": nearest_on_map(place(rho, objective="neighbours", solver=solver)),
    }
    kept = {objective: overlap_of(near, found) for objective, found in nearest.items()}
    groups = torch.arange(len(rho)) // 15
    same_group = groups[nearest["neighbours"]] == groups[:, None]
    assert same_group.float().mean() > 0.95
    assert kept["neighbours"] >= kept["stress"]


def test_umap_s_threads_are_not_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    import umap

    def fit_transform(self: Any, distances: Any) -> Any:
        # As numba does when it first starts its threads: they share OpenMP with PyTorch.
        torch.set_num_threads(3)
        return distances[:, :2]

    monkeypatch.setattr(umap.UMAP, "fit_transform", fit_transform)
    before = torch.get_num_threads()
    place(factor_correlation(12), objective="neighbours", solver="umap", dim=2)
    assert torch.get_num_threads() == before != 3


def test_absolute_brings_opposites_together() -> None:
    rho = grouped_correlation(n_groups=4, n_each=10)
    sign = torch.where(torch.arange(40) % 2 == 0, 1.0, -1.0)
    rho = rho * sign[:, None] * sign
    groups = torch.arange(40) // 10
    for objective in ("stress", "neighbours"):
        found = place(rho, objective=objective, absolute=True)
        near = nearest_on_map(found, k=5)
        assert (groups[near] == groups[:, None]).float().mean() > 0.9, objective
    plain = place(rho)
    assert (plain[0] - plain[1]).norm() > 4 * (plain[0] - plain[2]).norm()


@pytest.mark.parametrize("objective", ["stress", "linear", "neighbours"])
def test_undefined_neurons_get_no_position_and_change_nothing(objective: str) -> None:
    rho = factor_correlation(24)
    gaps = [3, 17]
    rest = [i for i in range(24) if i not in gaps]
    with_gaps = rho.clone()
    with_gaps[gaps] = torch.nan
    with_gaps[:, gaps] = torch.nan
    found = place(with_gaps, objective=objective)
    assert found[gaps].isnan().all()
    assert torch.equal(found[rest], place(rho[rest][:, rest], objective=objective))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"start": "normal"},
        {"solver": "adamw", "lr": 0.05},
        {"objective": "neighbours"},
        {"objective": "linear"},
    ],
    ids=str,
)
def test_equal_seeds_give_equal_bytes(settings: dict[str, object]) -> None:
    rho = factor_correlation(20)
    assert torch.equal(place(rho, seed=3, **settings), place(rho, seed=3, **settings))


def test_another_seed_gives_another_start() -> None:
    rho = factor_correlation(20)
    assert not torch.equal(place(rho, seed=3, start="normal"), place(rho, seed=4, start="normal"))


def test_kind_dtype_and_dimension() -> None:
    rho = factor_correlation(15)
    as_array = projector.place(rho.double().numpy(), dim=2)
    assert isinstance(as_array, np.ndarray)
    assert as_array.dtype == np.float32
    assert as_array.shape == (15, 2)
    assert np.array_equal(as_array, place(rho, dim=2).numpy())
    for dim in (1, 5):
        assert place(rho, dim=dim).shape == (15, dim)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("objective", ["stress", "linear", "neighbours"])
def test_few_neurons(n: int, objective: str) -> None:
    found = place(factor_correlation(8)[:n, :n], objective=objective)
    assert found.shape == (n, 1 if objective == "linear" else 3)
    assert found.isfinite().all()


def test_perfectly_correlated_neurons_share_a_place() -> None:
    rho = torch.ones(10, 10)
    assert place(rho).abs().max() < 1e-3
    halves = torch.ones(10, 10)
    halves[:5, 5:] = halves[5:, :5] = -1
    found = place(halves)
    assert (found[0] - found[4]).norm() < 1e-2
    assert float((found[0] - found[9]).norm()) == pytest.approx(2, abs=1e-2)


def test_a_matrix_of_nothing_defined() -> None:
    assert place(torch.full((4, 4), torch.nan)).isnan().all()


@pytest.mark.parametrize(
    ("rho", "words"),
    [
        (torch.zeros(3, 4), "square"),
        (torch.zeros(0, 0), "empty"),
        (torch.full((3, 3), 7.0), "7"),
        (torch.tensor([[1.0, 0.5], [0.1, 1.0]]), "symmetric"),
        (torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]]), "NaN"),
    ],
    ids=["shape", "empty", "range", "symmetry", "pair"],
)
def test_what_is_no_correlation_matrix_is_refused(rho: Tensor, words: str) -> None:
    with pytest.raises(UserError, match=words):
        place(rho)


def test_solve_says_what_a_linear_map_was_improved_from() -> None:
    placement = solve(factor_correlation(30), Layout(objective="linear", dim=1))
    costs = placement.own["arrangement_cost"]
    assert costs["final"] <= min(costs["spectral"], costs["leaf"]) < costs["random"]
    assert solve(factor_correlation(30), Layout()).own == {}


@pytest.mark.gpu
def test_on_a_gpu_as_on_the_cpu() -> None:
    rho = factor_correlation(100)
    on_gpu = place(rho.cuda())
    assert on_gpu.device.type == "cuda"
    target = dissimilarity(rho)
    expected = stress_figures(place(rho), target)[0]
    assert stress_figures(on_gpu.cpu(), target)[0] == pytest.approx(expected, rel=1e-2)
