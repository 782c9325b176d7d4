"""Partners across layers against one pass over all activations in float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from projector.statistics.cross_layer.activations import KeptActivations
from projector.statistics.cross_layer.pairs import FoundPair, find_pair, rotation_of
from projector.statistics.cross_layer.partners import (
    PartnerList,
    Ranked,
    best_control,
    level_of,
    strongest,
)
from projector.statistics.cross_layer.records import layer_pairs

CPU = torch.device("cpu")
N_TOKENS, K = 900, 8


def keep(folder: Path, layers: dict[int, Tensor], n_batches: int = 3) -> KeptActivations:
    """Activations as a model would give them, batch by batch."""
    folder.mkdir(exist_ok=True)
    kept = KeptActivations(folder)
    for batch in range(n_batches):
        parts = {layer: rows.tensor_split(n_batches)[batch] for layer, rows in layers.items()}
        lost = torch.stack([kept.keep(batch, layer, part) for layer, part in parts.items()])
        kept.finish(batch, lost.any(dim=0))
    return kept


def find(
    kept: KeptActivations, layers: tuple[int, int] = (0, 1), n_columns: int = 1000, n_drawn: int = 9
) -> FoundPair:
    standards = kept.standards(layers[0]), kept.standards(layers[1])
    kept.keep_shuffled(layers[1], standards[1], n_drawn, seed=0)
    one, other = (
        rotation_of(kept, layer, own, CPU, seed=0)
        for layer, own in zip(layers, standards, strict=True)
    )
    return find_pair(kept, layers, standards, (one, other), n_columns=n_columns, device=CPU)


def correlations(first: Tensor, second: Tensor) -> np.ndarray:
    """In one pass, in float64: (n, m)."""
    with np.errstate(invalid="ignore"):
        both = np.corrcoef(first.double().numpy().T, second.double().numpy().T)
    found: np.ndarray = both[: first.shape[1], first.shape[1] :]
    return found


def check_partners(found: Ranked, rho: np.ndarray) -> None:
    """Args: rho: (others, neurons)."""
    best = np.sort(np.nan_to_num(np.abs(rho), nan=-1), axis=0)[::-1][:K].T
    np.testing.assert_allclose(found.rho.abs().numpy(), best, atol=1e-5, rtol=0)
    signed = np.take_along_axis(rho, found.neuron.long().numpy().T, axis=0).T
    np.testing.assert_allclose(found.rho.numpy(), signed, atol=1e-5, rtol=0)
    assert all(len(set(row)) == K for row in found.neuron.tolist())


@pytest.fixture(scope="module")
def drawn() -> dict[int, Tensor]:
    """Two layers that share directions: means far from 0, spreads far from 1, sparse neurons."""
    generator = torch.Generator().manual_seed(1)
    shared = torch.randn(N_TOKENS, 5, generator=generator)
    layers = {}
    for layer, n in ((0, 30), (1, 41)):
        rows = shared @ torch.randn(5, n, generator=generator)
        rows += 2 * torch.randn(N_TOKENS, n, generator=generator)
        rows[:, ::4] = rows[:, ::4].relu() ** 3
        rows *= torch.logspace(-6, 3, n)
        rows[:, 3:9] += 3000 * rows[:, 3:9].std(dim=0)
        layers[layer] = rows
    return layers


@pytest.mark.parametrize("n_columns", [1000, 17])
def test_partners_equal_those_of_one_pass_in_float64(
    n_columns: int, drawn: dict[int, Tensor], tmp_path: Path
) -> None:
    found = find(keep(tmp_path, drawn), n_columns=n_columns)
    rho = correlations(drawn[0], drawn[1])
    check_partners(found.of_later, rho)
    check_partners(found.of_earlier, rho.T)
    best = np.abs(rho).max(axis=0)
    assert found.figures.best is not None
    assert found.figures.best.median == pytest.approx(np.median(best), abs=1e-5)
    assert found.figures.best.percentile_95 == pytest.approx(np.quantile(best, 0.95), abs=1e-5)


def test_operations_are_those_that_are_said_before(
    drawn: dict[int, Tensor], tmp_path: Path
) -> None:
    kept = keep(tmp_path, drawn)
    with FlopCounterMode(display=False) as counter:
        find(kept)
    pair = 2 * N_TOKENS * 30 * (41 + 9) + 2 * 30 * 41 * (30 + 41)
    assert counter.get_total_flops() == pair + 2 * N_TOKENS * (30 * 30 + 41 * 41)


def test_activations_of_bf16_are_taken_as_they_are(
    drawn: dict[int, Tensor], tmp_path: Path
) -> None:
    rows = {layer: each.bfloat16() for layer, each in drawn.items()}
    rows = {layer: each[:, each.double().std(dim=0) > 0] for layer, each in rows.items()}
    found = find(keep(tmp_path, rows))
    check_partners(found.of_later, correlations(rows[0], rows[1]))


def test_both_controls_equal_those_made_by_hand(drawn: dict[int, Tensor], tmp_path: Path) -> None:
    kept = keep(tmp_path, drawn)
    pair = find(kept, n_columns=23)
    found = pair.figures
    assert found.rotated is not None
    assert found.shuffled is not None
    axes = rotation_of(kept, 0, kept.standards(0), CPU, seed=0).axes.double()
    torch.testing.assert_close(axes @ axes.T, torch.eye(30, dtype=torch.float64), atol=1e-5, rtol=0)
    first, second = (
        (rows.double() - rows.double().mean(dim=0)) / rows.double().std(dim=0)
        for rows in drawn.values()
    )
    both = np.abs(correlations(drawn[0], drawn[1]))
    own = both.max(axis=0)
    turned = np.abs(correlations(first @ axes.T, drawn[1])).max(axis=0)
    np.testing.assert_allclose(pair.rotated_of_later.numpy(), turned, atol=1e-5, rtol=0)
    others = rotation_of(kept, 1, kept.standards(1), CPU, seed=0).axes.double()
    turned_later = np.abs(correlations(drawn[0], second @ others.T)).max(axis=1)
    np.testing.assert_allclose(pair.rotated_of_earlier.numpy(), turned_later, atol=1e-5, rtol=0)
    # One neuron may be the best partner of many.
    assert found.n_distinct is not None
    distinct = set(both.argmax(axis=0)[own > np.quantile(turned, 0.95)].tolist())
    assert found.n_distinct == len(distinct)
    # What was shuffled is the later layer's neurons, evenly drawn, all in one order.
    columns = torch.arange(9) * 41 // 9
    order = torch.randperm(N_TOKENS, generator=torch.Generator().manual_seed(1))
    mixed = np.abs(correlations(drawn[0], drawn[1][order][:, columns])).max(axis=0)
    for control, best in ((found.rotated, turned), (found.shuffled, mixed)):
        level = np.quantile(best, 0.95)
        assert control.median == pytest.approx(np.median(best), abs=1e-5)
        assert control.percentile_95 == pytest.approx(level, abs=1e-5)
        assert control.share_above == pytest.approx((own > level).mean(), abs=1 / 40)


@pytest.mark.parametrize(
    ("kind", "above_rotated", "above_shuffled"),
    [("independent", 0.05, 0.05), ("mixed", 0.05, 1.0), ("the same neurons", 1.0, 1.0)],
)
def test_the_controls_tell_neurons_from_directions_and_from_chance(
    kind: str, above_rotated: float, above_shuffled: float, tmp_path: Path
) -> None:
    """A layer that mixes another one's neurons is full of its directions, and of none of its
    neurons."""
    generator = torch.Generator().manual_seed(0)
    n = 200
    rows = torch.randn(N_TOKENS, n, generator=generator)
    later = {
        "independent": torch.randn(N_TOKENS, n, generator=generator),
        "mixed": rows @ torch.linalg.qr(torch.randn(n, n, generator=generator))[0],
        "the same neurons": rows + torch.randn(N_TOKENS, n, generator=generator),
    }[kind]
    found = find(keep(tmp_path, {0: rows, 1: later}), n_drawn=n).figures
    assert found.rotated is not None
    assert found.shuffled is not None
    assert found.rotated.share_above == pytest.approx(above_rotated, abs=0.05)
    assert found.shuffled.share_above == pytest.approx(above_shuffled, abs=0.05)


def sides_of(kept: KeptActivations, n_layers: int, n: int) -> dict[tuple[int, str], PartnerList]:
    """Every layer's partners on each side, with their control."""
    pairs = {(i, j): find(kept, (i, j)) for i, j in layer_pairs(range(n_layers))}
    found = {}
    for layer in range(n_layers):
        earlier = [pairs[i, layer] for i in range(layer)]
        later = [pairs[layer, j] for j in range(layer + 1, n_layers)]
        for side, ranked, controls in (
            ("earlier", [p.of_later for p in earlier], [p.rotated_of_later for p in earlier]),
            ("later", [p.of_earlier for p in later], [p.rotated_of_earlier for p in later]),
        ):
            listed = strongest(list(enumerate(ranked)), n, K)
            found[layer, side] = replace(listed, rotated=best_control(controls, n))
    return found


def test_over_all_layers_of_a_side_five_percent_are_above_by_chance(tmp_path: Path) -> None:
    """The best of several layers is held against the best of as many axes of all of them."""
    generator = torch.Generator().manual_seed(0)
    n_layers, n = 4, 200
    layers = {i: torch.randn(N_TOKENS, n, generator=generator) for i in range(n_layers)}
    for layer in (1, 3):
        layers[layer] @= torch.randn(n, n, generator=generator) / 14 + torch.eye(n)
    found = sides_of(keep(tmp_path / "independent", layers), n_layers, n)
    levels = {key: level_of(each) for key, each in found.items()}
    assert levels.pop((0, "earlier")) is None
    assert levels.pop((3, "later")) is None
    counts = [each.n_above for each in levels.values() if each is not None]
    assert len(counts) == 6
    # Of 1,200 neurons; the level is itself an estimate, which doubles the variance.
    error = (2 * 0.05 * 0.95 / (6 * n)) ** 0.5
    assert sum(counts) / (6 * n) == pytest.approx(0.05, abs=3 * error)
    # A planted pair exceeds its own control and the level, on either side.
    layers[3][:, 5] = 2 - 300 * layers[0][:, 7]
    found = sides_of(keep(tmp_path / "planted", layers), n_layers, n)
    for key, neuron in (((3, "earlier"), 5), ((0, "later"), 7)):
        level, listed = level_of(found[key]), found[key]
        assert level is not None
        assert listed.rotated is not None
        best = float(listed.rho[neuron, 0].abs())
        assert best > 0.99
        assert max(float(listed.rotated[neuron]), level.percentile_95) < 0.5
        assert level.n_neurons == n


def test_planted_copies_are_found_whatever_their_sign_and_scale(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    layers = {i: torch.randn(N_TOKENS, 20, generator=generator) for i in range(4)}
    layers[3][:, 5] = 2 - 300 * layers[0][:, 7]
    layers[2][:, 1] = 0.9 * layers[0][:, 7] + 0.1 * layers[2][:, 1]
    kept = keep(tmp_path, layers)
    of_later = [(i, find(kept, (i, 3)).of_later) for i in range(3)]
    best = strongest(of_later, 20, K)
    assert best.rho[5, :2].tolist() == pytest.approx([-1, -0.99], abs=0.01)
    assert best.layer[5, :2].tolist() == [0, 2]
    assert best.neuron[5, :2].tolist() == [7, 1]
    of_earlier = [(j, find(kept, (0, j)).of_earlier) for j in range(1, 4)]
    later = strongest(of_earlier, 20, K)
    assert later.layer[7, :2].tolist() == [3, 2]
    assert later.neuron[7, :2].tolist() == [5, 1]
    sizes = best.rho.abs()
    assert bool((sizes[:, 1:] <= sizes[:, :-1]).all())


def test_dead_and_nonfinite_neurons_have_no_partners_and_are_none(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    layers = {i: torch.randn(N_TOKENS, 12, generator=generator) for i in range(2)}
    layers[0][:, 2] = 7.0
    layers[0][500, 4] = torch.nan
    layers[1][10, 0] = torch.inf
    # Of this token a layer tells nothing: the others are as if it had not been read.
    layers[1][20] = torch.nan
    kept = keep(tmp_path, layers)
    assert (kept.n_tokens, kept.n_left_out) == (N_TOKENS - 1, 1)
    found = find(kept)
    for ranked, control, without, others in (
        (found.of_later, found.rotated_of_later, [0], {2, 4}),
        (found.of_earlier, found.rotated_of_earlier, [2, 4], {0}),
    ):
        assert (~ranked.rho.isfinite()).any(dim=1).nonzero()[:, 0].tolist() == without
        assert set(ranked.neuron[without].flatten().tolist()) == {-1}
        assert control.isnan().nonzero()[:, 0].tolist() == without
        assert not others & set(ranked.neuron.flatten().tolist())
    whole = {layer: torch.cat([rows[:20], rows[21:]]) for layer, rows in layers.items()}
    rho = correlations(whole[0][:, 5:], whole[1][:, 5:])
    best = np.abs(rho).max()
    assert float(found.of_later.rho[5:].abs().nan_to_num().max()) >= best - 1e-5


def test_a_layer_without_correlations_says_so(tmp_path: Path) -> None:
    layers = {0: torch.zeros(N_TOKENS, 4), 1: torch.randn(N_TOKENS, 5)}
    for pair in ({0: layers[0], 1: layers[1]}, {0: layers[1], 1: layers[0]}):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        found = find(keep(folder, pair))
        assert found.figures.best is None
        assert found.figures.reason
        assert not found.of_later.rho.isfinite().any()


def test_fewer_neurons_than_partners_leave_places_empty(tmp_path: Path) -> None:
    layers = {0: torch.randn(N_TOKENS, 3), 1: torch.randn(N_TOKENS, 11)}
    found = find(keep(tmp_path, layers), n_columns=4)
    assert found.of_later.neuron[:, 3:].unique().tolist() == [-1]
    assert sorted(found.of_later.neuron[0, :3].tolist()) == [0, 1, 2]
    assert found.of_earlier.rho.isfinite().all()
    merged: PartnerList = strongest([(0, found.of_later)], 11, K)
    assert merged.layer[:, 3:].unique().tolist() == [-1]
    assert merged.layer[:, :3].unique().tolist() == [0]
